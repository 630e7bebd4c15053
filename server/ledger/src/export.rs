//! The export of a tenant's audit: a text of lines, each JSON. First a header, then the rows in the order of their leaves, then a
//! signed checkpoint of the tree that they are all in. Whoever has it needs nothing of ours to check it.

mod read;
mod write;

pub use read::{ExportError, ExportReader, Line};
pub use write::{ExportWriteError, write_checkpoint, write_header, write_row};

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::tree::{Frontier, FrontierError};

/// How the header of such a file names its format.
pub const FORMAT: &str = "handoff-audit-export";
/// The version of that format.
pub const VERSION: u32 = 1;
/// The longest line, with its end.
pub const MOST_LINE_BYTES: usize = 4 * 1024 * 1024;
/// The longest header, with its end.
pub const MOST_HEADER_BYTES: usize = 64 * 1024;

/// The first line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    format: String,
    version: u32,
    /// Whose audit it is.
    pub tenant: String,
    /// The log, as its checkpoints name it.
    pub origin: String,
    /// The place of the first row's leaf: how many are before it.
    pub from: u64,
    /// The size of the tree that the checkpoint at the end is of.
    pub size: u64,
    /// The peaks of the tree of the leaves before the first row, the largest first.
    pub before: Vec<Hash>,
}

impl Header {
    /// Of the rows after those of `before`, which are held against a tree of `size`.
    pub fn new(tenant: &str, origin: &str, before: &Frontier, size: u64) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            tenant: tenant.to_owned(),
            origin: origin.to_owned(),
            from: before.size(),
            size,
            before: before.peaks().to_vec(),
        }
    }

    /// The right edge of the tree before the first row.
    pub fn frontier(&self) -> Result<Frontier, FrontierError> {
        Frontier::from_peaks(self.from, self.before.clone())
    }

    /// What is not as it should be.
    fn wants(&self) -> Option<&'static str> {
        let control = |text: &str| text.is_empty() || text.chars().any(char::is_control);
        if control(&self.tenant) || control(&self.origin) {
            Some("a header whose `tenant` and `origin` are texts without control characters")
        } else if self.from > self.size {
            Some("a header whose `from` is not beyond its `size`")
        } else if self.frontier().is_err() {
            Some("a header whose `before` has one hash for each bit that is set in `from`")
        } else {
            None
        }
    }
}

/// What the header of each version has.
#[derive(Deserialize)]
struct Version {
    format: String,
    version: u32,
}

impl Version {
    /// What is not as it should be.
    fn wants(&self) -> Option<&'static str> {
        if self.format != FORMAT {
            Some("the header of an audit's export")
        } else if self.version != VERSION {
            Some("version 1 of the format: a newer program made this file")
        } else {
            None
        }
    }
}
