//! What Patient, Consent, Encounter, Practitioner, `PractitionerRole` and `CareTeam` say that bears on releases. Reads strictly
//! where it lifts something, and loosely where it stops something.

use std::collections::BTreeSet;

use handoff_domain::facts::{EVERY_TEAM, FactKind, MOST_SAYINGS, Saying, bare};
use handoff_domain::{ActorRef, Timestamp};
use handoff_fhir_profiles::canonical::TEAM_SYSTEM;
use serde_json::Value;

use super::{codings, items, text};
use crate::dates;
use crate::resource::Resource;

/// How deep the provisions of a Consent are read; what lies deeper is taken for a denial.
const MOST_PROVISIONS: usize = 16;
/// Scopes of consent that say nothing of releases.
const OTHER_SCOPES: [&str; 2] = ["research", "adr"];

/// What a resource with an id says as of `now`; nothing where it is of another type.
pub fn clinical_sayings(resource: &Resource, now: Timestamp) -> Vec<Saying> {
    let Some(id) = resource.id() else {
        return Vec::new();
    };
    let own = format!("{}/{id}", resource.type_name());
    let value = resource.value();
    let mut sayings = match resource.type_name() {
        "Patient" => patient(value, &own),
        "Consent" => consent(value),
        "Encounter" => encounter(value, own),
        "Practitioner" => practitioner(value, own),
        "PractitionerRole" => practitioner_role(value, now),
        "CareTeam" => care_team(value, id, now),
        _ => Vec::new(),
    };
    sayings.truncate(MOST_SAYINGS);
    sayings
}

fn saying(kind: FactKind, subject: impl Into<String>) -> Saying {
    Saying {
        kind,
        subject: subject.into(),
        team: String::new(),
    }
}

fn patient(patient: &Value, own: &str) -> Vec<Saying> {
    let mut sayings = Vec::new();
    for link in items(patient, "link") {
        match text(link, &["type"]) {
            Some("replaced-by") => sayings.push(saying(FactKind::PatientMerged, own)),
            Some("replaces") => {
                let other = text(link, &["other", "reference"]).and_then(bare);
                let other = other.filter(|other| other.starts_with("Patient/") && *other != own);
                sayings.extend(other.map(|other| saying(FactKind::PatientMerged, other)));
            }
            _ => {}
        }
    }
    sayings.sort();
    sayings.dedup();
    sayings
}

fn consent(consent: &Value) -> Vec<Saying> {
    let scope: Vec<_> = consent.get("scope").into_iter().flat_map(codings).collect();
    if !scope.is_empty() && scope.iter().all(|c| OTHER_SCOPES.contains(&c.code.as_str())) {
        return Vec::new();
    }
    let Some(patient) = text(consent, &["patient", "reference"]).and_then(bare) else {
        return Vec::new();
    };
    let kind = match text(consent, &["status"]) {
        Some("active") if denies(consent.get("provision"), 0) => FactKind::ConsentDenied,
        Some("active") => FactKind::ConsentGiven,
        // Not said yet.
        Some("draft" | "proposed") => return Vec::new(),
        _ => FactKind::ConsentWithdrawn,
    };
    vec![saying(kind, patient)]
}

/// Whether anything in a provision is forbidden: what the exception is about is not understood here.
fn denies(provision: Option<&Value>, depth: usize) -> bool {
    let Some(provision) = provision else { return false };
    depth > MOST_PROVISIONS
        || text(provision, &["type"]) == Some("deny")
        || items(provision, "provision").any(|inner| denies(Some(inner), depth.saturating_add(1)))
}

fn encounter(encounter: &Value, own: String) -> Vec<Saying> {
    let over = matches!(
        text(encounter, &["status"]),
        Some("finished" | "cancelled" | "entered-in-error")
    );
    if over {
        vec![saying(FactKind::EncounterEnded, own)]
    } else {
        Vec::new()
    }
}

fn practitioner(practitioner: &Value, own: String) -> Vec<Saying> {
    if practitioner.get("active") == Some(&Value::Bool(false)) {
        vec![saying(FactKind::ActorEnded, own)]
    } else {
        Vec::new()
    }
}

