//! How far the deliveries of a subscription are, and when what failed is tried again. Knows nothing of what is delivered.

use super::{Subscription, SubscriptionStatus};
use crate::time::{Span, Timestamp};

/// The longest pause between two attempts.
const LONGEST_PAUSE: Span = Span::hours(1);
/// The pause after the first failure, before it is shortened by chance.
const FIRST_PAUSE: Span = Span(250_000);
/// How often a handshake is tried before the subscription counts as failed.
const HANDSHAKES: u32 = 5;
/// How long a subscriber may ask us to wait (`Retry-After`).
const LONGEST_WISH: Span = Span::hours(24);

/// How far the deliveries of a subscription are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Course {
    /// The number of the last event that was delivered, or withheld.
    pub delivered: i64,
    /// The last event of the notification that is being tried, where it could hold several: it is repeated as it was.
    pub trying: Option<i64>,
    /// How many attempts have failed in a row.
    pub attempts: u32,
    /// Since when.
    pub failing_since: Option<Timestamp>,
    /// When to try again.
    pub next_try: Option<Timestamp>,
    /// When a notification was last taken.
    pub last_sent: Option<Timestamp>,
    /// What was wrong with the last attempt, in a word.
    pub problem: Option<String>,
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    /// Another one, when the course says.
    Retry,
    /// None: the subscription is in error.
    GiveUp,
    /// None: the subscriber wants no more.
    Off,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was wrong, in a word: `status-503`, `timed-out`.
    pub problem: String,
    /// How long the subscriber asked us to wait.
    pub retry_after: Option<Span>,
    /// Whether it said that it is gone for good (410).
    pub gone: bool,
}

impl Course {
    /// The course after a notification up to event `until` was taken; the same number for handshakes and heartbeats.
    #[must_use]
    pub fn delivered(&self, until: i64, now: Timestamp) -> Self {
        Self {
            delivered: self.delivered.max(until),
            trying: self.trying.filter(|tried| *tried > until),
            last_sent: Some(now),
            ..Self::default()
        }
    }

    /// The course after an attempt failed, and what follows. `chance` shortens the pause by up to half (0 to 255);
    /// after `give_up` of failures nothing more is tried.
    #[must_use]
    pub fn failed(
        &self,
        status: SubscriptionStatus,
        failure: &Failure,
        give_up: Span,
        chance: u8,
        now: Timestamp,
    ) -> (Self, AfterFailure) {
        let attempts = self.attempts.saturating_add(1);
        let since = self.failing_since.unwrap_or(now);
        let wish = failure
            .retry_after
            .map_or(Span(0), |wish| Span(wish.0.clamp(0, LONGEST_WISH.0)));
        let pause = back_off(attempts, chance).0.max(wish.0);
        let follows = if failure.gone {
            AfterFailure::Off
        } else if match status {
            SubscriptionStatus::Requested => attempts >= HANDSHAKES,
            _ => now.since(since).0 >= give_up.0,
        } {
            AfterFailure::GiveUp
        } else {
            AfterFailure::Retry
        };
        let course = Self {
            attempts,
            failing_since: Some(since),
            next_try: (follows == AfterFailure::Retry).then(|| now.plus(Span(pause))),
            problem: Some(failure.problem.clone()),
            ..self.clone()
        };
        (course, follows)
    }

    /// The course of a subscription that its subscriber asks for again: the attempts before count no more.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            delivered: self.delivered,
            trying: self.trying,
            last_sent: self.last_sent,
            ..Self::default()
        }
    }

    /// When the subscription wants to be looked at again without any new event.
    pub fn due(&self, subscription: &Subscription, now: Timestamp) -> Option<Timestamp> {
        let heartbeat = || {
            if !subscription.channel.is_pushed() {
                return None;
            }
            let period = Span::seconds(i64::from(subscription.channel.heartbeat?));
            Some(self.last_sent.unwrap_or(now).plus(period))
        };
        let next = match subscription.status {
            _ if subscription.deleted => return None,
            SubscriptionStatus::Off => return None,
            SubscriptionStatus::Error => None,
            SubscriptionStatus::Requested => Some(self.next_try.unwrap_or(now)),
            SubscriptionStatus::Active => self.next_try.or_else(heartbeat),
        };
        [next, subscription.end].into_iter().flatten().min()
    }
}

