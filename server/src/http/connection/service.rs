//! What becomes of an accepted connection: a place, the HTTP server, and a note of how it ended. Limits and timeouts
//! are ours: those of the HTTP server cover the first request of a connection alone.

use std::rc::Rc;
use std::sync::Arc;

use actix_http::error::{DispatchError, ParseError};
use actix_http::{HttpService, KeepAlive, Request, Response};
use actix_server::GracefulShutdownSignal;
use actix_service::{
    IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt as _, fn_factory, fn_service, map_config,
};
use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::AppConfig;
use tokio::net::TcpStream;

use super::{Connections, Ended, Transport};
use crate::config::Timeouts;

/// The service of the public listener: `app` behind the places of `connections`.
pub fn http_service<I, S, B>(
    app: I,
    connections: &Arc<Connections>,
    timeouts: &Timeouts,
    graceful: GracefulShutdownSignal,
) -> impl ServiceFactory<TcpStream, Config = (), Response = (), Error = (), InitError = ()> + use<I, S, B>
where
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: std::fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    S::Future: 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let app = app
        .into_factory()
        .map_err(|error: S::Error| error.into().error_response());
    let http = HttpService::build()
        .graceful_shutdown_signal(move || {
            let graceful = graceful.clone();
            async move { graceful.notified().await }
        })
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(std::time::Duration::ZERO)
        .client_disconnect_timeout(timeouts.disconnect)
        .on_connect_ext(|transport: &Transport, extensions| {
            extensions.insert(Arc::clone(transport.connection()));
        })
        .h1(map_config(app, |()| AppConfig::default()));
    let connections = Arc::clone(connections);
    fn_factory(move || {
        let http = http.new_service(());
        let connections = Arc::clone(&connections);
        async move {
            let http = Rc::new(http.await?);
            Ok(fn_service(move |stream: TcpStream| {
                let (http, connections) = (Rc::clone(&http), Arc::clone(&connections));
                async move {
                    let Some((place, transport)) = connections.admit(stream) else {
                        return Ok(());
                    };
                    let peer = place.connection().peer;
                    if let Err(error) = http.call((transport, peer)).await {
                        place.connection().end_as(ended(&error));
                    }
                    Ok(())
                }
            }))
        }
    })
}

/// How a connection ended that the HTTP server gave up.
const fn ended(error: &DispatchError) -> Ended {
    match error {
        DispatchError::Parse(ParseError::TooLarge) => Ended::HeaderTooLarge,
        DispatchError::Parse(ParseError::Io(_)) | DispatchError::Io(_) => Ended::Failed,
        DispatchError::Parse(_) => Ended::Malformed,
        DispatchError::Body(_) => Ended::BrokenOff,
        DispatchError::SlowRequestTimeout => Ended::SlowHeader,
        DispatchError::DisconnectTimeout | DispatchError::HandlerDroppedPayload => Ended::UnreadBody,
        _ => Ended::Failed,
    }
}
