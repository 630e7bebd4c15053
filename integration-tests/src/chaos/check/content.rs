//! Content is whole and right wherever it turns up, what was taken in is there, and what no transaction took is not.

use std::collections::{HashMap, HashSet};

use super::{Findings, Known, Rule};
use crate::chaos::record::{Answer, Asked, Change};
use crate::chaos::snapshot::BinaryRow;

pub(super) fn check(known: &Known<'_>, findings: &mut Findings) {
    check_streams(known, findings);
    let binaries: HashMap<&str, &BinaryRow> =
        known.store.binaries.iter().map(|b| (b.id.as_str(), b)).collect();
    for change in &known.record.changes {
        check_upload(known, change, &binaries, findings);
    }
    let objects: HashSet<&str> = known.store.objects.iter().map(String::as_str).collect();
    for binary in known.store.binaries.iter().filter(|b| !b.is_deleted) {
        if !objects.contains(binary.id.as_str()) {
            findings.add(
                Rule::Content,
                format!(
                    "Binary/{} is in the database, and its object is not there",
                    binary.id
                ),
            );
        }
    }
    for orphan in &known.record.orphans {
        if orphan.statuses.iter().any(|status| *status != 404) {
            findings.add(
                Rule::Content,
                format!(
                    "the object {} belongs to no committed Binary and is answered with {:?}",
                    orphan.id, orphan.statuses
                ),
            );
        }
    }
}

fn check_streams(known: &Known<'_>, findings: &mut Findings) {
    for stream in &known.record.streams {
        if stream.is_wrong {
            findings.add(
                Rule::Content,
                format!("{} received other bytes than were stored", stream.correlation),
            );
        }
        let announced = match stream.status {
            200 => stream.announced == stream.content.size && stream.from == 0,
            206 => stream.from + stream.announced <= stream.content.size,
            _ => true,
        };
        if !announced || stream.received() > stream.announced && matches!(stream.status, 200 | 206) {
            findings.add(
                Rule::Content,
                format!(
                    "{} was promised {} bytes from {} on and got {}, of {}",
                    stream.correlation,
                    stream.announced,
                    stream.from,
                    stream.received(),
                    stream.content.size
                ),
            );
        }
    }
}

/// What was taken in is whole; what was not is nowhere.
fn check_upload(
    known: &Known<'_>,
    change: &Change,
    binaries: &HashMap<&str, &BinaryRow>,
    findings: &mut Findings,
) {
    let Asked::Upload { content, sha256 } = &change.asked else {
        return;
    };
    let committed = known
        .rows_of(&change.correlation)
        .iter()
        .find(|row| row.event == "binary-created" && row.is_success)
        .and_then(|row| row.binary.as_deref());
    let told = match &change.answer {
        Answer::Done { id, .. } => id.as_deref(),
        Answer::Unknown | Answer::Refused { .. } => None,
    };
    let Some(id) = committed.or(told) else { return };
    let is_whole = binaries
        .get(id)
        .is_some_and(|b| u64::try_from(b.size) == Ok(content.size) && b.sha256 == *sha256);
    if !is_whole {
        findings.add(
            Rule::Content,
            format!(
                "the upload {} of {} bytes is stored as {:?}",
                change.correlation,
                content.size,
                binaries.get(id)
            ),
        );
    }
}
