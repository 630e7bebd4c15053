//! A collector of traces, for the server's part: takes what is sent, and reads it by OpenTelemetry's own types.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use prost::Message as _;

use crate::subscriber::{Received, Subscriber};

/// A span as it came.
#[derive(Debug, Clone)]
pub struct Span {
    /// What it is called.
    pub name: String,
    /// The trace, in hexadecimal.
    pub trace: String,
    /// Its own id, in hexadecimal.
    pub id: String,
    /// That of the span above it; empty where there is none.
    pub parent: String,
    /// `SpanKind`: 1 internal, 2 server, 3 client, 4 producer.
    pub kind: i32,
    /// `Status.code`: 2 is an error.
    pub status: i32,
    /// Of which service.
    pub service: String,
    /// What it says.
    pub attributes: BTreeMap<String, String>,
    /// What happened in it: what each event says.
    pub events: Vec<BTreeMap<String, String>>,
    /// The traces that it is linked to, in hexadecimal.
    pub links: Vec<String>,
    /// When it began and ended, in nanoseconds since 1970.
    pub time: (u64, u64),
}

impl Span {
    /// An attribute; empty where there is none of that name.
    pub fn says(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Whether an audit row of this event was written in it.
    pub fn audited(&self, event: &str) -> bool {
        self.events
            .iter()
            .any(|one| one.get("handoff.event").is_some_and(|said| said == event))
    }
}

/// A collector that listens until it is dropped.
pub struct Collector(pub Subscriber);

impl Collector {
    /// One that takes everything.
    pub async fn start() -> Self {
        Self(Subscriber::start().await)
    }

    /// Where it takes traces.
    pub fn endpoint(&self) -> String {
        format!("{}/v1/traces", self.0.url)
    }

    /// All spans of what was taken so far.
    pub fn spans(&self) -> Vec<Span> {
        spans(&self.0.received())
    }

    /// Waits until `enough` holds of all spans that were taken; answers those.
    pub async fn until(&self, patience: Duration, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        let began = std::time::Instant::now();
        loop {
            let all = self.spans();
            if enough(&all) {
                return all;
            }
            if began.elapsed() >= patience {
                let names: Vec<_> = all
                    .iter()
                    .map(|span| format!("{} {} < {}", span.name, span.id, span.parent))
                    .collect();
                panic!("not traced within {patience:?}; there are {names:#?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether any of these texts is in anything that came, headers included.
    pub fn names_any(&self, texts: &[&str]) -> Option<String> {
        let found = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        let received = self.0.received();
        let named = texts.iter().find(|text| {
            received.iter().any(|one| {
                found(&one.body, text) || one.headers.iter().any(|(_, value)| value.contains(**text))
            })
        });
        named.map(|text| (*text).to_owned())
    }
}

fn spans(received: &[Received]) -> Vec<Span> {
    let mut spans = Vec::new();
    for one in received {
        assert_eq!(one.header("content-type"), Some("application/x-protobuf"));
        assert_eq!(one.header("traceparent"), None, "sending traces is not traced");
        if one.answered.is_none_or(|status| status >= 300) {
            continue;
        }
        let request = ExportTraceServiceRequest::decode(one.body.as_slice()).expect("OTLP");
        for of_resource in request.resource_spans {
            let resource = said(of_resource.resource.expect("a resource").attributes);
            for of_scope in of_resource.scope_spans {
                assert_eq!(of_scope.scope.expect("a scope").name, "handoff");
                spans.extend(of_scope.spans.into_iter().map(|span| {
                    Span {
                        name: span.name,
                        trace: hexadecimal(&span.trace_id),
                        id: hexadecimal(&span.span_id),
                        parent: hexadecimal(&span.parent_span_id),
                        kind: span.kind,
                        status: span.status.map_or(0, |status| status.code),
                        service: resource["service.name"].clone(),
                        attributes: said(span.attributes),
                        events: span
                            .events
                            .into_iter()
                            .map(|event| said(event.attributes))
                            .collect(),
                        links: span
                            .links
                            .iter()
                            .map(|link| hexadecimal(&link.trace_id))
                            .collect(),
                        time: (span.start_time_unix_nano, span.end_time_unix_nano),
                    }
                }));
            }
        }
    }
    spans
}

fn said(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    attributes
        .into_iter()
        .map(|one| {
            let value = match one.value.and_then(|value| value.value) {
                Some(Any::StringValue(text)) => text,
                Some(Any::IntValue(number)) => number.to_string(),
                Some(Any::BoolValue(is)) => is.to_string(),
                other => panic!("{} is {other:?}", one.key),
            };
            (one.key, value)
        })
        .collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text can be written to");
        text
    })
}
