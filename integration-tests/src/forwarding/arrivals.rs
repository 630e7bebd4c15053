//! What came to a sink of the audit, read as a receiver reads it: signatures by the library that checks those of others, log records by
//! OpenTelemetry's own types. Then held against the rows that there are.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use handoff::adapters::SystemClock;
use handoff::config::{Sink, SinkKind};
use handoff::wiring::demo_sink;
use handoff_domain::forwarding::SinkName;
use handoff_domain::ports::Clock as _;
use handoff_outbound::signing::{SignedHeaders, SigningSecret, verify};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use serde_json::Value;

use crate::subscriber::Received;

/// What signs for every demo's sinks.
const SECRET: &str = "whsec_ZGVtbyBkZW1vIGRlbW8gZGVtbyBkZW1vIGRlbW8gZGU=";

/// A row, by its tenant and number.
pub type Row = (String, i64);

/// A sink of a demo under another name.
pub fn sink(name: &str, kind: &str, base: &str) -> Sink {
    let path = if kind == "otlp" { "/v1/logs" } else { "/audit" };
    let sink = demo_sink(&format!("{kind}={base}{path}")).expect("a sink");
    Sink {
        name: SinkName::parse(name).expect("a name"),
        ..sink
    }
}

/// A batch as it came.
#[derive(Debug, Clone)]
pub struct Batch {
    /// What it is called; of log records, what is in it.
    pub id: String,
    /// Its bytes.
    pub body: Vec<u8>,
    /// Its rows, in the order in which they stand in it.
    pub rows: Vec<Row>,
    /// Each as an AuditEvent.
    pub events: Vec<Value>,
    /// Whether the sink said that it has it.
    pub taken: bool,
}

/// Reads a request to a sink of a kind. Fails where it is not what that kind is sent.
pub fn batch(kind: &SinkKind, received: &Received) -> Batch {
    assert_eq!(received.method, "POST");
    let events = match kind {
        SinkKind::Webhook(_) => webhook(received),
        SinkKind::Otlp => records(received).iter().map(event_of).collect(),
    };
    let rows: Vec<Row> = events.iter().map(row).collect();
    let id = match kind {
        SinkKind::Webhook(_) => received.header("webhook-id").expect("an id").to_owned(),
        SinkKind::Otlp => format!("{:?}-{:?}", rows.first(), rows.last()),
    };
    Batch {
        id,
        body: received.body.clone(),
        rows,
        events,
        taken: received
            .answered
            .is_some_and(|status| (200..300).contains(&status)),
    }
}

fn webhook(received: &Received) -> Vec<Value> {
    assert_eq!(received.header("content-type"), Some("application/fhir+ndjson"));
    let header = |name| received.header(name).expect("a signed request");
    let headers = SignedHeaders {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
    };
    let secret = SigningSecret::parse(SECRET).expect("a secret");
    // Read some time after it came.
    let (now, tolerance) = (SystemClock.now().0 / 1_000_000, Duration::from_hours(2));
    verify(&[secret], headers, &received.body, now, tolerance).expect("the signature matches");
    let text = std::str::from_utf8(&received.body).expect("text");
    assert!(text.ends_with('\n'), "each line ends");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    lines.collect()
}

/// The log records of a request.
pub fn records(received: &Received) -> Vec<LogRecord> {
    assert_eq!(received.header("content-type"), Some("application/x-protobuf"));
    let request = ExportLogsServiceRequest::decode(received.body.as_slice()).expect("OTLP");
    let mut all = Vec::new();
    for of_resource in request.resource_logs {
        let resource = of_resource.resource.expect("a resource");
        let service = resource.attributes.iter().find(|one| one.key == "service.name");
        let name = service.and_then(|one| one.value.clone()?.value);
        assert_eq!(name, Some(Any::StringValue("handoff".to_owned())));
        for of_scope in of_resource.scope_logs {
            assert_eq!(of_scope.scope.expect("a scope").name, "handoff.audit");
            all.extend(of_scope.log_records);
        }
    }
    all
}

