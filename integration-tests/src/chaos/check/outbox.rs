//! Every committed change has its outbox rows exactly once: none is missing, none is doubled, none tells of what did
//! not happen.

use std::collections::{HashMap, HashSet};

use super::{DOCUMENT, Findings, Known, Rule, TASK};
use crate::chaos::snapshot::{AuditRow, VersionRow};

type Told<'a> = HashMap<(&'a str, String, i64, &'a str), i64>;

pub(super) fn check(known: &Known<'_>, findings: &mut Findings) {
    check_tasks_and_documents(known, findings);
    check_versions(known, findings);
    check_grants(known, findings);
    check_redemptions(known, findings);
}

fn compare<K: std::hash::Hash + Eq + std::fmt::Debug + Ord>(
    mut wanted: HashMap<K, i64>,
    told: HashMap<K, i64>,
    findings: &mut Findings,
) {
    for (key, count) in told {
        *wanted.entry(key).or_default() -= count;
    }
    let mut off: Vec<(K, i64)> = wanted.into_iter().filter(|(_, count)| *count != 0).collect();
    off.sort();
    for (key, count) in off {
        let how = if count > 0 { "too few" } else { "too many" };
        findings.add(Rule::Outbox, format!("{} {how} outbox rows {key:?}", count.abs()));
    }
}

fn check_tasks_and_documents(known: &Known<'_>, findings: &mut Findings) {
    let mut wanted = Told::new();
    for head in known.store.heads.iter().filter(|head| head.kind == TASK) {
        let mut before: Option<&VersionRow> = None;
        for version in known.versions(TASK, &head.id) {
            let focus = || format!("{TASK}/{}", head.id);
            let mut tell = |topic: &'static str, change| {
                *wanted
                    .entry((topic, focus(), version.version, change))
                    .or_default() += 1;
            };
            if version.is_deleted {
                tell("task-status-changed", "deleted");
                continue;
            }
            if before.is_none_or(|b| b.status != version.status) {
                tell("task-status-changed", version.status.as_str());
            }
            if before.is_some_and(|b| b.owner != version.owner) {
                tell("task-assigned", "assigned");
            }
            if let (true, Some(what)) = (is_by_expiry(known, version), version.business.as_deref()) {
                tell("task-status-changed", what);
            }
            before = Some(version);
        }
    }
    for row in known
        .store
        .audit
        .iter()
        .filter(|r| r.event == "document-superseded")
    {
        let Some((id, number)) = row.document.as_deref().zip(row.document_version) else {
            continue;
        };
        let version = known.versions(DOCUMENT, id).iter().find(|v| v.version == number);
        let status = version.map_or("", |v| v.status.as_str());
        *wanted
            .entry(("document-superseded", format!("{DOCUMENT}/{id}"), number, status))
            .or_default() += 1;
    }
    let mut told = Told::new();
    for row in &known.store.outbox {
        if matches!(
            row.topic.as_str(),
            "task-status-changed" | "task-assigned" | "document-superseded"
        ) {
            let key = (
                row.topic.as_str(),
                row.focus.clone(),
                row.version,
                row.change.as_str(),
            );
            *told.entry(key).or_default() += 1;
        }
    }
    compare(wanted, told, findings);
}

/// Every version is told of once to those whose criteria are about versions: of a Task by its new status, where it has one.
fn check_versions(known: &Known<'_>, findings: &mut Findings) {
    let by_status: HashSet<(&str, i64)> = known
        .store
        .outbox
        .iter()
        .filter(|row| row.topic == "task-status-changed")
        .map(|row| (row.focus.as_str(), row.version))
        .collect();
    let mut wanted: HashMap<(&str, String, i64), i64> = HashMap::new();
    for head in &known.store.heads {
        let (kind, topic) = match head.kind.as_str() {
            TASK => (TASK, "task-version"),
            DOCUMENT => (DOCUMENT, "document-version"),
            _ => continue,
        };
        let focus = format!("{kind}/{}", head.id);
        for version in known.versions(kind, &head.id).iter().filter(|v| !v.is_deleted) {
            if !by_status.contains(&(focus.as_str(), version.version)) {
                wanted.insert((topic, focus.clone(), version.version), 1);
            }
        }
    }
    let mut told: HashMap<(&str, String, i64), i64> = HashMap::new();
    for row in &known.store.outbox {
        if let topic @ ("task-version" | "document-version") = row.topic.as_str() {
            *told.entry((topic, row.focus.clone(), row.version)).or_default() += 1;
        }
    }
    compare(wanted, told, findings);
}

/// Whether a version was made by the server when a grant's time ran out: by itself, or within a request that found it.
fn is_by_expiry(known: &Known<'_>, version: &VersionRow) -> bool {
    let key = (TASK, version.id.as_str(), version.version);
    let rows = known.reports.get(&key).map_or(&[][..], Vec::as_slice);
    let says = |row: &&AuditRow| matches!(row.business.as_deref(), Some("link-expired" | "escalated"));
    rows.iter().any(says)
}

fn check_grants(known: &Known<'_>, findings: &mut Findings) {
    let mut wanted: HashMap<(&str, &str), i64> = HashMap::new();
    for row in known.store.audit.iter().filter(|row| row.is_success) {
        let word = match row.event.as_str() {
            "grant-issued" => "issued",
            "grant-bound" | "grant-resumed" => "bound",
            "grant-suspended" => "suspended",
            "grant-revoked" => "revoked",
            "grant-expired" => "expired",
            _ => continue,
        };
        *wanted
            .entry((row.grant.as_deref().unwrap_or_default(), word))
            .or_default() += 1;
    }
    compare(wanted, of_topic(known, "grant-lifecycle"), findings);
}

fn check_redemptions(known: &Known<'_>, findings: &mut Findings) {
    let mut wanted: HashMap<(&str, &str), i64> = HashMap::new();
    for row in &known.store.audit {
        let word = match row.event.as_str() {
            "redemption-authorized" => "authorized",
            "redemption-completed" => "completed",
            "redemption-cut-off" => "cut-off",
            "redemption-integrity-failed" => "integrity-failed",
            // Told with the state that its redemption has by then, which may be that of a later stream.
            "redemption-interrupted" => "over",
            _ => continue,
        };
        *wanted
            .entry((row.grant.as_deref().unwrap_or_default(), word))
            .or_default() += 1;
    }
    let mut told: HashMap<(&str, &str), i64> = HashMap::new();
    for ((grant, word), count) in of_topic(known, "redemption") {
        let word = match word {
            "authorized" | "completed" | "cut-off" | "integrity-failed" => word,
            _ => "over",
        };
        *told.entry((grant, word)).or_default() += count;
    }
    compare(wanted, told, findings);
}

fn of_topic<'a>(known: &Known<'a>, topic: &str) -> HashMap<(&'a str, &'a str), i64> {
    let mut told = HashMap::new();
    for row in known.store.outbox.iter().filter(|row| row.topic == topic) {
        let grant = row.grant.as_deref().unwrap_or_default();
        *told.entry((grant, row.change.as_str())).or_default() += 1;
    }
    told
}
