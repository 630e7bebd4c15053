//! Every committed change has its audit row exactly once, and everything that was answered happened as answered:
//! nothing acknowledged is lost, nothing refused was done.

use std::collections::{HashMap, HashSet};

use super::{DOCUMENT, Findings, Known, Rule, TASK};
use crate::chaos::record::{Answer, Asked, Change};
use crate::chaos::snapshot::{AuditRow, GrantRow};

/// What changes something when it succeeds.
const CHANGES: [&str; 9] = [
    "task-created",
    "task-updated",
    "task-deleted",
    "document-created",
    "document-updated",
    "document-deleted",
    "binary-created",
    "grant-issued",
    "redemption-authorized",
];

pub(super) fn check(known: &Known<'_>, findings: &mut Findings) {
    check_versions(known, findings);
    check_reports(known, findings);
    check_binaries(known, findings);
    check_grants(known, findings);
    for change in &known.record.changes {
        check_answer(known, change, findings);
    }
    check_denials(known, findings);
}

/// Versions follow each other without a gap, the last is the present one, each is reported once.
fn check_versions(known: &Known<'_>, findings: &mut Findings) {
    for head in &known.store.heads {
        let versions = known.versions(&head.kind, &head.id);
        let numbers: Vec<i64> = versions.iter().map(|v| v.version).collect();
        let wanted: Vec<i64> = (1..=head.version).collect();
        if numbers != wanted {
            findings.add(
                Rule::Audit,
                format!(
                    "{}/{} is at version {} and its history holds {numbers:?}",
                    head.kind, head.id, head.version
                ),
            );
        }
        for version in versions {
            let key = (head.kind.as_str(), head.id.as_str(), version.version);
            let rows = known.reports.get(&key).map_or(&[][..], Vec::as_slice);
            // A document that another replaces has only the row that says so.
            let superseded = rows.iter().filter(|r| r.event == "document-superseded").count();
            let reported = rows.len() - superseded;
            let is_once = reported == 1 || (reported == 0 && superseded == 1 && head.kind == DOCUMENT);
            if !is_once || superseded > 1 {
                findings.add(
                    Rule::Audit,
                    format!(
                        "version {} of {}/{} has the audit rows {:?}",
                        version.version,
                        head.kind,
                        head.id,
                        rows.iter().map(|r| (r.sequence, &r.event)).collect::<Vec<_>>()
                    ),
                );
            }
        }
    }
}

/// No row reports what there is not.
fn check_reports(known: &Known<'_>, findings: &mut Findings) {
    let there: HashSet<(&str, &str, i64)> = known
        .store
        .versions
        .iter()
        .map(|v| (v.kind.as_str(), v.id.as_str(), v.version))
        .collect();
    for (key, rows) in known.reports.iter().filter(|(key, _)| !there.contains(*key)) {
        let (kind, id, version) = key;
        findings.add(
            Rule::Audit,
            format!(
                "row {} reports version {version} of {kind}/{id}, which is not there",
                rows[0].sequence
            ),
        );
    }
}

fn check_binaries(known: &Known<'_>, findings: &mut Findings) {
    let mut created: HashMap<&str, u32> = HashMap::new();
    for row in &known.store.audit {
        if let ("binary-created", true, Some(binary)) = (row.event.as_str(), row.is_success, &row.binary) {
            *created.entry(binary).or_default() += 1;
        }
    }
    for binary in &known.store.binaries {
        let rows = created.remove(binary.id.as_str()).unwrap_or(0);
        if rows != 1 {
            findings.add(
                Rule::Audit,
                format!("Binary/{} has {rows} rows of its creation", binary.id),
            );
        }
    }
    for id in created.keys() {
        findings.add(
            Rule::Audit,
            format!("the creation of Binary/{id} is reported, and it is not there"),
        );
    }
}

/// The rows of a grant's life lead to where it stands.
fn check_grants(known: &Known<'_>, findings: &mut Findings) {
    let mut lives: HashMap<&str, HashMap<&str, i64>> = HashMap::new();
    for row in known.store.audit.iter().filter(|row| row.is_success) {
        if let Some(grant) = row.grant.as_deref().filter(|_| row.event.starts_with("grant-")) {
            *lives.entry(grant).or_default().entry(&row.event).or_default() += 1;
        }
    }
    let nothing = HashMap::new();
    for grant in &known.store.grants {
        let life = lives.get(grant.id.as_str()).unwrap_or(&nothing);
        if !leads_to(life, grant) {
            findings.add(
                Rule::Audit,
                format!(
                    "grant {} is {}, and its rows are {life:?}",
                    grant.id, grant.status
                ),
            );
        }
    }
}

