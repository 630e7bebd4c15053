//! The judgement: the clients' record against what the store holds. A pure function over both, so that it can be
//! tried on records and rows with planted faults. One file a rule.

mod agreement;
mod content;
mod ledger;
mod outbox;
mod redemptions;
mod revocation;
mod uses;

use std::collections::HashMap;

use super::plan::Part;
use super::record::{Answer, Change, Micros, Record, Stream};
use super::snapshot::{AuditRow, GrantRow, HeadRow, RedemptionRow, Snapshot, VersionRow};

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// No grant is used more often than it allows.
    Uses,
    /// No byte after a revocation that was answered.
    CutOff,
    /// The grants stand as their Task demands.
    Agreement,
    /// Every byte served has its committed authorization.
    Authorized,
    /// What was answered as done was done, what was refused was not.
    Acknowledged,
    /// Every change has its audit row, once.
    Audit,
    /// Every change has its outbox rows, once.
    Outbox,
    /// What dead processes left open is closed.
    LeftOpen,
    /// Content is whole and right, and nothing else is visible.
    Content,
}

/// Something that does not hold.
pub type Violation = crate::trial::Violation<Rule>;

/// How much later than an answered revocation bytes may come.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// While a server reaches its database.
    pub cut: Micros,
    /// While it does not: how long a stream runs on in doubt.
    pub doubt: Micros,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cut: 2_000_000,
            doubt: 30_000_000,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// What does not hold.
    pub violations: Vec<Violation>,
    /// How long after the answer of what ended them streams were seen to be reset, shortest first.
    pub lags: Vec<Micros>,
}

impl Findings {
    fn add(&mut self, rule: Rule, what: String) {
        self.violations.push(Violation { rule, what });
    }
}

/// Judges.
pub fn check(record: &Record, store: &Snapshot, limits: &Limits) -> Findings {
    let mut findings = Findings::default();
    let known = Known::new(record, store);
    uses::check(&known, &mut findings);
    revocation::check(&known, limits, &mut findings);
    agreement::check(&known, &mut findings);
    ledger::check(&known, &mut findings);
    outbox::check(&known, &mut findings);
    redemptions::check(&known, &mut findings);
    content::check(&known, &mut findings);
    findings.lags.sort_unstable();
    findings
}

/// Record and rows, as they are looked up.
struct Known<'a> {
    record: &'a Record,
    store: &'a Snapshot,
    changes: HashMap<&'a str, &'a Change>,
    audit: HashMap<&'a str, Vec<&'a AuditRow>>,
    versions: HashMap<(&'a str, &'a str), Vec<&'a VersionRow>>,
    heads: HashMap<(&'a str, &'a str), &'a HeadRow>,
    grants: HashMap<&'a str, &'a GrantRow>,
    redemptions: HashMap<&'a str, &'a RedemptionRow>,
    /// Downloads by redemption.
    streams: HashMap<&'a str, Vec<&'a Stream>>,
    /// The rows that report a version of a Task or document.
    reports: HashMap<(&'a str, &'a str, i64), Vec<&'a AuditRow>>,
}

const TASK: &str = "Task";
const DOCUMENT: &str = "DocumentReference";

impl<'a> Known<'a> {
    fn new(record: &'a Record, store: &'a Snapshot) -> Self {
        let mut known = Self {
            record,
            store,
            changes: record
                .changes
                .iter()
                .map(|c| (c.correlation.as_str(), c))
                .collect(),
            audit: HashMap::new(),
            versions: HashMap::new(),
            heads: store
                .heads
                .iter()
                .map(|head| ((head.kind.as_str(), head.id.as_str()), head))
                .collect(),
            grants: store.grants.iter().map(|g| (g.id.as_str(), g)).collect(),
            redemptions: store.redemptions.iter().map(|r| (r.id.as_str(), r)).collect(),
            streams: HashMap::new(),
            reports: HashMap::new(),
        };
        for stream in &record.streams {
            if let Some(id) = stream.redemption.as_deref() {
                known.streams.entry(id).or_default().push(stream);
            }
        }
        for row in &store.audit {
            known.audit.entry(row.correlation.as_str()).or_default().push(row);
            let reported = match row.event.as_str() {
                "task-created" | "task-updated" | "task-deleted" => row
                    .task
                    .as_deref()
                    .zip(row.task_version)
                    .map(|(id, v)| (TASK, id, v)),
                "document-created" | "document-updated" | "document-deleted" | "document-superseded" => row
                    .document
                    .as_deref()
                    .zip(row.document_version)
                    .map(|(id, v)| (DOCUMENT, id, v)),
                _ => None,
            };
            if let (true, Some(key)) = (row.is_success, reported) {
                known.reports.entry(key).or_default().push(row);
            }
        }
        for version in &store.versions {
            let key = (version.kind.as_str(), version.id.as_str());
            known.versions.entry(key).or_default().push(version);
        }
        for versions in known.versions.values_mut() {
            versions.sort_by_key(|v| v.version);
        }
        known
    }

    fn versions<'s>(&'s self, kind: &'s str, id: &'s str) -> &'s [&'s VersionRow] {
        self.versions.get(&(kind, id)).map_or(&[], Vec::as_slice)
    }

    /// The rows of one request.
    fn rows_of(&self, correlation: &str) -> &[&'a AuditRow] {
        self.audit.get(correlation).map_or(&[], Vec::as_slice)
    }

    /// The client's request that made a version.
    fn maker(&self, version: &VersionRow) -> Option<&'a Change> {
        let key = (version.kind.as_str(), version.id.as_str(), version.version);
        let rows = self.reports.get(&key)?;
        rows.iter()
            .find_map(|row| self.changes.get(row.correlation.as_str()))
            .copied()
    }

    /// When a client had the answer that a version was made.
    fn answered(&self, version: &VersionRow) -> Option<Micros> {
        let change = self.maker(version)?;
        matches!(change.answer, Answer::Done { .. }).then_some(change.ended)
    }

    /// The earliest moment at which a version can have been made.
    fn begun(&self, version: &VersionRow) -> Micros {
        self.maker(version).map_or(version.updated, |change| change.began)
    }

    /// Whether a server could not reach its database at some time in between, or had only just come to again.
    fn in_doubt(&self, server: usize, from: Micros, until: Micros) -> bool {
        const RECOVERY: Micros = 3_000_000;
        self.record.troubles.iter().any(|trouble| {
            trouble.server == server
                && trouble.part == Part::Database
                && trouble.from <= until
                && from <= trouble.until + RECOVERY
        })
    }
}
