//! What our terminology says: which codes exist, and what the words of other systems mean here.
//! Everything comes from the JSON; a deployment that changes a map changes the answers.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::artifacts::{artifacts, items, text};
use crate::canonical::{
    CLASSIFICATION_SYSTEM, DOCUMENT_CLASS_SYSTEM, MAP_CONFIDENTIALITY, MAP_DOCUMENT_TYPES,
    MAP_EXTERNAL_ROLES, ROLE_SYSTEM,
};

/// One code of a CodeSystem of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concept {
    /// The code.
    pub code: &'static str,
    /// A short name for people.
    pub display: &'static str,
    /// What it means, in a sentence.
    pub definition: &'static str,
}

/// Source system and code, each as in the map.
type Source = (&'static str, &'static str);

/// A system that a ValueSet draws on, and the codes taken from it where not all are.
type Include = (&'static str, Option<Vec<&'static str>>);

struct Terminology {
    /// By the URL of the CodeSystem, in the order of the file.
    systems: HashMap<&'static str, Vec<Concept>>,
    /// By the URL of the ConceptMap.
    maps: HashMap<&'static str, HashMap<Source, Source>>,
    /// Target role by the folded role word.
    roles: HashMap<String, &'static str>,
    /// By the URL of the ValueSet.
    value_sets: HashMap<&'static str, Vec<Include>>,
}

static TERMINOLOGY: LazyLock<Terminology> = LazyLock::new(|| {
    let of = |kind: &'static str| {
        artifacts()
            .iter()
            .filter(move |artifact| artifact.resource_type == kind)
    };
    let maps: HashMap<_, _> = of("ConceptMap")
        .map(|map| (map.url, read_map(map.resource)))
        .collect();
    let roles = maps.get(MAP_EXTERNAL_ROLES).into_iter().flatten();
    Terminology {
        systems: of("CodeSystem")
            .map(|system| (system.url, read_system(system.resource)))
            .collect(),
        roles: roles
            .filter(|(_, (system, _))| *system == ROLE_SYSTEM)
            .map(|((_, word), (_, role))| (fold(word), *role))
            .collect(),
        value_sets: of("ValueSet")
            .map(|set| (set.url, read_value_set(set.resource)))
            .collect(),
        maps,
    }
});

fn read_system(resource: &'static Value) -> Vec<Concept> {
    let concept = |concept| {
        Some(Concept {
            code: text(concept, "code")?,
            display: text(concept, "display")?,
            definition: text(concept, "definition")?,
        })
    };
    items(resource, "concept").iter().filter_map(concept).collect()
}

fn read_map(resource: &'static Value) -> HashMap<Source, Source> {
    let mut map = HashMap::new();
    for group in items(resource, "group") {
        let (Some(source), Some(target)) = (text(group, "source"), text(group, "target")) else {
            continue;
        };
        for element in items(group, "element") {
            let to = items(element, "target").first().and_then(|it| text(it, "code"));
            if let (Some(from), Some(to)) = (text(element, "code"), to) {
                map.insert((source, from), (target, to));
            }
        }
    }
    map
}

fn read_value_set(resource: &'static Value) -> Vec<Include> {
    let include = |include| {
        let codes: Vec<_> = items(include, "concept")
            .iter()
            .filter_map(|concept| text(concept, "code"))
            .collect();
        Some((text(include, "system")?, (!codes.is_empty()).then_some(codes)))
    };
    resource
        .get("compose")
        .map_or(&[][..], |compose| items(compose, "include"))
        .iter()
        .filter_map(include)
        .collect()
}

/// Role words differ between systems in case, and in what parts the words, and in nothing that matters.
fn fold(word: &str) -> String {
    let words = word
        .split(|c: char| c.is_whitespace() || c == '-' || c == '_')
        .filter(|part| !part.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join(" ")
}

/// The codes of a CodeSystem of ours, in its order; none where there is no such system.
pub fn concepts(system: &str) -> &'static [Concept] {
    TERMINOLOGY.systems.get(system).map_or(&[], Vec::as_slice)
}

/// One code of a CodeSystem of ours.
pub fn concept(system: &str, code: &str) -> Option<&'static Concept> {
    concepts(system).iter().find(|concept| concept.code == code)
}

