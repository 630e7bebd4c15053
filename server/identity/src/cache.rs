//! Tokens that were validated a moment ago, found by their SHA-256: a signature is checked once a minute,
//! not once a request. Bounded, and it never holds a token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use handoff_domain::time::Timestamp;

const SHARDS: usize = 16;
const MOST_PER_SHARD: usize = 1024;

/// SHA-256 of a token.
pub(crate) type TokenHash = [u8; 32];

struct Kept<V> {
    value: Arc<V>,
    until: Timestamp,
}

/// A bounded map from token hash to what was found of the token.
pub(crate) struct TokenCache<V> {
    shards: Vec<Mutex<HashMap<TokenHash, Kept<V>>>>,
}

impl<V> TokenCache<V> {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect(),
        }
    }

    fn with<R>(
        &self,
        hash: &TokenHash,
        act: impl FnOnce(&mut HashMap<TokenHash, Kept<V>>) -> R,
    ) -> Option<R> {
        let [first, ..] = hash;
        let shard = self.shards.get(usize::from(*first) % SHARDS)?;
        // What is kept is whole at every step, so a poisoned lock is as good as any.
        Some(act(&mut shard.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// What is kept under `hash` and still good at `now`.
    pub(crate) fn get(&self, hash: &TokenHash, now: Timestamp) -> Option<Arc<V>> {
        self.with(hash, |map| {
            map.get(hash)
                .filter(|k| now < k.until)
                .map(|k| Arc::clone(&k.value))
        })
        .flatten()
    }

    /// Keeps `value` until `until`. A full shard first drops what has ended, then everything: whoever is
    /// dropped is validated again.
    pub(crate) fn put(&self, hash: TokenHash, value: Arc<V>, now: Timestamp, until: Timestamp) {
        self.with(&hash, |map| {
            if map.len() >= MOST_PER_SHARD {
                map.retain(|_, kept| now < kept.until);
                if map.len() >= MOST_PER_SHARD {
                    map.clear();
                }
            }
            map.insert(hash, Kept { value, until });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_ends_at_its_time() {
        let cache = TokenCache::new();
        cache.put([7; 32], Arc::new("lane"), Timestamp(0), Timestamp(10));
        assert_eq!(cache.get(&[7; 32], Timestamp(9)).as_deref(), Some(&"lane"));
        assert_eq!(cache.get(&[7; 32], Timestamp(10)), None);
        assert_eq!(cache.get(&[8; 32], Timestamp(0)), None);
    }

    #[test]
    fn a_flood_of_tokens_does_not_grow_the_cache_without_end() {
        let cache = TokenCache::new();
        for n in 0..10_000_u32 {
            let mut hash = [0; 32];
            hash[1..5].copy_from_slice(&n.to_be_bytes());
            cache.put(hash, Arc::new(n), Timestamp(0), Timestamp(10));
        }
        let kept: usize = cache.shards.iter().map(|s| s.lock().unwrap().len()).sum();
        assert!(kept <= MOST_PER_SHARD, "{kept}");
    }
}
