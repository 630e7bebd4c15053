//! Every span that there is, with every attribute that it may have: what is traced says nothing but what stands here. Ids of our own
//! making, codes, templates of routes, counts and times; never a path, a query, a header's value, an address, a patient, or anything
//! secret.
//!
//! Spans are of two kinds, told apart by their target. Those of [`CONTEXT`] leave the process never: log lines that are written within
//! one carry its fields. Those of [`SPANS`] are exported where traces are configured, and do not exist where they are not.

use std::sync::atomic::{AtomicBool, Ordering};

use handoff_domain::audit::{Event, Outcome};
use handoff_domain::ids::{CorrelationId, RedemptionId, SubscriptionId, TenantId};
use handoff_domain::reason::Reason;
use tracing::{Level, Span, field};

/// The target of spans that log lines are written within.
pub const CONTEXT: &str = "handoff::context";
/// The target of spans that are exported.
pub const SPANS: &str = "handoff::spans";
/// What runs of jobs are called, which are exported only where they did something ([`WORKED`]).
const JOB: &str = "job";
/// Which job it is.
pub(super) const JOB_NAME: &str = "handoff.job";
/// Whether a run of a job did something.
pub(super) const WORKED: &str = "handoff.worked";

static EXPORTED: AtomicBool = AtomicBool::new(false);

/// From here on spans are exported.
pub(super) fn export() {
    EXPORTED.store(true, Ordering::Relaxed);
}

/// Whether anything is traced in this process.
pub fn are_exported() -> bool {
    EXPORTED.load(Ordering::Relaxed)
}

/// Whether the present work is part of a span that may be exported.
pub fn is_within_one() -> bool {
    are_exported() && Span::current().metadata().is_some_and(|of| of.target() == SPANS)
}

/// The same, for work that is worth a run of a job: it is noted that this one does something.
fn begins_work() -> bool {
    if !are_exported() {
        return false;
    }
    let present = Span::current();
    let Some(of) = present.metadata().filter(|of| of.target() == SPANS) else {
        return false;
    };
    if of.name() == JOB {
        present.record(WORKED, true);
    }
    true
}

/// What lines of the log are written within that belong to a request, or to a notification that follows from one.
pub fn context(correlation: &str) -> Span {
    tracing::info_span!(
        target: CONTEXT,
        parent: None,
        "request",
        correlation_id = correlation,
        trace_id = field::Empty
    )
}

/// The trace to which the lines of a context belong.
pub fn note_trace(context: &Span, trace: u128) {
    context.record("trace_id", field::display(format_args!("{trace:032x}")));
}

/// A request that is answered. `route` is the template, of a path that fits one; `tenant` one that is served.
pub fn request(
    method: &'static str,
    route: Option<&str>,
    tenant: Option<&TenantId>,
    correlation: &CorrelationId,
) -> Span {
    if !are_exported() {
        return Span::none();
    }
    // OpenTelemetry's word for all others.
    let method = if method == "OTHER" { "_OTHER" } else { method };
    let name = route.map(|route| format!("{method} {route}"));
    tracing::info_span!(
        target: SPANS,
        parent: None,
        "request",
        otel.name = name.as_deref().unwrap_or(method),
        otel.kind = "server",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = field::Empty,
        "error.type" = field::Empty,
        handoff.correlation_id = correlation.as_str(),
        handoff.tenant = tenant.map(TenantId::as_str),
        handoff.reason = field::Empty,
    )
}

/// The reason that the present request is refused or fails for.
pub fn note_reason(reason: Reason) {
    if is_within_one() {
        Span::current().record("handoff.reason", reason.as_str());
    }
}

/// How a request was answered.
pub fn note_status(request: &Span, status: u16) {
    request.record("http.response.status_code", status);
    if status >= 500 {
        request.record("error.type", field::display(status));
        request.record("otel.status_code", "ERROR");
    }
}

/// A use case that changes something, called like the file of `app` where it stands.
pub fn use_case(name: &'static str) -> Span {
    if !begins_work() {
        return Span::none();
    }
    tracing::info_span!(target: SPANS, "use case", otel.name = name, handoff.use_case = name)
}

/// A use case's questions to the database, which are worth no run of a job.
pub fn reading(name: &'static str) -> Span {
    let is_job = || Span::current().metadata().is_some_and(|of| of.name() == JOB);
    if !is_within_one() || is_job() {
        return Span::none();
    }
    tracing::info_span!(
        target: SPANS,
        "reading",
        otel.name = format_args!("read {name}"),
        otel.kind = "client",
        handoff.use_case = name
    )
}

/// A transaction of a database.
pub fn transaction(database: &'static str) -> Span {
    if !begins_work() {
        return Span::none();
    }
    tracing::info_span!(
        target: SPANS,
        "transaction",
        otel.kind = "client",
        otel.status_code = field::Empty,
        db.system.name = database,
        handoff.outcome = field::Empty,
        "error.type" = field::Empty,
    )
}

