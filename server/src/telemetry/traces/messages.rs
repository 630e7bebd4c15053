//! Spans as OTLP has them (opentelemetry-proto 1.5: `trace/v1/trace.proto`, `collector/trace/v1/trace_service.proto`), with the
//! fields that are set or read here.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status as SpanStatus};
use opentelemetry::{KeyValue as Attribute, Value as Told};
use opentelemetry_sdk::trace::SpanData;
use prost::Message;

use super::SCOPE;
use crate::otlp::{InstrumentationScope, KeyValue, Resource, Value, attribute, text};

/// `SpanFlags`: the lowest bits are those of the trace; these say whether it is known that what is named is of another process, and
/// that it is.
const REMOTE_IS_KNOWN: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
#[expect(clippy::struct_field_names, reason = "as the protocol has them")]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(uint32, tag = "10")]
    dropped_attributes_count: u32,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Event>,
    #[prost(uint32, tag = "12")]
    dropped_events_count: u32,
    #[prost(message, repeated, tag = "13")]
    links: Vec<Link>,
    #[prost(uint32, tag = "14")]
    dropped_links_count: u32,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(fixed64, tag = "1")]
    time_unix_nano: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct Link {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(fixed32, tag = "6")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<ExportTracePartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct ExportTracePartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
}

/// The request that brings these spans of a service.
pub(super) fn request(service: &str, spans: &[SpanData]) -> Vec<u8> {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource::named(service)),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: SCOPE.to_owned(),
                }),
                spans: spans.iter().map(span).collect(),
            }],
        }],
    }
    .encode_to_vec()
}

/// How many spans the collector says that it will not have; none where it says nothing that can be read.
pub(super) fn refused(answer: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    let count = answer.partial_success.map_or(0, |part| part.rejected_spans);
    u64::try_from(count).unwrap_or(0)
}

fn span(data: &SpanData) -> Span {
    let place = &data.span_context;
    let has_parent = data.parent_span_id != SpanId::INVALID;
    Span {
        trace_id: place.trace_id().to_bytes().to_vec(),
        span_id: place.span_id().to_bytes().to_vec(),
        parent_span_id: if has_parent {
            data.parent_span_id.to_bytes().to_vec()
        } else {
            Vec::new()
        },
        name: data.name.to_string(),
        kind: match data.span_kind {
            SpanKind::Internal => 1,
            SpanKind::Server => 2,
            SpanKind::Client => 3,
            SpanKind::Producer => 4,
            SpanKind::Consumer => 5,
        },
        start_time_unix_nano: nanoseconds(data.start_time),
        end_time_unix_nano: nanoseconds(data.end_time),
        attributes: attributes(&data.attributes),
        dropped_attributes_count: data.dropped_attributes_count,
        events: data.events.iter().map(event).collect(),
        dropped_events_count: data.events.dropped_count,
        links: data
            .links
            .iter()
            .map(|link| of_another(&link.span_context))
            .collect(),
        dropped_links_count: data.links.dropped_count,
        status: Some(Status {
            code: match data.status {
                SpanStatus::Unset => 0,
                SpanStatus::Ok => 1,
                SpanStatus::Error { .. } => 2,
            },
        }),
        flags: flags(place, has_parent && data.parent_span_is_remote),
    }
}

fn event(event: &opentelemetry::trace::Event) -> Event {
    Event {
        time_unix_nano: nanoseconds(event.timestamp),
        name: event.name.to_string(),
        attributes: attributes(&event.attributes),
    }
}

fn of_another(place: &SpanContext) -> Link {
    Link {
        trace_id: place.trace_id().to_bytes().to_vec(),
        span_id: place.span_id().to_bytes().to_vec(),
        flags: flags(place, place.is_remote()),
    }
}

fn flags(place: &SpanContext, is_remote: bool) -> u32 {
    let remote = if is_remote { IS_REMOTE } else { 0 };
    u32::from(place.trace_flags().to_u8()) | REMOTE_IS_KNOWN | remote
}

fn attributes(all: &[Attribute]) -> Vec<KeyValue> {
    all.iter()
        .map(|one| {
            let value = match &one.value {
                Told::Bool(value) => Value::Bool(*value),
                Told::I64(value) => Value::Int(*value),
                Told::F64(value) => Value::Double(*value),
                other => text(&other.as_str()),
            };
            attribute(one.key.as_str(), value)
        })
        .collect()
}

fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
