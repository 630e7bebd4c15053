//! Blocks of stored content against the digests that were recorded of them. Knows nothing of where they come from.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use handoff_domain::document::BLOCK_SIZE;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many blocks are verified together: so many the processor's SHA instructions take in half the time that they need
/// one after the other.
pub const TOGETHER: usize = 4;

/// One block as it came, and what it should be.
#[derive(Debug)]
pub struct Block {
    /// Its bytes.
    pub pieces: VecDeque<Bytes>,
    /// The SHA-256 that was recorded.
    pub digest: [u8; 32],
}

impl Block {
    fn is_right(&self) -> bool {
        let mut hasher = Sha256::new();
        for piece in &self.pieces {
            hasher.update(piece);
        }
        hasher.finalize().as_slice() == self.digest
    }

    /// Its bytes in one piece, copied together where they came in several.
    fn whole(&mut self) -> Bytes {
        if self.pieces.len() != 1 {
            let mut whole = BytesMut::with_capacity(BLOCK_SIZE);
            for piece in &self.pieces {
                whole.extend_from_slice(piece);
            }
            self.pieces = VecDeque::from([whole.freeze()]);
        }
        self.pieces.front().cloned().unwrap_or_default()
    }
}

/// The first of the blocks that is not what was recorded.
pub fn first_wrong(blocks: &mut [Block]) -> Option<usize> {
    if blocks.len() == TOGETHER {
        let whole: Vec<Bytes> = blocks.iter_mut().map(Block::whole).collect();
        let messages: Vec<&[u8]> = whole.iter().map(AsRef::as_ref).collect();
        let mut digests = [[0; 32]; TOGETHER];
        tape_sha256::hash_many(&messages, &mut digests);
        if blocks.iter().map(|block| block.digest).eq(digests) {
            return None;
        }
    }
    blocks.iter().position(|block| !block.is_right())
}

/// Whether the client is quick enough for several blocks to be gathered in memory at once.
#[derive(Debug, Default)]
pub struct Pace {
    /// When blocks were last asked for, and how many were given then.
    last: Option<(Instant, u32)>,
    /// Blocks given since the client was last slow.
    quick: u32,
}

impl Pace {
    /// The longest that a quick client takes for a block: a hundred megabits a second.
    const PER_BLOCK: Duration = Duration::from_millis(10);
    /// So much the buffers between us and a client take by themselves, however slow it is.
    const UNTOLD: u32 = 16;

    /// More is asked for now: whether the client has been quick for a while.
    pub fn is_quick(&mut self, now: Instant) -> bool {
        if let Some((at, count)) = self.last.take() {
            let in_time = now.saturating_duration_since(at) <= Self::PER_BLOCK.saturating_mul(count);
            self.quick = if in_time {
                self.quick.saturating_add(count)
            } else {
                0
            };
        }
        self.quick >= Self::UNTOLD
    }

    /// It is given so many blocks at the most.
    pub fn give(&mut self, now: Instant, count: usize) {
        self.last = Some((now, u32::try_from(count).unwrap_or(1)));
    }
}

/// Places for streams that hold several blocks in memory at once. A client may stop taking them at any time, and there
/// may be thousands of clients.
#[derive(Debug)]
pub struct Gathering(Arc<Semaphore>);

impl Gathering {
    /// So many hold 64 MiB.
    const PLACES: usize = 128;

    /// A place, where one is free, until it is dropped.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

impl Default for Gathering {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(Self::PLACES)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of these bytes in pieces of `size`, with its digest.
    fn block(bytes: &[u8], size: usize) -> Block {
        Block {
            pieces: bytes.chunks(size).map(Bytes::copy_from_slice).collect(),
            digest: Sha256::digest(bytes).into(),
        }
    }

    fn bytes_of(block: &Block) -> Vec<u8> {
        block.pieces.iter().flatten().copied().collect()
    }

    #[test]
    fn a_changed_bit_is_found_in_whichever_block_and_piece_it_is() {
        let content: Vec<u8> = (0..TOGETHER * BLOCK_SIZE)
            .map(|i| ((i * 31) >> 4).to_le_bytes()[0])
            .collect();
        for count in 1..=TOGETHER {
            for size in [1000, 65_536, BLOCK_SIZE] {
                let fresh = || -> Vec<Block> {
                    let blocks = content.chunks(BLOCK_SIZE).take(count);
                    blocks.map(|bytes| block(bytes, size)).collect()
                };
                let mut right = fresh();
                assert_eq!(first_wrong(&mut right), None, "{count} of {size}");
                let passed: Vec<u8> = right.iter().flat_map(bytes_of).collect();
                assert!(
                    passed == content[..count * BLOCK_SIZE],
                    "what is passed on is what came"
                );
                for at in 0..count {
                    for byte in [0, 70_000, BLOCK_SIZE - 1] {
                        let mut blocks = fresh();
                        let mut bytes = bytes_of(&blocks[at]);
                        bytes[byte] ^= 1;
                        blocks[at].pieces = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
                        assert_eq!(
                            first_wrong(&mut blocks),
                            Some(at),
                            "{count} of {size}, byte {byte}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_last_block_may_be_shorter() {
        let content = vec![7; TOGETHER * BLOCK_SIZE - 100];
        let mut blocks: Vec<Block> = content
            .chunks(BLOCK_SIZE)
            .map(|bytes| block(bytes, 5000))
            .collect();
        assert_eq!(first_wrong(&mut blocks), None);
        blocks[TOGETHER - 1].pieces.pop_back();
        assert_eq!(first_wrong(&mut blocks), Some(TOGETHER - 1));
    }

    #[test]
    fn several_blocks_are_gathered_only_for_who_has_been_quick_for_a_while() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut ask = |milliseconds: u64| {
            let now = start + Duration::from_millis(milliseconds);
            let quick = pace.is_quick(now);
            pace.give(now, if quick { TOGETHER } else { 1 });
            quick
        };
        // The first is asked for before the client takes anything.
        assert!(!(0..=15).any(&mut ask));
        assert!(ask(16));
        assert!(ask(56), "four in forty milliseconds");
        assert!(!ask(97), "four in forty-one");
        assert!(!ask(98), "once slow is slow for a while");
    }

    #[test]
    fn a_place_for_gathering_is_free_again_when_it_is_dropped() {
        let gathering = Gathering::default();
        let mut places: Vec<_> = std::iter::from_fn(|| gathering.place()).collect();
        assert_eq!(places.len(), Gathering::PLACES);
        places.pop();
        assert!(gathering.place().is_some());
    }
}
