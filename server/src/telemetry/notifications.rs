//! What is counted of notifications: events given to subscriptions, deliveries and how long they took.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use handoff_domain::time::Span;

use super::metrics::head;

/// Upper bounds of the delay histogram, in microseconds, and as they are written.
const BOUNDS: [(u64, &str); 9] = [
    (5_000, "0.005"),
    (10_000, "0.01"),
    (20_000, "0.02"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (500_000, "0.5"),
    (5_000_000, "5"),
    (60_000_000, "60"),
    (3_600_000_000, "3600"),
];

static GIVEN: AtomicU64 = AtomicU64::new(0);
static SENT: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);
static WITHHELD: AtomicU64 = AtomicU64::new(0);
static GIVEN_UP: AtomicU64 = AtomicU64::new(0);
static DELAYS: [AtomicU64; BOUNDS.len() + 1] = [const { AtomicU64::new(0) }; BOUNDS.len() + 1];
static DELAY_SUM: AtomicU64 = AtomicU64::new(0);

/// Events of the outbox that were given to the subscriptions that they concern.
pub fn events_given(count: usize) {
    GIVEN.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// One attempt, and whether it was taken.
pub fn notification_sent(taken: bool) {
    if taken { &SENT } else { &FAILED }.fetch_add(1, Ordering::Relaxed);
}

/// Events that were withheld because their subscriber has no right to them.
pub fn notifications_withheld(count: usize) {
    WITHHELD.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// A subscription was given up.
pub fn subscription_given_up() {
    GIVEN_UP.fetch_add(1, Ordering::Relaxed);
}

/// From the change to its delivery.
pub fn notification_delay(delay: Span) {
    let delay = u64::try_from(delay.0).unwrap_or(0);
    let place = BOUNDS
        .iter()
        .position(|(bound, _)| delay <= *bound)
        .unwrap_or(BOUNDS.len());
    if let Some(bucket) = DELAYS.get(place) {
        bucket.fetch_add(1, Ordering::Relaxed);
    }
    DELAY_SUM.fetch_add(delay, Ordering::Relaxed);
}

/// The metrics as Prometheus text.
pub(super) fn write(out: &mut String) -> fmt::Result {
    let counters: [(&str, &str, &AtomicU64); 4] = [
        (
            "handoff_events_given_total",
            "Events of the outbox that were given to the subscriptions that they concern.",
            &GIVEN,
        ),
        (
            "handoff_notifications_withheld_total",
            "Events that were withheld because their subscriber has no right to them any more.",
            &WITHHELD,
        ),
        (
            "handoff_subscriptions_given_up_total",
            "Subscriptions whose subscriber could not be reached for too long, or wants no more.",
            &GIVEN_UP,
        ),
        (
            "handoff_notification_failures_total",
            "Attempts at a notification that were not taken.",
            &FAILED,
        ),
    ];
    for (name, help, counter) in counters {
        head(out, name, "counter", help)?;
        writeln!(out, "{name} {}", counter.load(Ordering::Relaxed))?;
    }
    let name = "handoff_notifications_total";
    head(out, name, "counter", "Notifications that were taken.")?;
    writeln!(out, "{name} {}", SENT.load(Ordering::Relaxed))?;
    let name = "handoff_notification_delay_seconds";
    head(out, name, "histogram", "From a change to its delivery.")?;
    let mut count = 0_u64;
    for ((_, bound), bucket) in BOUNDS.iter().zip(&DELAYS) {
        count = count.saturating_add(bucket.load(Ordering::Relaxed));
        writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}")?;
    }
    count = count.saturating_add(DELAYS.last().map_or(0, |last| last.load(Ordering::Relaxed)));
    writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}")?;
    let sum = Span(i64::try_from(DELAY_SUM.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
    writeln!(
        out,
        "{name}_sum {}.{:06}",
        sum.whole_seconds(),
        sum.0.rem_euclid(1_000_000)
    )?;
    writeln!(out, "{name}_count {count}")
}
