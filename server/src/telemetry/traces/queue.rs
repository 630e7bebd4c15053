//! Where finished spans wait to be sent. Whoever finishes one never waits.

use std::time::Duration;

use opentelemetry::{Context, Value};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc;

use super::super::spans::{JOB_NAME, WORKED};
use super::measured;

/// The way in.
#[derive(Debug)]
pub(super) struct Queue(mpsc::Sender<SpanData>);

impl Queue {
    pub(super) const fn new(spans: mpsc::Sender<SpanData>) -> Self {
        Self(spans)
    }
}

/// Whether it is a run of a job that found nothing to do.
fn is_idle(span: &SpanData) -> bool {
    let has = |name: &str| span.attributes.iter().any(|one| one.key.as_str() == name);
    let worked = span
        .attributes
        .iter()
        .any(|one| one.key.as_str() == WORKED && one.value == Value::Bool(true));
    has(JOB_NAME) && !worked
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && !is_idle(&span) && self.0.try_send(span).is_err() {
            measured::dropped("queue-full", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
