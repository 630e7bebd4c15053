//! Exporting a tenant's audit with all that it takes to check it: the rows in the order of their leaves, and a signed checkpoint.

use std::borrow::Cow;

use handoff_domain::ids::TenantId;
use handoff_domain::ports::{self, Store, StoreError};
use handoff_ledger::export::{ExportWriteError, Header, write_checkpoint, write_header, write_row};
use handoff_ledger::tree::{self, Frontier};
use handoff_ledger::{Content, Note, Row};

use super::walk::{Step, Walk};
use super::{LedgerError, StoredTree, commitment_of, last_note};

/// An export under way, a piece at a time.
#[derive(Debug)]
pub struct Export {
    header: Option<Header>,
    walk: Walk,
    /// The checkpoint, until it was given.
    note: Option<Note>,
}

impl From<ExportWriteError> for LedgerError {
    fn from(error: ExportWriteError) -> Self {
        Self::App(error.to_string())
    }
}

impl Export {
    /// Of the rows whose leaves are at `from` and after, up to the newest checkpoint.
    pub async fn begin(store: &dyn Store, tenant: &TenantId, from: u64) -> Result<Self, LedgerError> {
        let of = tenant.clone();
        let begun = ports::read(store, move |read| Ok::<_, StoreError>(begin(read, of, from)));
        begun.await?
    }

    /// The next piece, which may be empty; nothing once the checkpoint was given.
    pub async fn next(self, store: &dyn Store) -> Result<Option<(Self, Vec<u8>)>, LedgerError> {
        let Self { header, walk, note } = self;
        let Some(note) = note else { return Ok(None) };
        let mut piece = Vec::new();
        if let Some(header) = header {
            write_header(&mut piece, &header)?;
        }
        let (walk, steps) = walk.page(store).await?;
        let ended = steps.is_empty();
        for step in steps {
            // A row without a leaf is in no tree.
            if let Step::Leaf(leaf, row) = step {
                let commitment = commitment_of(&leaf);
                let content = match (row, leaf.salt) {
                    (Some(row), Some(salt)) => Content::Present {
                        salt,
                        entry: Cow::Owned(row.entry.text),
                        commitment: Some(commitment),
                    },
                    _ => Content::Erased(commitment),
                };
                let (position, sequence) = (leaf.position, leaf.sequence);
                write_row(
                    &mut piece,
                    &Row {
                        position,
                        sequence,
                        content,
                    },
                )?;
            }
        }
        let mut left = Some(note);
        if let Some(note) = left.take_if(|_| ended) {
            write_checkpoint(&mut piece, &note)?;
        }
        let next = Self {
            header: None,
            walk,
            note: left,
        };
        Ok(Some((next, piece)))
    }
}

fn begin(read: &mut dyn ports::Read, tenant: TenantId, from: u64) -> Result<Export, LedgerError> {
    let note = last_note(read, &tenant)?;
    let size = note.checkpoint().size;
    if from > size {
        let text = format!("the newest checkpoint is of {size} rows: begin at {size} or before");
        return Err(LedgerError::NotThere(text));
    }
    let before = match from.checked_sub(1) {
        Some(last) => read.leaves(&tenant, last, from, 1)?.pop(),
        None => None,
    };
    if before.is_none() && from > 0 {
        return Err(LedgerError::Differs(format!("there is no leaf before {from}")));
    }
    let peaks = tree::peaks(
        &mut StoredTree {
            read,
            tenant: &tenant,
        },
        from,
    )?;
    let frontier =
        Frontier::from_peaks(from, peaks).map_err(|error| LedgerError::Differs(error.to_string()))?;
    Ok(Export {
        header: Some(Header::new(
            tenant.as_str(),
            &note.checkpoint().origin,
            &frontier,
            size,
        )),
        walk: Walk::new(tenant, before.as_ref(), size),
        note: Some(note),
    })
}
