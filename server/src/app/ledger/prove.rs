//! Proofs for whoever has the verifier's key: that a row is in the ledger, and that a later state of it goes on from an earlier one.

use std::borrow::Cow;

use handoff_domain::ids::TenantId;
use handoff_domain::ports::Read;
use handoff_ledger::prove::{Consistency, Proof};
use handoff_ledger::{Content, Row, verify_inclusion};

use super::{LedgerError, StoredTree, commitment_of, hash_of, last_note};

/// The proof that a row is in the tree of the newest checkpoint.
pub fn row(read: &mut dyn Read, tenant: &TenantId, sequence: i64) -> Result<String, LedgerError> {
    let leaf = read.leaf_of(tenant, sequence)?;
    let leaf = leaf.ok_or_else(|| {
        LedgerError::NotThere(
            "no such row is sealed; one that was just recorded is within seconds".to_owned(),
        )
    })?;
    let entry = read
        .audit_entries(tenant, sequence.saturating_sub(1), sequence, 1)?
        .pop();
    let content = match (entry, leaf.salt) {
        (Some(entry), Some(salt)) => Content::Present {
            salt,
            entry: Cow::Owned(entry.text),
            commitment: None,
        },
        (None, None) => Content::Erased(commitment_of(&leaf)),
        (Some(_), None) | (None, Some(_)) => {
            return Err(LedgerError::Differs(format!(
                "row {sequence} is not the one that was sealed"
            )));
        }
    };
    if content.commitment() != commitment_of(&leaf) {
        return Err(LedgerError::Differs(format!(
            "row {sequence} is not the one that was sealed"
        )));
    }
    let note = last_note(read, tenant)?;
    let row = Row {
        position: leaf.position,
        sequence,
        content,
    };
    let proof = Proof::build(&mut StoredTree { read, tenant }, tenant.as_str(), row, note)?;
    let signed = proof.checkpoint.checkpoint();
    // Nobody is given what proves nothing.
    verify_inclusion(
        &hash_of(tenant, &leaf),
        leaf.position,
        signed.size,
        &proof.path,
        &signed.root,
    )
    .map_err(|error| LedgerError::Differs(error.to_string()))?;
    proof
        .to_json()
        .map_err(|error| LedgerError::App(error.to_string()))
}

/// The proof that the tree of the newest checkpoint goes on from that of the first `first` rows.
pub fn consistency(read: &mut dyn Read, tenant: &TenantId, first: u64) -> Result<String, LedgerError> {
    let note = last_note(read, tenant)?;
    let size = note.checkpoint().size;
    if first > size {
        let text = format!("the newest checkpoint is of {size} rows");
        return Err(LedgerError::NotThere(text));
    }
    let proof = Consistency::build(&mut StoredTree { read, tenant }, first, note)?;
    proof
        .to_json()
        .map_err(|error| LedgerError::App(error.to_string()))
}
