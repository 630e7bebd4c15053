//! Every byte served has its committed authorization; every stream's end is written down once; what processes that
//! died left open is closed.

use std::collections::HashMap;

use super::{Findings, Known, Rule};
use crate::chaos::record::{Micros, Stream};
use crate::chaos::snapshot::{AuditRow, RedemptionRow};

/// How long after a stream has ended a process that lives has surely written its end down.
const WRITTEN: Micros = 30_000_000;

pub(super) fn check(known: &Known<'_>, findings: &mut Findings) {
    let mut lives: HashMap<&str, Vec<&AuditRow>> = HashMap::new();
    for row in &known.store.audit {
        if let Some(id) = row.redemption.as_deref() {
            lives.entry(id).or_default().push(row);
        }
    }
    for stream in &known.record.streams {
        let is_served = matches!(stream.status, 200 | 206) || stream.received() > 0;
        if let (true, Some(why)) = (is_served, unauthorized(known, stream, &lives)) {
            findings.add(
                Rule::Authorized,
                format!(
                    "{} received {} bytes of Binary/{} under redemption {:?}: {why}",
                    stream.correlation,
                    stream.received(),
                    stream.binary,
                    stream.redemption
                ),
            );
        }
    }
    for redemption in &known.store.redemptions {
        let life = lives.remove(redemption.id.as_str()).unwrap_or_default();
        check_life(known, redemption, &life, findings);
    }
    for (id, rows) in lives {
        if rows.iter().any(|row| row.event == "redemption-authorized") {
            findings.add(
                Rule::Audit,
                format!("redemption {id} is reported as authorized, and is not there"),
            );
        }
    }
}

fn unauthorized(
    known: &Known<'_>,
    stream: &Stream,
    lives: &HashMap<&str, Vec<&AuditRow>>,
) -> Option<&'static str> {
    let Some(id) = stream.redemption.as_deref() else {
        return Some("the answer named none");
    };
    let Some(redemption) = known.redemptions.get(id) else {
        return Some("it is not in the store");
    };
    let grant = known.grants.get(redemption.grant.as_str())?;
    if grant.binary != stream.binary {
        return Some("its grant is for another content");
    }
    if redemption.grantee != stream.actor {
        return Some("it is another's");
    }
    let rows = lives.get(id).map_or(&[][..], Vec::as_slice);
    let Some(row) = rows.iter().find(|row| row.event == "redemption-authorized") else {
        return Some("no audit row says that it was authorized");
    };
    let first = stream.first_byte().unwrap_or(stream.ended);
    (row.recorded > first).then_some("it was authorized after the first byte")
}

fn check_life(known: &Known<'_>, redemption: &RedemptionRow, life: &[&AuditRow], findings: &mut Findings) {
    let count = |events: &[&str]| {
        let rows = life.iter().filter(|row| events.contains(&row.event.as_str()));
        i64::try_from(rows.count()).unwrap_or(i64::MAX)
    };
    let authorized = count(&["redemption-authorized"]);
    let resumed = count(&["redemption-resumed"]);
    let ended = count(&[
        "redemption-completed",
        "redemption-interrupted",
        "redemption-cut-off",
        "redemption-integrity-failed",
    ]);
    if redemption.is_left_open() {
        findings.add(
            Rule::LeftOpen,
            format!(
                "redemption {} is {} at {:?} since {}",
                redemption.id, redemption.state, redemption.process, redemption.opened
            ),
        );
        return;
    }
    // One that was never streamed ends unseen where it was cut, and seen where it was given up.
    let ends = if redemption.streams == 0 {
        i64::from(redemption.state != "cut-off")
    } else {
        redemption.streams
    };
    // The end of a stream that was cut by one process while its own process died is known to nobody.
    let untold = if has_seen_a_crash(known, redemption) {
        ends
    } else {
        0
    };
    let is_told = (ends - untold..=ends).contains(&ended);
    if authorized != 1 || resumed != (redemption.streams - 1).max(0) || !is_told {
        findings.add(
            Rule::Audit,
            format!(
                "redemption {} is {} after {} streams; its rows say {authorized} times authorized, {resumed} times \
                 resumed, {ended} times ended",
                redemption.id, redemption.state, redemption.streams
            ),
        );
    }
}

fn has_seen_a_crash(known: &Known<'_>, redemption: &RedemptionRow) -> bool {
    let streams = known.streams.get(redemption.id.as_str());
    let streamed_until = streams
        .into_iter()
        .flatten()
        .map(|s| s.ended)
        .max()
        .unwrap_or(redemption.opened);
    known
        .record
        .crashes
        .iter()
        .any(|crash| crash.at >= redemption.opened && crash.at <= streamed_until + WRITTEN)
}