fn leads_to(life: &HashMap<&str, i64>, grant: &GrantRow) -> bool {
    let count = |event: &str| life.get(event).copied().unwrap_or(0);
    let status = grant.status.as_str();
    let pauses = count("grant-suspended") - count("grant-resumed");
    let is_paused_as_often = match status {
        "suspended" => pauses == 1,
        "bound" | "exhausted" => pauses == 0,
        _ => (0..=1).contains(&pauses),
    };
    count("grant-issued") == 1
        && count("grant-bound") == i64::from(grant.grantee.is_some())
        && count("grant-revoked") == i64::from(status == "revoked")
        && count("grant-expired") == i64::from(status == "expired")
        && is_paused_as_often
}

/// What one request did, by its rows, is what its client was told.
fn check_answer(known: &Known<'_>, change: &Change, findings: &mut Findings) {
    let done: Vec<&AuditRow> = known
        .rows_of(&change.correlation)
        .iter()
        .filter(|row| row.is_success && CHANGES.contains(&row.event.as_str()))
        .copied()
        .collect();
    match &change.answer {
        Answer::Unknown => {}
        Answer::Refused { status, reason } => {
            if let Some(row) = done.first() {
                findings.add(
                    Rule::Acknowledged,
                    format!(
                        "{} ({:?}) was refused with {status} {reason:?}, and row {} says {}",
                        change.correlation, change.asked, row.sequence, row.event
                    ),
                );
            }
        }
        Answer::Done { id, version } => {
            if !is_there(known, change, &done, id.as_deref(), *version) {
                findings.add(
                    Rule::Acknowledged,
                    format!(
                        "{} ({:?}) was answered as done ({id:?}, version {version:?}) at {}, and its rows are {:?}",
                        change.correlation,
                        change.asked,
                        change.ended,
                        done.iter().map(|r| (r.sequence, &r.event)).collect::<Vec<_>>()
                    ),
                );
            }
        }
    }
}

fn is_there(
    known: &Known<'_>,
    change: &Change,
    done: &[&AuditRow],
    id: Option<&str>,
    version: Option<i64>,
) -> bool {
    let rows = |event: &'static str| done.iter().filter(move |row| row.event == event);
    let once_of_task = |event: &'static str, task: Option<&str>| {
        rows(event)
            .filter(|row| task.is_none() || row.task.as_deref() == task)
            .filter(|row| version.is_none() || row.task_version == version)
            .count()
            == 1
    };
    let once_of_document = |event: &'static str, document: Option<&str>| {
        rows(event)
            .filter(|row| document.is_none() || row.document.as_deref() == document)
            .filter(|row| version.is_none() || row.document_version == version)
            .count()
            == 1
    };
    let is_deleted = |kind: &str, id: &str| {
        let head = known.heads.get(&(kind, id));
        head.is_none_or(|head| head.is_deleted)
    };
    match &change.asked {
        Asked::Upload { .. } => rows("binary-created").count() == 1,
        Asked::CreateDocument => once_of_document("document-created", id),
        Asked::UpdateDocument { document } => once_of_document("document-updated", Some(document)),
        Asked::DeleteDocument { document } => is_deleted(DOCUMENT, document),
        Asked::CreateTask => once_of_task("task-created", id),
        Asked::UpdateTask { task } => once_of_task("task-updated", Some(task)),
        Asked::DeleteTask { task } => is_deleted(TASK, task),
        Asked::IssueGrant { .. } => {
            rows("grant-issued")
                .filter(|row| id.is_none() || row.grant.as_deref() == id)
                .count()
                == 1
        }
        Asked::RevokeGrant { grant } => known.grants.get(grant.as_str()).is_some_and(|g| !g.is_open()),
        Asked::Redeem { grant } => id
            .and_then(|id| known.redemptions.get(id))
            .is_some_and(|redemption| redemption.grant == *grant),
    }
}

/// A fetch that was refused left its row.
fn check_denials(known: &Known<'_>, findings: &mut Findings) {
    for stream in known.record.streams.iter().filter(|s| s.status == 403) {
        let is_recorded = known
            .rows_of(&stream.correlation)
            .iter()
            .any(|row| row.event == "redemption-denied");
        if !is_recorded {
            findings.add(
                Rule::Audit,
                format!(
                    "{} was refused as {:?}, and no row says so",
                    stream.correlation, stream.reason
                ),
            );
        }
    }
}
