//! Sockets that listen, set up so that a cut stream is really cut.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// What the kernel is told to buffer per connection. It doubles the number for its own bookkeeping, so at most
/// 128 KiB can still be under way to a client when its stream is cut.
const SEND_BUFFER: usize = 64 * 1024;
/// Connections that may wait to be accepted. The system may allow fewer.
const BACKLOG: i32 = 4096;

/// Listens on `address`. Accepted connections inherit what is set here.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    // An answer goes in few large writes, the last of which must not wait for what came before it to arrive.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accepted_connection_buffers_at_most_128_kib() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let size = socket2::SockRef::from(&accepted).send_buffer_size().unwrap();
        assert!(size <= 128 * 1024, "{size}");
        assert!(accepted.nodelay().unwrap());
    }
}
