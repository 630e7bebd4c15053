//! The profiles, terminology and definitions that come with the server, read and searched like other resources.
//! They are public and the same for every tenant.

use handoff_domain::time::Timestamp;
use handoff_fhir_model::search_values::fold;
use handoff_fhir_profiles::{Artifact, artifacts, find};

use super::search::answer::{BundleWriter, MATCHED, page_of};
use super::search::control::{Controls, not_supported, shown};
use super::search::link::{self, Cursor};
use super::search::{parameters, values};
use crate::app::AppError;

/// The artifact as JSON.
pub fn read(resource_type: &str, id: &str) -> Option<Vec<u8>> {
    find(resource_type, id).map(|artifact| artifact.json.as_bytes().to_vec())
}

/// The answer to a search of one type by `_id`, `name`, `status`, `url`, `version`; by id, page by page.
/// Unknown parameters are ignored; `base` is our FHIR base with its trailing slash.
pub fn search(
    base: &str,
    resource_type: &str,
    pairs: &[(String, String)],
    now: Timestamp,
) -> Result<Vec<u8>, AppError> {
    let (mut controls, rest) = Controls::split(pairs)?;
    let mut found: Vec<&Artifact> = artifacts()
        .iter()
        .filter(|artifact| artifact.resource_type == resource_type)
        .collect();
    found.sort_by_key(|artifact| artifact.id);
    let mut used = Vec::new();
    for (written, value) in rest {
        let (name, modifier) = written
            .split_once(':')
            .map_or((written, None), |(n, m)| (n, Some(m)));
        if !parameters::of_artifacts().any(|parameter| parameter.name == name) {
            continue;
        }
        if let Some(modifier) = modifier {
            return Err(not_supported(format!(
                "the modifier `:{}` is not supported for `{name}`",
                shown(modifier)
            )));
        }
        let wanted: Vec<String> = values::alternatives(name, value)?
            .into_iter()
            .map(values::unescape)
            .collect();
        found.retain(|artifact| wanted.iter().any(|value| fits(artifact, name, value)));
        used.push((written.to_owned(), value.to_owned()));
    }
    if controls.sort.as_deref().is_some_and(|sort| sort != "_id") {
        return Err(not_supported("results can be sorted by `_id` alone"));
    }
    used.append(&mut controls.used);
    let total = u64::try_from(found.len()).unwrap_or(u64::MAX);
    let check = link::check(resource_type, &used);
    if let Some(page) = &controls.page {
        let after = Cursor::decode(page, check)?.id;
        found.retain(|artifact| artifact.id > after.as_str());
    }
    let (page, more) = page_of(&found, controls.limit());
    let mut bundle = BundleWriter::new(
        "searchset",
        now,
        page.iter().map(|artifact| artifact.json.len() + 200).sum(),
    );
    bundle.total(total);
    let cursor = page.last().filter(|_| more).map(|last| {
        Cursor {
            at: 0,
            id: last.id.to_owned(),
        }
        .encode(check)
    });
    let next = cursor.map(|cursor| link::url(base, resource_type, &used, Some(&cursor)));
    bundle.links(&link::url(base, resource_type, &used, None), next.as_deref());
    let base = base.trim_end_matches('/');
    for artifact in page {
        let full_url = format!("{base}/{resource_type}/{}", artifact.id);
        bundle.entry(&full_url, artifact.json.trim().as_bytes(), MATCHED);
    }
    Ok(bundle.finish())
}

fn fits(artifact: &Artifact, name: &str, value: &str) -> bool {
    let status = || {
        artifact
            .resource
            .get("status")
            .and_then(serde_json::Value::as_str)
    };
    match name {
        "_id" => artifact.id == value,
        "url" => artifact.url == value,
        "version" => artifact.version == code_of(value),
        "status" => status() == Some(code_of(value)),
        "name" => fold(artifact.name).starts_with(&fold(value)),
        _ => false,
    }
}

/// The code of a token; its system says nothing here, there is one for each parameter.
fn code_of(value: &str) -> &str {
    value.rsplit('|').next().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use handoff_fhir_model::{ParseOptions, parse};
    use serde_json::Value;

    use super::*;

    const BASE: &str = "https://h.example/fhir/";

    fn ask(resource_type: &str, query: &[(&str, &str)]) -> Value {
        let pairs: Vec<_> = query
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect();
        let bytes = search(BASE, resource_type, &pairs, Timestamp(0)).unwrap();
        parse(&bytes, &ParseOptions::expecting("Bundle"))
            .unwrap()
            .into_value()
    }

    #[test]
    fn an_artifact_is_found_by_its_canonical_url() {
        let url = "https://handoff.example/fhir/CodeSystem/handoff-reason";
        let bundle = ask("CodeSystem", &[("url", url)]);
        assert_eq!(bundle["total"].to_string(), "1");
        assert_eq!(bundle["entry"][0]["resource"]["url"], url);
        assert_eq!(
            bundle["entry"][0]["fullUrl"],
            "https://h.example/fhir/CodeSystem/handoff-reason"
        );
        assert!(read("CodeSystem", "handoff-reason").is_some());
        assert!(read("CodeSystem", "handoff-task").is_none());
    }

    #[test]
    fn pages_of_artifacts_hold_every_one_once() {
        let all = ask("CodeSystem", &[]);
        let all = all["entry"].as_array().unwrap().len();
        let mut seen = Vec::new();
        let mut query = vec![("_count".to_owned(), "3".to_owned())];
        loop {
            let pairs: Vec<(&str, &str)> = query.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let bundle = ask("CodeSystem", &pairs);
            for entry in bundle["entry"].as_array().unwrap() {
                seen.push(entry["resource"]["id"].as_str().unwrap().to_owned());
            }
            let Some(next) = bundle["link"].get(1) else { break };
            let url = url::Url::parse(next["url"].as_str().unwrap()).unwrap();
            query = url.query_pairs().into_owned().collect();
        }
        assert_eq!(seen.len(), all);
        seen.dedup();
        assert_eq!(seen.len(), all);
    }

    #[test]
    fn every_artifact_in_a_searchset_is_valid_r4() {
        for artifact in artifacts() {
            let bundle = ask(
                artifact.resource_type,
                &[("_id", artifact.id), ("status", "active")],
            );
            assert_eq!(
                bundle["entry"].as_array().map(Vec::len),
                Some(1),
                "{}",
                artifact.url
            );
        }
    }
}