/// How a transaction ended: `committed`, `rolled-back`, or the kind of the failure.
pub fn note_end(transaction: &Span, end: Result<&'static str, &'static str>) {
    match end {
        Ok(outcome) => transaction.record("handoff.outcome", outcome),
        Err(kind) => transaction
            .record("handoff.outcome", "failed")
            .record("error.type", kind)
            .record("otel.status_code", "ERROR"),
    };
}

/// A row of the audit, which a transaction committed.
pub fn note_audited(transaction: &Span, event: Event, outcome: Outcome, reason: Reason) {
    tracing::event!(
        target: SPANS,
        parent: transaction,
        Level::INFO,
        handoff.event = event.as_str(),
        handoff.outcome = outcome.as_str(),
        handoff.reason = reason.as_str(),
        "audited"
    );
}

/// Something that is asked of the content store: `put`, `get`, `delete`.
pub fn blob(operation: &'static str) -> Span {
    if !begins_work() {
        return Span::none();
    }
    tracing::info_span!(
        target: SPANS,
        "blob",
        otel.name = format_args!("blob {operation}"),
        otel.kind = "client",
        otel.status_code = field::Empty,
        handoff.blob.operation = operation,
        handoff.bytes = field::Empty,
        "error.type" = field::Empty,
    )
}

/// How many bytes were asked for, or went.
pub fn note_bytes(span: &Span, bytes: u64) {
    span.record("handoff.bytes", bytes);
}

/// Something that failed, by a word of a fixed set.
pub fn note_failure(span: &Span, kind: &'static str) {
    span.record("error.type", kind);
    span.record("otel.status_code", "ERROR");
}

/// Content on its way to a client, from the commit that allows it to the last byte.
pub fn stream(redemption: &RedemptionId) -> Span {
    if !is_within_one() {
        return Span::none();
    }
    tracing::info_span!(
        target: SPANS,
        "content",
        otel.status_code = field::Empty,
        handoff.redemption = redemption.as_str(),
        handoff.bytes = field::Empty,
        handoff.outcome = field::Empty,
        handoff.reason = field::Empty,
        "error.type" = field::Empty,
    )
}

/// How a stream ended: `sent`, `cut-off`, `gone`, `integrity-failed`; and why it was cut.
pub fn note_stream_end(stream: &Span, bytes: u64, outcome: &'static str, reason: Option<Reason>) {
    note_bytes(stream, bytes);
    stream.record("handoff.outcome", outcome);
    if let Some(reason) = reason {
        stream.record("handoff.reason", reason.as_str());
    }
    if outcome != "sent" {
        note_failure(stream, outcome);
    }
}

/// A notification that is sent: one attempt.
pub fn notification(subscription: &SubscriptionId, tenant: &TenantId, correlation: Option<&str>) -> Span {
    if !are_exported() {
        return Span::none();
    }
    tracing::info_span!(
        target: SPANS,
        parent: None,
        "notification",
        otel.kind = "producer",
        otel.status_code = field::Empty,
        handoff.subscription = subscription.as_str(),
        handoff.tenant = tenant.as_str(),
        handoff.correlation_id = correlation,
        handoff.events = field::Empty,
        handoff.attempt = field::Empty,
        "error.type" = field::Empty,
    )
}

/// What a notification tells: how many events, and how often it was tried before.
pub fn note_told(notification: &Span, events: usize, attempt: u32) {
    notification.record("handoff.events", events);
    notification.record("handoff.attempt", attempt);
}

/// A request of ours to another server. Where to is not said: it is somebody else's to choose.
pub fn outbound(method: &'static str) -> Span {
    if !begins_work() {
        return Span::none();
    }
    tracing::info_span!(
        target: SPANS,
        "outbound",
        otel.name = method,
        otel.kind = "client",
        otel.status_code = field::Empty,
        http.request.method = method,
        http.response.status_code = field::Empty,
        "error.type" = field::Empty,
    )
}

/// What the other server answered.
pub fn note_answer(outbound: &Span, status: u16) {
    outbound.record("http.response.status_code", status);
    if status >= 400 {
        outbound.record("error.type", field::display(status));
        outbound.record("otel.status_code", "ERROR");
    }
}

/// A run of a job. It is exported where it did something: changed rows, or asked another server or the content store.
pub fn job(name: &'static str) -> Span {
    if !are_exported() {
        return Span::none();
    }
    tracing::info_span!(
        target: SPANS,
        parent: None,
        "job",
        otel.name = format_args!("job {name}"),
        otel.status_code = field::Empty,
        handoff.job = name,
        handoff.worked = field::Empty,
        "error.type" = field::Empty,
    )
}
