//! The connection under a request: kept at hand so that a stream can be cut below the buffers.

use std::any::Any;

use actix_web::body::MessageBody;
use actix_web::dev::{Extensions, ServiceRequest, ServiceResponse};
use actix_web::http::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use actix_web::middleware::Next;
use actix_web::rt::net::TcpStream;
use actix_web::{Error, web};
use socket2::{SockRef, Socket};

use super::HttpState;
use crate::app::streams::Abort;

/// The socket of a connection.
#[derive(Debug)]
pub struct Connection(Socket);

impl Connection {
    /// A second handle on the same socket; `None` where the system has no descriptors left.
    pub fn handle(&self) -> Option<Box<dyn Abort>> {
        self.0
            .try_clone()
            .ok()
            .map(|socket| Box::new(Self(socket)) as Box<dyn Abort>)
    }
}

impl Abort for Connection {
    fn abort(&self) {
        // A reset, so that what waits in the send buffer is dropped too. Both fail only on a socket that is gone.
        let _ = self.0.set_linger(Some(std::time::Duration::ZERO));
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

/// Remembers the socket of each new connection.
pub fn on_connect(io: &dyn Any, extensions: &mut Extensions) {
    if let Some(stream) = io.downcast_ref::<TcpStream>()
        && let Ok(socket) = SockRef::from(stream).try_clone()
    {
        extensions.insert(Connection(socket));
    }
}

/// Lets go of a client that was refused while a body of unstated length may still be coming: the HTTP server reads
/// such a body to its end however long that takes, so the connection is broken after the time to close it.
pub async fn let_go_of_refused(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let is_endless = request.headers().contains_key(TRANSFER_ENCODING);
    let patience = request
        .app_data::<web::Data<HttpState>>()
        .map(|state| state.timeouts.disconnect);
    let mut answer = next.call(request).await?;
    let refused = answer.status().is_client_error() || answer.status().is_server_error();
    if let (true, true, Some(patience)) = (is_endless, refused, patience)
        && let Some(connection) = answer
            .request()
            .conn_data::<Connection>()
            .and_then(Connection::handle)
    {
        answer
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        actix_web::rt::spawn(async move {
            tokio::time::sleep(patience).await;
            connection.abort();
        });
    }
    Ok(answer)
}
