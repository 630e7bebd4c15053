//! The seal of the audit as it is stored: leaves, inner nodes and signed checkpoints. Knows nothing of hashing or signing.

use crate::time::Timestamp;

/// A row of the audit, exactly as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number. Numbers ascend, with holes.
    pub sequence: i64,
    /// What it says: one line of JSON.
    pub text: String,
}

/// A row of the audit with what its columns say, for whoever holds the one against the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The row.
    pub entry: Entry,
    /// Whether the columns by which it is found say what it says itself.
    pub agrees: bool,
}

/// A sealed row: a leaf of its tenant's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Its place in the tree, from 0 and without holes.
    pub position: u64,
    /// The number of the row.
    pub sequence: i64,
    /// What was hashed before the entry; `None` once both were erased.
    pub salt: Option<[u8; 32]>,
    /// What the tree holds of the row: the hash of salt and entry.
    pub commitment: [u8; 32],
}

/// An inner node of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// How far above the leaves.
    pub level: u8,
    /// Its place on that level, from 0.
    pub index: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

/// A signed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// How many leaves the tree had.
    pub size: u64,
    /// When it was signed.
    pub at: Timestamp,
    /// The signed note (C2SP tlog-checkpoint).
    pub note: String,
}