fn practitioner_role(role: &Value, now: Timestamp) -> Vec<Saying> {
    let Some(person) = actor(role, "practitioner") else {
        return Vec::new();
    };
    let ended = role.get("active") == Some(&Value::Bool(false)) || is_over(role, now);
    let codes = ["code", "specialty"]
        .into_iter()
        .flat_map(|name| items(role, name))
        .flat_map(codings);
    let mut teams = BTreeSet::new();
    let mut named = false;
    for code in codes {
        named |= code.system.as_deref() == Some(TEAM_SYSTEM);
        teams.insert(code.code);
    }
    if !named {
        teams.insert(EVERY_TEAM.to_owned());
    }
    memberships(&teams, [(person, ended)])
}

fn care_team(team: &Value, id: &str, now: Timestamp) -> Vec<Saying> {
    let status = text(team, &["status"]);
    if status == Some("proposed") {
        return Vec::new();
    }
    let all_ended =
        matches!(status, Some("inactive" | "suspended" | "entered-in-error")) || is_over(team, now);
    let mut teams: BTreeSet<String> = BTreeSet::from([id.to_owned()]);
    teams.extend(items(team, "category").flat_map(codings).map(|code| code.code));
    teams.extend(items(team, "identifier").filter_map(|of| text(of, &["value"]).map(str::to_owned)));
    if let Some(name) = text(team, &["name"]) {
        teams.extend([name.to_owned(), name.to_lowercase()]);
    }
    let members = items(team, "participant")
        .filter_map(|one| Some((actor(one, "member")?, all_ended || is_over(one, now))));
    memberships(&teams, members)
}

/// Who is named by an element, where that is somebody who can act.
fn actor(value: &Value, name: &str) -> Option<String> {
    let reference = bare(text(value, &[name, "reference"])?)?;
    ActorRef::parse(reference).ok().map(|actor| actor.to_string())
}

/// Each person for each team; who is named twice is a member as long as one of the two is.
fn memberships(teams: &BTreeSet<String>, people: impl IntoIterator<Item = (String, bool)>) -> Vec<Saying> {
    let mut current = std::collections::BTreeMap::new();
    for (person, ended) in people {
        let known = current.entry(person).or_insert(true);
        *known &= ended;
    }
    let mut sayings = Vec::new();
    for (person, ended) in current {
        for team in teams.iter().filter(|team| team.len() <= 200) {
            sayings.push(Saying {
                kind: if ended {
                    FactKind::MemberNoMore
                } else {
                    FactKind::Member
                },
                subject: person.clone(),
                team: team.clone(),
            });
        }
    }
    sayings
}

