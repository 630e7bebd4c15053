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

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;
    use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};

    use super::*;

    fn finished(room: usize, spans: &[&[KeyValue]]) -> Vec<String> {
        let (queue, mut inbox) = mpsc::channel(room);
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::AlwaysOn)
            .with_span_processor(Queue::new(queue))
            .build();
        let tracer = provider.tracer("test");
        for (number, attributes) in spans.iter().enumerate() {
            let mut span = tracer.start(number.to_string());
            span.set_attributes(attributes.iter().cloned());
            span.end();
        }
        std::iter::from_fn(|| inbox.try_recv().ok())
            .map(|span| span.name.into_owned())
            .collect()
    }

    #[test]
    fn what_there_is_no_room_for_is_dropped_and_counted() {
        assert_eq!(finished(2, &[&[], &[], &[], &[]]), ["0", "1"]);
        super::super::spans::export();
        let mut told = String::new();
        measured::write(&mut told).unwrap();
        let line = "handoff_traces_dropped_total{reason=\"queue-full\"} 2";
        assert!(told.lines().any(|one| one == line), "{told}");
    }

    #[test]
    fn a_run_of_a_job_is_sent_where_it_did_something() {
        let job = || KeyValue::new(JOB_NAME, "expiry");
        let runs: [&[KeyValue]; 3] = [&[job()], &[job(), KeyValue::new(WORKED, true)], &[]];
        assert_eq!(finished(9, &runs), ["1", "2"]);
    }
}
