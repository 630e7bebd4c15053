//! What the clients saw, written down as it happened: what they asked for, what they were told, which bytes reached
//! them and when. Judges nothing.

use std::sync::{Mutex, PoisonError};

use handoff::adapters::SystemClock;
use handoff_domain::ports::Clock;

use super::content::Content;
use super::plan::{Fault, Part};

/// Microseconds since 1970, by the clock that the servers read too.
pub type Micros = i64;

/// Now.
pub fn now() -> Micros {
    SystemClock.now().0
}

/// What a client asked to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what it says, with the ids concerned")]
pub enum Asked {
    Upload { content: Content, sha256: String },
    CreateDocument,
    UpdateDocument { document: String },
    DeleteDocument { document: String },
    CreateTask,
    UpdateTask { task: String },
    DeleteTask { task: String },
    IssueGrant { task: String },
    RevokeGrant { grant: String },
    Redeem { grant: String },
}

/// What the client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing, or that the server failed: it may have happened or not.
    Unknown,
    /// It was done: what came to be, and in which version.
    Done {
        /// Id of the resource, grant or redemption.
        id: Option<String>,
        /// Version of the resource.
        version: Option<i64>,
    },
    /// It was refused.
    Refused {
        /// HTTP status.
        status: u16,
        /// Reason code.
        reason: Option<String>,
    },
}

/// One change that a client asked for.
#[derive(Debug, Clone)]
pub struct Change {
    /// Ties it to the rows that the server wrote for it.
    pub correlation: String,
    /// Which server was asked.
    pub server: usize,
    /// When the request was begun.
    pub began: Micros,
    /// When the answer had come.
    pub ended: Micros,
    /// What was asked.
    pub asked: Asked,
    /// What was told.
    pub answer: Answer,
}

/// One download, or an attempt at one.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Ties it to the rows that the server wrote for it.
    pub correlation: String,
    /// Reference of who asked.
    pub actor: String,
    /// Which server was asked.
    pub server: usize,
    /// The Binary.
    pub binary: String,
    /// What its bytes must be.
    pub content: Content,
    /// When the request was begun.
    pub began: Micros,
    /// HTTP status; 0 where no answer came.
    pub status: u16,
    /// Reason code of a refusal.
    pub reason: Option<String>,
    /// The redemption that the answer named.
    pub redemption: Option<String>,
    /// Where in the content the answer begins.
    pub from: u64,
    /// How many bytes were announced.
    pub announced: u64,
    /// When how many bytes had been read in all.
    pub reads: Vec<(Micros, u64)>,
    /// Whether any byte was not the one that belongs there.
    pub is_wrong: bool,
    /// When the connection was seen to be reset: nothing arrived after that.
    pub reset: Option<Micros>,
    /// When it was over.
    pub ended: Micros,
}

impl Stream {
    /// How many bytes were read.
    pub fn received(&self) -> u64 {
        self.reads.last().map_or(0, |(_, all)| *all)
    }

    /// How many had been read by a moment.
    pub fn received_by(&self, at: Micros) -> u64 {
        self.reads
            .iter()
            .take_while(|(read_at, _)| *read_at <= at)
            .last()
            .map_or(0, |(_, all)| *all)
    }

    /// When the first byte was read.
    pub fn first_byte(&self) -> Option<Micros> {
        self.reads.first().map(|(at, _)| *at)
    }

    /// Whether all that was announced came.
    pub fn is_whole(&self) -> bool {
        matches!(self.status, 200 | 206) && self.received() == self.announced
    }
}

/// A server that was killed.
#[derive(Debug, Clone, Copy)]
pub struct Crash {
    /// Which.
    pub server: usize,
    /// When.
    pub at: Micros,
    /// When it answered again.
    pub back: Micros,
}

/// Trouble with what a server stands on.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    /// Which server.
    pub server: usize,
    /// Which part.
    pub part: Part,
    /// What.
    pub fault: Fault,
    /// Since when.
    pub from: Micros,
    /// Until when.
    pub until: Micros,
}

/// An object of the content store that no committed Binary names, asked for at the end.
#[derive(Debug, Clone)]
pub struct Orphan {
    /// Its id.
    pub id: String,
    /// The statuses with which it was answered.
    pub statuses: Vec<u16>,
}

/// Everything together.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// What was asked to be changed.
    pub changes: Vec<Change>,
    /// Downloads.
    pub streams: Vec<Stream>,
    /// Servers killed.
    pub crashes: Vec<Crash>,
    /// Parts in trouble.
    pub troubles: Vec<Trouble>,
    /// Objects that nobody may see.
    pub orphans: Vec<Orphan>,
}

/// Where all write to.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Record>);

impl Recorder {
    /// Writes something down.
    pub fn note(&self, write: impl FnOnce(&mut Record)) {
        write(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All so far.
    pub fn so_far(&self) -> Record {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
