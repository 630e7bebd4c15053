//! What is measured of the export of traces.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::metrics::{Labelled, head, write_labelled};
use super::super::spans;

static EXPORTED: AtomicU64 = AtomicU64::new(0);
static DROPPED: Labelled<1> = Labelled::new();

/// Spans that the collector took.
pub(super) fn exported(spans: u64) {
    EXPORTED.fetch_add(spans, Ordering::Relaxed);
}

/// Spans that no collector has: `queue-full`, `not-taken`, `refused`.
pub(super) fn dropped(why: &'static str, spans: u64) {
    DROPPED.add([why], spans);
}

/// The metrics as Prometheus text; nothing where nothing is traced.
pub(in super::super) fn write(out: &mut String) -> fmt::Result {
    if !spans::are_exported() {
        return Ok(());
    }
    let name = "handoff_traces_exported_total";
    head(out, name, "counter", "Spans that the collector of traces took.")?;
    writeln!(out, "{name} {}", EXPORTED.load(Ordering::Relaxed))?;
    write_labelled(
        out,
        "handoff_traces_dropped_total",
        "Spans that no collector of traces has, by why.",
        ["reason"],
        &DROPPED,
    )
}
