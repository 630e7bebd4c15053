//! Blocks of stored content against the digests that were recorded of them. Knows nothing of where they come from.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many blocks are verified together: so many the processor's SHA instructions take in half the time that they need
/// one after the other.
pub const TOGETHER: usize = 4;

/// One block, and what it should be.
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

    /// Its bytes, where they are in one piece.
    fn whole(&self) -> Option<&[u8]> {
        let piece = self.pieces.front()?;
        (self.pieces.len() == 1).then_some(piece)
    }
}

/// The bytes of a block while they come. They are copied: what comes may lie in buffers of many times its size, and would
/// keep those for as long as a slow client takes to read it.
#[derive(Debug)]
pub struct Gathered {
    size: usize,
    full: VecDeque<Bytes>,
    last: BytesMut,
}

impl Gathered {
    /// Nothing yet; it is gathered in pieces of `size` bytes, the last one shorter.
    pub fn in_pieces_of(size: usize) -> Self {
        Self {
            size,
            full: VecDeque::new(),
            last: BytesMut::with_capacity(size),
        }
    }

    /// More of it.
    pub fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.last.len() >= self.size {
                let next = BytesMut::with_capacity(self.size);
                let full = std::mem::replace(&mut self.last, next);
                self.full.push_back(full.freeze());
            }
            let room = self.size.saturating_sub(self.last.len());
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.last.extend_from_slice(now);
            bytes = later;
        }
    }

    /// All of it.
    pub fn into_pieces(mut self) -> VecDeque<Bytes> {
        if !self.last.is_empty() {
            self.full.push_back(self.last.freeze());
        }
        self.full
    }
}

/// The first of the blocks that is not what was recorded.
pub fn first_wrong(blocks: &[Block]) -> Option<usize> {
    let whole: Option<Vec<&[u8]>> = blocks.iter().map(Block::whole).collect();
    if let Some(whole) = whole.filter(|whole| whole.len() == TOGETHER) {
        let mut digests = [[0; 32]; TOGETHER];
        tape_sha256::hash_many(&whole, &mut digests);
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
    use handoff_domain::document::BLOCK_SIZE;

    use super::*;

    fn gathered(bytes: &[u8], size: usize) -> VecDeque<Bytes> {
        let mut gathered = Gathered::in_pieces_of(size);
        for chunk in bytes.chunks(3000) {
            gathered.add(chunk);
        }
        gathered.into_pieces()
    }

    /// A block of these bytes in pieces of `size`, with its digest.
    fn block(bytes: &[u8], size: usize) -> Block {
        Block {
            pieces: gathered(bytes, size),
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
                let right = fresh();
                assert_eq!(first_wrong(&right), None, "{count} of {size}");
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
                        blocks[at].pieces = gathered(&bytes, size);
                        assert_eq!(first_wrong(&blocks), Some(at), "{count} of {size}, byte {byte}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_gathered_is_kept_in_pieces_of_one_size_however_it_came() {
        let content: Vec<u8> = (0..100_000_u32).map(|i| i.to_le_bytes()[1]).collect();
        for chunk in [1, 1000, 32_768, 100_000] {
            let mut gathered = Gathered::in_pieces_of(32_768);
            content.chunks(chunk).for_each(|bytes| gathered.add(bytes));
            let pieces = gathered.into_pieces();
            let sizes: Vec<usize> = pieces.iter().map(Bytes::len).collect();
            assert_eq!(sizes, [32_768, 32_768, 32_768, 1696], "{chunk}");
            assert!(
                pieces.into_iter().flatten().eq(content.iter().copied()),
                "{chunk}"
            );
        }
        assert!(Gathered::in_pieces_of(10).into_pieces().is_empty());
    }

    #[test]
    fn the_last_block_may_be_shorter() {
        let content = vec![7; TOGETHER * BLOCK_SIZE - 100];
        let mut blocks: Vec<Block> = content
            .chunks(BLOCK_SIZE)
            .map(|bytes| block(bytes, 5000))
            .collect();
        assert_eq!(first_wrong(&blocks), None);
        blocks[TOGETHER - 1].pieces.pop_back();
        assert_eq!(first_wrong(&blocks), Some(TOGETHER - 1));
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
