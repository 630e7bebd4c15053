//! The right edge of a tree.

use thiserror::Error;

use super::{MOST_LEAVES, bag};
use crate::hash::{Hash, empty_hash, node_hash};

/// The right edge of a tree: the roots of the full trees it consists of, one for each bit of its size that is set, the largest
/// first. Leaves are added to it, and it knows the root, without what is to the left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

/// Peaks that are not those of such a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrontierError {
    /// There is one for each bit that is set.
    #[error("a tree of {size} leaves has {wanted} peaks, not {found}")]
    Peaks {
        /// How many leaves.
        size: u64,
        /// How many peaks such a tree has.
        wanted: u32,
        /// How many there were.
        found: usize,
    },
    /// More than [`MOST_LEAVES`].
    #[error("a tree has at most {MOST_LEAVES} leaves")]
    TooLarge,
}

impl Frontier {
    /// Of a tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of a tree of `size` leaves, with `peaks` from left to right.
    pub fn from_peaks(size: u64, peaks: Vec<Hash>) -> Result<Self, FrontierError> {
        let (wanted, found) = (size.count_ones(), peaks.len());
        if size > MOST_LEAVES {
            Err(FrontierError::TooLarge)
        } else if u32::try_from(found) == Ok(wanted) {
            Ok(Self { size, peaks })
        } else {
            Err(FrontierError::Peaks { size, wanted, found })
        }
    }

    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the full trees, the largest first.
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds a leaf, and tells `completed` level, index in it and hash of each inner node that is full by it, from below.
    pub fn push(&mut self, leaf: Hash, completed: &mut dyn FnMut(u8, u64, Hash)) {
        let (mut hash, mut level, mut index) = (leaf, 0, self.size);
        while index & 1 == 1
            && let Some(left) = self.peaks.pop()
        {
            hash = node_hash(&left, &hash);
            level += 1;
            index >>= 1;
            completed(level, index, hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        bag(&self.peaks).unwrap_or_else(empty_hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_go_with_their_size() {
        let hash = empty_hash();
        assert_eq!(Frontier::from_peaks(0, vec![]), Ok(Frontier::new()));
        assert!(Frontier::from_peaks(5, vec![hash; 2]).is_ok());
        assert!(Frontier::from_peaks(MOST_LEAVES, vec![hash; 63]).is_ok());
        assert_eq!(
            Frontier::from_peaks(5, vec![hash]).unwrap_err().to_string(),
            "a tree of 5 leaves has 2 peaks, not 1"
        );
        assert_eq!(
            Frontier::from_peaks(1 << 63, vec![hash]),
            Err(FrontierError::TooLarge)
        );
    }

    #[test]
    fn the_largest_tree_takes_a_leaf_without_breaking() {
        let mut frontier = Frontier::from_peaks(MOST_LEAVES, vec![empty_hash(); 63]).unwrap();
        let mut last = None;
        frontier.push(empty_hash(), &mut |level, index, _| last = Some((level, index)));
        assert_eq!(last, Some((63, 0)));
        assert_eq!((frontier.size(), frontier.peaks().len()), (1 << 63, 1));
    }
}
