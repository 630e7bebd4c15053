//! Task to [`TaskFacts`].

use handoff_domain::Timestamp;
use handoff_domain::task::{PlacerElements, Priority, TaskFacts, TaskStatus};
use serde_json::Value;

use super::{codings, items, owned, text};
use crate::dates;
use crate::issue::{Issue, IssueType};
use crate::resource::Resource;

/// What the rules need to know of a Task. References are as the resource writes them.
pub fn task_facts(resource: &Resource) -> Result<TaskFacts, Vec<Issue>> {
    let task = resource.value();
    if resource.type_name() != "Task" {
        return Err(vec![Issue::at(
            IssueType::Invalid,
            "resourceType",
            "a Task is expected",
        )]);
    }
    let missing = |name: &str| {
        vec![Issue::at(
            IssueType::Required,
            format!("Task.{name}"),
            "a value must be given",
        )]
    };
    let status = text(task, &["status"])
        .and_then(TaskStatus::parse)
        .ok_or_else(|| missing("status"))?;
    let intent = owned(task, &["intent"]).ok_or_else(|| missing("intent"))?;
    let reference = |name| owned(task, &[name, "reference"]);
    let references = |list: &Value, name: &str| -> Vec<String> {
        items(list, name)
            .filter_map(|r| owned(r, &["reference"]))
            .collect()
    };
    let restriction = task.get("restriction");
    Ok(TaskFacts {
        status,
        intent,
        priority: text(task, &["priority"])
            .and_then(Priority::parse)
            .unwrap_or_default(),
        code: task.get("code").into_iter().flat_map(codings).collect(),
        focus: reference("focus"),
        inputs: items(task, "input")
            .filter_map(|i| owned(i, &["valueReference", "reference"]))
            .collect(),
        subject: reference("for"),
        encounter: reference("encounter"),
        requester: reference("requester"),
        owner: reference("owner"),
        recipients: restriction
            .map(|r| references(r, "recipient"))
            .unwrap_or_default(),
        due: restriction
            .and_then(|r| text(r, &["period", "end"]))
            .and_then(last_instant),
        performer_types: items(task, "performerType").flat_map(codings).collect(),
        part_of: references(task, "partOf"),
        placer_elements: PlacerElements {
            focus: canonical(task, "focus"),
            input: canonical(task, "input"),
            subject: canonical(task, "for"),
            restriction: canonical(task, "restriction"),
            code: canonical(task, "code"),
            requester: canonical(task, "requester"),
            performer_type: canonical(task, "performerType"),
            part_of: canonical(task, "partOf"),
        },
    })
}

/// The instant that a dateTime names; of a partial date, its last.
fn last_instant(written: &str) -> Option<Timestamp> {
    let (from, until) = dates::range(written)?;
    Some(if written.contains('T') {
        from
    } else {
        Timestamp(until.0.saturating_sub(1))
    })
}

/// An element as JSON with its properties sorted, so that the order in which they were written does not count.
fn canonical(task: &Value, name: &str) -> Option<String> {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(name, _)| *name);
                Value::Object(
                    entries
                        .into_iter()
                        .map(|(name, value)| (name.clone(), sorted(value)))
                        .collect(),
                )
            }
            Value::Array(items) => items.iter().map(sorted).collect(),
            other => other.clone(),
        }
    }
    task.get(name).map(|element| sorted(element).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ParseOptions, parse};

    fn facts(rest: &str) -> TaskFacts {
        let text = format!(r#"{{"resourceType":"Task","status":"ready","intent":"order"{rest}}}"#);
        task_facts(&parse(text.as_bytes(), &ParseOptions::default()).unwrap()).unwrap()
    }

    #[test]
    fn a_tasks_facts_are_read() {
        let facts = facts(
            r#","priority":"urgent","code":{"coding":[{"system":"http://x","code":"a"},{"display":"no code"}]},
            "focus":{"reference":"DocumentReference/1"},"for":{"reference":"Patient/ada"},
            "encounter":{"reference":"Encounter/e"},"requester":{"reference":"Organization/o"},
            "owner":{"reference":"Practitioner/lane"},"partOf":[{"reference":"Task/0"}],
            "performerType":[{"coding":[{"code":"cardiology"}]},{"text":"b"}],
            "restriction":{"period":{"end":"2026-03-01"},"recipient":[{"reference":"Practitioner/otis"},{"display":"x"}]},
            "input":[{"type":{"text":"doc"},"valueReference":{"reference":"DocumentReference/2"}},
                {"type":{"text":"note"},"valueString":"x"}]"#,
        );
        assert_eq!(facts.status, TaskStatus::Ready);
        assert_eq!(facts.priority, Priority::Urgent);
        assert_eq!(facts.code.len(), 1);
        assert_eq!(facts.focus.as_deref(), Some("DocumentReference/1"));
        assert_eq!(facts.inputs, ["DocumentReference/2"]);
        assert_eq!(facts.recipients, ["Practitioner/otis"]);
        assert_eq!(facts.part_of, ["Task/0"]);
        assert_eq!(facts.performer_types[0].code, "cardiology");
        assert_eq!(facts.owner.as_deref(), Some("Practitioner/lane"));
        let end = Timestamp::parse_instant("2026-03-01T23:59:59.999999Z");
        assert_eq!(facts.due, end, "a date as due date lasts to its end");
    }

    #[test]
    fn a_due_time_with_seconds_is_that_instant() {
        let facts = facts(r#","restriction":{"period":{"end":"2026-03-01T12:00:00+01:00"}}"#);
        assert_eq!(facts.due, Timestamp::parse_instant("2026-03-01T11:00:00Z"));
    }

    #[test]
    fn the_order_of_properties_does_not_change_what_only_the_placer_may_change() {
        let one = facts(r#","focus":{"reference":"DocumentReference/1","display":"x"}"#);
        let other = facts(r#","focus":{"display":"x","reference":"DocumentReference/1"}"#);
        assert!(
            one.placer_elements
                .changed_from(&other.placer_elements)
                .is_empty()
        );
        let third = facts(r#","focus":{"display":"y","reference":"DocumentReference/1"}"#);
        assert_eq!(
            one.placer_elements.changed_from(&third.placer_elements),
            ["focus"]
        );
    }

    #[test]
    fn a_status_with_extensions_alone_is_not_enough() {
        let text = r#"{"resourceType":"Task","_status":{"extension":[{"url":"http://x/e","valueCode":"a"}]},"intent":"order"}"#;
        let task = parse(text.as_bytes(), &ParseOptions::default()).unwrap();
        assert_eq!(
            task_facts(&task).unwrap_err()[0].expression.as_deref(),
            Some("Task.status")
        );
    }
}
