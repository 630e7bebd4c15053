//! The connections of clients: how many there may be, how long each may take, and how a stream is cut below the
//! buffers. Knows nothing of requests but when they begin and end.

mod head;
mod places;
mod progress;
mod service;
mod serving;
mod transport;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use crate::app::streams::Abort;

pub use places::{Connections, Place};
pub use progress::{Due, Ended, Patience};
pub use service::http_service;
pub use serving::{Answering, serving};
pub use transport::Transport;

use progress::Progress;

/// What a client is told that needs too long for a head.
const HEADER_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// One connection, as those see it who neither read nor write it. They share the one descriptor.
pub struct Connection {
    half: OwnedWriteHalf,
    peer: Option<SocketAddr>,
    patience: Patience,
    progress: Mutex<Progress>,
    ended: OnceLock<Ended>,
    /// Nothing is read or written any more.
    broken: AtomicBool,
    /// It was told why it is not served, and what it still sends is thrown away.
    refused: AtomicBool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Connection {
    fn new(half: OwnedWriteHalf, peer: Option<SocketAddr>, patience: Patience) -> Self {
        Self {
            half,
            peer,
            patience,
            progress: Mutex::new(Progress::new(Instant::now())),
            ended: OnceLock::new(),
            broken: AtomicBool::new(false),
            refused: AtomicBool::new(false),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn socket(&self) -> &TcpStream {
        self.half.as_ref()
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }

    /// The first reason is the one that counts.
    fn end_as(&self, ended: Ended) {
        let _earlier = self.ended.set(ended);
    }

    /// A handle by which a stream can be cut.
    pub fn handle(self: &Arc<Self>) -> Box<dyn Abort> {
        Box::new(Handle(Arc::clone(self)))
    }

    /// Hands everything on that comes from here on: the request under way makes another protocol of it.
    pub fn upgrade(&self) {
        let reader = self.progress().upgrade();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// For how long the client has taken nothing of what waits for it.
    pub fn blocked_for(&self, now: Instant) -> Option<Duration> {
        self.progress().blocked_for(now)
    }

    /// Breaks it with a reset, so that what waits in the send buffer is dropped too.
    fn break_off(&self, ended: Ended) {
        self.end_as(ended);
        self.broken.store(true, Ordering::Release);
        let socket = SockRef::from(self.socket());
        // Both fail only on a socket that is gone. The second wakes whoever waits for the socket.
        let _gone = socket.set_linger(Some(Duration::ZERO));
        let _gone = socket.shutdown(std::net::Shutdown::Both);
        self.wake();
    }

    /// Lets go of it as of one whose client has closed it: what was answered arrives.
    fn let_go(&self, ended: Ended) {
        self.end_as(ended);
        let _gone = SockRef::from(self.socket()).shutdown(std::net::Shutdown::Read);
        self.wake();
    }

    /// Wakes who reads and writes it, who may wait for something else than the socket.
    fn wake(&self) {
        let task = self.progress().task();
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Answers for the HTTP server, which has no request yet and is writing nothing.
    fn refuse(&self, ended: Ended, answer: &[u8]) {
        self.end_as(ended);
        let socket = SockRef::from(self.socket());
        // Whoever does not read it is closed all the same.
        let _unread = socket.send(answer);
        let _gone = socket.shutdown(std::net::Shutdown::Write);
        self.refused.store(true, Ordering::Release);
        self.progress().refused(Instant::now());
    }

    /// Ends what has taken too long, and wakes who should try again.
    fn look_after(&self, now: Instant) {
        let look = self.progress().look(&self.patience, now);
        if let Some(writer) = look.wake {
            writer.wake();
        }
        match look.end {
            None => {}
            Some(Ended::SlowHeader) => {
                self.refuse(Ended::SlowHeader, HEADER_TIMEOUT);
                self.let_go(Ended::SlowHeader);
            }
            Some(Ended::Idle) => self.let_go(Ended::Idle),
            Some(ended) => self.break_off(ended),
        }
    }
}

struct Handle(Arc<Connection>);

impl Abort for Handle {
    fn abort(&self) {
        self.0.break_off(Ended::Aborted);
    }
}
