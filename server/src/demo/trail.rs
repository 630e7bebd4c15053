//! One AuditEvent as a row that people read.

use serde_json::Value;

/// What the columns are.
pub(super) const HEAD: [&str; 5] = ["when", "what", "who", "outcome", "reason"];

/// The cells of one AuditEvent.
pub(super) fn row(event: &Value) -> Vec<String> {
    let at = |place: &str| event.pointer(place).and_then(Value::as_str);
    let when = at("/recorded")
        .and_then(|instant| instant.get(11..23))
        .unwrap_or_default();
    let what = code_of(event, "/CodeSystem/audit-event").unwrap_or_default();
    let who = at("/agent/0/who/reference")
        .or_else(|| at("/agent/0/who/identifier/value"))
        .or_else(|| at("/agent/0/who/display"))
        .unwrap_or("the server");
    let outcome = match at("/outcome") {
        Some("0") => "done",
        Some("4") => "denied",
        _ => "failed",
    };
    let reason = at("/outcomeDesc").unwrap_or_default();
    [when, what, who, outcome, reason].map(str::to_owned).to_vec()
}

/// The code of the subtype that is of a system of ours.
fn code_of<'a>(event: &'a Value, system: &str) -> Option<&'a str> {
    let subtypes = event.get("subtype")?.as_array()?;
    let ours = subtypes.iter().find(|coding| {
        coding
            .get("system")
            .and_then(Value::as_str)
            .is_some_and(|found| found.ends_with(system))
    })?;
    ours.get("code")?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_says_when_what_who_and_why() {
        let event = json!({
            "resourceType": "AuditEvent",
            "subtype": [
                {"system": "http://hl7.org/fhir/restful-interaction", "code": "read"},
                {"system": "https://handoff.example/fhir/CodeSystem/audit-event", "code": "redemption-denied"},
            ],
            "recorded": "2026-03-01T11:30:00.250Z",
            "outcome": "4",
            "outcomeDesc": "exhausted",
            "agent": [{"who": {"reference": "Practitioner/lane"}}],
        });
        assert_eq!(
            row(&event),
            [
                "11:30:00.250",
                "redemption-denied",
                "Practitioner/lane",
                "denied",
                "exhausted"
            ]
        );
    }
}
