//! Rows as OpenTelemetry log records (OTLP 1.5 over HTTP, binary protobuf). What is searched by is an attribute under one of a few
//! names; all that a row says is in the body, as the AuditEvent that `/fhir/AuditEvent` shows.

mod messages;

use handoff_domain::audit::Outcome;
use handoff_domain::trace::trace_named;
use prost::Message as _;

use crate::app::forwarding::ForwardedRow;
use crate::fhir::audit_event;
pub(super) use crate::otlp::{ANSWER_LIMIT, CONTENT_TYPE};
use crate::otlp::{AnyValue, InstrumentationScope, Resource, Value, attribute, text};
use messages::{ExportLogsServiceRequest, ExportLogsServiceResponse, LogRecord, ResourceLogs, ScopeLogs};

/// Who says it: `InstrumentationScope.name`.
const SCOPE: &str = "handoff.audit";

/// A row as a record.
pub(super) fn record(row: &ForwardedRow) -> LogRecord {
    let recorded = &row.recorded.row;
    let about = &recorded.about;
    let nanoseconds = u64::try_from(recorded.recorded.0)
        .unwrap_or(0)
        .saturating_mul(1_000);
    let (severity_number, severity_text) = severity(recorded.outcome);
    let always = [
        ("handoff.tenant", row.tenant.as_str()),
        ("handoff.event", recorded.event.as_str()),
        ("handoff.outcome", recorded.outcome.as_str()),
        ("handoff.reason", recorded.reason.as_str()),
        ("handoff.correlation", recorded.correlation.as_str()),
    ];
    let sometimes = [
        ("handoff.actor", &recorded.agent.actor),
        ("handoff.client", &recorded.agent.client),
        ("handoff.task", &about.task),
        ("handoff.document", &about.document),
        ("handoff.binary", &about.binary),
        ("handoff.grant", &about.grant),
        ("handoff.redemption", &about.redemption),
        ("handoff.patient", &about.patient),
    ];
    let mut attributes = vec![attribute("handoff.sequence", Value::Int(row.recorded.sequence))];
    attributes.extend(always.map(|(name, value)| attribute(name, text(value))));
    attributes.extend(
        sometimes
            .into_iter()
            .filter_map(|(name, value)| Some(attribute(name, text(value.as_deref()?)))),
    );
    let body = audit_event::resource(&row.tenant, &row.recorded).to_string();
    LogRecord {
        time_unix_nano: nanoseconds,
        // Not the present instant: a record is the same each time it is sent.
        observed_time_unix_nano: nanoseconds,
        severity_number,
        severity_text: severity_text.to_owned(),
        body: Some(AnyValue {
            value: Some(Value::String(body)),
        }),
        attributes,
        trace_id: trace_named(recorded.correlation.as_str())
            .map(|trace| trace.to_be_bytes().to_vec())
            .unwrap_or_default(),
        event_name: format!("{SCOPE}.{}", recorded.event.as_str()),
    }
}

/// How many bytes a record takes in a request, about.
pub(super) fn size(record: &LogRecord) -> usize {
    record.encoded_len().saturating_add(8)
}

/// The request that brings these records.
pub(super) fn request(log_records: Vec<LogRecord>) -> Vec<u8> {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource::named("handoff")),
            scope_logs: vec![ScopeLogs {
                scope: Some(InstrumentationScope {
                    name: SCOPE.to_owned(),
                }),
                log_records,
            }],
        }],
    }
    .encode_to_vec()
}

/// How many records the collector says that it will not have; none where it says nothing that can be read.
pub(super) fn refused(answer: &[u8]) -> u64 {
    let answer = ExportLogsServiceResponse::decode(answer).unwrap_or_default();
    let count = answer.partial_success.map_or(0, |part| part.rejected_log_records);
    u64::try_from(count).unwrap_or(0)
}

/// `SeverityNumber` and its text: INFO, WARN, ERROR.
const fn severity(outcome: Outcome) -> (i32, &'static str) {
    match outcome {
        Outcome::Success => (9, "INFO"),
        Outcome::Denied => (13, "WARN"),
        Outcome::Failed => (17, "ERROR"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::tests::row;
    use super::*;

    fn of(record: &LogRecord, name: &str) -> Option<Value> {
        let found = record.attributes.iter().find(|one| one.key == name)?;
        found.value.clone()?.value
    }

    #[test]
    fn a_record_says_what_is_searched_by_and_its_body_says_all() {
        let record = record(&row(7, "why"));
        assert_eq!(record.time_unix_nano, 1_770_000_000_123_456_000);
        assert_eq!(
            (record.severity_number, record.severity_text.as_str()),
            (13, "WARN")
        );
        assert_eq!(record.event_name, "handoff.audit.redemption-denied");
        assert_eq!(record.trace_id.first(), Some(&0x0a));
        assert_eq!(record.trace_id.len(), 16);
        assert_eq!(of(&record, "handoff.sequence"), Some(Value::Int(7)));
        assert_eq!(of(&record, "handoff.tenant"), Some(text("b")));
        assert_eq!(of(&record, "handoff.patient"), Some(text("Patient/ada")));
        assert_eq!(of(&record, "handoff.grant"), None);
        let Some(Value::String(body)) = record.body.unwrap().value else {
            panic!("no text");
        };
        assert!(body.contains("\"valueString\":\"why\""), "{body}");
    }

    #[test]
    fn what_a_collector_refuses_is_counted_and_nonsense_is_not() {
        assert_eq!(refused(&[]), 0);
        assert_eq!(refused(&[0x0a, 2, 0x08, 3]), 3);
        assert_eq!(refused(b"<html>"), 0);
        // A number below zero.
        let below = [0x0a, 11, 0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
        assert_eq!(refused(&below), 0);
    }
}
