//! No byte after a revocation that was answered: neither by a stream that ran when the answer came, beyond the time
//! that a cut may take, nor by one that was asked for afterwards.

use std::collections::HashMap;

use super::agreement::is_actionable;
use super::{DOCUMENT, Findings, Known, Limits, Rule, TASK};
use crate::chaos::record::{Answer, Asked, Micros, Stream};
use crate::chaos::snapshot::{GrantRow, RedemptionRow, VersionRow};

/// What the client's own kernel may hold when its stream is cut. It is read later, and had arrived before.
const RECEIVE_BUFFER: u64 = 64 * 1024;
/// What the server's kernel may hold. It goes on to its client when the process dies, and nobody can stop it.
const SEND_BUFFER: u64 = 160 * 1024;

/// A stretch of time in which a client knew that nothing may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Barred {
    from: Micros,
    until: Micros,
}

pub(super) fn check(known: &Known<'_>, limits: &Limits, findings: &mut Findings) {
    let taken_back = grants_taken_back(known);
    for stream in known.record.streams.iter().filter(|s| s.received() > 0) {
        let redemption = stream
            .redemption
            .as_deref()
            .and_then(|id| known.redemptions.get(id));
        let Some(redemption) = redemption else { continue };
        let Some(grant) = known.grants.get(redemption.grant.as_str()) else {
            continue;
        };
        let mut barred = task_bars(known, redemption, grant);
        barred.extend(document_bars(known, grant));
        barred.extend(taken_back.get(grant.id.as_str()).map(|from| Barred {
            from: *from,
            until: Micros::MAX,
        }));
        for one in &barred {
            judge(known, stream, grant, *one, limits, findings);
        }
        let lag = barred.iter().filter_map(|one| lag(known, stream, *one, limits));
        findings.lags.extend(lag.min());
    }
}

fn judge(
    known: &Known<'_>,
    stream: &Stream,
    grant: &GrantRow,
    barred: Barred,
    limits: &Limits,
    findings: &mut Findings,
) {
    let Some(first) = stream.first_byte() else { return };
    if stream.began > barred.from {
        if first < barred.until && stream.began < barred.until {
            findings.add(
                Rule::CutOff,
                format!(
                    "{} was begun {} µs after the answer that grant {} is no more, and received {} bytes",
                    stream.correlation,
                    stream.began - barred.from,
                    grant.id,
                    stream.received()
                ),
            );
        }
        return;
    }
    // Allowed after the bar was lifted again.
    if first >= barred.until {
        return;
    }
    let latest = barred.from + budget(known, stream.server, barred.from, limits);
    // Nothing arrives after a reset, whenever it is read.
    if stream.reset.is_some_and(|reset| reset <= latest) {
        return;
    }
    let until = stream.received_by(barred.until.min(stream.ended));
    let late = until.saturating_sub(stream.received_by(latest));
    if late > allowance(known, stream, latest) {
        findings.add(
            Rule::CutOff,
            format!(
                "{} received {late} bytes more than {} µs after the answer that grant {} is no more; it ended {} µs \
                 after it",
                stream.correlation,
                latest - barred.from,
                grant.id,
                stream.ended - barred.from
            ),
        );
    }
}

/// How long a cut may take on this server.
fn budget(known: &Known<'_>, server: usize, from: Micros, limits: &Limits) -> Micros {
    if known.in_doubt(server, from, from + limits.cut) {
        limits.doubt
    } else {
        limits.cut
    }
}

/// How many bytes may still be read later because they had left the server before.
fn allowance(known: &Known<'_>, stream: &Stream, latest: Micros) -> u64 {
    let died = known
        .record
        .crashes
        .iter()
        .any(|crash| crash.server == stream.server && crash.at >= stream.began && crash.at <= latest);
    RECEIVE_BUFFER + if died { SEND_BUFFER } else { 0 }
}

/// How long after the answer a stream that ran was seen to be reset.
fn lag(known: &Known<'_>, stream: &Stream, barred: Barred, limits: &Limits) -> Option<Micros> {
    let ran = stream.first_byte()? <= barred.from && barred.from <= stream.ended;
    let reset = stream.reset?;
    let crashed = known
        .record
        .crashes
        .iter()
        .any(|c| c.server == stream.server && c.at >= stream.began && c.at <= stream.ended);
    let is_usual = !crashed && !known.in_doubt(stream.server, barred.from, barred.from + limits.cut);
    (ran && is_usual && reset < barred.until).then(|| (reset - barred.from).max(0))
}

/// When a client had been told that a grant was taken back, by whatever ended it.
fn grants_taken_back<'a>(known: &Known<'a>) -> HashMap<&'a str, Micros> {
    let mut taken_back: HashMap<&str, Micros> = HashMap::new();
    let mut note = |grant: &'a str, at: Micros| {
        let first = taken_back.entry(grant).or_insert(at);
        *first = at.min(*first);
    };
    for change in &known.record.changes {
        if !matches!(change.answer, Answer::Done { .. }) {
            continue;
        }
        if let Asked::RevokeGrant { grant } = &change.asked
            && let Some(grant) = known.grants.get(grant.as_str())
        {
            note(grant.id.as_str(), change.ended);
        }
        for row in known.rows_of(&change.correlation) {
            if let ("grant-revoked", true, Some(grant)) = (row.event.as_str(), row.is_success, &row.grant) {
                note(grant, change.ended);
            }
        }
    }
    taken_back
}

/// When a client knew that the Task did not allow this redemption.
fn task_bars(known: &Known<'_>, redemption: &RedemptionRow, grant: &GrantRow) -> Vec<Barred> {
    bars(known, known.versions(TASK, &grant.task), |task| {
        !task.is_deleted
            && is_actionable(&task.status)
            && task.owner.as_ref() == Some(&redemption.grantee)
            && task.names.contains(&grant.document)
    })
}

/// When a client knew that the document did not have this content, or was not to be released.
fn document_bars(known: &Known<'_>, grant: &GrantRow) -> Vec<Barred> {
    bars(known, known.versions(DOCUMENT, &grant.document), |document| {
        !document.is_deleted && document.status == "current" && document.names.contains(&grant.binary)
    })
}

/// Runs of versions that don't allow it, each from the first answer that told of one of them until the earliest
/// moment at which the next one that does can have been made.
fn bars(known: &Known<'_>, versions: &[&VersionRow], allows: impl Fn(&VersionRow) -> bool) -> Vec<Barred> {
    let mut bars = Vec::new();
    let mut from: Option<Micros> = None;
    let mut was_barred = false;
    for version in versions {
        if allows(version) {
            if let (true, Some(from)) = (was_barred, from.take()) {
                let until = known.begun(version);
                if from < until {
                    bars.push(Barred { from, until });
                }
            }
            was_barred = false;
        } else {
            was_barred = true;
            from = match (from, known.answered(version)) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
    }
    if let (true, Some(from)) = (was_barred, from) {
        bars.push(Barred {
            from,
            until: Micros::MAX,
        });
    }
    bars
}
