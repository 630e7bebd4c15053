//! Reading `workflow.toml`: what the shipped file means, and that every problem is named at once.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use handoff_domain::task::{Code, TaskStatus, check_move};
use handoff_domain::time::Span;
use handoff_domain::workflow::{OnExpiry, Workflow, Workflows};
use handoff_policies::{SHIPPED_WORKFLOWS, parse_workflows};

fn code(system: Option<&str>, code: &str) -> Code {
    Code {
        system: system.map(str::to_owned),
        code: code.to_owned(),
    }
}

fn problems(text: &str) -> Vec<String> {
    parse_workflows(text)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn the_shipped_file_changes_nothing_for_a_code_that_it_does_not_list() {
    let workflows = parse_workflows(SHIPPED_WORKFLOWS).unwrap();
    assert_eq!(workflows.default, Workflow::default());
    assert_eq!(workflows.of(&[]), &Workflow::default());
    let fulfil = code(Some("http://hl7.org/fhir/CodeSystem/task-code"), "fulfill");
    assert_eq!(workflows.of(&[fulfil]), &Workflow::default());
}

#[test]
fn an_empty_file_means_the_defaults() {
    assert_eq!(parse_workflows(""), Ok(Workflows::default()));
}

#[test]
fn the_shipped_asynchronous_review_has_an_hour() {
    let workflows = parse_workflows(SHIPPED_WORKFLOWS).unwrap();
    let review = workflows.of(&[code(None, "asynchronous-review")]);
    assert_eq!(review.grant_window, Span::hours(1));
    assert_eq!(review.on_expiry, OnExpiry::Escalate);
    assert_eq!(review.max_uses, 1);
}

#[test]
fn the_shipped_prior_authorization_review_has_a_narrower_table() {
    let workflows = parse_workflows(SHIPPED_WORKFLOWS).unwrap();
    let system = "https://handoff.example/fhir/CodeSystem/workflow";
    let review = workflows.of(&[code(Some(system), "prior-authorization-review")]);
    assert!(check_move(review, Some(TaskStatus::Accepted), None, TaskStatus::Ready).is_err());
    assert!(check_move(review, Some(TaskStatus::Accepted), None, TaskStatus::InProgress).is_ok());
    assert!(
        check_move(
            review,
            Some(TaskStatus::Accepted),
            None,
            TaskStatus::EnteredInError
        )
        .is_ok()
    );
    assert!(!review.is_actionable(TaskStatus::Ready));
    assert!(review.may_release(Some("referral-note")) && !review.may_release(Some("consent")));
    assert_eq!(review.on_expiry, OnExpiry::Reissue { at_most: 2 });
    assert!(review.require_if_match);
    let elsewhere = workflows.of(&[code(Some("http://other.example"), "prior-authorization-review")]);
    assert_eq!(elsewhere, &Workflow::default());
}

#[test]
fn a_workflow_starts_from_the_default_of_its_file() {
    let text = r#"
        [default]
        max_uses = 3
        releases = ["consent"]
        [default.transitions]
        draft = ["requested"]
        [[workflow]]
        code = "open"
        releases = "all"
        [workflow.transitions]
        requested = ["accepted"]
    "#;
    let workflows = parse_workflows(text).unwrap();
    let open = workflows.of(&[code(Some("anything"), "open")]);
    assert_eq!(open.max_uses, 3);
    assert_eq!(open.releases, None);
    assert_eq!(
        open.transitions(Some(TaskStatus::Draft)),
        [TaskStatus::Requested, TaskStatus::EnteredInError]
    );
    assert_eq!(
        open.transitions(Some(TaskStatus::Requested)),
        [TaskStatus::Accepted, TaskStatus::EnteredInError]
    );
}

#[test]
fn every_problem_is_named_at_once_with_its_line_and_key() {
    let text = r#"colour = "red"
[default]
actionable = ["ready", "completed", "on-hold", "done", "ready"]
grant_window = "25h"
redemption_window = 600
max_uses = 0
self_reissue = -1
documents = "many"
on_expiry = "reissue"
if_match = "yes"
releases = ["Referral Note", 7]
window = "1m"
[default.transitions]
completed = ["ready"]
create = ["completed", "draft"]
draft = ["draft", "asked"]
someday = []
[[workflow]]
reissue_at_most = 2
[[workflow]]
code = "a|b"
grant_window = "0s"
[[workflow]]
code = "twice"
on_expiry = "panic"
[[workflow]]
code = "twice"
grant_window = "15 minutes"
"#;
    let expected = [
        "line 1: `colour`: no such key",
        "line 3: `default.actionable`: `done` is not a Task status",
        "line 3: `default.actionable`: `ready` is listed twice",
        "line 3: `default.actionable`: nothing can be released in `completed`",
        "line 3: `default.actionable`: nothing can be released in `on-hold`",
        "line 4: `default.grant_window`: must be from one second to 24 hours",
        "line 5: `default.redemption_window`: expected a duration as a string, like \"90s\", \"15m\" or \"1h\", found integer",
        "line 6: `default.max_uses`: must be 1 or more",
        "line 7: `default.self_reissue`: must be 0 or more",
        "line 8: `default.documents`: expected a whole number, found string",
        "line 9: `default.on_expiry`: `reissue` needs `reissue_at_most` beside it",
        "line 10: `default.if_match`: expected true or false, found string",
        "line 11: `default.releases`: `Referral Note` is not a document class",
        "line 11: `default.releases`: expected a document class as a string, found integer",
        "line 12: `default.window`: no such key",
        "line 14: `default.transitions.completed`: an ended Task goes nowhere but to `entered-in-error`, \
         which needs no row",
        "line 15: `default.transitions.create`: a Task cannot begin as `completed`",
        "line 16: `default.transitions.draft`: `asked` is not a Task status",
        "line 16: `default.transitions.draft`: keeping the status is always legal and needs no entry",
        "line 17: `default.transitions.someday`: `someday` is not a Task status",
        "line 18: `workflow[1]`: `code` is missing",
        "line 19: `workflow[1].reissue_at_most`: has no effect without `on_expiry = \"reissue\"` beside it",
        "line 21: `workflow[2].code`: must be a text without blanks and without `|`",
        "line 22: `workflow[2].grant_window`: must be from one second to 24 hours",
        "line 25: `workflow[3].on_expiry`: must be `none`, `escalate` or `reissue`",
        "line 26: `workflow[4]`: `twice` is listed twice",
        "line 28: `workflow[4].grant_window`: `15 minutes` is not a duration: write \"90s\", \"15m\" or \"1h\"",
    ];
    assert_eq!(problems(text), expected);
}

#[test]
fn what_is_not_toml_is_told_with_its_line() {
    let found = problems("[default]\nmax_uses = \n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("line 2: "), "{found:?}");
    assert!(problems("default = 1\nworkflow = 2\n").len() == 2);
}
