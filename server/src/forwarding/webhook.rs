//! What a webhook is sent: AuditEvent resources of R4, one a line, as `/fhir/AuditEvent` shows them, signed as Standard Webhooks has it.

use handoff_outbound::signing::{SigningSecret, headers};

use crate::app::forwarding::ForwardedRow;
use crate::fhir::audit_event;

pub(super) const CONTENT_TYPE: &str = "application/fhir+ndjson";

/// A row as a line.
pub(super) fn line(row: &ForwardedRow) -> Vec<u8> {
    let mut line = audit_event::resource(&row.tenant, &row.recorded)
        .to_string()
        .into_bytes();
    line.push(b'\n');
    line
}

/// The headers of an attempt; `now` in seconds since 1970.
pub(super) fn signed(secrets: &[SigningSecret], id: &str, now: i64, body: &[u8]) -> Vec<(String, String)> {
    headers(secrets, id, now, body)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::batch::tests::row;
    use super::*;

    #[test]
    fn a_line_is_an_audit_event_that_says_whose_it_is() {
        let line = line(&row(7, "two\nlines"));
        let text = std::str::from_utf8(&line).unwrap();
        assert!(text.ends_with('\n') && text.lines().count() == 1, "{text}");
        let event: Value = serde_json::from_str(text).unwrap();
        assert_eq!(event["resourceType"], "AuditEvent");
        assert_eq!(event["id"], "7");
        assert_eq!(event["source"]["site"], "b");
    }
}
