//! What all requests of OTLP over HTTP have in common (opentelemetry-proto 1.5: `common/v1/common.proto`,
//! `resource/v1/resource.proto`), with the fields that are set here. Receivers know fields by their numbers, so those are all that
//! matters. The tests decode what comes of them with the types of OpenTelemetry.

use prost::{Message, Oneof};

/// The media type of every request.
pub const CONTENT_TYPE: &str = "application/x-protobuf";
/// The most bytes of an answer that are read: a collector says how much it refused, and why.
pub const ANSWER_LIMIT: usize = 64 * 1024;

/// Who it comes from.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// What is said of it.
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

impl Resource {
    /// This service under a name.
    pub fn named(name: &str) -> Self {
        Self {
            attributes: vec![
                attribute("service.name", text(name)),
                attribute("service.version", text(env!("CARGO_PKG_VERSION"))),
            ],
        }
    }
}

/// Which part of it.
#[derive(Clone, PartialEq, Message)]
pub struct InstrumentationScope {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Something that is said.
#[derive(Clone, PartialEq, Message)]
pub struct KeyValue {
    /// Under which name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// What.
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// A value of any of the types below.
#[derive(Clone, PartialEq, Message)]
pub struct AnyValue {
    /// The value.
    #[prost(oneof = "Value", tags = "1, 2, 3, 4")]
    pub value: Option<Value>,
}

/// The types of values that are sent.
#[derive(Clone, PartialEq, Oneof)]
pub enum Value {
    /// A text.
    #[prost(string, tag = "1")]
    String(String),
    /// True or false.
    #[prost(bool, tag = "2")]
    Bool(bool),
    /// A whole number.
    #[prost(int64, tag = "3")]
    Int(i64),
    /// Any other number.
    #[prost(double, tag = "4")]
    Double(f64),
}

/// A text as a value.
pub fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

/// A value under its name.
pub fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
    }
}
