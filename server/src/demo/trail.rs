//! One AuditEvent as a row that people read.

use serde_json::Value;

/// What the columns are.
pub(super) const HEAD: [&str; 5] = ["when", "what", "who", "outcome", "reason"];

/// The cells of one AuditEvent.
pub(super) fn row(event: &Value) -> Vec<String> {
    let at = |place: &str| event.pointer(place).and_then(Value::as_str);
    let when = at("/recorded").and_then(|instant| instant.get(11..23)).unwrap_or_default();
    let what = at("/subtype/0/code").or_else(|| at("/type/code")).unwrap_or_default();
    let who = at("/agent/0/who/reference")
        .or_else(|| at("/agent/0/who/identifier/value"))
        .or_else(|| at("/agent/0/name"))
        .unwrap_or("the server");
    let outcome = match at("/outcome") {
        Some("0") => "done",
        Some("4") => "denied",
        _ => "failed",
    };
    let reason = reason_in(event).unwrap_or_default();
    [when, what, who, outcome, &reason].map(str::to_owned).to_vec()
}

/// The reason code, wherever a coding of our system stands.
fn reason_in(value: &Value) -> Option<String> {
    match value {
        Value::Object(members) => {
            let system = members.get("system").and_then(Value::as_str).unwrap_or_default();
            if system.ends_with("/CodeSystem/handoff-reason") {
                return members.get("code").and_then(Value::as_str).map(str::to_owned);
            }
            members.values().find_map(reason_in)
        }
        Value::Array(values) => values.iter().find_map(reason_in),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_says_when_what_who_and_why() {
        let event = json!({
            "resourceType": "AuditEvent",
            "subtype": [{"system": "https://handoff.example/fhir/CodeSystem/audit-event", "code": "redemption-denied"}],
            "recorded": "2026-03-01T11:30:00.250Z",
            "outcome": "4",
            "agent": [{"who": {"reference": "Practitioner/lane"}}],
            "purposeOfEvent": [{"coding": [{
                "system": "https://handoff.example/fhir/CodeSystem/handoff-reason",
                "code": "exhausted",
            }]}],
        });
        assert_eq!(
            row(&event),
            ["11:30:00.250", "redemption-denied", "Practitioner/lane", "denied", "exhausted"]
        );
    }
}
