//! What is measured of content that is disposed of.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use handoff_domain::time::Span;

use super::metrics::head;

/// Not measured yet.
const UNKNOWN: i64 = -1;

static LATE: AtomicI64 = AtomicI64::new(UNKNOWN);
static WAITING: AtomicU64 = AtomicU64::new(0);

/// How much content is marked and not gone, and for how long the first of it could have been.
pub fn disposals_waiting(count: u64, late: Span) {
    WAITING.store(count, Ordering::Relaxed);
    LATE.store(late.0.max(0), Ordering::Relaxed);
}

/// The metrics as Prometheus text.
pub(super) fn write(out: &mut String) -> fmt::Result {
    let late = LATE.load(Ordering::Relaxed);
    if late == UNKNOWN {
        return Ok(());
    }
    let name = "handoff_disposals_waiting";
    head(
        out,
        name,
        "gauge",
        "Contents that are marked to be disposed of and are still in the blob store, held ones included.",
    )?;
    writeln!(out, "{name} {}", WAITING.load(Ordering::Relaxed))?;
    let name = "handoff_disposal_late_seconds";
    head(
        out,
        name,
        "gauge",
        "For how long the first content that is marked could have been disposed of; a hold keeps it, or it fails.",
    )?;
    writeln!(out, "{name} {}.{:06}", late / 1_000_000, late % 1_000_000)
}
