//! Traces: which requests are traced, whose trace their spans go on with, and how finished spans get to a collector. What a span says
//! is [`super::spans`]'s to know.

mod export;
mod measured;
mod messages;
mod queue;
mod sampler;

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use handoff_domain::ids::CorrelationId;
use handoff_domain::ports::Outbound;
use handoff_domain::trace::{TraceContext, trace_named};
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use super::spans;
use crate::config::Traces;
use export::Exporter;
pub(super) use measured::write;
use queue::Queue;
use sampler::Sampler;

/// How many finished spans wait to be sent at most; what comes beyond is dropped, and counted.
const WAITING: usize = 8_192;
/// How long what is left may take to be sent when the process ends.
const LAST_SPANS: Duration = Duration::from_secs(3);
/// The instrumentation scope of all spans.
const SCOPE: &str = "handoff";

/// The thread that sends, for as long as the process lives.
pub struct Exporting {
    stopping: watch::Sender<Option<Instant>>,
    thread: Option<JoinHandle<()>>,
    // Spans go nowhere once it is gone.
    provider: SdkTracerProvider,
}

impl Exporting {
    /// Ends: what waits is sent, where that takes no longer than a moment. The rest is dropped, and counted.
    pub async fn finish(mut self) {
        self.stopping.send_replace(Some(Instant::now() + LAST_SPANS));
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join());
            if !matches!(joined.await, Ok(Ok(()))) {
                tracing::error!("the thread that sends traces did not end as it should");
            }
        }
        drop(self.provider.shutdown_with_timeout(Duration::ZERO));
    }
}

/// Starts the thread that sends spans to the collector by the way that leads there; answers it with what makes spans.
pub(super) fn start(to: &Traces, outbound: Arc<dyn Outbound>) -> io::Result<(Exporting, SdkTracer)> {
    let (spans, inbox) = mpsc::channel(WAITING);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(Queue::new(spans))
        .with_sampler(Sampler::new(to.sample, to.asked_for))
        // Says which service it is once for all spans, in `export`; otherwise variables of the environment would have a say.
        .with_resource(Resource::builder_empty().build())
        .build();
    let tracer = provider.tracer(SCOPE);
    let stopping = watch::Sender::new(None);
    let exporter = Exporter::new(to, outbound, inbox, stopping.subscribe());
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new()
        .name("handoff-traces".to_owned())
        .spawn(move || runtime.block_on(exporter.run()))?;
    let exporting = Exporting {
        stopping,
        thread: Some(thread),
        provider,
    };
    Ok((exporting, tracer))
}

/// Makes spans of those of [`spans::SPANS`], and of nothing else.
pub(super) fn layer<S>(tracer: SdkTracer) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    spans::export();
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_level(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_target(spans::SPANS, LevelFilter::INFO))
}

/// The trace that a request belongs to whose caller named none: the correlation id where that is one (32 lower-case hexadecimal
/// digits, as those that are minted here), and otherwise its digest. So what has one correlation id is one trace.
fn trace_of(correlation: &CorrelationId) -> u128 {
    let text = correlation.as_str();
    trace_named(text).unwrap_or_else(|| {
        let digest = Sha256::digest(text);
        let (first, _) = digest.split_first_chunk().unwrap_or((&[1; 16], &[]));
        u128::from_be_bytes(*first).max(1)
    })
}

/// Lets a span that has not begun go on with what a caller says it belongs to (`traceparent`), or else be the first of its
/// correlation's trace. Answers the trace where the span is exported.
pub fn begin(span: &Span, caller: Option<TraceContext>, correlation: &CorrelationId) -> Option<u128> {
    let parent = match caller {
        Some(caller) => remote(caller, true),
        None => SpanContext::new(
            TraceId::from(trace_of(correlation)),
            SpanId::INVALID,
            TraceFlags::default(),
            true,
            TraceState::NONE,
        ),
    };
    place(span, parent)
}

/// Lets a span that has not begun go on with a step of ours that is over, maybe in another process. Answers the trace where the
/// span is exported.
pub fn go_on(span: &Span, from: TraceContext) -> Option<u128> {
    place(span, remote(from, false))
}

fn place(span: &Span, parent: SpanContext) -> Option<u128> {
    let parent = opentelemetry::Context::new().with_remote_span_context(parent);
    // Fails where nothing is exported.
    drop(span.set_parent(parent));
    of(span)
        .filter(|place| place.is_sampled())
        .map(TraceContext::trace)
}

fn remote(place: TraceContext, is_remote: bool) -> SpanContext {
    SpanContext::new(
        TraceId::from(place.trace()),
        SpanId::from(place.span()),
        TraceFlags::default().with_sampled(place.is_sampled()),
        is_remote,
        TraceState::NONE,
    )
}

/// Notes that a span has to do with another place, of whatever trace.
pub fn link(span: &Span, to: TraceContext) {
    span.add_link(remote(to, true));
}

/// Where a span is in its trace.
pub fn of(span: &Span) -> Option<TraceContext> {
    if span.is_disabled() || !spans::are_exported() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let place = span.span_context();
    TraceContext::new(
        u128::from_be_bytes(place.trace_id().to_bytes()),
        u64::from_be_bytes(place.span_id().to_bytes()),
        place.is_sampled(),
    )
}

/// Where the present work is in its trace, for whoever goes on with it elsewhere.
pub fn here() -> Option<TraceContext> {
    if spans::is_within_one() {
        of(&Span::current())
    } else {
        None
    }
}
