//! A way out whose requests are spans of the traces that they belong to, and tell the other side so (`traceparent`). That is a number of
//! ours and nothing else; what callers send along with theirs (`tracestate`, `baggage`) goes nowhere.

use std::sync::Arc;

use handoff_domain::ports::{BoxFuture, EndpointError, Outbound, OutboundAnswer, OutboundRequest, SendError};
use tracing::Instrument as _;

use crate::telemetry::{spans, traces};

/// The header (W3C Trace Context).
const TRACEPARENT: &str = "traceparent";

/// Another way out, traced.
pub struct TracedOutbound(Arc<dyn Outbound>);

impl TracedOutbound {
    /// Traces what goes out by `outbound`.
    pub fn new(outbound: Arc<dyn Outbound>) -> Self {
        Self(outbound)
    }
}

impl Outbound for TracedOutbound {
    fn check(&self, url: &str) -> Result<(), EndpointError> {
        self.0.check(url)
    }

    fn send(&self, mut request: OutboundRequest) -> BoxFuture<'_, Result<OutboundAnswer, SendError>> {
        let span = spans::outbound(request.method.as_str());
        let Some(place) = traces::of(&span) else {
            return self.0.send(request);
        };
        // Whoever has set one, like a subscriber in the headers that it wants to be sent, has it.
        let is_set = |(name, _): &(String, String)| name.eq_ignore_ascii_case(TRACEPARENT);
        if !request.headers.iter().any(is_set) {
            request.headers.push((TRACEPARENT.to_owned(), place.to_string()));
        }
        let answer = self.0.send(request);
        Box::pin(async move {
            let answer = answer.instrument(span.clone()).await;
            match &answer {
                Ok(answer) => spans::note_answer(&span, answer.status),
                Err(SendError::Redirected { status }) => spans::note_answer(&span, *status),
                Err(error) => spans::note_failure(&span, error.as_str()),
            }
            answer
        })
    }
}
