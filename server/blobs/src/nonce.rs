//! Numbers that tell two uploads of one key apart. Not secret, and nothing rests on their being hard to guess.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// A number that no other upload has, in this process or in another replica: the hash of nothing under a key that
/// the standard library draws from the operating system.
pub(crate) fn nonce() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_uploads_differ() {
        assert_ne!(nonce(), nonce());
    }
}
