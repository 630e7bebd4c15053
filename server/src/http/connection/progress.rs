//! How far the client of one connection is with what it sends and takes, and when its time is up. Knows no socket
//! and no clock: what happened and when is told to it.

use std::task::Waker;
use std::time::{Duration, Instant};

use super::head::HeadEnd;
use crate::config::{Clients, Timeouts};

/// How long clients may take, and how much they may send before a request begins.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    head: Duration,
    keep_alive: Duration,
    disconnect: Duration,
    idle: Duration,
    max_header: usize,
    /// Bytes that must be taken in each window; 0 asks for none.
    least: u64,
    window: Duration,
}

impl Patience {
    /// What the configuration asks of clients.
    pub fn new(timeouts: &Timeouts, clients: &Clients) -> Self {
        let window = clients.rate_window;
        Self {
            head: timeouts.request_header,
            keep_alive: timeouts.keep_alive,
            disconnect: timeouts.disconnect,
            idle: timeouts.body_idle,
            max_header: clients.max_header,
            least: clients
                .least_download_rate
                .saturating_mul(window.as_secs().max(1)),
            window,
        }
    }

    /// Bytes of a head.
    pub const fn max_header(&self) -> usize {
        self.max_header
    }

    /// How often a writer that waits for its client tries whether there is room after all.
    fn nudge_every(&self) -> Duration {
        (self.idle / 8).max(Duration::from_millis(100))
    }
}

/// Why a connection ends, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it should: either side closed it between requests.
    Closed,
    /// No request came for the time of a keep-alive.
    Idle,
    /// It was idle, and its place was needed.
    Crowded,
    /// A request's head did not come in time.
    SlowHeader,
    /// A request's head exceeded the limit.
    HeaderTooLarge,
    /// What came was no request.
    Malformed,
    /// The rest of a body that nobody wanted kept coming.
    UnreadBody,
    /// The client took nothing of an answer for too long.
    Stalled,
    /// The client took too little of an answer for too long.
    TooSlow,
    /// We broke it off, because what it carried had to stop.
    Aborted,
    /// An answer could not be completed.
    BrokenOff,
    /// The client or the network broke it off.
    Failed,
}

impl Ended {
    /// The metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Idle => "idle",
            Self::Crowded => "crowded",
            Self::SlowHeader => "slow-header",
            Self::HeaderTooLarge => "header-too-large",
            Self::Malformed => "malformed",
            Self::UnreadBody => "unread-body",
            Self::Stalled => "stalled",
            Self::TooSlow => "too-slow",
            Self::Aborted => "aborted",
            Self::BrokenOff => "broken-off",
            Self::Failed => "failed",
        }
    }

    /// Whether the client did not behave as clients should.
    pub const fn is_fault(self) -> bool {
        matches!(
            self,
            Self::SlowHeader
                | Self::HeaderTooLarge
                | Self::Malformed
                | Self::UnreadBody
                | Self::Stalled
                | Self::TooSlow
        )
    }
}

/// What is still to come of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing: what comes belongs to the next request.
    Nothing,
    /// So many bytes.
    Bytes(u64),
    /// Whatever comes until the connection ends: it was upgraded, and speaks another protocol.
    Frames,
    /// Chunks, whose end the HTTP server finds.
    Chunks {
        /// Whether it is given the time to look at what it has before it gets more.
        rests: bool,
    },
}

impl Due {
    /// Chunks, of which nothing has come.
    pub const CHUNKS: Self = Self::Chunks { rests: false };
    /// How much of them is handed on at once: what lies behind their end is taken for chunks too.
    const PIECE: usize = 4096;

    /// How much may be handed on now.
    fn leave(&mut self) -> Option<Leave> {
        match self {
            Self::Nothing | Self::Bytes(0) => None,
            Self::Bytes(left) => Some(Leave::Body(usize::try_from(*left).unwrap_or(usize::MAX))),
            Self::Chunks { rests: true } => {
                *self = Self::CHUNKS;
                Some(Leave::Later)
            }
            Self::Frames | Self::Chunks { rests: false } => Some(Leave::Body(Self::PIECE)),
        }
    }

