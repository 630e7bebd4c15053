//! The connection as the HTTP server reads and writes it. What passes is noted, so that whoever keeps it waiting can be
//! let go; the same socket, without a second descriptor, serves to cut a stream below all buffers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::OwnedReadHalf;

use super::Connection;
use super::progress::{Ended, Leave};

/// What a head that is too large is answered; nothing of ours has seen the request.
const HEADER_TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// One accepted connection.
pub struct Transport {
    read: OwnedReadHalf,
    connection: Arc<Connection>,
}

impl Transport {
    pub(super) const fn new(read: OwnedReadHalf, connection: Arc<Connection>) -> Self {
        Self { read, connection }
    }

    /// What others know of it.
    pub const fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Throws away what still comes, until the client or our watch ends it.
    fn discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut waste = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut waste);
            ready!(Pin::new(&mut self.read).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.connection.is_broken() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if this.connection.is_refused() {
            return this.discard(cx);
        }
        let leave = this
            .connection
            .progress()
            .may_read(&this.connection.patience, cx.waker());
        let most = match leave {
            Leave::Read(most) => most,
            Leave::Parked => return Poll::Pending,
            Leave::Later => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Leave::TooLarge => {
                this.connection.refuse(Ended::HeaderTooLarge, HEADER_TOO_LARGE);
                return this.discard(cx);
            }
        };
        let before = buffer.filled().len();
        if most < buffer.remaining() {
            let mut room = ReadBuf::new(buffer.initialize_unfilled_to(most));
            ready!(Pin::new(&mut this.read).poll_read(cx, &mut room))?;
            let count = room.filled().len();
            buffer.advance(count);
        } else {
            ready!(Pin::new(&mut this.read).poll_read(cx, buffer))?;
        }
        let count = buffer.filled().len().saturating_sub(before);
        if count > 0 {
            this.connection.progress().read(count, Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let connection = &self.connection;
        let socket = connection.socket();
        loop {
            if connection.is_broken() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            let tried = if socket.poll_write_ready(cx)?.is_ready() {
                socket.try_write(data)
            } else if connection.progress().waits(Instant::now(), cx.waker()) {
                SockRef::from(socket).send(data)
            } else {
                return Poll::Pending;
            };
            match tried {
                Ok(count) => {
                    let filler = connection.progress().wrote(count, Instant::now());
                    if let Some(filler) = filler {
                        filler.wake();
                    }
                    return Poll::Ready(Ok(count));
                }
                // Asked again, the system's readiness is gone, and this task is woken by the next.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Fails only on a socket that is gone, which is as good.
        let _gone = SockRef::from(self.connection.socket()).shutdown(std::net::Shutdown::Write);
        Poll::Ready(Ok(()))
    }
}
