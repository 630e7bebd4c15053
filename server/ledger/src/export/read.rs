//! Reading an export, line by line, in the memory of one line. What is wrong is said with the line it is in, and never with what
//! stands there.

use std::borrow::Cow;
use std::io::{self, BufRead, Read as _};

use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Header, MOST_HEADER_BYTES, MOST_LINE_BYTES, Version};
use crate::hash::{Commitment, Hash};
use crate::row::{Row, Text, content, some};

const A_HEADER: &str = "the header of an audit's export, with each of its fields once and no other";
const A_ROW: &str = "a row (`position`, `sequence`, and `salt` with `entry` or `entry_text`, or `commitment` with \
     `erased`) or the checkpoint (`checkpoint`), with each field once and no other";

/// Why a line of an export is none. After all but the first of these the next line can be read.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The file itself.
    #[error("line {line} could not be read")]
    Read {
        /// The line, counted from 1.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// Nothing as long as this is written.
    #[error("line {line} is longer than {most} bytes")]
    TooLong {
        /// The line, counted from 1.
        line: u64,
        /// How long it may be.
        most: usize,
    },
    /// Not a text.
    #[error("line {line} is not UTF-8")]
    NotText {
        /// The line, counted from 1.
        line: u64,
    },
    /// Cut off, or changed by hand.
    #[error("line {line} is not JSON: see column {column}")]
    NotJson {
        /// The line, counted from 1.
        line: u64,
        /// Where in it, counted from 1.
        column: usize,
    },
    /// JSON, but not what should stand there.
    #[error("line {line}: wanted {wanted}")]
    Wanted {
        /// The line, counted from 1.
        line: u64,
        /// What should stand there.
        wanted: &'static str,
    },
    /// Lines after the end.
    #[error("line {line} stands after the checkpoint, which is the last line of an export")]
    AfterCheckpoint {
        /// The line, counted from 1.
        line: u64,
    },
    /// The file is cut off.
    #[error("the file ends after {lines} lines, without a checkpoint")]
    NoCheckpoint {
        /// How many lines it has.
        lines: u64,
    },
}

/// A line of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'a> {
    /// The first one.
    Header(Header),
    /// One for each row.
    Row(Row<'a>),
    /// The last one: the text of a note.
    Checkpoint(Cow<'a, str>),
}

/// Reads an export.
#[derive(Debug)]
pub struct ExportReader<R> {
    input: R,
    /// How many lines were read.
    lines: u64,
    ended: bool,
    buffer: Vec<u8>,
}

/// The fields of each line but the first.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(default, deserialize_with = "some")]
    position: Option<u64>,
    #[serde(default, deserialize_with = "some")]
    sequence: Option<i64>,
    #[serde(default, deserialize_with = "some")]
    salt: Option<Hash>,
    #[serde(default, deserialize_with = "some")]
    commitment: Option<Commitment>,
    #[serde(default, deserialize_with = "some")]
    erased: Option<bool>,
    #[serde(default, deserialize_with = "some", borrow)]
    entry: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "some", borrow)]
    entry_text: Option<Text<'a>>,
    #[serde(default, deserialize_with = "some", borrow)]
    checkpoint: Option<Text<'a>>,
}

impl<R: BufRead> ExportReader<R> {
    /// Reads from the start of `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            lines: 0,
            ended: false,
            buffer: Vec::new(),
        }
    }

    /// The next line; nothing after the checkpoint, where nothing follows it.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, ExportError> {
        let first = self.lines == 0;
        let line = self.lines + 1;
        let most = if first { MOST_HEADER_BYTES } else { MOST_LINE_BYTES };
        if !self.fill(line, most)? {
            return if first {
                let wanted = A_HEADER;
                Err(ExportError::Wanted { line, wanted })
            } else if self.ended {
                Ok(None)
            } else {
                self.ended = true;
                Err(ExportError::NoCheckpoint { lines: self.lines })
            };
        }
        self.lines = line;
        if self.ended {
            return Err(ExportError::AfterCheckpoint { line });
        }
        let text = str::from_utf8(&self.buffer).map_err(|_| ExportError::NotText { line })?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        if first {
            // What a newer version holds is not known, but that it is one.
            let version: Version = json(text, line, A_HEADER)?;
            if let Some(wanted) = version.wants() {
                return Err(ExportError::Wanted { line, wanted });
            }
            let header: Header = json(text, line, A_HEADER)?;
            return match header.wants() {
                Some(wanted) => Err(ExportError::Wanted { line, wanted }),
                None => Ok(Some(Line::Header(header))),
            };
        }
        let read = json::<Fields<'_>>(text, line, A_ROW)?.meant();
        self.ended = matches!(read, Some(Line::Checkpoint(_)));
        let wanted = A_ROW;
        read.map(Some).ok_or(ExportError::Wanted { line, wanted })
    }

    /// Brings the next line into the buffer, if there is one.
    fn fill(&mut self, line: u64, most: usize) -> Result<bool, ExportError> {
        let failed = |source| ExportError::Read { line, source };
        self.buffer.clear();
        let limit = u64::try_from(most).unwrap_or(u64::MAX);
        let mut limited = self.input.by_ref().take(limit);
        limited.read_until(b'\n', &mut self.buffer).map_err(failed)?;
        if self.buffer.len() == most && !self.buffer.ends_with(b"\n") {
            self.lines = line;
            self.input.skip_until(b'\n').map_err(failed)?;
            return Err(ExportError::TooLong { line, most });
        }
        Ok(!self.buffer.is_empty())
    }
}

impl<'a> Fields<'a> {
    fn meant(self) -> Option<Line<'a>> {
        let content = content(
            self.salt,
            self.entry,
            self.entry_text,
            self.commitment,
            self.erased,
        );
        match (self.position, self.sequence, content, self.checkpoint) {
            (Some(position), Some(sequence), Some(content), None) => Some(Line::Row(Row {
                position,
                sequence,
                content,
            })),
            (None, None, None, Some(Text(note)))
                if self.salt.is_none() && self.commitment.is_none() && self.erased.is_none() =>
            {
                Some(Line::Checkpoint(note))
            }
            _ => None,
        }
    }
}

fn json<'a, T: Deserialize<'a>>(text: &'a str, line: u64, wanted: &'static str) -> Result<T, ExportError> {
    serde_json::from_str(text).map_err(|e| match e.classify() {
        Category::Data => ExportError::Wanted { line, wanted },
        Category::Syntax | Category::Eof | Category::Io => {
            let column = e.column();
            ExportError::NotJson { line, column }
        }
    })
}
