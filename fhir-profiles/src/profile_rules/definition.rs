//! Reads the rules out of the structure definitions: one rule per element of the differential.
//! Only what the check understands is read; a test holds that the files ask for nothing else.

use std::sync::LazyLock;

use serde_json::Value;

use super::invariant::Expression;
use crate::artifacts::{artifacts, by_url, items, text};
use crate::canonical::BASE;

/// The rules of one profile or extension.
#[derive(Debug)]
pub(super) struct Definition {
    pub url: &'static str,
    pub name: &'static str,
    /// `Task`, `DocumentReference`, `Extension`.
    pub constrained_type: &'static str,
    pub is_extension: bool,
    pub elements: Vec<ElementRule>,
}

/// What the differential says of one element.
#[derive(Debug)]
pub(super) struct ElementRule {
    /// The way from the root; empty for the root itself.
    pub steps: Vec<Step>,
    pub min: usize,
    /// `None` where the differential sets no bound.
    pub max: Option<usize>,
    pub types: Vec<TypeRule>,
    pub fixed: Option<&'static Value>,
    pub pattern: Option<&'static Value>,
    /// A ValueSet of ours that binds as `required`.
    pub value_set: Option<&'static str>,
    /// The extension URLs that may stand here, where no others may.
    pub closed_slices: Option<Vec<&'static str>>,
    pub invariants: Vec<Invariant>,
}

/// One step down: an element's name, whether it is a choice (`value[x]`), and the URL that marks its slice.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub name: String,
    pub is_choice: bool,
    pub slice: Option<&'static str>,
}

impl Step {
    pub fn plain(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            is_choice: false,
            slice: None,
        }
    }
}

/// One type that an element may have.
#[derive(Debug)]
pub(super) struct TypeRule {
    pub code: &'static str,
    /// Resource types a reference may lead to; any where empty.
    pub targets: Vec<&'static str>,
}

impl TypeRule {
    /// How the type ends the name of a choice: `code` makes `valueCode`.
    pub fn choice_suffix(&self) -> String {
        let mut chars = self.code.chars();
        chars
            .next()
            .map(|first| first.to_ascii_uppercase().to_string() + chars.as_str())
            .unwrap_or_default()
    }
}

/// A constraint of severity `error`.
#[derive(Debug)]
pub(super) struct Invariant {
    pub key: &'static str,
    pub human: &'static str,
    pub expression: Expression,
}

static DEFINITIONS: LazyLock<Vec<Definition>> = LazyLock::new(|| {
    let structures = artifacts()
        .iter()
        .filter(|artifact| artifact.resource_type == "StructureDefinition");
    structures
        .filter_map(|artifact| {
            let constrained_type = text(artifact.resource, "type")?;
            let elements = elements(artifact.resource);
            Some(Definition {
                url: artifact.url,
                name: artifact.name,
                constrained_type,
                is_extension: constrained_type == "Extension",
                elements: elements
                    .iter()
                    .filter_map(|element| rule(element, elements))
                    .collect(),
            })
        })
        .collect()
});

/// The definition with that canonical URL.
pub(super) fn find(url: &str) -> Option<&'static Definition> {
    let artifact = by_url("StructureDefinition", url)?;
    DEFINITIONS
        .iter()
        .find(|definition| definition.url == artifact.url)
}