    fn came(&mut self, count: usize) {
        match self {
            Self::Nothing | Self::Frames => {}
            Self::Bytes(left) => *left = left.saturating_sub(count as u64),
            Self::Chunks { rests } => *rests = true,
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// For a request, of which some bytes may have come.
    Waiting {
        since: Instant,
        first_byte: Option<Instant>,
        bytes: usize,
        end: HeadEnd,
        /// Whether the whole head was handed on. It begins a request, or is none.
        whole: bool,
        /// Whether a request was answered before.
        served: bool,
    },
    /// A request is being answered.
    Serving { due: Due },
    /// It was upgraded, and all is said: nothing more is read.
    Over,
    /// The request was answered, and its body nobody read.
    Draining { since: Instant, due: Due, bytes: usize },
}

impl Phase {
    fn waiting(since: Instant, served: bool) -> Self {
        Self::Waiting {
            since,
            first_byte: None,
            bytes: 0,
            end: HeadEnd::default(),
            whole: false,
            served,
        }
    }
}

/// Whether the HTTP server may read now, and what.
#[derive(Debug, PartialEq, Eq)]
pub enum Leave {
    /// A head, of which no more than so many bytes may come.
    Head(usize),
    /// So many bytes of a body.
    Body(usize),
    /// After it has looked at what it has.
    Later,
    /// After the present request.
    Parked,
    /// Nothing, ever: it is as if the client had closed its side.
    End,
    /// Never: the head is larger than heads may be.
    TooLarge,
}

/// What is to be done with a connection.
#[derive(Debug, Default)]
pub struct Look {
    /// Why to end it.
    pub end: Option<Ended>,
    /// Whom to wake so that it tries to write.
    pub wake: Option<Waker>,
}

/// What is written waits for the client to take it.
#[derive(Debug, Clone, Copy)]
struct Blocked {
    /// Since when it has taken nothing.
    since: Instant,
    /// From when the wait is not yet part of a window.
    uncounted: Instant,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Progress {
    phase: Phase,
    /// `None` while nothing waits for the client.
    blocked: Option<Blocked>,
    /// How long of the present window was spent waiting for the client.
    waited: Duration,
    /// What it took in the present window.
    taken: u64,
    writer: Option<Waker>,
    nudged: Option<Instant>,
    /// Who wants to read on after the present request.
    reader: Option<Waker>,
    /// Who wants to hand on more of an answer once the client has taken what waits.
    filler: Option<Waker>,
    /// Who reads and writes the connection, whatever it waits for at present.
    task: Option<Waker>,
}

impl Progress {
    /// Of a connection that was opened now.
    pub fn new(now: Instant) -> Self {
        Self {
            phase: Phase::waiting(now, false),
            blocked: None,
            waited: Duration::ZERO,
            taken: 0,
            writer: None,
            nudged: None,
            reader: None,
            filler: None,
            task: None,
        }
    }

    /// A request begins, with this body to come. Answers whom to wake.
    pub fn begin(&mut self, due: Due) -> Option<Waker> {
        self.phase = Phase::Serving { due };
        self.reader.take()
    }

    /// The request under way makes another protocol of it. Answers whom to wake.
    pub fn upgrade(&mut self) -> Option<Waker> {
        self.phase = Phase::Serving { due: Due::Frames };
        self.reader.take()
    }

    /// For how long the client has taken nothing of what waits for it.
    pub fn blocked_for(&self, now: Instant) -> Option<Duration> {
        let blocked = self.blocked?;
        Some(now.saturating_duration_since(blocked.since))
    }

    /// The request's body was read to its end.
    pub fn body_read(&mut self) {
        if let Phase::Serving { due } = &mut self.phase {
            *due = Due::Nothing;
        }
    }

    /// Whether some of the request's body is still to be read.
    pub const fn has_unread_body(&self) -> bool {
        matches!(
            self.phase,
            Phase::Serving {
                due: Due::Bytes(1..) | Due::Chunks { .. }
            }
        )
    }

    /// The request was answered. Answers whom to wake.
    pub fn answered(&mut self, now: Instant) -> Option<Waker> {
        self.phase = match self.phase {
            Phase::Serving {
                due: due @ (Due::Bytes(1..) | Due::Chunks { .. }),
            } => Phase::Draining {
                since: now,
                due,
                bytes: 0,
            },
            Phase::Serving { due: Due::Frames } => Phase::Over,
            _ => Phase::waiting(now, true),
        };
        self.reader.take()
    }

    /// It was told why it is not served; what it still sends has no meaning.
    pub const fn refused(&mut self, now: Instant) {
        self.phase = Phase::Draining {
            since: now,
            due: Due::Nothing,
            bytes: 0,
        };
    }

    /// What the HTTP server may read now; `waker` is kept where it has to wait. It is given one head at a time: of what
    /// it has, it makes requests, and each takes two hundred times as much memory as a client needs to ask for it.
    pub fn may_read(&mut self, patience: &Patience, waker: &Waker) -> Leave {
        match &mut self.task {
            Some(task) => task.clone_from(waker),
            None => self.task = Some(waker.clone()),
        }
        let leave = match &mut self.phase {
            Phase::Waiting { whole: true, .. } => None,
            Phase::Waiting { bytes, .. } => match patience.max_header.saturating_sub(*bytes) {
                0 => Some(Leave::TooLarge),
                left => Some(Leave::Head(left)),
            },
            Phase::Serving { due } => due.leave(),
            Phase::Over => Some(Leave::End),
            // Where a body that nobody wants has no end in sight, its connection is not worth waiting for it.
            Phase::Draining { bytes, .. } if *bytes >= patience.max_header => None,
            Phase::Draining { since, due, .. } => match due.leave() {
                None if *due == Due::Bytes(0) => {
                    self.phase = Phase::waiting(*since, true);
                    return self.may_read(patience, waker);
                }
                leave => leave,
            },
        };
        leave.unwrap_or_else(|| {
            self.reader = Some(waker.clone());
            Leave::Parked
        })
    }

    /// How many of the bytes that came belong to the head that is waited for.
    pub fn head(&mut self, came: &[u8], now: Instant) -> usize {
        let Phase::Waiting {
            first_byte,
            bytes,
            end,
            whole,
            ..
        } = &mut self.phase
        else {
            return 0;
        };
        first_byte.get_or_insert(now);
        let found = end.find(came);
        *whole = found.is_some();
        let count = found.unwrap_or(came.len());
        *bytes = bytes.saturating_add(count);
        count
    }

    /// Bytes of a body came.
    pub fn body(&mut self, count: usize) {
        match &mut self.phase {
            Phase::Waiting { .. } | Phase::Over => {}
            Phase::Serving { due } => due.came(count),
            Phase::Draining { due, bytes, .. } => {
                // Of a stated length no more is handed on than that.
                if matches!(due, Due::Chunks { .. }) {
                    *bytes = bytes.saturating_add(count);
                }
                due.came(count);
            }
        }
    }

    /// Whom to wake because the connection is no longer what it was. What waits for the socket alone may not hear of it.
    pub fn task(&self) -> Option<Waker> {
        self.task.clone()
    }

    /// Whether something waits for the client to take it.
    pub const fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Whether more of an answer may be handed on now; `waker` is kept where something still waits for the client.
    /// More would only lie in memory beside it.
    pub fn may_fill(&mut self, waker: &Waker) -> bool {
        if self.blocked.is_some() {
            self.filler = Some(waker.clone());
        }
        self.blocked.is_none()
    }

    /// The client took this much. Answers whom to wake.
    pub fn wrote(&mut self, count: usize, now: Instant) -> Option<Waker> {
        self.taken = self.taken.saturating_add(count as u64);
        if let Some(blocked) = self.blocked.take() {
            let waited = now.saturating_duration_since(blocked.uncounted);
            self.waited = self.waited.saturating_add(waited);
            self.nudged = None;
            // An idle connection is idle from when its last answer was taken.
            if let Phase::Waiting { since, .. } = &mut self.phase {
                *since = now;
            }
        }
        self.filler.take()
    }

    /// Something waits for the client to take it. Answers whether to try in spite of what the system said.
    pub fn waits(&mut self, now: Instant, waker: &Waker) -> bool {
        let nudged = self.nudged.is_some() && self.writer.is_none();
        self.blocked.get_or_insert(Blocked {
            since: now,
            uncounted: now,
        });
        self.writer = Some(waker.clone());
        nudged
    }

    /// Since when nothing is asked in full and nothing waits, and whether it rests after a request that was answered.
    pub fn idle_since(&self) -> Option<(bool, Instant)> {
        match self.phase {
            Phase::Waiting {
                since,
                first_byte,
                whole: false,
                served,
                ..
            } if self.blocked.is_none() => {
                Some((served && first_byte.is_none(), first_byte.unwrap_or(since)))
            }
            _ => None,
        }
    }

    /// What is to be done at this time.
    pub fn look(&mut self, patience: &Patience, now: Instant) -> Look {
        let past = |since: Instant, limit: Duration| now.saturating_duration_since(since) > limit;
        if let Some(blocked) = self.blocked {
            // Who speaks another protocol is told so in that first, and may still take it.
            let grace = match self.phase {
                Phase::Serving { due: Due::Frames } | Phase::Over => patience.disconnect,
                _ => Duration::ZERO,
            };
            if past(blocked.since, patience.idle.saturating_add(grace)) {
                return Look::end(Ended::Stalled);
            }
            if self.is_too_slow(patience, blocked, now) {
                return Look::end(Ended::TooSlow);
            }
            // The system says late that there is room: when a third of the buffer is empty, which a slow client
            // may need longer for than it is given to take anything at all.
            if past(self.nudged.unwrap_or(blocked.since), patience.nudge_every()) {
                self.nudged = Some(now);
                return Look {
                    end: None,
                    wake: self.writer.take(),
                };
            }
            return Look::default();
        }
        let end = match self.phase {
            Phase::Waiting {
                since,
                first_byte,
                served,
                ..
            } => match first_byte {
                Some(first) if past(first, patience.head) => Some(Ended::SlowHeader),
                // Whoever connects has something to say.
                None if !served && past(since, patience.head) => Some(Ended::Idle),
                None if past(since, patience.keep_alive) => Some(Ended::Idle),
                _ => None,
            },
            Phase::Draining { since, .. } if past(since, patience.disconnect) => Some(Ended::UnreadBody),
            Phase::Serving { .. } | Phase::Over | Phase::Draining { .. } => None,
        };
        Look { end, wake: None }
    }

    /// Judges a window that is over, and begins the next.
    fn is_too_slow(&mut self, patience: &Patience, blocked: Blocked, now: Instant) -> bool {
        let waiting = now.saturating_duration_since(blocked.uncounted);
        if self.waited.saturating_add(waiting) < patience.window {
            return false;
        }
        let enough = self.taken >= patience.least;
        self.taken = 0;
        self.waited = Duration::ZERO;
        self.blocked = Some(Blocked {
            uncounted: now,
            ..blocked
        });
        !enough
    }
}

impl Look {
    const fn end(ended: Ended) -> Self {
        Self {
            end: Some(ended),
            wake: None,
        }
    }
}

#[cfg(test)]
mod tests;
