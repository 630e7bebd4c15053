//! What was measured, in the few numbers that matter.

use std::fmt;
use std::time::Duration;

/// Times that something took.
#[derive(Debug, Clone, Default)]
pub struct Figures(Vec<Duration>);

impl Figures {
    /// Takes note of one.
    pub fn note(&mut self, took: Duration) {
        let place = self.0.partition_point(|known| *known <= took);
        self.0.insert(place, took);
    }

    /// The time that `percent` of them did not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1000.0;
        write!(
            f,
            "{} trials: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            self.0.len(),
            ms(50),
            ms(99),
            ms(100)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_hundred_times_the_third_longest_is_the_99th_percentile() {
        let mut figures = Figures::default();
        for n in (1..=200).rev() {
            figures.note(Duration::from_millis(n));
        }
        let ms = |percent| figures.percentile(percent).as_millis();
        assert_eq!((ms(50), ms(99), ms(100)), (100, 198, 200));
        assert_eq!(
            figures.to_string(),
            "200 trials: p50 100.0 ms, p99 198.0 ms, max 200.0 ms"
        );
    }
}
