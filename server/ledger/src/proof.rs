//! Whether proofs prove what they say (RFC 9162, sections 2.1.3.2 and 2.1.4.2).

use thiserror::Error;

use crate::hash::{Hash, empty_hash, node_hash};

/// Why a proof proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProofError {
    /// There is no such leaf.
    #[error("a tree of {size} leaves has no leaf {index}")]
    IndexBeyond {
        /// The leaf, counted from 0.
        index: u64,
        /// How many there are.
        size: u64,
    },
    /// The tree that should be the earlier one is larger.
    #[error("a tree of {first} leaves is not an earlier state of one of {second}")]
    FirstBeyondSecond {
        /// How many leaves the one that should be earlier has.
        first: u64,
        /// How many the other.
        second: u64,
    },
    /// Fewer hashes than lead to the root.
    #[error("the proof has too few hashes")]
    TooShort,
    /// More hashes than lead to the root.
    #[error("the proof has too many hashes")]
    TooLong,
    /// It leads to another root than the one that is known.
    #[error("the proof does not lead to the root")]
    Root,
    /// It leads to another root of the earlier tree.
    #[error("the proof does not lead to the root of the earlier tree")]
    FirstRoot,
    /// It leads to another root of the later tree.
    #[error("the proof does not lead to the root of the later tree")]
    SecondRoot,
    /// The roots of two trees of the same size differ.
    #[error("two trees of the same size have different roots")]
    Fork,
}

/// Whether `path` proves that the leaf `index` of the tree of `size` leaves with this `root` is `leaf`.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    path: &[Hash],
    root: &Hash,
) -> Result<(), ProofError> {
    if index >= size {
        return Err(ProofError::IndexBeyond { index, size });
    }
    let mut way = Way::new(index, size - 1);
    let mut hash = *leaf;
    for beside in path {
        hash = match way.up()? {
            Side::Left => node_hash(beside, &hash),
            Side::Right => node_hash(&hash, beside),
        };
    }
    way.ended()?;
    if hash == *root {
        Ok(())
    } else {
        Err(ProofError::Root)
    }
}

/// Whether `path` proves that the tree of `second` leaves begins with all that of `first`. A tree without leaves is the beginning of
/// each, without proof.
pub fn verify_consistency(
    first: u64,
    first_root: &Hash,
    second: u64,
    second_root: &Hash,
    path: &[Hash],
) -> Result<(), ProofError> {
    if first > second {
        return Err(ProofError::FirstBeyondSecond { first, second });
    }
    if first == 0 && *first_root != empty_hash() {
        return Err(ProofError::FirstRoot);
    }
    if first == 0 || first == second {
        return match path {
            [_, ..] => Err(ProofError::TooLong),
            [] if first == second && first_root != second_root => Err(ProofError::Fork),
            [] => Ok(()),
        };
    }
    let mut way = Way::new(first - 1, second - 1);
    way.skip_while_right();
    // Of a full tree the last peak is the root, which is known and not in the proof.
    let (start, path) = match path {
        [] => return Err(ProofError::TooShort),
        _ if first.is_power_of_two() => (first_root, path),
        [start, path @ ..] => (start, path),
    };
    let (mut earlier, mut later) = (*start, *start);
    for beside in path {
        match way.up()? {
            Side::Left => {
                earlier = node_hash(beside, &earlier);
                later = node_hash(beside, &later);
            }
            Side::Right => later = node_hash(&later, beside),
        }
    }
    way.ended()?;
    if earlier != *first_root {
        Err(ProofError::FirstRoot)
    } else if later != *second_root {
        Err(ProofError::SecondRoot)
    } else {
        Ok(())
    }
}

/// The way up from a node to the root: its index among those of its level, and that of the last of them.
struct Way {
    index: u64,
    last: u64,
}

/// On which side of the way a hash is.
enum Side {
    Left,
    Right,
}

impl Way {
    fn new(index: u64, last: u64) -> Self {
        Self { index, last }
    }

    fn shift(&mut self) {
        self.index >>= 1;
        self.last >>= 1;
    }

    fn skip_while_right(&mut self) {
        while self.index & 1 == 1 {
            self.shift();
        }
    }

    /// One node further up: where the hash is that it takes. Levels without a right node at the edge are passed.
    fn up(&mut self) -> Result<Side, ProofError> {
        if self.last == 0 {
            return Err(ProofError::TooLong);
        }
        let side = if self.index & 1 == 1 || self.index == self.last {
            while self.index & 1 == 0 && self.index != 0 {
                self.shift();
            }
            Side::Left
        } else {
            Side::Right
        };
        self.shift();
        Ok(side)
    }

    fn ended(&self) -> Result<(), ProofError> {
        if self.last == 0 {
            Ok(())
        } else {
            Err(ProofError::TooShort)
        }
    }
}
