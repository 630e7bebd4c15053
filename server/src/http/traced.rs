//! What every request is answered within: the context that its log lines carry, and its span where requests are traced. Whose trace
//! it goes on with is the caller's to say (`traceparent`); nothing else that callers say about traces is listened to.

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::HeaderMap;
use actix_web::middleware::Next;
use actix_web::web::Data;
use handoff_domain::trace::TraceContext;
use tracing::{Instrument as _, Span};

use super::HttpState;
use super::request::{correlation_of, tenant_of};
use crate::telemetry::{metrics, spans, traces};

/// The one `traceparent` of a request, where it is one. What is not, or comes twice, is as good as none.
pub fn caller_of(headers: &HeaderMap) -> Option<TraceContext> {
    let mut sent = headers.get_all("traceparent");
    let first = sent.next()?;
    if sent.next().is_some() {
        return None;
    }
    TraceContext::parse(first.to_str().ok()?).ok()
}

/// Answers the request within its context and its span.
pub async fn traced(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let Some(state) = request.app_data::<Data<HttpState>>().cloned() else {
        return next.call(request).await;
    };
    let correlation = correlation_of(&state, request.request());
    let context = spans::context(correlation.as_str());
    if !spans::are_exported() {
        return next.call(request).instrument(context).await;
    }
    let span = begin(&state, &request, &context);
    let answer = next
        .call(request)
        .instrument(span.clone())
        .instrument(context)
        .await;
    let status = match &answer {
        Ok(answer) => answer.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    spans::note_status(&span, status.as_u16());
    answer
}

fn begin(state: &HttpState, request: &ServiceRequest, context: &Span) -> Span {
    let correlation = correlation_of(state, request.request());
    let route = request.match_pattern();
    let tenant = tenant_of(state, request.request()).ok();
    let method = metrics::known_method(request.method().as_str());
    let span = spans::request(method, route.as_deref(), tenant.as_ref(), &correlation);
    if let Some(trace) = traces::begin(&span, caller_of(request.headers()), &correlation) {
        spans::note_trace(context, trace);
    }
    span
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    const ONE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn sent(values: &[&str]) -> Option<TraceContext> {
        let mut request = TestRequest::default();
        for value in values {
            request = request.append_header(("traceparent", *value));
        }
        caller_of(request.to_http_request().headers())
    }

    #[test]
    fn a_caller_is_believed_whose_traceparent_is_one_and_the_only_one() {
        assert_eq!(sent(&[ONE]), TraceContext::parse(ONE).ok());
        for odd in [
            &[][..],
            &[""],
            &["x"],
            &[ONE, ONE],
            &[ONE, ""],
            &[&ONE.repeat(200)],
        ] {
            assert_eq!(sent(odd), None, "{odd:?}");
        }
    }
}
