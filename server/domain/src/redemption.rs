//! One use of a grant, from leave to last byte: what may be resumed, by whom, how often, and how it ended.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{ActorRef, GrantId, RedemptionId};
use crate::reason::Reason;
use crate::time::Timestamp;

/// A redemption takes at most this many ranges.
pub const MAX_RANGES: u32 = 20;

/// Where a redemption is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RedemptionState {
    /// Allowed and committed; no byte has left.
    Authorized,
    /// Bytes are leaving.
    Streaming,
    /// Every byte was sent. Terminal: it can't be replayed.
    Completed,
    /// The client went away, or the server stopped; it may be resumed.
    Interrupted,
    /// Its grant, Task or document moved on. Only a cut by a hold is reopened, when the Task comes back.
    CutOff,
    /// The stored bytes were not those that were recorded. Terminal.
    IntegrityFailed,
}

impl RedemptionState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Authorized,
        Self::Streaming,
        Self::Completed,
        Self::Interrupted,
        Self::CutOff,
        Self::IntegrityFailed,
    ];

    /// The code (CodeSystem `redemption-status`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authorized => "authorized",
            Self::Streaming => "streaming",
            Self::Completed => "completed",
            Self::Interrupted => "interrupted",
            Self::CutOff => "cut-off",
            Self::IntegrityFailed => "integrity-failed",
        }
    }

    /// The state that a code names.
    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == code)
    }
}

/// One use of a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redemption {
    /// Its id.
    pub id: RedemptionId,
    /// The grant that it uses.
    pub grant: GrantId,
    /// Who redeems.
    pub grantee: ActorRef,
    /// The OAuth client that asked; a resume must come from the same one.
    pub client: String,
    /// The key that the token was bound to; a resume must show the same one.
    pub key: Option<String>,
    /// The browser session's hash, where it was opened from the page.
    pub session: Option<String>,
    /// Where it is.
    pub state: RedemptionState,
    /// Why it was cut.
    pub cut_reason: Option<Reason>,
    /// When it was authorized.
    pub opened_at: Timestamp,
    /// Until when it may be resumed.
    pub window_end: Timestamp,
    /// When its last stream ended.
    pub ended_at: Option<Timestamp>,
    /// Length of the content in bytes.
    pub size: u64,
    /// Bytes handed to connections, over all ranges: at least as many as left.
    pub bytes_sent: u64,
    /// The length of the gapless beginning that was handed over: a resume continues here at the latest.
    pub sent_up_to: u64,
    /// How many streams were started.
    pub streams: u32,
    /// The server process that opened it, and then the one whose stream has not told its end yet: whatever became of
    /// the redemption meanwhile, there it must be stopped first.
    pub process: Option<String>,
    /// Counts its changes; every write names the one it saw.
    pub revision: i64,
}

/// Why a stream of a redemption cannot start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ResumeError {
    /// All bytes were sent before.
    #[error("every byte was sent")]
    Completed,
    /// Another stream of it is running.
    #[error("another stream of this redemption is running")]
    Busy,
    /// The window has closed.
    #[error("the time to resume has passed")]
    WindowClosed,
    /// It was cut.
    #[error("it was cut off")]
    Cut(Option<Reason>),
    /// The stored content failed verification.
    #[error("the stored content failed verification")]
    IntegrityFailed,
    /// Too many ranges, or too many bytes in all.
    #[error("too many ranges or bytes were asked for")]
    Overdrawn,
    /// Another client or key than the one that opened it.
    #[error("not the client that opened it")]
    OtherClient,
    /// Another browser session, or none.
    #[error("not the session that opened it")]
    OtherSession,
}

impl ResumeError {
    /// The reason code.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Completed => Reason::Replayed,
            Self::Busy | Self::Overdrawn => Reason::Exhausted,
            Self::WindowClosed | Self::Cut(None) => Reason::Expired,
            Self::Cut(Some(reason)) => reason,
            Self::IntegrityFailed => Reason::IntegrityFailed,
            Self::OtherClient => Reason::ConstraintClient,
            Self::OtherSession => Reason::ConstraintSession,
        }
    }
}