/// How long to wait after so many failures in a row: twice as long each time, up to an hour, and shortened by chance so
/// that many subscribers of one host do not come back together.
pub fn back_off(attempts: u32, chance: u8) -> Span {
    let doubled = FIRST_PAUSE.0.saturating_mul(
        1_i64
            .checked_shl(attempts.saturating_sub(1).min(32))
            .unwrap_or(i64::MAX),
    );
    let pause = doubled.min(LONGEST_PAUSE.0);
    let off = (pause / 2).saturating_mul(i64::from(chance)) / 256;
    Span(pause.saturating_sub(off))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> Failure {
        Failure {
            problem: "status-500".to_owned(),
            retry_after: None,
            gone: false,
        }
    }

    #[test]
    fn pauses_double_up_to_an_hour_and_are_never_cut_by_more_than_half() {
        assert_eq!(back_off(1, 0), Span(250_000));
        assert_eq!(back_off(3, 0), Span::seconds(1));
        assert_eq!(back_off(40, 0), Span::hours(1));
        assert_eq!(back_off(u32::MAX, 0), Span::hours(1));
        for attempts in 1..40 {
            let (whole, cut) = (back_off(attempts, 0), back_off(attempts, 255));
            assert!(cut.0 * 2 >= whole.0 && cut.0 < whole.0, "{attempts}");
        }
    }

    #[test]
    fn a_subscriber_that_fails_for_longer_than_we_have_patience_is_given_up_and_no_sooner() {
        let patience = Span::hours(24);
        let mut course = Course::default();
        let mut now = Timestamp(0);
        let mut tries = 0;
        loop {
            let (next, follows) = course.failed(SubscriptionStatus::Active, &failure(), patience, 100, now);
            tries += 1;
            if follows == AfterFailure::GiveUp {
                break;
            }
            now = next.next_try.unwrap();
            course = next;
        }
        assert!(now.0 >= patience.0 && now.0 < patience.0 + Span::hours(1).0);
        assert!(tries > 24, "{tries}");
    }

    #[test]
    fn what_somebody_else_tries_outlives_the_record_of_what_came_before() {
        let course = Course {
            delivered: 3,
            trying: Some(9),
            attempts: 2,
            next_try: Some(Timestamp(5)),
            ..Course::default()
        };
        let earlier = course.delivered(5, Timestamp(1));
        assert_eq!((earlier.delivered, earlier.trying), (5, Some(9)));
        assert_eq!((earlier.attempts, earlier.next_try), (0, None));
        assert_eq!(course.delivered(9, Timestamp(1)).trying, None);
    }

    #[test]
    fn a_wish_to_wait_is_granted_up_to_a_day_and_gone_is_the_end() {
        let now = Timestamp(0);
        let wait = |span| {
            let failure = Failure {
                retry_after: Some(span),
                ..failure()
            };
            let course = Course::default();
            let (after, _) = course.failed(SubscriptionStatus::Active, &failure, Span::hours(48), 0, now);
            after.next_try.unwrap()
        };
        assert_eq!(wait(Span::minutes(5)), now.plus(Span::minutes(5)));
        assert_eq!(wait(Span::hours(1000)), now.plus(Span::hours(24)));
        let gone = Failure {
            gone: true,
            ..failure()
        };
        let (after, follows) =
            Course::default().failed(SubscriptionStatus::Active, &gone, Span::hours(48), 0, now);
        assert_eq!((follows, after.next_try), (AfterFailure::Off, None));
    }

    #[test]
    fn a_handshake_is_tried_a_few_times_only() {
        let mut course = Course::default();
        for _ in 1..HANDSHAKES {
            let (next, follows) = course.failed(
                SubscriptionStatus::Requested,
                &failure(),
                Span::hours(48),
                0,
                Timestamp(0),
            );
            assert_eq!(follows, AfterFailure::Retry);
            course = next;
        }
        let (_, follows) = course.failed(
            SubscriptionStatus::Requested,
            &failure(),
            Span::hours(48),
            0,
            Timestamp(0),
        );
        assert_eq!(follows, AfterFailure::GiveUp);
    }
}
