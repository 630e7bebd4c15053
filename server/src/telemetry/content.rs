//! What is measured of content: how long a grant waits until it is redeemed, and what the content store failed at.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use handoff_domain::time::Span;

use super::metrics::{Labelled, head, write_labelled};

/// Upper bounds of the histogram, in seconds.
const BOUNDS: [u64; 9] = [1, 5, 15, 60, 300, 900, 3_600, 14_400, 86_400];

static WAITS: [AtomicU64; BOUNDS.len() + 1] = [const { AtomicU64::new(0) }; BOUNDS.len() + 1];
static WAITED: AtomicU64 = AtomicU64::new(0);
static BLOB_ERRORS: Labelled<2> = Labelled::new();

/// A use of a grant that was issued so long ago.
pub fn redeemed_after(wait: Span) {
    let micros = u64::try_from(wait.0).unwrap_or(0);
    let place = BOUNDS
        .iter()
        .position(|bound| micros <= bound.saturating_mul(1_000_000))
        .unwrap_or(BOUNDS.len());
    if let Some(bucket) = WAITS.get(place) {
        bucket.fetch_add(1, Ordering::Relaxed);
    }
    WAITED.fetch_add(micros, Ordering::Relaxed);
}

/// Something that the content store did not do: `get` and the like, and why.
pub fn blob_error(operation: &'static str, kind: &'static str) {
    BLOB_ERRORS.count([operation, kind]);
}

/// The metrics as Prometheus text.
pub(super) fn write(out: &mut String) -> fmt::Result {
    write_labelled(
        out,
        "handoff_blob_errors_total",
        "What the content store did not do, by what was asked of it and why.",
        ["operation", "kind"],
        &BLOB_ERRORS,
    )?;
    let name = "handoff_redemption_wait_seconds";
    head(
        out,
        name,
        "histogram",
        "From the issue of a grant to each use of it.",
    )?;
    let mut count = 0_u64;
    for (bound, bucket) in BOUNDS.iter().zip(&WAITS) {
        count = count.saturating_add(bucket.load(Ordering::Relaxed));
        writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {count}")?;
    }
    count = count.saturating_add(WAITS.last().map_or(0, |last| last.load(Ordering::Relaxed)));
    writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}")?;
    let sum = WAITED.load(Ordering::Relaxed);
    writeln!(out, "{name}_sum {}.{:06}", sum / 1_000_000, sum % 1_000_000)?;
    writeln!(out, "{name}_count {count}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_told() {
        redeemed_after(Span::seconds(3));
        redeemed_after(Span(-5));
        redeemed_after(Span::hours(100));
        blob_error("get", "changed");
        let mut text = String::new();
        write(&mut text).unwrap();
        for line in [
            "handoff_redemption_wait_seconds_bucket{le=\"1\"} 1",
            "handoff_redemption_wait_seconds_bucket{le=\"5\"} 2",
            "handoff_redemption_wait_seconds_bucket{le=\"86400\"} 2",
            "handoff_redemption_wait_seconds_bucket{le=\"+Inf\"} 3",
            "handoff_redemption_wait_seconds_sum 360003.000000",
            "handoff_redemption_wait_seconds_count 3",
            "handoff_blob_errors_total{operation=\"get\",kind=\"changed\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
