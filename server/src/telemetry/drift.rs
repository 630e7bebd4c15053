//! What is measured of differences between the blob store and the records.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use handoff_domain::drift::DriftKind;
use handoff_domain::time::Span;

use super::metrics::head;

/// Never looked at yet.
const UNKNOWN: i64 = -1;

/// Count and bytes of each kind, in the order of [`DriftKind::ALL`].
static DRIFT: [(AtomicU64, AtomicU64); DriftKind::ALL.len()] =
    [const { (AtomicU64::new(0), AtomicU64::new(0)) }; DriftKind::ALL.len()];
static AGE: AtomicI64 = AtomicI64::new(UNKNOWN);

/// How much differs by now, and how long ago the content was last looked at that was not looked at for the longest.
pub fn drift(counts: &[(DriftKind, u64, u64)], age: Option<Span>) {
    for (kind, (count, bytes)) in DriftKind::ALL.iter().zip(&DRIFT) {
        let found = counts.iter().find(|(of, _, _)| of == kind);
        count.store(found.map_or(0, |(_, count, _)| *count), Ordering::Relaxed);
        bytes.store(found.map_or(0, |(_, _, bytes)| *bytes), Ordering::Relaxed);
    }
    AGE.store(age.map_or(UNKNOWN, |age| age.0.max(0)), Ordering::Relaxed);
}

/// The metrics as Prometheus text.
pub(super) fn write(out: &mut String) -> fmt::Result {
    let age = AGE.load(Ordering::Relaxed);
    if age == UNKNOWN {
        return Ok(());
    }
    let name = "handoff_content_drift";
    head(
        out,
        name,
        "gauge",
        "Contents of which the blob store and the records say different things, by how they differ.",
    )?;
    for (kind, (count, _)) in DriftKind::ALL.iter().zip(&DRIFT) {
        writeln!(
            out,
            "{name}{{kind=\"{}\"}} {}",
            kind.as_str(),
            count.load(Ordering::Relaxed)
        )?;
    }
    let name = "handoff_content_drift_bytes";
    head(out, name, "gauge", "Their bytes.")?;
    for (kind, (_, bytes)) in DriftKind::ALL.iter().zip(&DRIFT) {
        writeln!(
            out,
            "{name}{{kind=\"{}\"}} {}",
            kind.as_str(),
            bytes.load(Ordering::Relaxed)
        )?;
    }
    let name = "handoff_content_looked_at_seconds";
    head(
        out,
        name,
        "gauge",
        "How long ago all content was last held against the records.",
    )?;
    writeln!(out, "{name} {}.{:06}", age / 1_000_000, age % 1_000_000)
}
