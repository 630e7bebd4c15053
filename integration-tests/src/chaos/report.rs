//! What a run says of itself.

use std::fmt;

use super::Outcome;
use super::check::Findings;
use super::record::{Answer, Micros};

/// The figures of a run.
pub struct Report<'a> {
    /// What came of it.
    pub outcome: &'a Outcome,
    /// What was found.
    pub findings: &'a Findings,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = &self.outcome.record;
        let store = &self.outcome.store;
        let answered = |is: fn(&Answer) -> bool| record.changes.iter().filter(|c| is(&c.answer)).count();
        writeln!(
            f,
            "  {} changes asked for: {} done, {} refused, {} never heard of",
            record.changes.len(),
            answered(|a| matches!(a, Answer::Done { .. })),
            answered(|a| matches!(a, Answer::Refused { .. })),
            answered(|a| matches!(a, Answer::Unknown)),
        )?;
        let served: Vec<_> = record.streams.iter().filter(|s| s.received() > 0).collect();
        writeln!(
            f,
            "  {} downloads asked for: {} served, {} of them whole, {} resumed, {} MiB in all",
            record.streams.len(),
            served.len(),
            served.iter().filter(|s| s.is_whole()).count(),
            served.iter().filter(|s| s.status == 206).count(),
            served.iter().map(|s| s.received()).sum::<u64>() >> 20,
        )?;
        writeln!(
            f,
            "  {} processes killed, {} troubles with database and content store",
            record.crashes.len(),
            record.troubles.len()
        )?;
        writeln!(
            f,
            "  in the store: {} versions, {} grants, {} redemptions, {} audit rows, {} outbox rows, {} contents, \
             {} objects of which {} are nobody's",
            store.versions.len(),
            store.grants.len(),
            store.redemptions.len(),
            store.audit.len(),
            store.outbox.len(),
            store.binaries.len(),
            store.objects.len(),
            store.objects.len().saturating_sub(store.binaries.len()),
        )?;
        let lags = &self.findings.lags;
        if let (Some(half), Some(most), Some(last)) = (at(lags, 50), at(lags, 99), lags.last()) {
            writeln!(
                f,
                "  {} streams cut while they ran: reset after the answer by p50 {half} ms, p99 {most} ms, at most {} ms",
                lags.len(),
                last / 1000
            )?;
        }
        Ok(())
    }
}

/// A percentile of sorted times, in milliseconds.
fn at(sorted: &[Micros], percent: usize) -> Option<Micros> {
    let place = (sorted.len() * percent).div_ceil(100).checked_sub(1)?;
    sorted.get(place).map(|micros| micros / 1000)
}