/// The text of an attribute, or its number as one.
pub fn attribute(record: &LogRecord, name: &str) -> Option<String> {
    let found = record.attributes.iter().find(|one| one.key == name)?;
    match found.value.clone()?.value? {
        Any::StringValue(text) => Some(text),
        Any::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn event_of(record: &LogRecord) -> Value {
    let Some(Any::StringValue(body)) = record.body.clone().and_then(|body| body.value) else {
        panic!("the body is a text");
    };
    let event: Value = serde_json::from_str(&body).expect("JSON");
    // What it is found by is what it says.
    let site = event["source"]["site"].as_str().map(str::to_owned);
    assert_eq!(attribute(record, "handoff.tenant"), site);
    let id = event["id"].as_str().map(str::to_owned);
    assert_eq!(attribute(record, "handoff.sequence"), id);
    let reason = event["outcomeDesc"].as_str().map(str::to_owned);
    assert_eq!(attribute(record, "handoff.reason"), reason);
    event
}

fn row(event: &Value) -> Row {
    assert_eq!(event["resourceType"], "AuditEvent");
    let site = event["source"]["site"].as_str().expect("a tenant");
    let number = event["id"].as_str().and_then(|id| id.parse().ok());
    (site.to_owned(), number.expect("a number"))
}

/// All that came to a sink.
pub fn batches(kind: &SinkKind, received: &[Received]) -> Vec<Batch> {
    received.iter().map(|one| batch(kind, one)).collect()
}

/// The rows of all that a sink took, in the order in which they came.
pub fn taken(batches: &[Batch]) -> Vec<Row> {
    let taken = batches.iter().filter(|batch| batch.taken);
    taken.flat_map(|batch| batch.rows.iter().cloned()).collect()
}

/// What does not hold of what a sink was sent, of these rows in the order of their numbers.
pub fn judge(batches: &[Batch], truth: &[Row]) -> Vec<String> {
    let mut found = Vec::new();
    let mut bodies: HashMap<&str, &[u8]> = HashMap::new();
    for batch in batches {
        let known = bodies.entry(&batch.id).or_insert(&batch.body);
        if *known != batch.body.as_slice() {
            found.push(format!("batch {} came again with other bytes", batch.id));
        }
    }
    // A batch that was taken may come again: its answer was lost. Nothing else may.
    let (mut once, mut last): (Vec<Row>, Option<&str>) = (Vec::new(), None);
    for batch in batches.iter().filter(|batch| batch.taken) {
        if last != Some(batch.id.as_str()) {
            once.extend(batch.rows.iter().cloned());
        }
        last = Some(&batch.id);
    }
    let fell_back = once
        .iter()
        .zip(once.iter().skip(1))
        .find(|(one, next)| one.1 >= next.1);
    if let Some((one, next)) = fell_back {
        found.push(format!("row {next:?} came after {one:?}"));
    }
    let came: BTreeSet<&Row> = once.iter().collect();
    let there: BTreeSet<&Row> = truth.iter().collect();
    for (what, difference) in [
        ("missing", there.difference(&came).count()),
        ("not in the database", came.difference(&there).count()),
    ] {
        if difference > 0 {
            found.push(format!("{difference} rows are {what}, of {}", truth.len()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(id: &str, body: u8, numbers: &[i64], taken: bool) -> Batch {
        Batch {
            id: id.to_owned(),
            body: vec![body],
            rows: numbers.iter().map(|n| ("default".to_owned(), *n)).collect(),
            events: Vec::new(),
            taken,
        }
    }

    #[test]
    fn what_does_not_hold_is_found() {
        let truth: Vec<Row> = [1, 2, 4, 5].map(|n| ("default".to_owned(), n)).into();
        let good = [
            batch("a", 1, &[1, 2], false),
            batch("a", 1, &[1, 2], true),
            batch("a", 1, &[1, 2], true),
            batch("b", 2, &[4, 5], true),
        ];
        assert_eq!(judge(&good, &truth), [""; 0]);
        for (change, told) in [
            (batch("a", 9, &[1, 2], true), "other bytes"),
            (batch("a", 1, &[1, 2], false), "2 rows are missing"),
            (batch("a", 1, &[2, 1], true), "came after"),
            (batch("a", 1, &[1, 2, 3], true), "not in the database"),
        ] {
            let bad = [good[0].clone(), change, good[3].clone()];
            let found = judge(&bad, &truth).join("\n");
            assert!(found.contains(told), "{told}: {found}");
        }
        let again = [good[1].clone(), good[3].clone(), good[1].clone()];
        assert!(!judge(&again, &truth).is_empty(), "after another one");
    }
}