impl Redemption {
    /// Starts a stream of `length` bytes from `from` at `process`. It must not leave a gap: what is completed must
    /// have been sent without one.
    pub fn start(self, from: u64, length: u64, process: &str, now: Timestamp) -> Result<Self, ResumeError> {
        match self.state {
            RedemptionState::Authorized | RedemptionState::Interrupted | RedemptionState::Streaming => {}
            RedemptionState::Completed => return Err(ResumeError::Completed),
            RedemptionState::CutOff => return Err(ResumeError::Cut(self.cut_reason)),
            RedemptionState::IntegrityFailed => return Err(ResumeError::IntegrityFailed),
        }
        if self.window_end <= now {
            return Err(ResumeError::WindowClosed);
        }
        if self.streams >= MAX_RANGES {
            return Err(ResumeError::Overdrawn);
        }
        // Also where it is streaming no more, until that stream has told its end: it may still be sending.
        let unended = self.process.is_some() && self.state == RedemptionState::Interrupted;
        if unended || self.state == RedemptionState::Streaming {
            return Err(ResumeError::Busy);
        }
        let in_all = self.bytes_sent.saturating_add(length);
        if from > self.sent_up_to {
            return Err(ResumeError::Overdrawn);
        }
        if in_all > self.size.saturating_mul(2) {
            return Err(ResumeError::Overdrawn);
        }
        Ok(Self {
            state: RedemptionState::Streaming,
            streams: self.streams.saturating_add(1),
            process: Some(process.to_owned()),
            ended_at: None,
            revision: self.revision.saturating_add(1),
            ..self
        })
    }

    /// Its client has come back while a stream of it runs elsewhere: that one is to end. It may go on once that end
    /// is told.
    #[must_use]
    pub fn give_up_stream(self) -> Self {
        Self {
            state: RedemptionState::Interrupted,
            revision: self.revision.saturating_add(1),
            ..self
        }
    }

    /// Whether the end of its stream number `stream`, which ran at `process`, has not been told yet.
    pub fn awaits_end_of(&self, stream: u32, process: &str) -> bool {
        self.streams == stream && self.process.as_deref() == Some(process)
    }

    /// Whether `client`, `key` and `session` are those that opened it.
    pub fn same_client(
        &self,
        client: &str,
        key: Option<&str>,
        session: Option<&str>,
    ) -> Result<(), ResumeError> {
        if self.client != client || self.key.as_deref() != key {
            return Err(ResumeError::OtherClient);
        }
        if self.session.is_some() && self.session.as_deref() != session {
            return Err(ResumeError::OtherSession);
        }
        Ok(())
    }

    /// The stream that started at `from` has ended after `sent` bytes.
    #[must_use]
    pub fn end_stream(self, from: u64, sent: u64, end: StreamEnd, now: Timestamp) -> Self {
        let reached = from.saturating_add(sent);
        let sent_up_to = if from <= self.sent_up_to {
            self.sent_up_to.max(reached)
        } else {
            self.sent_up_to
        };
        let state = match (end, self.state) {
            // A cut that came after the last byte cut nothing: what was released whole is not released again.
            (StreamEnd::Sent, _) if sent_up_to >= self.size => RedemptionState::Completed,
            // Any other that was committed while the stream ran stays a cut, whatever the stream itself saw.
            (_, RedemptionState::CutOff) | (StreamEnd::Cut(_), _) => RedemptionState::CutOff,
            // All may have been handed over and still not have arrived: whoever went away may come back for it.
            (StreamEnd::Sent | StreamEnd::Gone, _) => RedemptionState::Interrupted,
            (StreamEnd::IntegrityFailed, _) => RedemptionState::IntegrityFailed,
        };
        let cut_reason = match end {
            StreamEnd::Cut(reason) => self.cut_reason.or(Some(reason)),
            _ if state == RedemptionState::Completed => None,
            StreamEnd::Sent | StreamEnd::Gone | StreamEnd::IntegrityFailed => self.cut_reason,
        };
        Self {
            state,
            cut_reason,
            sent_up_to,
            bytes_sent: self.bytes_sent.saturating_add(sent),
            ended_at: Some(now),
            process: None,
            revision: self.revision.saturating_add(1),
            ..self
        }
    }

    /// A stream has ended whose redemption was reopened, closed or gone on with before the end could be told. What
    /// it sent counts; the state is another's now. `awaited` where this end is the one that was still to be told.
    #[must_use]
    pub fn end_earlier_stream(self, from: u64, sent: u64, awaited: bool) -> Self {
        let reached = from.saturating_add(sent);
        let sent_up_to = if from <= self.sent_up_to {
            self.sent_up_to.max(reached)
        } else {
            self.sent_up_to
        };
        let whole = self.state == RedemptionState::Interrupted && sent_up_to >= self.size;
        let state = if whole {
            RedemptionState::Completed
        } else {
            self.state
        };
        Self {
            state,
            sent_up_to,
            bytes_sent: self.bytes_sent.saturating_add(sent),
            process: self.process.filter(|_| !awaited),
            revision: self.revision.saturating_add(1),
            ..self
        }
    }
}

/// How one stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// Everything that was asked for was sent.
    Sent,
    /// The client went away.
    Gone,
    /// Its grant, Task or document moved on.
    Cut(Reason),
    /// A block was not what was recorded; nothing of it was sent.
    IntegrityFailed,
}
