//! The check of an export.

use std::io::BufRead;

use super::{Held, Leaf, Start, Verifier};
use crate::export::{ExportError, ExportReader, Header, Line};
use crate::finding::{Finding, Report};
use crate::key::VerifierKey;
use crate::note::Note;
use crate::row::{Content, Row};

/// Checks a whole export: that its rows are those of the log whose checkpoint is at its end, and of the checkpoints in `kept`.
/// `keys` are those that sign for the log, the newest first. Fails only where there is no header to start from, or where the file
/// can't be read on; all else is in the report.
pub fn verify_export(
    reader: impl BufRead,
    keys: &[VerifierKey],
    kept: &[Note],
) -> Result<Report, ExportError> {
    let mut reader = ExportReader::new(reader);
    let not_a_header = || ExportError::Wanted {
        line: 1,
        wanted: "the header of an audit's export",
    };
    let Some(Line::Header(header)) = reader.next_line()? else {
        return Err(not_a_header());
    };
    let mut verifier = Verifier::new(Start {
        tenant: &header.tenant,
        origin: &header.origin,
        from: header.frontier().map_err(|_| not_a_header())?,
        keys,
        kept,
        until: Some(header.size),
        stored_nodes: false,
    });
    let mut last = None;
    loop {
        match reader.next_line() {
            Ok(Some(Line::Row(row))) => next(&mut verifier, &row),
            Ok(Some(Line::Checkpoint(text))) => last = checkpoint(&mut verifier, &header, &text),
            Ok(Some(Line::Header(_))) => {}
            Ok(None) => break,
            Err(ExportError::NoCheckpoint { .. }) => verifier.found(Finding::CheckpointMissing),
            Err(failed @ ExportError::Read { .. }) => return Err(failed),
            Err(
                e @ (ExportError::TooLong { line, .. }
                | ExportError::NotText { line }
                | ExportError::NotJson { line, .. }
                | ExportError::Wanted { line, .. }
                | ExportError::AfterCheckpoint { line }),
            ) => verifier.found(Finding::Line {
                line,
                why: e.to_string(),
            }),
        }
    }
    Ok(verifier.finish(last.as_ref()))
}

fn next(verifier: &mut Verifier<'_>, row: &Row<'_>) {
    let held = match &row.content {
        Content::Present {
            salt,
            entry,
            commitment,
        } => Held::Present {
            commitment: *commitment,
            salt,
            entry: entry.as_bytes(),
        },
        &Content::Erased(commitment) => Held::Erased {
            commitment,
            // Nothing in the file tells; the report says where they are.
            allowed: true,
        },
    };
    verifier.leaf(&Leaf {
        position: row.position,
        sequence: row.sequence,
        held,
    });
}

/// The note at the end, with what is found about its size.
fn checkpoint(verifier: &mut Verifier<'_>, header: &Header, text: &str) -> Option<Note> {
    let note = match Note::parse(text) {
        Ok(note) => note,
        Err(e) => {
            verifier.found(Finding::CheckpointInvalid {
                size: header.size,
                why: e.to_string(),
            });
            return None;
        }
    };
    let (size, found) = (note.checkpoint().size, verifier.position());
    if size != header.size {
        verifier.found(Finding::SizeDiffers {
            header: header.size,
            checkpoint: size,
        });
    }
    if found > size {
        verifier.found(Finding::RowsBeyond { size, found });
    }
    Some(note)
}