/// Whether `period` ended before `now`.
fn is_over(value: &Value, now: Timestamp) -> bool {
    let end = text(value, &["period", "end"]).and_then(dates::range);
    end.is_some_and(|(_, after)| after <= now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ParseOptions, parse};

    const NOW: Timestamp = Timestamp(1_767_225_600_000_000);

    fn said(text: &str) -> Vec<(FactKind, String, String)> {
        let resource = parse(text.as_bytes(), &ParseOptions::default()).unwrap();
        clinical_sayings(&resource, NOW)
            .into_iter()
            .map(|s| (s.kind, s.subject, s.team))
            .collect()
    }

    fn only(text: &str) -> Option<FactKind> {
        let all = said(text);
        assert!(all.len() <= 1, "{all:?}");
        all.first().map(|(kind, ..)| *kind)
    }

    #[test]
    fn a_merged_patient_is_told_from_either_side() {
        let merged = |subject: &str| vec![(FactKind::PatientMerged, subject.to_owned(), String::new())];
        assert_eq!(
            said(
                r#"{"resourceType":"Patient","id":"old","link":[{"other":{"reference":"Patient/new"},"type":"replaced-by"}]}"#
            ),
            merged("Patient/old")
        );
        assert_eq!(
            said(
                r#"{"resourceType":"Patient","id":"new","link":[{"other":{"reference":"https://x/fhir/Patient/old"},"type":"replaces"},
                {"other":{"reference":"Patient/sister"},"type":"seealso"}]}"#
            ),
            merged("Patient/old")
        );
        assert!(said(r#"{"resourceType":"Patient","id":"a","active":false}"#).is_empty());
    }

    #[test]
    fn consent_counts_unless_it_is_about_something_else_or_not_said_yet() {
        let consent = |status: &str, scope: &str, provision: &str| {
            only(&format!(
                r#"{{"resourceType":"Consent","id":"c","status":"{status}","patient":{{"reference":"Patient/ada"}},
                "scope":{{"coding":[{{"system":"http://terminology.hl7.org/CodeSystem/consentscope","code":"{scope}"}}]}},
                "category":[{{"coding":[{{"system":"http://loinc.org","code":"59284-0"}}]}}],
                "policy":[{{"uri":"https://example.org/policy"}}]{provision}}}"#
            ))
        };
        let privacy = "patient-privacy";
        assert_eq!(consent("active", privacy, ""), Some(FactKind::ConsentGiven));
        for status in ["inactive", "rejected", "entered-in-error"] {
            assert_eq!(consent(status, privacy, ""), Some(FactKind::ConsentWithdrawn));
        }
        assert_eq!(consent("draft", privacy, ""), None);
        assert_eq!(consent("inactive", "research", ""), None);
        let permit = r#","provision":{"type":"permit"}"#;
        assert_eq!(consent("active", privacy, permit), Some(FactKind::ConsentGiven));
        let deny = r#","provision":{"type":"deny"}"#;
        assert_eq!(consent("active", privacy, deny), Some(FactKind::ConsentDenied));
        let inner = r#","provision":{"type":"permit","provision":[{"type":"deny"}]}"#;
        assert_eq!(consent("active", privacy, inner), Some(FactKind::ConsentDenied));
    }

    #[test]
    fn an_encounter_is_over_when_it_is_finished() {
        let encounter = |status: &str| {
            only(&format!(
                r#"{{"resourceType":"Encounter","id":"e","status":"{status}","class":{{"code":"AMB"}}}}"#
            ))
        };
        assert_eq!(encounter("in-progress"), None);
        assert_eq!(encounter("finished"), Some(FactKind::EncounterEnded));
    }

    #[test]
    fn a_role_that_ended_ends_its_team_and_without_one_any() {
        let role = |rest: &str| {
            said(&format!(
                r#"{{"resourceType":"PractitionerRole","id":"r","practitioner":{{"reference":"Practitioner/lane"}}{rest}}}"#
            ))
        };
        let of = |kind, team: &str| vec![(kind, "Practitioner/lane".to_owned(), team.to_owned())];
        let cardiology =
            format!(r#","code":[{{"coding":[{{"system":"{TEAM_SYSTEM}","code":"cardiology"}}]}}]"#);
        assert_eq!(
            role(&format!(r#","active":false{cardiology}"#)),
            of(FactKind::MemberNoMore, "cardiology")
        );
        assert_eq!(role(&cardiology), of(FactKind::Member, "cardiology"));
        let period = format!(r#","period":{{"end":"2025-12-31"}}{cardiology}"#);
        assert_eq!(role(&period), of(FactKind::MemberNoMore, "cardiology"));
        let period = format!(r#","period":{{"end":"2026-01-01"}}{cardiology}"#);
        assert_eq!(role(&period), of(FactKind::Member, "cardiology"));
        assert_eq!(role(r#","active":false"#), of(FactKind::MemberNoMore, EVERY_TEAM));
    }

    #[test]
    fn a_team_has_its_members_and_those_whose_time_is_over() {
        let team = |status: &str| {
            said(&format!(
                r#"{{"resourceType":"CareTeam","id":"cardiology","status":"{status}","participant":[
                {{"member":{{"reference":"Practitioner/lane"}}}},
                {{"member":{{"reference":"Practitioner/otis"}},"period":{{"end":"2025-01-01"}}}},
                {{"member":{{"display":"somebody"}}}}]}}"#
            ))
            .into_iter()
            .map(|(kind, subject, _)| (kind, subject))
            .collect::<Vec<_>>()
        };
        let (lane, otis) = ("Practitioner/lane".to_owned(), "Practitioner/otis".to_owned());
        assert_eq!(
            team("active"),
            [
                (FactKind::Member, lane.clone()),
                (FactKind::MemberNoMore, otis.clone())
            ]
        );
        assert_eq!(
            team("inactive"),
            [(FactKind::MemberNoMore, lane), (FactKind::MemberNoMore, otis)]
        );
    }
}
