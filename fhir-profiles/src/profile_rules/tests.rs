//! The profiles at work, on the examples and on what is wrong with them.

use serde_json::json;

use super::*;
use crate::artifacts::{artifacts, example, examples};
use crate::canonical::{
    DOCUMENT_CLASS_SYSTEM, EXT_DOCUMENT_CLASS, EXT_GRANT_STATUS, EXT_SHA256, PROFILE_DOCUMENT, PROFILE_TASK,
};

fn task() -> Value {
    example("referral-task").unwrap().resource.clone()
}

fn document() -> Value {
    example("referral-document").unwrap().resource.clone()
}

fn issues(profile: &str, resource: &Value) -> Vec<(String, &'static str)> {
    check(profile, resource)
        .into_iter()
        .map(|issue| (issue.expression, issue.code))
        .collect()
}

fn without(mut resource: Value, name: &str) -> Value {
    assert!(resource.as_object_mut().unwrap().shift_remove(name).is_some());
    resource
}

fn with(mut resource: Value, name: &str, value: Value) -> Value {
    resource.as_object_mut().unwrap().insert(name.to_owned(), value);
    resource
}

#[test]
fn the_examples_satisfy_the_profiles_they_name() {
    let mut checked = 0;
    for example in examples() {
        let entries = items(example.resource, "entry")
            .iter()
            .filter_map(|entry| entry.get("resource"));
        for resource in entries.chain([example.resource]) {
            for profile in resource
                .get("meta")
                .map_or(&[][..], |meta| items(meta, "profile"))
            {
                assert!(knows(profile.as_str().unwrap()));
                assert_eq!(check(profile.as_str().unwrap(), resource), [], "{}", example.id);
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 4);
}

#[test]
fn a_handoff_task_says_what_for_whom_and_on_which_document() {
    for name in ["code", "focus", "for"] {
        let expected = [(format!("Task.{name}"), "required")];
        assert_eq!(issues(PROFILE_TASK, &without(task(), name)), expected);
    }
}

#[test]
fn a_handoff_task_is_about_a_document_of_a_patient() {
    let other = with(task(), "focus", json!({"reference": "ServiceRequest/1"}));
    assert_eq!(issues(PROFILE_TASK, &other), [("Task.focus".to_owned(), "value")]);
    let group = with(
        task(),
        "for",
        json!({"reference": "https://ehr.example/fhir/Group/1"}),
    );
    assert_eq!(issues(PROFILE_TASK, &group), [("Task.for".to_owned(), "value")]);
    let placeholder = with(
        task(),
        "focus",
        json!({"reference": "urn:uuid:8d2f7c0a-1b5e-4c7b-9a51-2f6d0f3e8a02"}),
    );
    assert_eq!(issues(PROFILE_TASK, &placeholder), []);
}

#[test]
fn only_a_draft_may_leave_open_who_does_the_work() {
    let open = without(without(task(), "owner"), "performerType");
    assert_eq!(issues(PROFILE_TASK, &open), [("Task".to_owned(), "invariant")]);
    assert_eq!(issues(PROFILE_TASK, &with(open, "status", json!("draft"))), []);
}

#[test]
fn a_restriction_period_has_an_end() {
    let endless = with(task(), "restriction", json!({"period": {"start": "2026-11-24"}}));
    assert_eq!(
        issues(PROFILE_TASK, &endless),
        [("Task.restriction.period.end".to_owned(), "required")]
    );
    assert_eq!(issues(PROFILE_TASK, &without(task(), "restriction")), []);
}

#[test]
fn a_handoff_document_has_a_type_a_patient_and_content_of_a_stated_kind() {
    for name in ["type", "subject"] {
        let expected = [(format!("DocumentReference.{name}"), "required")];
        assert_eq!(issues(PROFILE_DOCUMENT, &without(document(), name)), expected);
    }
    let bare = with(
        document(),
        "content",
        json!([{"attachment": {"title": "Nothing"}}]),
    );
    assert_eq!(
        issues(PROFILE_DOCUMENT, &bare),
        [
            ("DocumentReference.content[0].attachment".to_owned(), "invariant"),
            (
                "DocumentReference.content[0].attachment.contentType".to_owned(),
                "required"
            ),
        ]
    );
}

#[test]
fn every_rendition_is_checked() {
    let good = document()["content"][0].clone();
    let two = with(
        document(),
        "content",
        json!([good, {"attachment": {"url": "Binary/2"}}]),
    );
    let expected = [(
        "DocumentReference.content[1].attachment.contentType".to_owned(),
        "required",
    )];
    assert_eq!(issues(PROFILE_DOCUMENT, &two), expected);
}

#[test]
fn an_extension_of_ours_holds_a_value_of_its_type() {
    let attachment = json!({
        "contentType": "text/plain",
        "url": "Binary/1",
        "extension": [{"url": EXT_SHA256, "valueString": "00"}],
    });
    let wrong = with(document(), "content", json!([{"attachment": attachment}]));
    let place = "DocumentReference.content[0].attachment.extension[0].value";
    assert_eq!(
        issues(PROFILE_DOCUMENT, &wrong),
        [(place.to_owned(), "structure")]
    );
}

#[test]
fn an_extension_of_ours_stands_once_where_one_is_enough() {
    let class = json!({"url": EXT_DOCUMENT_CLASS, "valueCoding": {"system": DOCUMENT_CLASS_SYSTEM, "code": "consent"}});
    let twice = with(document(), "extension", json!([class, class]));
    assert_eq!(
        issues(PROFILE_DOCUMENT, &twice),
        [("DocumentReference.extension".to_owned(), "structure")]
    );
}

#[test]
fn a_document_class_is_one_of_ours() {
    let class = |coding: Value| {
        let extension = json!([{"url": EXT_DOCUMENT_CLASS, "valueCoding": coding}]);
        issues(PROFILE_DOCUMENT, &with(document(), "extension", extension))
    };
    let place = || "DocumentReference.extension[0].value".to_owned();
    assert_eq!(
        class(json!({"system": DOCUMENT_CLASS_SYSTEM, "code": "consent"})),
        []
    );
    assert_eq!(
        class(json!({"system": DOCUMENT_CLASS_SYSTEM, "code": "secret"})),
        [(place(), "code-invalid")]
    );
    let foreign = json!({"system": "http://example.org", "code": "consent"});
    assert_eq!(class(foreign), [(place(), "value"), (place(), "code-invalid")]);
}

#[test]
fn a_grant_on_a_task_is_told_in_its_own_parts_only() {
    let grant = |parts: Value| {
        let extension = json!([{"url": EXT_GRANT_STATUS, "extension": parts}]);
        issues(PROFILE_TASK, &with(task(), "extension", extension))
    };
    let id = json!({"url": "grant", "valueString": "1"});
    let document = json!({"url": "document", "valueReference": {"reference": "DocumentReference/1"}});
    let status = json!({"url": "status", "valueCode": "bound"});
    assert_eq!(grant(json!([id, document, status])), []);
    let secret = json!({"url": "secret", "valueString": "x"});
    let place = "Task.extension[0].extension[3]".to_owned();
    assert_eq!(
        grant(json!([id, document, status, secret])),
        [(place, "extension")]
    );
    let unknown = json!({"url": "status", "valueCode": "lost"});
    let place = "Task.extension[0].extension[2].value".to_owned();
    assert_eq!(grant(json!([id, document, unknown])), [(place, "code-invalid")]);
}

#[test]
fn an_extension_under_our_base_that_does_not_exist_is_told() {
    let extension =
        json!([{"url": "https://handoff.example/fhir/StructureDefinition/unheard-of", "valueCode": "x"}]);
    let expected = [("Task.extension[0]".to_owned(), "extension")];
    assert_eq!(
        issues(PROFILE_TASK, &with(task(), "extension", extension)),
        expected
    );
}

#[test]
fn an_extension_on_a_primitive_is_checked_too() {
    let on_status = json!({"extension": [{"url": EXT_SHA256, "valueString": "00"}]});
    let expected = [("Task.status.extension[0].value".to_owned(), "structure")];
    assert_eq!(
        issues(PROFILE_TASK, &with(task(), "_status", on_status)),
        expected
    );
}

#[test]
fn a_profile_is_for_its_own_type() {
    assert_eq!(
        issues(PROFILE_DOCUMENT, &task()),
        [("DocumentReference".to_owned(), "structure")]
    );
}

#[test]
fn a_profile_that_is_not_ours_is_not_known_and_finds_nothing() {
    let foreign = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-documentreference";
    assert!(!knows(foreign));
    assert!(!knows(EXT_SHA256));
    assert!(!knows(&format!("{PROFILE_TASK}|0.0.0")));
    assert_eq!(check(foreign, &document()), []);
}

#[test]
fn nonsense_is_reported_and_never_panics() {
    for nonsense in [json!(null), json!([]), json!("Task"), json!({"resourceType": 1})] {
        assert_eq!(
            issues(PROFILE_TASK, &nonsense),
            [("Task".to_owned(), "structure")]
        );
    }
    let shapeless =
        json!({"resourceType": "Task", "code": [], "focus": 1, "for": [[]], "extension": {"url": 1}});
    assert!(!issues(PROFILE_TASK, &shapeless).is_empty());
}

#[test]
fn no_message_tells_what_the_resource_says() {
    let private = with(
        task(),
        "for",
        json!({"reference": "Group/mary-smith", "display": "Mary Smith"}),
    );
    for issue in check(PROFILE_TASK, &private) {
        assert!(
            !issue.text.contains("mary-smith") && !issue.text.contains("Mary"),
            "{}",
            issue.text
        );
    }
}

#[test]
fn only_profiles_of_resources_are_known() {
    let known = artifacts()
        .iter()
        .filter(|artifact| knows(artifact.url))
        .map(|artifact| artifact.url);
    assert_eq!(known.collect::<Vec<_>>(), [PROFILE_DOCUMENT, PROFILE_TASK]);
}
