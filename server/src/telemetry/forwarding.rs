//! What is measured of the forwarding of the audit, by the name of each sink, of which an operator configures a few.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use handoff_domain::forwarding::SinkName;
use handoff_domain::time::Span;

use super::metrics::head;

#[derive(Debug, Default)]
struct Measured {
    lag: Option<Span>,
    rows: u64,
    refused: u64,
    attempts: BTreeMap<&'static str, u64>,
}

static SINKS: Mutex<BTreeMap<String, Measured>> = Mutex::new(BTreeMap::new());

fn sinks() -> MutexGuard<'static, BTreeMap<String, Measured>> {
    SINKS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(sink: &SinkName, change: impl FnOnce(&mut Measured)) {
    change(sinks().entry(sink.as_str().to_owned()).or_default());
}

/// For how long the oldest row has waited that a sink has not taken.
pub fn lag(sink: &SinkName, lag: Span) {
    note(sink, |of| of.lag = Some(Span(lag.0.max(0))));
}

/// One attempt at a batch: `taken`, or what was wrong, of which there are only so many.
pub fn attempt(sink: &SinkName, result: &'static str) {
    note(sink, |of| {
        let count = of.attempts.entry(result).or_default();
        *count = count.saturating_add(1);
    });
}

/// Rows that a sink took, and how many of them it refused one by one.
pub fn rows_taken(sink: &SinkName, rows: usize, refused: u64) {
    note(sink, |of| {
        of.rows = of.rows.saturating_add(u64::try_from(rows).unwrap_or(u64::MAX));
        of.refused = of.refused.saturating_add(refused);
    });
}

/// The metrics as Prometheus text; nothing where there is no sink.
pub(super) fn write(out: &mut String) -> fmt::Result {
    let sinks = sinks();
    if sinks.is_empty() {
        return Ok(());
    }
    let name = "handoff_forwarding_lag_seconds";
    head(
        out,
        name,
        "gauge",
        "For how long the oldest row of the audit has waited that a sink has not taken.",
    )?;
    for (sink, of) in sinks.iter() {
        if let Some(lag) = of.lag {
            let (seconds, rest) = (lag.0 / 1_000_000, lag.0 % 1_000_000);
            writeln!(out, "{name}{{sink=\"{sink}\"}} {seconds}.{rest:06}")?;
        }
    }
    let name = "handoff_forwarding_rows_total";
    head(
        out,
        name,
        "counter",
        "Rows of the audit that this process forwarded.",
    )?;
    for (sink, of) in sinks.iter() {
        writeln!(out, "{name}{{sink=\"{sink}\"}} {}", of.rows)?;
    }
    let name = "handoff_forwarding_refused_rows_total";
    head(
        out,
        name,
        "counter",
        "Rows that a sink refused one by one of batches that it took.",
    )?;
    for (sink, of) in sinks.iter() {
        writeln!(out, "{name}{{sink=\"{sink}\"}} {}", of.refused)?;
    }
    let name = "handoff_forwarding_attempts_total";
    head(
        out,
        name,
        "counter",
        "Attempts at batches, by what became of them.",
    )?;
    for (sink, of) in sinks.iter() {
        for (result, count) in &of.attempts {
            writeln!(out, "{name}{{sink=\"{sink}\",result=\"{result}\"}} {count}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_of_a_sink_is_told_under_its_name() {
        let sink = SinkName::parse("measured").unwrap();
        lag(&sink, Span(-5));
        attempt(&sink, "timed-out");
        attempt(&sink, "taken");
        attempt(&sink, "taken");
        rows_taken(&sink, 7, 2);
        let mut text = String::new();
        write(&mut text).unwrap();
        for line in [
            "handoff_forwarding_lag_seconds{sink=\"measured\"} 0.000000",
            "handoff_forwarding_rows_total{sink=\"measured\"} 7",
            "handoff_forwarding_refused_rows_total{sink=\"measured\"} 2",
            "handoff_forwarding_attempts_total{sink=\"measured\",result=\"taken\"} 2",
            "handoff_forwarding_attempts_total{sink=\"measured\",result=\"timed-out\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
