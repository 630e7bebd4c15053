//! One attempt at a notification as a part of the trace that its last event came of: the request which caused that is long over, and
//! may have been another process's. The traces of the other events that it tells are linked.

use std::collections::HashSet;

use handoff_domain::subscription::Failure;
use tracing::{Instrument as _, Span};

use super::courier::Courier;
use crate::app::deliveries::Notice;
use crate::telemetry::{spans, traces};

/// Sends a notification.
pub(super) async fn traced(courier: &Courier, notice: &Notice) -> Result<(), Failure> {
    let last = notice.told.last().map(|told| &told.event);
    let correlation = last.map(|event| event.correlation.as_str());
    let context = correlation.map_or_else(Span::none, spans::context);
    let span = spans::notification(&notice.subscription.id, &notice.tenant, correlation);
    if !span.is_none() {
        spans::note_told(&span, notice.told.len(), notice.course.attempts);
        let parent = last.and_then(|event| event.trace);
        let others: HashSet<_> = notice.told.iter().filter_map(|told| told.event.trace).collect();
        for other in others.into_iter().filter(|other| Some(*other) != parent) {
            traces::link(&span, other);
        }
        if let Some(trace) = parent.and_then(|parent| traces::go_on(&span, parent)) {
            spans::note_trace(&context, trace);
        }
    }
    let sent = courier
        .send(notice)
        .instrument(span.clone())
        .instrument(context)
        .await;
    if sent.is_err() {
        spans::note_failure(&span, "not-taken");
    }
    sent
}
