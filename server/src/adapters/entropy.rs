//! The operating system's generator.

use std::fmt;

use handoff_domain::ports::Entropy;
use ring::rand::{SecureRandom, SystemRandom};

/// The operating system's generator, by way of ring.
pub struct OsEntropy(SystemRandom);

impl OsEntropy {
    /// The generator.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the system for randomness"
    )]
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for OsEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for OsEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OsEntropy")
    }
}

impl Entropy for OsEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        // A secret that can be guessed is worse than no answer.
        assert!(
            self.0.fill(bytes).is_ok(),
            "the operating system gives no randomness"
        );
    }
}

#[cfg(test)]
mod tests {
    use handoff_domain::Timestamp;

    use super::*;

    #[test]
    fn no_two_ids_are_the_same() {
        let entropy = OsEntropy::new();
        assert_ne!(entropy.fresh_id(), entropy.fresh_id());
        assert_eq!(entropy.fresh_id().len(), 32);
    }

    #[test]
    fn ids_of_a_later_millisecond_sort_later() {
        let entropy = OsEntropy::new();
        let at = |milliseconds: i64| entropy.ordered_id(Timestamp(milliseconds * 1000));
        let ids = [
            at(-1),
            at(1),
            at(0x1_0000),
            at(1_790_000_000_000),
            at(1_790_000_000_001),
        ];
        assert!(ids.is_sorted(), "{ids:?}");
        assert!(ids.iter().all(|id| id.len() == 32), "{ids:?}");
        assert_ne!(at(1), at(1));
    }
}
