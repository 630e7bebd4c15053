//! Stored nodes, each waiting until the leaves under it went by, and nodes that the leaves made, each waiting for the stored one.

use std::collections::BTreeMap;

use crate::finding::Finding;
use crate::hash::Hash;
use crate::tree::{MOST_LEAVES, STORED_EVERY};

/// What is not compared yet. Where nodes come along with the leaves that is next to nothing.
#[derive(Debug)]
pub(crate) struct StoredNodes {
    from: u64,
    waiting: BTreeMap<(u8, u64), Waiting>,
}

#[derive(Debug)]
enum Waiting {
    Made(Hash),
    Stored(Hash),
}

impl StoredNodes {
    /// Of the nodes over leaves from `from` on; all that end before are passed over.
    pub(crate) fn new(from: u64) -> Self {
        Self {
            from,
            waiting: BTreeMap::new(),
        }
    }

    /// A node that the leaves made.
    pub(crate) fn made(&mut self, level: u8, index: u64, hash: Hash) -> Option<Finding> {
        if !level.is_multiple_of(STORED_EVERY) {
            return None;
        }
        match self.waiting.remove(&(level, index)) {
            Some(Waiting::Stored(stored)) => compare(level, index, hash, stored),
            Some(Waiting::Made(_)) | None => {
                self.waiting.insert((level, index), Waiting::Made(hash));
                None
            }
        }
    }

    /// A node that is stored.
    pub(crate) fn stored(&mut self, level: u8, index: u64, hash: Hash) -> Option<Finding> {
        let leaves = 1_u64.checked_shl(level.into());
        let end = leaves.and_then(|leaves| index.checked_add(1)?.checked_mul(leaves));
        let end = end.filter(|end| *end <= MOST_LEAVES && level != 0 && level.is_multiple_of(STORED_EVERY));
        if end.is_none() {
            return Some(Finding::NodeSurplus { level, index });
        }
        if end <= Some(self.from) {
            return None;
        }
        match self.waiting.remove(&(level, index)) {
            Some(Waiting::Made(made)) => compare(level, index, made, hash),
            Some(Waiting::Stored(_)) | None => {
                self.waiting.insert((level, index), Waiting::Stored(hash));
                None
            }
        }
    }

    /// What was not compared.
    pub(crate) fn left(self) -> impl Iterator<Item = Finding> {
        let waiting = self.waiting.into_iter();
        waiting.map(|((level, index), waiting)| match waiting {
            Waiting::Made(_) => Finding::NodeMissing { level, index },
            Waiting::Stored(_) => Finding::NodeSurplus { level, index },
        })
    }
}

fn compare(level: u8, index: u64, made: Hash, stored: Hash) -> Option<Finding> {
    (made != stored).then_some(Finding::NodeChanged { level, index })
}
