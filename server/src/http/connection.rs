//! The connection under a request: kept at hand so that a stream can be cut below the buffers.

use std::any::Any;

use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use socket2::{SockRef, Socket};

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
