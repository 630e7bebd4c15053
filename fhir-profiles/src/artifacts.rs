//! The embedded artifacts and examples, read once.
//! Knows what every artifact has (type, id, URL) and nothing of what each type means.

use std::sync::LazyLock;

use serde_json::Value;

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// One conformance or terminology resource that the server shows under its type.
#[derive(Debug)]
pub struct Artifact {
    /// `StructureDefinition`, `CodeSystem`, …
    pub resource_type: &'static str,
    /// The logical id, which is also the file's name and the tail of the URL.
    pub id: &'static str,
    /// The canonical URL, without version.
    pub url: &'static str,
    /// The business version.
    pub version: &'static str,
    /// The computer-friendly name.
    pub name: &'static str,
    /// The resource as it stands in the file.
    pub json: &'static str,
    /// The same, parsed.
    pub resource: &'static Value,
}

/// One resource that shows how the profiles are used, and serves as a fixture.
#[derive(Debug)]
pub struct Example {
    /// The logical id, which is also the file's name.
    pub id: &'static str,
    /// The resource as it stands in the file.
    pub json: &'static str,
    /// The same, parsed.
    pub resource: &'static Value,
}

/// Path, text and parsed form of one file. A file that is not JSON is left out; a test holds that there is none.
type Parsed = (&'static str, &'static str, Value);

fn parse(files: &'static [(&'static str, &'static str)]) -> Vec<Parsed> {
    let parsed =
        |&(path, json): &(&'static str, &'static str)| Some((path, json, serde_json::from_str(json).ok()?));
    files.iter().filter_map(parsed).collect()
}

static PARSED_ARTIFACTS: LazyLock<Vec<Parsed>> = LazyLock::new(|| parse(ARTIFACT_FILES));
static PARSED_EXAMPLES: LazyLock<Vec<Parsed>> = LazyLock::new(|| parse(EXAMPLE_FILES));

static ARTIFACTS: LazyLock<Vec<Artifact>> = LazyLock::new(|| {
    let artifact = |(_, json, resource): &'static Parsed| {
        Some(Artifact {
            resource_type: text(resource, "resourceType")?,
            id: text(resource, "id")?,
            url: text(resource, "url")?,
            version: text(resource, "version")?,
            name: text(resource, "name")?,
            json,
            resource,
        })
    };
    PARSED_ARTIFACTS.iter().filter_map(artifact).collect()
});

static EXAMPLES: LazyLock<Vec<Example>> = LazyLock::new(|| {
    let example = |(_, json, resource): &'static Parsed| {
        Some(Example {
            id: text(resource, "id")?,
            json,
            resource,
        })
    };
    PARSED_EXAMPLES.iter().filter_map(example).collect()
});

/// Every artifact, by folder and then by id.
pub fn artifacts() -> &'static [Artifact] {
    &ARTIFACTS
}

/// The artifact `{resource_type}/{id}`.
pub fn find(resource_type: &str, id: &str) -> Option<&'static Artifact> {
    artifacts()
        .iter()
        .find(|artifact| artifact.resource_type == resource_type && artifact.id == id)
}

/// The artifact of that type with that canonical URL. A version after `|` must be the one that is shipped.
pub fn by_url(resource_type: &str, url: &str) -> Option<&'static Artifact> {
    let (url, version) = url
        .split_once('|')
        .map_or((url, None), |(url, version)| (url, Some(version)));
    artifacts().iter().find(|artifact| {
        artifact.resource_type == resource_type
            && artifact.url == url
            && version.is_none_or(|version| version == artifact.version)
    })
}

/// Every example.
pub fn examples() -> &'static [Example] {
    &EXAMPLES
}

/// The example with that id: `referral-task`, `referral-document`, `referral-binary`, `referral-transaction`,
/// `grant-request` or `grant-response`.
pub fn example(id: &str) -> Option<&'static Example> {
    examples().iter().find(|example| example.id == id)
}

/// The string at `field` of a JSON object.
pub(crate) fn text<'v>(value: &'v Value, field: &str) -> Option<&'v str> {
    value.get(field)?.as_str()
}

