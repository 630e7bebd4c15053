//! The connection as the HTTP server reads and writes it. What passes is noted, so that whoever keeps it waiting can be
//! let go; the same socket, without a second descriptor, serves to cut a stream below all buffers. Requests that are sent
//! ahead wait here, up to a head's worth, and beyond that in the network.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::BytesMut;
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
    /// What came and is not handed on yet.
    ahead: BytesMut,
    /// Nothing comes after that.
    ended: bool,
}

impl Transport {
    pub(super) fn new(read: OwnedReadHalf, connection: Arc<Connection>) -> Self {
        Self {
            read,
            connection,
            ahead: BytesMut::new(),
            ended: false,
        }
    }

    /// What others know of it.
    pub const fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Reads up to so many bytes behind those that are here; answers whether there were any.
    fn fill(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<bool>> {
        let mut piece = [0; 8192];
        let room = piece.get_mut(..most.min(8192)).unwrap_or_default();
        let mut buffer = ReadBuf::new(room);
        ready!(Pin::new(&mut self.read).poll_read(cx, &mut buffer))?;
        self.ended = buffer.filled().is_empty();
        self.ahead.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(!self.ended))
    }

    /// Hands on what is here, `count` bytes of it.
    fn hand_on(&mut self, buffer: &mut ReadBuf<'_>, count: usize) {
        buffer.put_slice(&self.ahead.split_to(count));
        if self.ahead.is_empty() {
            // An idle connection keeps nothing.
            self.ahead = BytesMut::new();
        }
    }

    /// Of the next head up to `most` bytes, and nothing of what lies behind it.
    fn read_head(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        most: usize,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() && (self.ended || !ready!(self.fill(cx, most))?) {
            return Poll::Ready(Ok(()));
        }
        let most = most.min(buffer.remaining()).min(self.ahead.len());
        let came = self.ahead.get(..most).unwrap_or_default();
        let count = self.connection.progress().head(came, Instant::now());
        self.hand_on(buffer, count);
        Poll::Ready(Ok(()))
    }

    /// Of a body up to `most` bytes.
    fn read_body(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        most: usize,
    ) -> Poll<io::Result<()>> {
        let most = most.min(buffer.remaining());
        let count = if !self.ahead.is_empty() {
            let count = most.min(self.ahead.len());
            self.hand_on(buffer, count);
            count
        } else if self.ended {
            0
        } else if most < buffer.remaining() {
            let mut room = ReadBuf::new(buffer.initialize_unfilled_to(most));
            ready!(Pin::new(&mut self.read).poll_read(cx, &mut room))?;
            let count = room.filled().len();
            buffer.advance(count);
            count
        } else {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut self.read).poll_read(cx, buffer))?;
            buffer.filled().len().saturating_sub(before)
        };
        self.connection.progress().body(count);
        Poll::Ready(Ok(()))
    }

    /// While nothing may be handed on: notices that the client is gone, and keeps what it sends ahead.
    fn look_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let room = self
                .connection
                .patience
                .max_header()
                .saturating_sub(self.ahead.len());
            if self.ended && self.ahead.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if self.ended || room == 0 {
                return Poll::Pending;
            }
            ready!(self.fill(cx, room))?;
        }
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
        match leave {
            Leave::Head(most) => this.read_head(cx, buffer, most),
            Leave::Body(most) => this.read_body(cx, buffer, most),
            Leave::Parked => this.look_ahead(cx),
            Leave::End => Poll::Ready(Ok(())),
            Leave::Later => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Leave::TooLarge => {
                if this.connection.progress().is_blocked() {
                    // Said now it would stand in the middle of the answer before.
                    this.connection.break_off(Ended::HeaderTooLarge);
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                this.connection.refuse(Ended::HeaderTooLarge, HEADER_TOO_LARGE);
                this.discard(cx)
            }
        }
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
