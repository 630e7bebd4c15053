//! Documents that prove something to whoever has the verifier's key: that a row is in the log, and that a later state of it goes on
//! from an earlier one. JSON, complete in itself.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::hash::{Commitment, Hash, leaf_of};
use crate::key::VerifierKey;
use crate::note::{Checkpoint, Note, NoteError};
use crate::proof::{ProofError, verify_consistency, verify_inclusion};
use crate::row::{Content, Row, Text, Written, content, some};
use crate::tree::{Nodes, TreeError, consistency, inclusion};

/// How the proof of a row names its format.
pub const PROOF_FORMAT: &str = "handoff-audit-proof";
/// How the proof of consistency names its format.
pub const CONSISTENCY_FORMAT: &str = "handoff-audit-consistency";
/// The version of both.
pub const VERSION: u32 = 1;

/// Why a document proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// Not such a document.
    #[error("not a `{0}` document with each of its fields once and no other: see line {1}, column {2}")]
    Form(&'static str, usize, usize),
    /// Of a version that came later.
    #[error("the document is not of version 1: a newer program made it")]
    Version,
    /// Its checkpoint is none, or not one that somebody known vouches for.
    #[error("the checkpoint in the document proves nothing: {0}")]
    Checkpoint(#[source] NoteError),
    /// The checkpoint that it is held against is not one that somebody known vouches for.
    #[error("the earlier checkpoint proves nothing: {0}")]
    Earlier(#[source] NoteError),
    /// Two checkpoints of different logs.
    #[error("the two checkpoints are of different logs")]
    Origins,
    /// The checkpoints are of other sizes than it says.
    #[error("the document is of trees of {first} and {second} leaves, and the checkpoints are not")]
    Sizes {
        /// The earlier size that it says.
        first: u64,
        /// The later one.
        second: u64,
    },
    /// The hashes don't prove it.
    #[error("{0}")]
    Proof(#[source] ProofError),
}

/// What a document proves, with what vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// The state of the log.
    pub checkpoint: Checkpoint,
    /// The place of the key that signed it in the list.
    pub key: usize,
}

/// The proof that a row is in the log of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Whose audit it is.
    pub tenant: String,
    /// The row. Of one that was erased the proof is that there was one.
    pub row: Row<'static>,
    /// From its leaf to the root.
    pub path: Vec<Hash>,
    /// The note of the checkpoint.
    pub checkpoint: Note,
}

#[derive(Serialize)]
struct WrittenProof<'a> {
    format: &'static str,
    version: u32,
    tenant: &'a str,
    path: &'a [Hash],
    checkpoint: &'a str,
    #[serde(flatten)]
    row: Written<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProofFields<'a> {
    format: String,
    version: u32,
    tenant: String,
    position: u64,
    sequence: i64,
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
    path: Vec<Hash>,
    checkpoint: String,
}

impl Proof {
    /// Reads the hashes of the proof that `row` of `tenant` is in the tree of `checkpoint`.
    pub fn build<N: Nodes>(
        nodes: &mut N,
        tenant: &str,
        row: Row<'static>,
        checkpoint: Note,
    ) -> Result<Self, TreeError<N::Error>> {
        let path = inclusion(nodes, row.position, checkpoint.checkpoint().size)?;
        Ok(Self {
            tenant: tenant.to_owned(),
            row,
            path,
            checkpoint,
        })
    }

    /// The document.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&WrittenProof {
            format: PROOF_FORMAT,
            version: VERSION,
            tenant: &self.tenant,
            path: &self.path,
            checkpoint: self.checkpoint.as_str(),
            row: Written::new(&self.row),
        })
    }

    /// The proof that the document `json` is. Only [`Proof::check`] tells whether it proves anything.
    pub fn parse(json: &str) -> Result<Self, DocumentError> {
        let fields: ProofFields<'_> = read(json, PROOF_FORMAT)?;
        is_known(&fields.format, fields.version, PROOF_FORMAT)?;
        let content = content(
            fields.salt,
            fields.entry,
            fields.entry_text,
            fields.commitment,
            fields.erased,
        );
        // A proof says in one way only what the row commits to.
        let content = content.filter(|content| {
            !matches!(
                content,
                Content::Present {
                    commitment: Some(_),
                    ..
                }
            )
        });
        let content = content.ok_or(DocumentError::Form(PROOF_FORMAT, 1, 1))?;
        Ok(Self {
            tenant: fields.tenant,
            row: Row {
                position: fields.position,
                sequence: fields.sequence,
                content: content.into_owned(),
            },
            path: fields.path,
            checkpoint: Note::parse(fields.checkpoint).map_err(DocumentError::Checkpoint)?,
        })
    }

    /// Whether one of `keys` vouches for a log in which the row is.
    pub fn check(&self, keys: &[VerifierKey]) -> Result<Proved, DocumentError> {
        let proved = vouched(&self.checkpoint, keys).map_err(DocumentError::Checkpoint)?;
        let Checkpoint { size, root, .. } = &proved.checkpoint;
        let Row {
            position,
            sequence,
            content,
        } = &self.row;
        let leaf = leaf_of(&self.tenant, *sequence, &content.commitment());
        verify_inclusion(&leaf, *position, *size, &self.path, root).map_err(DocumentError::Proof)?;
        Ok(proved)
    }
}

