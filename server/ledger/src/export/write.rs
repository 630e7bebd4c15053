//! Writing an export, line by line.

use std::io::{self, Write};

use serde::Serialize;
use thiserror::Error;

use super::{Header, MOST_HEADER_BYTES, MOST_LINE_BYTES};
use crate::note::Note;
use crate::row::{Row, Written};

/// Why a line was not written.
#[derive(Debug, Error)]
pub enum ExportWriteError {
    /// It could not be.
    #[error("the export could not be written")]
    Write(#[source] io::Error),
    /// Nobody would read it.
    #[error("a line of the export would be longer than {0} bytes")]
    TooLong(usize),
    /// Nobody would read it.
    #[error("the line would not be read: wanted {0}")]
    Header(&'static str),
    /// A value has no JSON.
    #[error("a line of the export has no JSON")]
    Json(#[source] serde_json::Error),
}

/// Writes the first line.
pub fn write_header(out: impl Write, header: &Header) -> Result<(), ExportWriteError> {
    match header.wants() {
        Some(wanted) => Err(ExportWriteError::Header(wanted)),
        None => write_line(out, header, MOST_HEADER_BYTES),
    }
}

/// Writes the line of a row.
pub fn write_row(out: impl Write, row: &Row<'_>) -> Result<(), ExportWriteError> {
    write_line(out, &Written::new(row), MOST_LINE_BYTES)
}

/// Writes the last line.
pub fn write_checkpoint(out: impl Write, note: &Note) -> Result<(), ExportWriteError> {
    #[derive(Serialize)]
    struct Last<'a> {
        checkpoint: &'a str,
    }
    let checkpoint = note.as_str();
    write_line(out, &Last { checkpoint }, MOST_LINE_BYTES)
}

fn write_line(mut out: impl Write, line: &impl Serialize, most: usize) -> Result<(), ExportWriteError> {
    let mut json = serde_json::to_vec(line).map_err(ExportWriteError::Json)?;
    json.push(b'\n');
    if json.len() > most {
        return Err(ExportWriteError::TooLong(most));
    }
    out.write_all(&json).map_err(ExportWriteError::Write)
}