/// The elements of a differential.
pub(super) fn elements(structure: &'static Value) -> &'static [Value] {
    structure
        .get("differential")
        .map_or(&[], |differential| items(differential, "element"))
}

fn rule(element: &'static Value, elements: &'static [Value]) -> Option<ElementRule> {
    let fields = element.as_object()?;
    let starting = |prefix: &str| {
        fields
            .iter()
            .find(|(name, _)| name.starts_with(prefix))
            .map(|(_, value)| value)
    };
    let binding = element
        .get("binding")
        .filter(|binding| text(binding, "strength") == Some("required"));
    let number = |field| {
        element
            .get(field)
            .and_then(Value::as_u64)
            .and_then(|number| usize::try_from(number).ok())
    };
    Some(ElementRule {
        steps: steps(text(element, "id")?, elements),
        min: number("min").unwrap_or(0),
        max: text(element, "max").and_then(|max| max.parse().ok()),
        types: items(element, "type").iter().filter_map(type_rule).collect(),
        fixed: starting("fixed"),
        pattern: starting("pattern"),
        value_set: binding
            .and_then(|it| text(it, "valueSet"))
            .filter(|url| url.starts_with(BASE)),
        closed_slices: closed_slices(element, elements),
        invariants: items(element, "constraint")
            .iter()
            .filter_map(invariant)
            .collect(),
    })
}

fn steps(id: &str, elements: &'static [Value]) -> Vec<Step> {
    let mut prefix = String::new();
    let mut steps = Vec::new();
    for (place, part) in id.split('.').enumerate() {
        if place == 0 {
            part.clone_into(&mut prefix);
            continue;
        }
        prefix = format!("{prefix}.{part}");
        let name = part.split_once(':').map_or(part, |(name, _)| name);
        let bare = name.strip_suffix("[x]");
        steps.push(Step {
            name: bare.unwrap_or(name).to_owned(),
            is_choice: bare.is_some(),
            slice: part.contains(':').then(|| slice_url(&prefix, elements)).flatten(),
        });
    }
    steps
}

/// The URL that marks a slice of extensions: that of the extension it is typed with, or the one fixed below it.
fn slice_url(id: &str, elements: &'static [Value]) -> Option<&'static str> {
    let with_id = |id: &str| elements.iter().find(|element| text(element, "id") == Some(id));
    let profile = || {
        items(items(with_id(id)?, "type").first()?, "profile")
            .first()?
            .as_str()
    };
    let fixed = || text(with_id(&format!("{id}.url"))?, "fixedUri");
    profile().or_else(fixed)
}

fn closed_slices(element: &'static Value, elements: &'static [Value]) -> Option<Vec<&'static str>> {
    let is_closed = text(element.get("slicing")?, "rules") == Some("closed");
    let id = text(element, "id")?;
    let slices = elements.iter().filter_map(|slice| {
        let slice_id = text(slice, "id")?;
        let name = slice_id.strip_prefix(id)?.strip_prefix(':')?;
        (!name.contains('.'))
            .then(|| slice_url(slice_id, elements))
            .flatten()
    });
    is_closed.then(|| slices.collect())
}

fn type_rule(value: &'static Value) -> Option<TypeRule> {
    let targets = items(value, "targetProfile").iter().filter_map(|profile| {
        let url = profile.as_str()?;
        match by_url("StructureDefinition", url) {
            Some(ours) => text(ours.resource, "type"),
            None => url.strip_prefix("http://hl7.org/fhir/StructureDefinition/"),
        }
    });
    Some(TypeRule {
        code: text(value, "code")?,
        targets: targets.collect(),
    })
}

fn invariant(value: &'static Value) -> Option<Invariant> {
    if text(value, "severity") != Some("error") {
        return None;
    }
    Some(Invariant {
        key: text(value, "key")?,
        human: text(value, "human")?,
        expression: Expression::parse(text(value, "expression")?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elements::Shape;

    const UNDERSTOOD: &[&str] = &[
        "id",
        "path",
        "sliceName",
        "slicing",
        "short",
        "definition",
        "comment",
        "min",
        "max",
        "type",
        "mustSupport",
        "binding",
        "constraint",
    ];

    #[test]
    fn the_profiles_ask_for_nothing_that_the_check_would_pass_over() {
        let mut slices = 0;
        for artifact in artifacts()
            .iter()
            .filter(|artifact| artifact.resource_type == "StructureDefinition")
        {
            let definition = find(artifact.url).unwrap();
            assert_eq!(definition.elements.len(), elements(artifact.resource).len());
            for (element, rule) in elements(artifact.resource).iter().zip(&definition.elements) {
                for name in element.as_object().unwrap().keys() {
                    let is_value = name.starts_with("fixed") || name.starts_with("pattern");
                    assert!(
                        is_value || UNDERSTOOD.contains(&name.as_str()),
                        "{}: {name}",
                        artifact.url
                    );
                }
                if let Some(slicing) = element.get("slicing") {
                    assert_eq!(
                        text(&slicing["discriminator"][0], "path"),
                        Some("url"),
                        "{}",
                        artifact.url
                    );
                }
                if element.get("sliceName").is_some() {
                    assert!(
                        rule.steps.last().unwrap().slice.is_some(),
                        "{}: {}",
                        artifact.url,
                        element["id"]
                    );
                    slices += 1;
                }
                let errors = items(element, "constraint").len();
                assert_eq!(
                    rule.invariants.len(),
                    errors,
                    "{}: {}",
                    artifact.url,
                    element["id"]
                );
            }
        }
        assert!(slices > 0);
    }

    #[test]
    fn every_element_exists_in_r4() {
        let table = crate::elements::table();
        for definition in DEFINITIONS.iter() {
            for rule in &definition.elements {
                let mut at = table.get(definition.constrained_type);
                for step in &rule.steps {
                    let found = at.and_then(|here| {
                        here.keys()
                            .iter()
                            .find(|key| here.element(key).is_some_and(|it| it.name == step.name))
                    });
                    let key = found.unwrap_or_else(|| panic!("{}: no element {}", definition.url, step.name));
                    assert_eq!(
                        at.and_then(|here| here.element(key)).unwrap().choice,
                        step.is_choice
                    );
                    at = match key.shape {
                        Shape::Complex(id) => table.type_at(id),
                        _ => None,
                    };
                }
            }
        }
    }

    #[test]
    fn an_element_is_named_by_its_id_without_the_slices() {
        for artifact in artifacts()
            .iter()
            .filter(|artifact| artifact.resource_type == "StructureDefinition")
        {
            for element in elements(artifact.resource) {
                let id = text(element, "id").unwrap();
                let path: Vec<_> = id
                    .split('.')
                    .map(|part| part.split(':').next().unwrap())
                    .collect();
                assert_eq!(text(element, "path").unwrap(), path.join("."));
                let root = text(artifact.resource, "type").unwrap();
                assert!(id == root || id.starts_with(&format!("{root}.")), "{id}");
            }
        }
    }
}
