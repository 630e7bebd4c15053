//! Proofs (RFC 9162, sections 2.1.3 and 2.1.4) out of leaves and of stored nodes, read a few hundred at a time.

use thiserror::Error;

use super::{MOST_LEAVES, STORED_EVERY, above, bag, levels};
use crate::hash::{Hash, empty_hash};

/// Where leaves and the stored nodes are read.
pub trait Nodes {
    /// Why they could not be read.
    type Error;

    /// The hashes of the leaves `from` to `until`, without that one, in order: at most 256.
    fn leaves(&mut self, from: u64, until: u64) -> Result<Vec<Hash>, Self::Error>;

    /// The nodes `from` to `until`, without that one, of a level that is a multiple of [`STORED_EVERY`], in order: at most 256.
    /// Node `index` of `level` is over the 2^`level` leaves that start at `index` · 2^`level`.
    fn stored(&mut self, level: u8, from: u64, until: u64) -> Result<Vec<Hash>, Self::Error>;
}

/// Why there is no proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TreeError<E> {
    /// They could not be read.
    #[error("the nodes of the tree could not be read")]
    Nodes(#[source] E),
    /// Not as many as were asked for.
    #[error("of level {level} not all nodes from {from} until {until} are there")]
    MissingNodes {
        /// Their level: 0 for leaves.
        level: u8,
        /// The first of them.
        from: u64,
        /// The one after the last.
        until: u64,
    },
    /// Asked for something that no such tree has.
    #[error("this is beyond the end of the tree")]
    Beyond,
}

type Outcome<T, N> = Result<T, TreeError<<N as Nodes>::Error>>;

/// The node `index` of `level`, all of whose leaves are there.
pub fn subtree<N: Nodes>(nodes: &mut N, level: u8, index: u64) -> Outcome<Hash, N> {
    let leaves = 1_u64.checked_shl(level.into());
    let end = leaves.and_then(|leaves| index.checked_add(1)?.checked_mul(leaves));
    if end.is_none_or(|end| end > MOST_LEAVES) {
        return Err(TreeError::Beyond);
    }
    let within = level % STORED_EVERY;
    let (base, from, until) = (level - within, index << within, (index + 1) << within);
    top_of(read(nodes, base, from, until)?).ok_or(TreeError::MissingNodes {
        level: base,
        from,
        until,
    })
}

/// The peaks of the tree of the first `size` leaves.
pub fn peaks<N: Nodes>(nodes: &mut N, size: u64) -> Outcome<Vec<Hash>, N> {
    if size > MOST_LEAVES {
        return Err(TreeError::Beyond);
    }
    let mut peaks = Vec::new();
    for base in (0..64).step_by(STORED_EVERY.into()).rev() {
        let until = size >> base;
        let from = until >> STORED_EVERY << STORED_EVERY;
        let mut row = read(nodes, base, from, until)?.into_iter();
        for level in levels(until - from) {
            peaks.extend(top_of(row.by_ref().take(1 << level).collect()));
        }
    }
    Ok(peaks)
}

/// The root of the tree of the first `size` leaves.
pub fn root<N: Nodes>(nodes: &mut N, size: u64) -> Outcome<Hash, N> {
    Ok(bag(&peaks(nodes, size)?).unwrap_or_else(empty_hash))
}

/// The proof that leaf `index` is in the tree of the first `size` leaves.
pub fn inclusion<N: Nodes>(nodes: &mut N, index: u64, size: u64) -> Outcome<Vec<Hash>, N> {
    path(nodes, 0, index, size)
}

/// The proof that the tree of the first `second` leaves has that of the first `first` in it. Without hashes where `first` is 0
/// or `second`.
pub fn consistency<N: Nodes>(nodes: &mut N, first: u64, second: u64) -> Outcome<Vec<Hash>, N> {
    if first > second || second > MOST_LEAVES {
        return Err(TreeError::Beyond);
    }
    if first == 0 || first == second {
        return Ok(Vec::new());
    }
    // What ends where the first tree ends is its last peak: from it both roots are made. Where it is the whole of the first tree,
    // who holds its root has it.
    let level = levels(first).last().unwrap_or_default();
    let index = (first >> level) - 1;
    let mut proof = Vec::new();
    if !first.is_power_of_two() {
        proof.push(subtree(nodes, level, index)?);
    }
    proof.extend(path(nodes, level, index, second)?);
    Ok(proof)
}

/// What leads from the node `index` of `level` to the root of the tree of the first `size` leaves.
fn path<N: Nodes>(nodes: &mut N, level: u8, index: u64, size: u64) -> Outcome<Vec<Hash>, N> {
    let peaks = peaks(nodes, size)?;
    let mut end = 0;
    // Under which peak it is.
    let peak = levels(size).enumerate().find(|(_, top)| {
        end += 1 << top;
        index << level < end
    });
    let Some((place, top)) = peak else {
        return Err(TreeError::Beyond);
    };
    let mut path = siblings(nodes, level, index, top)?;
    let (left, right) = peaks.split_at_checked(place).unwrap_or_default();
    path.extend(right.split_first().and_then(|(_, right)| bag(right)));
    path.extend(left.iter().rev());
    Ok(path)
}

/// The hashes beside the way from the node `index` of `level` up to that of level `top` over it.
fn siblings<N: Nodes>(nodes: &mut N, level: u8, index: u64, top: u8) -> Outcome<Vec<Hash>, N> {
    let mut siblings = Vec::new();
    if level == top {
        return Ok(siblings);
    }
    for base in (level - level % STORED_EVERY..top).step_by(STORED_EVERY.into()) {
        let end = top.min(base + STORED_EVERY);
        // All nodes of this level under the one of the level `end` on the way.
        let way = |at: u8| {
            if at < level {
                index << (level - at)
            } else {
                index >> (at - level)
            }
        };
        let from = way(end) << (end - base);
        let mut row = read(nodes, base, from, from + (1 << (end - base)))?;
        for at in base..end {
            if at >= level {
                let place = (way(at) ^ 1) - (from >> (at - base));
                siblings.extend(usize::try_from(place).ok().and_then(|place| row.get(place)));
            }
            row = above(&row);
        }
    }
    Ok(siblings)
}

/// The node over all of `row`, which are as many as a power of two.
fn top_of(mut row: Vec<Hash>) -> Option<Hash> {
    while row.len() > 1 {
        row = above(&row);
    }
    row.pop()
}

fn read<N: Nodes>(nodes: &mut N, level: u8, from: u64, until: u64) -> Outcome<Vec<Hash>, N> {
    if from == until {
        return Ok(Vec::new());
    }
    let read = if level == 0 {
        nodes.leaves(from, until)
    } else {
        nodes.stored(level, from, until)
    };
    let read = read.map_err(TreeError::Nodes)?;
    if u64::try_from(read.len()) == Ok(until - from) {
        Ok(read)
    } else {
        Err(TreeError::MissingNodes { level, from, until })
    }
}
