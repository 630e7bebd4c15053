//! Content that follows from a number, so that any part of it can be recognised wherever it turns up, without keeping
//! it. Knows nothing of who stores or sends it.

use sha2::{Digest, Sha256};

/// Bytes to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Content {
    /// What the bytes follow from.
    pub seed: u64,
    /// How many there are.
    pub size: u64,
}

const WORD: u64 = 8;

impl Content {
    /// Up to `length` bytes from an offset on.
    pub fn bytes(self, from: u64, length: usize) -> Vec<u8> {
        let until = from.saturating_add(length as u64).min(self.size);
        let skipped = usize::try_from(from % WORD).expect("less than a word");
        let wanted = usize::try_from(until.saturating_sub(from)).expect("in memory");
        (from / WORD..until.div_ceil(WORD))
            .flat_map(|at| word(self.seed, at).to_le_bytes())
            .skip(skipped)
            .take(wanted)
            .collect()
    }

    /// Whether these are the bytes at an offset.
    pub fn is_at(self, from: u64, bytes: &[u8]) -> bool {
        from.saturating_add(bytes.len() as u64) <= self.size && self.bytes(from, bytes.len()) == bytes
    }

    /// All of it.
    pub fn whole(self) -> Vec<u8> {
        self.bytes(0, usize::try_from(self.size).expect("fits in memory"))
    }
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// The word at a place: the finalizer of `SplitMix64` over a counter (Steele, Lea, Flood: Fast splittable
/// pseudorandom number generators, 2014).
fn word(seed: u64, at: u64) -> u64 {
    let mut z = seed.wrapping_add(at.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_is_recognised_and_nothing_else() {
        let content = Content { seed: 7, size: 1001 };
        let whole = content.whole();
        assert_eq!(whole.len(), 1001);
        for (from, until) in [(0, 1001), (3, 17), (8, 16), (990, 1001), (1001, 1001)] {
            assert!(content.is_at(from as u64, &whole[from..until]), "{from}");
        }
        assert!(!content.is_at(4, &whole[3..17]));
        assert!(!content.is_at(0, &[&whole[..], &[0]].concat()));
        assert!(!Content { seed: 8, ..content }.is_at(0, &whole));
    }
}
