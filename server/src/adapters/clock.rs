//! The system's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use handoff_domain::ports::Clock;
use handoff_domain::time::Timestamp;

/// The system's clock, to the microsecond.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        // A clock before 1970 is a machine that was never set: the epoch is as good an answer as any.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_says_that_it_is_this_century() {
        let now = SystemClock.now().to_instant();
        assert!(now.starts_with("20"), "{now}");
    }
}