/// What a code of another system is in ours, by the ConceptMap with that URL: the target's system and code.
pub fn translate(map: &str, system: &str, code: &str) -> Option<(&'static str, &'static str)> {
    TERMINOLOGY.maps.get(map)?.get(&(system, code)).copied()
}

/// The canonical class of a document type. A code of our own system is its own class.
/// `None` means unmapped: the strictest treatment.
pub fn document_class(system: &str, code: &str) -> Option<&'static str> {
    own_or_mapped(DOCUMENT_CLASS_SYSTEM, MAP_DOCUMENT_TYPES, system, code)
}

/// The level of classification that a security label stands for. A code of our own system is its own level.
pub fn classification(system: &str, code: &str) -> Option<&'static str> {
    own_or_mapped(CLASSIFICATION_SYSTEM, MAP_CONFIDENTIALITY, system, code)
}

fn own_or_mapped(own: &str, map: &str, system: &str, code: &str) -> Option<&'static str> {
    if system == own {
        return concept(own, code).map(|concept| concept.code);
    }
    translate(map, system, code)
        .filter(|(target, _)| *target == own)
        .map(|(_, code)| code)
}

/// The canonical role that a role word of another system stands for: `Billing_Specialist` is a `team-member`.
/// Case, and whether blanks, hyphens or underscores part the words, do not matter. `None` means that it gives no role.
pub fn canonical_role(external: &str) -> Option<&'static str> {
    TERMINOLOGY.roles.get(&fold(external)).copied()
}

