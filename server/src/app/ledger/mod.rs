//! The audit as a ledger that can be proved: sealing it, going through it, checking, exporting and proving it.

pub mod check;
pub mod export;
pub mod prove;
pub mod seal;
pub mod walk;

use handoff_domain::ids::TenantId;
use handoff_domain::ledger::{Leaf, SignedCheckpoint};
use handoff_domain::ports::{Read, StoreError};
use handoff_domain::reason::Reason;
use handoff_ledger::tree::{Nodes, STORED_EVERY};
use handoff_ledger::{Commitment, Hash, KeyError, Note, NoteError, TreeError, leaf_of};
use thiserror::Error;

use super::{AppError, Class};

/// From how many hashes a node is made at most.
const MOST_HASHES: u32 = 1 << STORED_EVERY;

/// Why a ledger could not be sealed, gone through or proved.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The store failed.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
    /// The use case did.
    #[error("{0}")]
    App(String),
    /// The key can't be used.
    #[error("the key can't be used: {0}")]
    Key(#[from] KeyError),
    /// The last checkpoint can't be read, or nobody known signed it.
    #[error(
        "the last checkpoint is none that can be gone on from: {0}; where the key was changed, name the one before in \
         `audit.previous_keys`; otherwise run `handoff audit verify`"
    )]
    Checkpoint(#[from] NoteError),
    /// What is stored is not what was signed.
    #[error("what is stored of the ledger is not what was signed last: {0}; run `handoff audit verify`")]
    Differs(String),
    /// Nothing is sealed yet.
    #[error("nothing of this audit is sealed yet; set `audit.key_file` and let the server run")]
    Unsealed,
    /// Asked for something that there is not.
    #[error("{0}")]
    NotThere(String),
}

impl From<TreeError<StoreError>> for LedgerError {
    fn from(error: TreeError<StoreError>) -> Self {
        match error {
            TreeError::Nodes(error) => Self::Store(error),
            TreeError::Beyond => Self::NotThere("the tree has fewer leaves".to_owned()),
            other @ TreeError::MissingNodes { .. } => Self::Differs(other.to_string()),
        }
    }
}

impl From<AppError> for LedgerError {
    fn from(error: AppError) -> Self {
        match error.store {
            Some(store) => Self::Store(store),
            None => Self::App(error.cause.unwrap_or(error.text)),
        }
    }
}

impl From<LedgerError> for AppError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Store(error) => error.into(),
            LedgerError::Unsealed | LedgerError::NotThere(_) => {
                Self::new(Class::NotFound, Reason::NotFound, error.to_string())
            }
            LedgerError::App(_)
            | LedgerError::Key(_)
            | LedgerError::Checkpoint(_)
            | LedgerError::Differs(_) => {
                let text =
                    "this ledger can't be proved as it stands; an operator runs `handoff audit verify`";
                let mut told = Self::new(Class::Internal, Reason::IntegrityFailed, text);
                told.cause = Some(error.to_string());
                told
            }
        }
    }
}

/// The leaves and nodes of a tenant's tree, where they are stored.
pub struct StoredTree<'a> {
    /// Where to read.
    pub read: &'a mut dyn Read,
    /// Whose.
    pub tenant: &'a TenantId,
}

impl Nodes for StoredTree<'_> {
    type Error = StoreError;

    fn leaves(&mut self, from: u64, until: u64) -> Result<Vec<Hash>, StoreError> {
        let leaves = self.read.leaves(self.tenant, from, until, MOST_HASHES)?;
        Ok(leaves.iter().map(|leaf| hash_of(self.tenant, leaf)).collect())
    }

    fn stored(&mut self, level: u8, from: u64, until: u64) -> Result<Vec<Hash>, StoreError> {
        let nodes = self
            .read
            .ledger_nodes(self.tenant, level, from, until, MOST_HASHES)?;
        Ok(nodes.into_iter().map(|node| Hash(node.hash)).collect())
    }
}

/// The hash of a leaf.
fn hash_of(tenant: &TenantId, leaf: &Leaf) -> Hash {
    leaf_of(tenant.as_str(), leaf.sequence, &commitment_of(leaf))
}

fn commitment_of(leaf: &Leaf) -> Commitment {
    Commitment(Hash(leaf.commitment))
}

/// The newest checkpoint, read.
fn last_note(read: &mut dyn Read, tenant: &TenantId) -> Result<Note, LedgerError> {
    let SignedCheckpoint { note, .. } = read.last_checkpoint(tenant)?.ok_or(LedgerError::Unsealed)?;
    Ok(Note::parse(note)?)
}