/// The items of the array at `field`; none where it is missing.
pub(crate) fn items<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value
        .get(field)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::canonical::BASE;

    fn stem(path: &str) -> &str {
        path.rsplit('/').next().unwrap().strip_suffix(".json").unwrap()
    }

    fn folder(resource_type: &str) -> &'static str {
        match resource_type {
            "StructureDefinition" => "structure-definitions",
            "CodeSystem" => "code-systems",
            "ValueSet" => "value-sets",
            "ConceptMap" => "concept-maps",
            "SearchParameter" => "search-parameters",
            "OperationDefinition" => "operation-definitions",
            other => panic!("no folder for {other}"),
        }
    }

    #[test]
    fn every_file_is_an_artifact_or_an_example() {
        for (path, json) in ARTIFACT_FILES.iter().chain(EXAMPLE_FILES) {
            assert!(serde_json::from_str::<Value>(json).is_ok(), "{path} is not JSON");
        }
        assert_eq!(artifacts().len(), ARTIFACT_FILES.len());
        assert_eq!(examples().len(), EXAMPLE_FILES.len());
    }

    #[test]
    fn an_artifact_lies_in_the_folder_of_its_type_under_its_id_and_is_named_by_its_url() {
        for ((path, _, _), artifact) in PARSED_ARTIFACTS.iter().zip(artifacts()) {
            assert_eq!(
                *path,
                format!("{}/{}.json", folder(artifact.resource_type), artifact.id)
            );
            assert_eq!(
                artifact.url,
                format!("{BASE}/{}/{}", artifact.resource_type, artifact.id)
            );
        }
        for ((path, _, _), example) in PARSED_EXAMPLES.iter().zip(examples()) {
            assert_eq!(stem(path), example.id);
        }
    }

    #[test]
    fn urls_are_unique_and_so_are_names_within_a_type() {
        let urls: HashSet<_> = artifacts().iter().map(|artifact| artifact.url).collect();
        assert_eq!(urls.len(), artifacts().len());
        let names: HashSet<_> = artifacts()
            .iter()
            .map(|artifact| (artifact.resource_type, artifact.name))
            .collect();
        assert_eq!(names.len(), artifacts().len());
    }

    #[test]
    fn every_artifact_is_active_and_says_what_it_is_for() {
        for artifact in artifacts() {
            assert_eq!(
                text(artifact.resource, "status"),
                Some("active"),
                "{}",
                artifact.url
            );
            assert!(
                text(artifact.resource, "description").is_some_and(|it| it.ends_with('.')),
                "{}",
                artifact.url
            );
            if artifact.resource_type == "StructureDefinition" {
                assert_eq!(
                    text(artifact.resource, "fhirVersion"),
                    Some("4.0.1"),
                    "{}",
                    artifact.url
                );
            }
        }
    }

    /// Every string that is, or starts with, a URL under our base.
    fn references(value: &'static Value, found: &mut Vec<&'static str>) {
        match value {
            Value::String(text) if text.starts_with(BASE) => found.push(text),
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            Value::Object(fields) => fields.values().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_link_between_artifacts_leads_somewhere() {
        let mut found = Vec::new();
        for artifact in artifacts() {
            references(artifact.resource, &mut found);
        }
        for example in examples() {
            references(example.resource, &mut found);
        }
        assert!(found.len() > artifacts().len());
        for url in found {
            let resource_type = url.strip_prefix(BASE).unwrap().split('/').nth(1).unwrap();
            assert!(by_url(resource_type, url).is_some(), "{url} leads nowhere");
        }
    }

    #[test]
    fn a_canonical_with_a_version_finds_only_that_version() {
        let url = crate::canonical::PROFILE_TASK;
        let version = by_url("StructureDefinition", url).unwrap().version;
        assert!(by_url("StructureDefinition", &format!("{url}|{version}")).is_some());
        assert!(by_url("StructureDefinition", &format!("{url}|0.0.0")).is_none());
        assert!(by_url("CodeSystem", url).is_none());
    }

    #[test]
    fn the_example_document_states_the_size_of_the_example_content() {
        let data = text(example("referral-binary").unwrap().resource, "data").unwrap();
        let padding = data.bytes().rev().take_while(|byte| *byte == b'=').count();
        let attachment = &example("referral-document").unwrap().resource["content"][0]["attachment"];
        assert_eq!(attachment["size"], data.len() / 4 * 3 - padding);
    }

    #[test]
    fn an_operation_and_a_search_parameter_say_where_they_apply() {
        for artifact in artifacts() {
            match artifact.resource_type {
                "OperationDefinition" => assert!(!items(artifact.resource, "resource").is_empty()),
                "SearchParameter" => {
                    assert_eq!(items(artifact.resource, "base"), ["Task"]);
                    assert!(text(artifact.resource, "code").unwrap().starts_with('-'));
                }
                _ => {}
            }
        }
    }
}
