//! What makes the audit tamper evident: a Merkle tree (RFC 9162) of what each row commits to, signed checkpoints of it (C2SP
//! `tlog-checkpoint`), proofs, the export, and the check of all of it.
//!
//! Knows bytes and hashes. Knows nothing of SQL, HTTP or FHIR, reads no clock, draws no random numbers and opens no file.

pub mod export;
mod finding;
mod hash;
mod key;
mod note;
mod proof;
pub mod prove;
mod row;
#[cfg(test)]
mod tests;
pub mod tree;
mod verify;

pub use finding::{Finding, MOST_FINDINGS, Report, Span};
pub use hash::{Commitment, Hash, HashError, commit, empty_hash, leaf_hash, leaf_of, node_hash};
pub use key::{KeyError, SigningKey, VerifierKey};
pub use note::{Checkpoint, MOST_NOTE_BYTES, MOST_SIGNATURES, Note, NoteError};
pub use proof::{ProofError, verify_consistency, verify_inclusion};
pub use row::{Content, Row};
pub use tree::{Frontier, Nodes, TreeError};
pub use verify::{Held, Leaf, Start, Verifier, verify_export};
