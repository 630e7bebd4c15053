//! Counts and hashes bytes that pass by: the whole twice (SHA-1 for FHIR, SHA-256 for us) and every block.
//! Keeps none of them, and stops at the limit.

use bytes::Bytes;
use handoff_domain::document::{BLOCK_SIZE, Sha256 as Sha256Digest};
use handoff_domain::ports::{BlobError, BlobPin, Uploaded};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// Digests in the making.
#[derive(Debug, Clone)]
pub struct Digester {
    limit: u64,
    size: u64,
    sha1: Sha1,
    sha256: Sha256,
    block: Sha256,
    in_block: usize,
    blocks: Vec<[u8; 32]>,
}

/// What passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// Length in bytes.
    pub size: u64,
    /// SHA-1 of the whole.
    pub sha1: [u8; 20],
    /// SHA-256 of the whole.
    pub sha256: Sha256Digest,
    /// SHA-256 of each block of [`BLOCK_SIZE`] bytes, the last one shorter; empty for no bytes.
    pub blocks: Vec<[u8; 32]>,
}

impl Digester {
    /// Starts with nothing seen. More than `limit` bytes will be refused.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            size: 0,
            sha1: Sha1::new(),
            sha256: Sha256::new(),
            block: Sha256::new(),
            in_block: 0,
            blocks: Vec::new(),
        }
    }

    /// Takes note of the next bytes; [`BlobError::TooLarge`] where they pass the limit.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.size = self
            .size
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.size > self.limit {
            return Err(BlobError::TooLarge { limit: self.limit });
        }
        self.sha1.update(bytes);
        self.sha256.update(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BLOCK_SIZE - self.in_block));
            self.block.update(now);
            self.in_block += now.len();
            if self.in_block == BLOCK_SIZE {
                self.close_block();
            }
            rest = later;
        }
        Ok(())
    }

    /// The digests of all that passed.
    pub fn finish(mut self) -> Digests {
        if self.in_block > 0 {
            self.close_block();
        }
        Digests {
            size: self.size,
            sha1: self.sha1.finalize().into(),
            sha256: Sha256Digest(self.sha256.finalize().into()),
            blocks: self.blocks,
        }
    }

    fn close_block(&mut self) {
        self.blocks.push(self.block.finalize_reset().into());
        self.in_block = 0;
    }
}

impl Digests {
    /// Together with the place where the bytes are now.
    pub fn at(self, pin: BlobPin) -> Uploaded {
        Uploaded {
            pin,
            size: self.size,
            sha1: self.sha1,
            sha256: self.sha256,
            blocks: self.blocks,
        }
    }
}

/// Cuts at most `most` bytes off the front, no more than hash in well under a millisecond, so that one large chunk
/// does not hold up the other streams of its thread.
pub(crate) fn split_piece(chunk: &mut Bytes, most: usize) -> Bytes {
    chunk.split_to(chunk.len().min(most).min(BLOCK_SIZE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(content: &[u8], step: usize) -> Digests {
        let mut digester = Digester::new(u64::MAX);
        for chunk in content.chunks(step) {
            digester.update(chunk).unwrap();
        }
        digester.finish()
    }

    #[test]
    fn no_bytes_have_the_digests_of_nothing_and_no_blocks() {
        let nothing = digests(b"", 1);
        assert_eq!(nothing.size, 0);
        assert_eq!(
            nothing.sha256.to_hex(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(nothing.sha1[..4], [0xda, 0x39, 0xa3, 0xee]);
        assert!(nothing.blocks.is_empty());
    }

    #[test]
    fn digests_do_not_depend_on_how_the_bytes_were_cut() {
        let content: Vec<u8> = (0u32..300_001).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let whole = digests(&content, content.len());
        assert_eq!(whole.blocks.len(), 3);
        for step in [1, 4096, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1] {
            assert_eq!(digests(&content, step), whole, "{step}");
        }
        let second: [u8; 32] = Sha256::digest(&content[BLOCK_SIZE..2 * BLOCK_SIZE]).into();
        assert_eq!(whole.blocks[1], second);
        let last: [u8; 32] = Sha256::digest(&content[2 * BLOCK_SIZE..]).into();
        assert_eq!(whole.blocks[2], last);
    }

    #[test]
    fn one_byte_over_the_limit_is_too_large() {
        let mut digester = Digester::new(3);
        digester.update(b"abc").unwrap();
        assert_eq!(digester.update(b"d"), Err(BlobError::TooLarge { limit: 3 }));
    }
}