/// The proof that the log of a checkpoint goes on from an earlier state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consistency {
    /// The size of the earlier tree.
    pub first: u64,
    /// What leads to both roots.
    pub path: Vec<Hash>,
    /// The note of the later checkpoint.
    pub checkpoint: Note,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsistencyFields {
    format: String,
    version: u32,
    first: u64,
    second: u64,
    path: Vec<Hash>,
    checkpoint: String,
}

impl Consistency {
    /// Reads the hashes of the proof that the tree of `checkpoint` goes on from that of the first `first` leaves.
    pub fn build<N: Nodes>(nodes: &mut N, first: u64, checkpoint: Note) -> Result<Self, TreeError<N::Error>> {
        let path = consistency(nodes, first, checkpoint.checkpoint().size)?;
        Ok(Self {
            first,
            path,
            checkpoint,
        })
    }

    /// The document.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&ConsistencyFields {
            format: CONSISTENCY_FORMAT.to_owned(),
            version: VERSION,
            first: self.first,
            second: self.checkpoint.checkpoint().size,
            path: self.path.clone(),
            checkpoint: self.checkpoint.as_str().to_owned(),
        })
    }

    /// The proof that the document `json` is. Only [`Consistency::check`] tells whether it proves anything.
    pub fn parse(json: &str) -> Result<Self, DocumentError> {
        let fields: ConsistencyFields = read(json, CONSISTENCY_FORMAT)?;
        is_known(&fields.format, fields.version, CONSISTENCY_FORMAT)?;
        let ConsistencyFields { first, second, .. } = fields;
        let checkpoint = Note::parse(fields.checkpoint).map_err(DocumentError::Checkpoint)?;
        if checkpoint.checkpoint().size != second {
            return Err(DocumentError::Sizes { first, second });
        }
        Ok(Self {
            first,
            path: fields.path,
            checkpoint,
        })
    }

    /// Whether `keys` vouch for both checkpoints, and the later log goes on from the `earlier` one.
    pub fn check(&self, earlier: &Note, keys: &[VerifierKey]) -> Result<Proved, DocumentError> {
        let proved = vouched(&self.checkpoint, keys).map_err(DocumentError::Checkpoint)?;
        let before = vouched(earlier, keys).map_err(DocumentError::Earlier)?.checkpoint;
        let after = &proved.checkpoint;
        let (first, second) = (self.first, after.size);
        if before.origin != after.origin {
            return Err(DocumentError::Origins);
        }
        if before.size != first {
            return Err(DocumentError::Sizes { first, second });
        }
        verify_consistency(first, &before.root, second, &after.root, &self.path)
            .map_err(DocumentError::Proof)?;
        Ok(proved)
    }
}

fn vouched(note: &Note, keys: &[VerifierKey]) -> Result<Proved, NoteError> {
    let key = note.verified_by(keys)?;
    let checkpoint = note.checkpoint().clone();
    Ok(Proved { checkpoint, key })
}

fn read<'a, T: Deserialize<'a>>(json: &'a str, format: &'static str) -> Result<T, DocumentError> {
    serde_json::from_str(json).map_err(|e| DocumentError::Form(format, e.line(), e.column()))
}

fn is_known(format: &str, version: u32, wanted: &'static str) -> Result<(), DocumentError> {
    if format != wanted {
        Err(DocumentError::Form(wanted, 1, 1))
    } else if version == VERSION {
        Ok(())
    } else {
        Err(DocumentError::Version)
    }
}
