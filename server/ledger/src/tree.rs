//! The tree: its right edge, which is all that it takes to let it grow, and proofs out of the nodes that a caller keeps. Of the
//! inner nodes only those of every eighth level are kept; what lies between is made again from at most 256 of those below.

mod frontier;
mod nodes;

pub use frontier::{Frontier, FrontierError};
pub use nodes::{Nodes, TreeError, consistency, inclusion, peaks, root, subtree};

use crate::hash::{Hash, node_hash};

/// Of which levels the caller keeps the nodes: 8, 16, 24 and so on.
pub const STORED_EVERY: u8 = 8;

/// The most leaves a tree has.
pub const MOST_LEAVES: u64 = i64::MAX.cast_unsigned();

/// The hash over the trees of `peaks`, the largest first.
fn bag(peaks: &[Hash]) -> Option<Hash> {
    peaks
        .iter()
        .rev()
        .copied()
        .reduce(|right, left| node_hash(&left, &right))
}

/// The nodes above those of `row`, which starts at a left one.
fn above(row: &[Hash]) -> Vec<Hash> {
    let (pairs, _) = row.as_chunks::<2>();
    pairs.iter().map(|[left, right]| node_hash(left, right)).collect()
}

/// The levels of the trees that a tree of `size` leaves consists of, the largest first.
fn levels(size: u64) -> impl Iterator<Item = u8> {
    (0..64).rev().filter(move |level| size >> level & 1 == 1)
}
