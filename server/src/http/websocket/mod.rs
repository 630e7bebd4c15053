//! Web sockets for subscribers (FHIR R4 Subscription; Subscriptions R5 Backport 1.1.0, channels): who may open one, and
//! what becomes of it. A binding token needs no more than the socket; base R4 needs an access token with the request for it.

mod frames;
mod places;
mod socket;
mod telling;

use std::time::Instant;

use actix_http::ws::{hash_key, verify_handshake};
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::audit::Context;
use handoff_domain::reason::Reason;

pub use places::Sockets;

use super::HttpState;
use super::answer::{split_origin, with_correlation};
use super::request::{
    address_of, authenticate, authenticate_until, context_of, record_refusal, sends_token, tenant_of,
};
use crate::app::{AppError, Class};
use crate::fhir::failed;
use crate::http::connection::Connection;
use crate::telemetry::websockets as metrics;

use frames::{Incoming, outgoing};
use places::{NoPlace, Place};
use socket::{Guest, Socket};

/// What the address of the socket is under the FHIR base of a tenant.
pub const PATH: &str = "websocket";

/// The routes.
pub fn routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource(format!("/{PATH}"))
            .route(web::get().to(open))
            .default_service(web::to(crate::fhir::not_allowed)),
    );
}

/// The address of the socket as clients have to write it, for a FHIR base with its trailing slash.
pub fn address(fhir_base: &str) -> String {
    // `https` becomes `wss` and `http` becomes `ws`.
    let rest = fhir_base.strip_prefix("http").unwrap_or(fhir_base);
    format!("ws{rest}{PATH}")
}

async fn open(state: web::Data<HttpState>, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    let (context, guest, place) = match admitted(&state, &request).await {
        Ok(admitted) => admitted,
        Err(Refused::ByProtocol(text)) => return not_upgraded(&state, &request, text),
        Err(Refused::Otherwise(error)) => return failed(&state, &request, &error),
    };
    let connection = request.conn_data::<std::sync::Arc<Connection>>().cloned();
    if let Some(connection) = &connection {
        connection.upgrade();
    }
    let (out, ending, body) = outgoing(state.timeouts.body_idle);
    let socket = Socket {
        patience: state.timeouts.body_idle,
        farewell: state.timeouts.disconnect,
        state: state.get_ref().clone(),
        context,
        guest,
        connection,
        opened: Instant::now(),
    };
    let incoming = Incoming::new(payload.into_inner());
    actix_web::rt::spawn(socket::serve(socket, place, incoming, out, ending));
    let mut response = with_correlation(
        &state,
        &request,
        HttpResponse::build(StatusCode::SWITCHING_PROTOCOLS),
    );
    response.upgrade("websocket");
    if let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) {
        response.insert_header((header::SEC_WEBSOCKET_ACCEPT, &hash_key(key.as_bytes())[..]));
    }
    response.streaming(body)
}

enum Refused {
    /// What was sent asks for no web socket of ours.
    ByProtocol(&'static str),
    Otherwise(AppError),
}

impl From<AppError> for Refused {
    fn from(error: AppError) -> Self {
        Self::Otherwise(error)
    }
}

async fn admitted(
    state: &HttpState,
    request: &HttpRequest,
) -> Result<(Context, Option<Guest>, Place), Refused> {
    let tenant = tenant_of(state, request)?;
    if let Some(text) = no_websocket(request) {
        // Strangers learn nothing of what is served.
        authenticate(state, request).await?;
        return Err(Refused::ByProtocol(text));
    }
    let context = context_of(state, request, tenant);
    if !is_from_allowed(state, request) {
        metrics::refused("origin");
        let text = "web sockets are not for pages of this origin";
        let refusal = AppError::new(Class::Forbidden, Reason::PolicyDenied, text);
        return Err(record_refusal(state, &context, refusal).await.into());
    }
    let guest = if sends_token(request) {
        let (caller, until) = authenticate_until(state, request).await?;
        Some(Guest { caller, until })
    } else {
        None
    };
    let place = state
        .sockets
        .enter(address_of(state, request), guest.is_none())
        .map_err(no_place)?;
    Ok((context, guest, place))
}

fn no_place(why: NoPlace) -> AppError {
    let text = match why {
        NoPlace::Full | NoPlace::Creator => {
            "as many web sockets are open as this server takes; try again shortly"
        }
        NoPlace::Address => "as many web sockets are open as one address may have; close some first",
        NoPlace::Stopping => "this server is about to stop; connect again",
    };
    AppError::new(Class::Unavailable, Reason::RateLimited, text)
}

/// What is wrong with a request for a web socket.
fn no_websocket(request: &HttpRequest) -> Option<&'static str> {
    let headers = request.headers();
    // What comes after it is frames, and no body.
    if headers.contains_key(header::TRANSFER_ENCODING) || headers.contains_key(header::CONTENT_LENGTH) {
        return Some("a request for a web socket has no body");
    }
    verify_handshake(request.head())
        .err()
        .map(|_| "a web socket (RFC 6455, version 13) is served here; ask for it with `Upgrade: websocket`")
}

fn not_upgraded(state: &HttpState, request: &HttpRequest, text: &'static str) -> HttpResponse {
    let mut response = failed(state, request, &AppError::bad(text));
    *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    headers.insert(
        header::SEC_WEBSOCKET_VERSION,
        header::HeaderValue::from_static("13"),
    );
    response
}

/// Whether a page that opens the socket, as far as a browser says, is ours or of an origin that is listed.
fn is_from_allowed(state: &HttpState, request: &HttpRequest) -> bool {
    let mut sent = request.headers().get_all(header::ORIGIN);
    let Some(origin) = sent.next() else {
        return true;
    };
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    let ours = split_origin(&state.app.settings.public_base).0;
    sent.next().is_none() && (origin == ours || state.cors_origins.iter().any(|listed| listed == origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_that_of_the_base_in_the_scheme_of_web_sockets() {
        assert_eq!(
            address("https://h.example/fhir/"),
            "wss://h.example/fhir/websocket"
        );
        assert_eq!(
            address("http://127.0.0.1:80/t/b/fhir/"),
            "ws://127.0.0.1:80/t/b/fhir/websocket"
        );
    }
}
