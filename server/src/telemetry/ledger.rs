//! What is measured of the ledger's seal.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use handoff_domain::time::Span;

use super::metrics::head;

/// Not measured yet.
const UNKNOWN: i64 = -1;

static LAG: AtomicI64 = AtomicI64::new(UNKNOWN);
static SEALED: AtomicU64 = AtomicU64::new(0);
static UNSOUND: AtomicU64 = AtomicU64::new(0);

/// For how long the oldest row of any tenant has waited.
pub fn seal_lag(lag: Span) {
    LAG.store(lag.0.max(0), Ordering::Relaxed);
}

/// Rows that this process has sealed.
pub fn rows_sealed(count: usize) {
    SEALED.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// Of how many tenants the ledger is not what was signed.
pub fn unsound_ledgers(count: usize) {
    UNSOUND.store(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// The metrics as Prometheus text.
pub(super) fn write(out: &mut String) -> fmt::Result {
    let lag = LAG.load(Ordering::Relaxed);
    if lag != UNKNOWN {
        let name = "handoff_audit_seal_lag_seconds";
        head(
            out,
            name,
            "gauge",
            "For how long the oldest row of the audit has waited to be sealed.",
        )?;
        writeln!(out, "{name} {}.{:06}", lag / 1_000_000, lag % 1_000_000)?;
    }
    let name = "handoff_audit_rows_sealed_total";
    head(
        out,
        name,
        "counter",
        "Rows of the audit that this process has sealed.",
    )?;
    writeln!(out, "{name} {}", SEALED.load(Ordering::Relaxed))?;
    let name = "handoff_audit_unsound_ledgers";
    head(
        out,
        name,
        "gauge",
        "Tenants whose ledger is not what was signed last, and is not sealed further. Seen by who seals.",
    )?;
    writeln!(out, "{name} {}", UNSOUND.load(Ordering::Relaxed))
}
