//! How long each of many requests took, and what can be said of all of them. Every figure is kept: a run has a few
//! hundred thousand at most, so no percentile is an estimate.

use std::time::Duration;

/// The latencies of one load.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    nanos: Vec<u64>,
    sorted: bool,
}

impl Latencies {
    /// Adds one.
    pub fn add(&mut self, latency: Duration) {
        self.nanos
            .push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        self.sorted = false;
    }

    /// Adds those of another load.
    pub fn merge(&mut self, other: &Self) {
        self.nanos.extend_from_slice(&other.nanos);
        self.sorted = false;
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.nanos.len()
    }

    /// The smallest latency that at least `share` (0 to 1) of all do not exceed; zero where there is none.
    pub fn percentile(&mut self, share: f64) -> Duration {
        if !self.sorted {
            self.nanos.sort_unstable();
            self.sorted = true;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank among far less than 2^52"
        )]
        let rank = (share * self.nanos.len() as f64).ceil() as usize;
        let at = rank.clamp(1, self.nanos.len().max(1)) - 1;
        Duration::from_nanos(self.nanos.get(at).copied().unwrap_or_default())
    }

    /// The median.
    pub fn p50(&mut self) -> Duration {
        self.percentile(0.5)
    }

    /// What one in a hundred exceeds.
    pub fn p99(&mut self) -> Duration {
        self.percentile(0.99)
    }

    /// The longest.
    pub fn longest(&mut self) -> Duration {
        self.percentile(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(millis: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::default();
        for millis in millis {
            latencies.add(Duration::from_millis(millis));
        }
        latencies
    }

    #[test]
    fn a_percentile_is_one_of_the_latencies_and_not_below_its_share() {
        let mut hundred = of((1..=100).rev());
        assert_eq!(hundred.p50(), Duration::from_millis(50));
        assert_eq!(hundred.p99(), Duration::from_millis(99));
        assert_eq!(hundred.longest(), Duration::from_millis(100));
        let mut three = of([5, 1, 3]);
        assert_eq!(three.p50(), Duration::from_millis(3));
        assert_eq!(three.p99(), Duration::from_millis(5));
    }

    #[test]
    fn what_is_added_after_a_percentile_counts_too() {
        let mut latencies = of([1]);
        assert_eq!(latencies.longest(), Duration::from_millis(1));
        latencies.add(Duration::from_millis(9));
        assert_eq!(latencies.longest(), Duration::from_millis(9));
        assert_eq!(latencies.count(), 2);
    }

    #[test]
    fn those_of_another_load_count_like_its_own() {
        let mut latencies = of([1, 3]);
        assert_eq!(latencies.longest(), Duration::from_millis(3));
        latencies.merge(&of([9, 2]));
        assert_eq!(
            (latencies.count(), latencies.p50()),
            (4, Duration::from_millis(2))
        );
        assert_eq!(latencies.longest(), Duration::from_millis(9));
    }

    #[test]
    fn nothing_measured_is_zero() {
        assert_eq!(Latencies::default().p99(), Duration::ZERO);
    }
}
