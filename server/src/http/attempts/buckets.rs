//! How often each key may fail in a minute (the generic cell rate algorithm: one instant a key). Bounded, whatever is
//! sent; knows neither HTTP nor what the keys stand for.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use handoff_domain::time::{Span, Timestamp};

const MINUTE: Span = Span::minutes(1);
const SHARDS: u64 = 16;
/// 50,000 keys in all.
const MOST_PER_SHARD: usize = 3125;

/// When all failures of a key are worked off.
type Owed<K> = HashMap<K, Timestamp>;

/// Failures by key.
pub(crate) struct Buckets<K> {
    /// In which one failure is worked off; `None` where nothing is counted.
    pace: Option<Span>,
    /// What may be left to work off, before one more is too much.
    most: Span,
    shards: Vec<Mutex<Owed<K>>>,
    /// Secret, so that nobody can choose keys for one shard.
    hasher: RandomState,
}

impl<K: Eq + Hash> Buckets<K> {
    /// `per_minute` failures of a key, all at once or one by one; 0 is no limit.
    pub(crate) fn new(per_minute: usize) -> Self {
        let number = i64::try_from(per_minute).unwrap_or(i64::MAX);
        let pace = MINUTE.0.checked_div(number).map(|pace| pace.max(1));
        let but_one = number.saturating_sub(1);
        Self {
            pace: pace.map(Span),
            most: Span(pace.unwrap_or_default().saturating_mul(but_one)),
            shards: (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect(),
            hasher: RandomState::new(),
        }
    }

    /// How long it is until `key` may fail again, where it may not now.
    pub(crate) fn over(&self, key: &K, now: Timestamp) -> Option<Span> {
        self.longer_than(self.most, key, now)
    }

    /// How long it is until everything that `key` failed at is worked off, where something is left.
    pub(crate) fn owes(&self, key: &K, now: Timestamp) -> Option<Span> {
        self.longer_than(Span(0), key, now)
    }

    fn longer_than(&self, most: Span, key: &K, now: Timestamp) -> Option<Span> {
        self.pace?;
        let until = self.shard(key)?.get(key).copied()?;
        let wait = self.left(until, now).0.saturating_sub(most.0);
        (wait > 0).then_some(Span(wait))
    }

    /// Counts a failure.
    pub(crate) fn count(&self, key: K, now: Timestamp) {
        let Some(pace) = self.pace else { return };
        let Some(mut shard) = self.shard(&key) else { return };
        let before = match shard.get(&key) {
            Some(until) => self.left(*until, now),
            None => Span(0),
        };
        if shard.len() >= MOST_PER_SHARD && !shard.contains_key(&key) {
            make_room(&mut shard, now);
        }
        let left = before.0.saturating_add(pace.0).min(self.longest().0);
        shard.insert(key, now.plus(Span(left)));
    }

    /// What is left to work off. More than can be is of a clock that was set back since, and worth nothing.
    fn left(&self, until: Timestamp, now: Timestamp) -> Span {
        let left = until.since(now);
        if left.0 < 0 || left > self.longest() {
            Span(0)
        } else {
            left
        }
    }

    /// What failed at the same time, and so could not be refused, is worked off as well; but nobody waits for much more
    /// than a minute.
    fn longest(&self) -> Span {
        let minute = MINUTE.0.saturating_add(self.pace.map_or(0, |pace| pace.0));
        Span(self.most.0.saturating_add(minute))
    }

    fn shard(&self, key: &K) -> Option<MutexGuard<'_, Owed<K>>> {
        let place = usize::try_from(self.hasher.hash_one(key) % SHARDS).ok()?;
        let shard = self.shards.get(place)?;
        // What is kept is whole at every step, so a poisoned lock is as good as any.
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Forgets who has nothing left to work off; and where that is not enough the half with the least, so that a flood of
/// new keys does not let go of those that failed most.
fn make_room<K: Eq + Hash>(owed: &mut Owed<K>, now: Timestamp) {
    owed.retain(|_, until| *until > now);
    if owed.len() < MOST_PER_SHARD {
        return;
    }
    let mut all: Vec<Timestamp> = owed.values().copied().collect();
    let mut to_go = all.len() / 2;
    let (_, middle, _) = all.select_nth_unstable(to_go);
    let middle = *middle;
    owed.retain(|_, until| {
        let goes = to_go > 0 && *until <= middle;
        to_go = to_go.saturating_sub(usize::from(goes));
        !goes
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: i64) -> Timestamp {
        Timestamp(ms * 1000)
    }

    fn kept(buckets: &Buckets<u32>) -> usize {
        buckets.shards.iter().map(|s| s.lock().unwrap().len()).sum()
    }

    #[test]
    fn so_many_fail_in_a_minute_at_once_or_one_by_one() {
        let buckets = Buckets::new(10);
        for _ in 0..10 {
            assert_eq!(buckets.over(&1, at(0)), None);
            buckets.count(1, at(0));
        }
        assert_eq!(buckets.over(&1, at(0)), Some(Span::seconds(6)));
        assert_eq!(buckets.owes(&1, at(0)), Some(Span::seconds(60)));
        assert_eq!(buckets.over(&2, at(0)), None, "another is another");
        assert_eq!(buckets.over(&1, at(5999)), Some(Span(1000)));
        assert_eq!(buckets.over(&1, at(6000)), None);
        buckets.count(1, at(6000));
        assert_eq!(buckets.over(&1, at(6000)), Some(Span::seconds(6)));
        assert_eq!(buckets.owes(&1, at(66_000)), None);
    }

    #[test]
    fn any_number_is_kept_exactly() {
        for number in [1, 7, 30, 999, 60_000] {
            let buckets = Buckets::new(number);
            for done in 0..number {
                assert_eq!(buckets.over(&1, at(0)), None, "{done} of {number}");
                buckets.count(1, at(0));
            }
            assert!(buckets.over(&1, at(0)).is_some(), "{number}");
            assert_eq!(buckets.over(&1, at(60_000)), None, "{number}");
        }
    }

    #[test]
    fn what_could_not_be_refused_in_time_is_worked_off_within_another_minute() {
        let buckets = Buckets::new(10);
        for _ in 0..1000 {
            buckets.count(1, at(0));
        }
        assert_eq!(buckets.over(&1, at(0)), Some(Span::seconds(66)));
        assert_eq!(buckets.over(&1, at(66_000)), None);
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let buckets = Buckets::new(1);
        buckets.count(1, at(3_600_000));
        assert_eq!(buckets.over(&1, at(0)), None);
        buckets.count(1, at(0));
        assert_eq!(buckets.over(&1, at(0)), Some(Span::seconds(60)));
    }

    #[test]
    fn none_is_no_limit() {
        let buckets = Buckets::new(0);
        for _ in 0..1000 {
            buckets.count(1, at(0));
        }
        assert_eq!((buckets.over(&1, at(0)), kept(&buckets)), (None, 0));
    }

    #[test]
    fn a_flood_of_keys_grows_nothing_without_end_and_frees_nobody_who_failed_often() {
        let buckets = Buckets::new(10);
        for _ in 0..10 {
            buckets.count(0, at(0));
        }
        for key in 1..200_000 {
            buckets.count(key, at(1));
        }
        let kept = kept(&buckets);
        assert!((20_000..=SHARDS_TIMES_MOST).contains(&kept), "{kept}");
        assert!(buckets.over(&0, at(1)).is_some());
        // What is worked off goes first.
        buckets.count(0, at(5000));
        for key in 200_000..300_000 {
            buckets.count(key, at(6500));
        }
        assert!(buckets.over(&0, at(6500)).is_some());
    }

    const SHARDS_TIMES_MOST: usize = 50_000;
}