/// Whether a ValueSet of ours holds the code; without a system, whether it does in any of its systems.
/// `None` where the ValueSet is not ours.
pub fn value_set_contains(value_set: &str, system: Option<&str>, code: &str) -> Option<bool> {
    let includes = TERMINOLOGY.value_sets.get(value_set)?;
    Some(includes.iter().any(|(included, codes)| {
        system.is_none_or(|system| system == *included)
            && match codes {
                Some(codes) => codes.contains(&code),
                None => concept(included, code).is_some(),
            }
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::canonical::{CONFIDENTIALITY, GRANT_STATUS_SYSTEM, LOINC, REASON_SYSTEM};

    fn codes(system: &str) -> Vec<&'static str> {
        concepts(system).iter().map(|concept| concept.code).collect()
    }

    #[test]
    fn the_reason_codes_are_those_published_in_that_order() {
        let published = "permitted unauthenticated token-invalid insufficient-scope policy-denied not-grantee \
            not-bound task-not-actionable task-completed task-cancelled task-rejected task-failed task-on-hold \
            task-entered-in-error task-deleted reassigned input-removed document-superseded document-withheld \
            document-entered-in-error document-deleted legal-hold patient-merged consent-withdrawn actor-revoked \
            emergency revoked reissued expired exhausted replayed link-unknown constraint-ip constraint-session \
            constraint-client constraint-key constraint-content-type integrity-failed illegal-transition \
            version-conflict invalid not-found too-large not-supported rate-limited storage-unavailable \
            audit-unavailable break-glass";
        assert_eq!(
            codes(REASON_SYSTEM),
            published.split_whitespace().collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_grant_has_the_six_states_of_its_life() {
        assert_eq!(
            codes(GRANT_STATUS_SYSTEM),
            ["issued", "bound", "suspended", "exhausted", "expired", "revoked"]
        );
    }

    #[test]
    fn every_code_system_is_complete_with_distinct_codes_and_a_value_set() {
        for artifact in artifacts()
            .iter()
            .filter(|artifact| artifact.resource_type == "CodeSystem")
        {
            let concepts = concepts(artifact.url);
            assert_eq!(
                concepts.len(),
                items(artifact.resource, "concept").len(),
                "{}",
                artifact.url
            );
            assert_eq!(artifact.resource["count"], concepts.len(), "{}", artifact.url);
            assert_eq!(
                concepts.iter().map(|c| c.code).collect::<HashSet<_>>().len(),
                concepts.len()
            );
            let set = text(artifact.resource, "valueSet").unwrap();
            let first = concepts.first().unwrap().code;
            assert_eq!(value_set_contains(set, Some(artifact.url), first), Some(true));
        }
    }

    #[test]
    fn value_sets_draw_on_code_systems_that_exist() {
        for includes in TERMINOLOGY.value_sets.values() {
            assert!(!includes.is_empty());
            for (system, chosen) in includes {
                assert!(
                    TERMINOLOGY.systems.contains_key(system),
                    "{system} does not exist"
                );
                assert!(
                    chosen
                        .iter()
                        .flatten()
                        .all(|code| concept(system, code).is_some())
                );
            }
        }
    }

    #[test]
    fn every_map_leads_to_codes_that_exist_and_maps_no_code_twice() {
        for artifact in artifacts()
            .iter()
            .filter(|artifact| artifact.resource_type == "ConceptMap")
        {
            let elements: usize = items(artifact.resource, "group")
                .iter()
                .map(|it| items(it, "element").len())
                .sum();
            let map = &TERMINOLOGY.maps[artifact.url];
            assert_eq!(map.len(), elements, "{}", artifact.url);
            for ((source, from), (target, to)) in map {
                assert!(
                    concept(target, to).is_some(),
                    "{from} leads to {to}, which does not exist"
                );
                if TERMINOLOGY.systems.contains_key(source) {
                    assert!(
                        concept(source, from).is_some(),
                        "{from} does not exist in {source}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_external_role_word_is_mapped() {
        for word in codes(crate::canonical::EXTERNAL_ROLE_SYSTEM) {
            assert!(canonical_role(word).is_some(), "{word} gives no role");
        }
    }

    #[test]
    fn the_usual_loinc_types_have_a_class() {
        for (code, class) in [
            ("18842-5", "discharge-summary"),
            ("57133-1", "referral-note"),
            ("11488-4", "consult-note"),
            ("34133-9", "care-summary"),
            ("11502-2", "laboratory-report"),
            ("18748-4", "imaging-report"),
            ("60568-3", "pathology-report"),
            ("11526-1", "pathology-report"),
            ("11504-8", "operative-note"),
            ("11506-3", "progress-note"),
            ("34117-2", "history-and-physical"),
            ("57016-8", "consent"),
            ("42348-3", "advance-directive"),
            ("18776-5", "care-plan"),
        ] {
            assert_eq!(document_class(LOINC, code), Some(class));
        }
    }

    #[test]
    fn a_type_that_is_not_mapped_has_no_class() {
        assert_eq!(document_class(LOINC, "0000-0"), None);
        assert_eq!(document_class("http://example.org/types", "18842-5"), None);
        assert_eq!(document_class(DOCUMENT_CLASS_SYSTEM, "consent"), Some("consent"));
        assert_eq!(document_class(DOCUMENT_CLASS_SYSTEM, "secret"), None);
    }

    #[test]
    fn loinc_codes_carry_their_right_check_digit() {
        for (system, code) in TERMINOLOGY.maps[MAP_DOCUMENT_TYPES].keys() {
            assert_eq!(*system, LOINC);
            let (number, check) = code.split_once('-').unwrap();
            let sum = number.bytes().rev().enumerate().fold(0, |sum, (place, digit)| {
                let digit = u32::from(digit - b'0') * if place % 2 == 0 { 2 } else { 1 };
                sum + digit / 10 + digit % 10
            });
            assert_eq!(check, ((10 - sum % 10) % 10).to_string(), "{code}");
        }
    }

    #[test]
    fn role_words_are_understood_however_they_are_spelled() {
        assert_eq!(canonical_role("physician"), Some("fulfiller"));
        assert_eq!(canonical_role("Nurse"), Some("fulfiller"));
        assert_eq!(canonical_role("billing specialist"), Some("team-member"));
        assert_eq!(canonical_role("Billing_Specialist"), Some("team-member"));
        assert_eq!(canonical_role("records-manager"), Some("records-manager"));
        assert_eq!(canonical_role("janitor"), None);
        assert_eq!(canonical_role(""), None);
    }

    #[test]
    fn a_confidential_document_is_never_routine() {
        assert_eq!(classification(CONFIDENTIALITY, "N"), Some("routine"));
        assert_eq!(classification(CONFIDENTIALITY, "R"), Some("sensitive"));
        assert_eq!(classification(CONFIDENTIALITY, "V"), Some("restricted"));
        assert_eq!(classification(CONFIDENTIALITY, "X"), None);
    }
}
