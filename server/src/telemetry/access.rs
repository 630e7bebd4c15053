//! One line, within the context of `http::traced`, and one count per answered request. What stands in a line is the route's template,
//! never the path or the query: those may name patients or carry what a client should not have sent.

use std::time::Instant;

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;

use super::metrics;

/// Answers the request, and tells how it went.
pub async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let begun = Instant::now();
    let method = request.method().clone();
    let answer = next.call(request).await;
    let took = begun.elapsed();
    let pattern = answer
        .as_ref()
        .ok()
        .and_then(|response| response.request().match_pattern());
    let route = pattern.unwrap_or_else(|| "unmatched".to_owned());
    let status = match &answer {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    metrics::http_request(&route, method.as_str(), status.as_u16(), took);
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    tracing::info!(
        method = metrics::known_method(method.as_str()),
        route,
        status = status.as_u16(),
        micros,
        "answered"
    );
    answer
}

#[cfg(test)]
mod tests {
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, call_service, init_service};
    use actix_web::{App, HttpResponse, web};

    use super::*;

    #[actix_web::test]
    async fn a_request_is_counted_by_its_template_and_never_by_its_path() {
        let app = init_service(App::new().wrap(from_fn(observe)).route(
            "/observed/{id}",
            web::get().to(|| async { HttpResponse::NoContent().finish() }),
        ))
        .await;
        for uri in ["/observed/secret-id?patient=ada", "/nowhere/secret-id"] {
            call_service(&app, TestRequest::with_uri(uri).to_request()).await;
        }
        let told = metrics::render(0, &crate::telemetry::clients::Present::default());
        assert!(
            told.contains(
                "handoff_http_requests_total{route=\"/observed/{id}\",method=\"GET\",status=\"204\"} 1"
            ),
            "{told}"
        );
        assert!(
            told.contains("route=\"unmatched\",method=\"GET\",status=\"404\""),
            "{told}"
        );
        assert!(!told.contains("secret-id"), "{told}");
    }
}
