//! What is measured of malware scans.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use handoff_domain::scan::Verdict;
use handoff_domain::time::Span;

use super::metrics::{Labelled, head, write_labelled};

/// Not measured: nothing is scanned.
const UNKNOWN: i64 = -1;

static LAG: AtomicI64 = AtomicI64::new(UNKNOWN);
static VERDICTS: Labelled<1> = Labelled::new();
static FAILURES: Labelled<1> = Labelled::new();
static INFECTED: AtomicU64 = AtomicU64::new(0);

/// For how long the content has waited that has waited longest.
pub fn lag(lag: Span) {
    LAG.store(lag.0.max(0), Ordering::Relaxed);
}

/// One scan of this process, by what is known of the content after it.
pub fn verdict(verdict: Verdict) {
    VERDICTS.count([verdict.as_str()]);
}

/// Malware that was found in content of which that was not known.
pub fn infected() {
    INFECTED.fetch_add(1, Ordering::Relaxed);
}

/// One scan that came to no verdict, or was not tried: `unreachable`, `broke-off`, `content`, `storage`.
pub fn failure(kind: &'static str) {
    FAILURES.count([kind]);
}

/// The metrics as Prometheus text; nothing where nothing is scanned.
pub(super) fn write(out: &mut String) -> fmt::Result {
    let lag = LAG.load(Ordering::Relaxed);
    if lag == UNKNOWN {
        return Ok(());
    }
    let name = "handoff_scan_lag_seconds";
    head(
        out,
        name,
        "gauge",
        "For how long the content has waited for its scan that has waited longest.",
    )?;
    writeln!(out, "{name} {}.{:06}", lag / 1_000_000, lag % 1_000_000)?;
    write_labelled(
        out,
        "handoff_scans_total",
        "Scans of this process, by what is known of the content after them.",
        ["verdict"],
        &VERDICTS,
    )?;
    write_labelled(
        out,
        "handoff_scan_failures_total",
        "Scans that came to no verdict, by what was in the way.",
        ["kind"],
        &FAILURES,
    )?;
    let name = "handoff_scan_infected_total";
    head(
        out,
        name,
        "counter",
        "Content in which this process found malware.",
    )?;
    writeln!(out, "{name} {}", INFECTED.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_of_scans_is_told() {
        lag(Span(1_500_000));
        verdict(Verdict::Clean);
        verdict(Verdict::Infected);
        infected();
        failure("unreachable");
        let mut text = String::new();
        write(&mut text).unwrap();
        for line in [
            "handoff_scan_lag_seconds 1.500000",
            "handoff_scans_total{verdict=\"clean\"} 1",
            "handoff_scans_total{verdict=\"infected\"} 1",
            "handoff_scan_failures_total{kind=\"unreachable\"} 1",
            "handoff_scan_infected_total 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
