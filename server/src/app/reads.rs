//! What was read goes into the audit before it is shown. Reads are many and each a row: those that come while one transaction
//! commits go into the next one together.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use handoff_domain::audit::{About, AuditRow, Event, Outcome, patient_named};
use handoff_domain::ids::{DocumentId, TaskId, TenantId};
use handoff_domain::ports::{self, Found, Kind, Store};
use handoff_domain::reason::Reason;
use handoff_domain::time::{Span, Timestamp};
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::delivered::ranges;
use super::error::explain;
use super::read::History;
use super::{App, AppError, Class, Scope, Stored};

/// How many reads wait to be written at most; who comes then waits to wait.
const WAITING: usize = 4_096;
/// How many are written in one transaction.
const TOGETHER: usize = 512;
/// The most rows of a transaction that has more than one read.
const MOST_ROWS: usize = 1_000;
/// For how long a read that is on record stands for the same one.
const SAME: Span = Span::seconds(60);
/// How many reads on record are known at most; beyond that all are forgotten, and recorded again.
const KNOWN: usize = 100_000;
/// How much of a query is kept, in characters.
const QUERY_LENGTH: usize = 1_000;

/// The rows of one read, and where to tell whether they are written.
struct Entry {
    tenant: TenantId,
    rows: Vec<AuditRow>,
    written: oneshot::Sender<Result<(), AppError>>,
}

/// Which of the reads that were allowed are recorded. Searches are, unless none is; refusals in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recorded {
    /// Each.
    Each,
    /// Each, but for one that is on record within the last minute: by the same token from the same place, of the same version.
    #[default]
    OnceAMinute,
    /// None.
    Refused,
}

impl Recorded {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Each, Self::OnceAMinute, Self::Refused];

    /// The word in a configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Each => "each",
            Self::OnceAMinute => "once-a-minute",
            Self::Refused => "refused",
        }
    }

    /// What a word means.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }
}

/// Reads on record, by a digest of all that their rows say but when and under which correlation id; and when they were.
#[derive(Debug, Default)]
struct Known {
    digests: RandomState,
    reads: Mutex<HashMap<u64, Timestamp>>,
}

impl Known {
    fn digest(&self, tenant: &TenantId, row: &AuditRow) -> u64 {
        let mut hasher = self.digests.build_hasher();
        tenant.hash(&mut hasher);
        row.event.hash(&mut hasher);
        // Serializing what consists of strings and numbers does not fail; if it did, rows would be told apart by less.
        for part in [
            serde_json::to_string(&row.agent),
            serde_json::to_string(&row.about),
            serde_json::to_string(&row.detail),
        ] {
            part.unwrap_or_default().hash(&mut hasher);
        }
        hasher.finish()
    }

    fn has(&self, digest: u64, now: Timestamp) -> bool {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let age = reads.get(&digest).map(|at| now.since(*at));
        age.is_some_and(|age| (Span(0)..SAME).contains(&age))
    }

    fn note(&self, digest: u64, at: Timestamp) {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        if reads.len() >= KNOWN {
            reads.clear();
        }
        reads.insert(digest, at);
    }
}

/// Where reads are brought to be written down.
#[derive(Debug, Clone)]
pub struct ReadLog {
    entries: mpsc::Sender<Entry>,
    which: Recorded,
    known: Arc<Known>,
}

impl ReadLog {
    /// Starts writing, for as long as anybody holds it.
    pub fn start(store: Arc<dyn Store>, background: &Handle, which: Recorded) -> Self {
        let (entries, inbox) = mpsc::channel(WAITING);
        background.spawn(write_down(store, inbox));
        Self {
            entries,
            which,
            known: Arc::default(),
        }
    }

    /// Answers once the read that a row tells of is on record.
    async fn record_read(&self, tenant: TenantId, row: AuditRow) -> Result<(), AppError> {
        if self.which != Recorded::OnceAMinute {
            return self.record(tenant, vec![row]).await;
        }
        let (digest, at) = (self.known.digest(&tenant, &row), row.recorded);
        if !self.known.has(digest, at) {
            self.record(tenant, vec![row]).await?;
            self.known.note(digest, at);
        }
        Ok(())
    }

    /// Answers once the rows are committed.
    pub(super) async fn record(&self, tenant: TenantId, rows: Vec<AuditRow>) -> Result<(), AppError> {
        let (written, done) = oneshot::channel();
        let entry = Entry {
            tenant,
            rows,
            written,
        };
        let stopped = || {
            AppError::new(
                Class::Unavailable,
                Reason::AuditUnavailable,
                explain(Reason::AuditUnavailable),
            )
            .because("nobody writes down what is read any more")
        };
        self.entries.send(entry).await.map_err(|_| stopped())?;
        done.await.map_err(|_| stopped())?
    }
}

async fn write_down(store: Arc<dyn Store>, mut inbox: mpsc::Receiver<Entry>) {
    let mut entries = Vec::with_capacity(TOGETHER);
    loop {
        let came = inbox.recv_many(&mut entries, TOGETHER).await;
        if came == 0 {
            return;
        }
        let (mut rows, mut waiting) = (Vec::with_capacity(came), Vec::with_capacity(came));
        for entry in entries.drain(..) {
            rows.push((entry.tenant, entry.rows));
            waiting.push(entry.written);
        }
        let rows: Rows = rows.into();
        let mut waiting = waiting.into_iter();
        let mut from = 0;
        while from < came {
            let batch = from..end_of_batch(&rows, from);
            from = batch.end;
            let outcome = write(store.as_ref(), &rows, batch.clone()).await;
            // One of them may be refused for itself, which is no matter of the others.
            let alone = batch.len() > 1
                && outcome
                    .as_ref()
                    .is_err_and(|error| error.class != Class::Unavailable);
            for (place, written) in batch.zip(waiting.by_ref()) {
                let outcome = if alone {
                    write(store.as_ref(), &rows, place..place.saturating_add(1)).await
                } else {
                    outcome.clone()
                };
                // Who waited may have gone.
                let _gone = written.send(outcome.map_err(AppError::audit_unavailable));
            }
        }
    }
}

/// Where the batch ends that begins here: a search of many patients has many rows, and others wait for it.
fn end_of_batch(rows: &Rows, from: usize) -> usize {
    let mut count = 0_usize;
    let fits = |(_, rows): &&(TenantId, Vec<AuditRow>)| {
        count = count.saturating_add(rows.len());
        count <= MOST_ROWS
    };
    let fitting = rows.iter().skip(from).take_while(fits).count();
    from.saturating_add(fitting.max(1))
}

type Rows = Arc<[(TenantId, Vec<AuditRow>)]>;

async fn write(store: &dyn Store, rows: &Rows, which: Range<usize>) -> Result<(), AppError> {
    let rows = Arc::clone(rows);
    ports::write(store, move |tx| {
        for (tenant, rows) in rows.get(which.clone()).unwrap_or_default() {
            for row in rows {
                tx.record(tenant, row.clone());
            }
        }
        Ok(())
    })
    .await
}

/// Something that is read, as the audit names it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    event: Event,
    /// R4's word for what was asked: `read`, `vread`, `history-instance`, `search-type` or `operation`.
    interaction: &'static str,
    about: About,
    /// What a search asks for.
    query: Option<String>,
}

impl Asked {
    /// One resource, or versions of it. `None` where reading is not recorded: a Subscription holds nobody's data, and what is no
    /// id is the id of nothing.
    pub(super) fn one(kind: Kind, id: &str, version: Option<i64>, interaction: &'static str) -> Option<Self> {
        let (event, about) = match kind {
            Kind::Task => {
                let about = About::of_task(&TaskId::parse(id).ok()?);
                (
                    Event::TaskRead,
                    About {
                        task_version: version,
                        ..about
                    },
                )
            }
            Kind::Document => {
                let about = About::of_document(&DocumentId::parse(id).ok()?);
                (
                    Event::DocumentRead,
                    About {
                        document_version: version,
                        ..about
                    },
                )
            }
            Kind::Binary | Kind::Subscription => return None,
        };
        Some(Self {
            event,
            interaction,
            about,
            query: None,
        })
    }

    /// A search by `query`.
    pub(super) fn search(kind: Kind, query: &str) -> Option<Self> {
        let event = match kind {
            Kind::Task => Event::TaskSearched,
            Kind::Document => Event::DocumentSearched,
            Kind::Binary | Kind::Subscription => return None,
        };
        let separator = if query.is_empty() { "" } else { "?" };
        let asked = format!("{}{separator}{query}", kind.as_str());
        Some(Self {
            event,
            interaction: "search-type",
            about: About::default(),
            query: Some(asked.chars().take(QUERY_LENGTH).collect()),
        })
    }

    /// Events of a Subscription, told again.
    pub(super) fn events() -> Self {
        Self {
            event: Event::SubscriptionDelivered,
            interaction: "operation",
            about: About::default(),
            query: None,
        }
    }

    /// Whether it is one version of one resource.
    fn is_read(&self) -> bool {
        matches!(self.interaction, "read" | "vread")
    }

    fn row(&self, scope: &Scope, outcome: Outcome, reason: Reason) -> AuditRow {
        let row = scope
            .row(self.event, outcome, reason)
            .about(self.about.clone())
            .detail("interaction", self.interaction);
        match &self.query {
            Some(query) => row.detail("query", query.as_str()),
            None => row,
        }
    }
}

/// What an answer shows of whom.
pub(super) trait Shown {
    /// The rows that say so, made of the one that says what was asked.
    fn rows(&self, scope: &Scope, asked: AuditRow) -> Vec<AuditRow>;
}

impl Shown for Stored {
    fn rows(&self, scope: &Scope, mut asked: AuditRow) -> Vec<AuditRow> {
        asked.about.patient = patient_of(scope, &self.body);
        let version = Some(self.version);
        match self.kind {
            "Task" => asked.about.task_version = version,
            _ => asked.about.document_version = version,
        }
        vec![asked]
    }
}

impl Shown for History {
    fn rows(&self, scope: &Scope, asked: AuditRow) -> Vec<AuditRow> {
        let bodies = self.versions.iter().map(|version| version.body.as_slice());
        let mut numbers: Vec<i64> = self.versions.iter().map(|version| version.version).collect();
        numbers.sort_unstable();
        each_patient(scope, bodies, &asked.detail("versions", ranges(&numbers)))
    }
}

impl Shown for Found {
    fn rows(&self, scope: &Scope, asked: AuditRow) -> Vec<AuditRow> {
        let bodies = self.resources.iter().map(|(_, _, body)| body.as_slice());
        each_patient(scope, bodies, &asked)
    }
}

/// One row for each patient of what was shown, in the order of their references, and one without where it is nobody's.
fn each_patient<'a>(
    scope: &Scope,
    bodies: impl Iterator<Item = &'a [u8]>,
    asked: &AuditRow,
) -> Vec<AuditRow> {
    let mut patients: Vec<Option<String>> = bodies.map(|body| patient_of(scope, body)).collect();
    patients.sort_unstable();
    patients.dedup();
    if patients.is_empty() {
        patients.push(None);
    }
    let named = |patient: Option<String>| {
        let mut row = asked.clone();
        row.about.patient = patient;
        row
    };
    patients.into_iter().map(named).collect()
}

/// The patient of a stored Task or DocumentReference, as a reference of this server.
pub(super) fn patient_of(scope: &Scope, body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Subject {
        reference: Option<String>,
    }
    #[derive(Deserialize)]
    struct Resource {
        #[serde(alias = "for")]
        subject: Option<Subject>,
    }
    let resource: Resource = serde_json::from_slice(body).ok()?;
    let reference = resource.subject?.reference?;
    patient_named(reference.strip_prefix(&scope.fhir_base()).unwrap_or(&reference))
}

impl App {
    /// What was found, once it is in the audit that it is shown; or the refusal, once that is.
    pub(super) async fn once_recorded<T: Shown>(
        &self,
        scope: &Scope,
        asked: Option<Asked>,
        found: Result<T, AppError>,
    ) -> Result<T, AppError> {
        let Some(asked) = asked else {
            return found;
        };
        let mut rows = match &found {
            Ok(_) if self.reads.which == Recorded::Refused && asked.event != Event::SubscriptionDelivered => {
                return found;
            }
            Ok(shown) => shown.rows(scope, asked.row(scope, Outcome::Success, Reason::Permitted)),
            // That something is unknown is told in the same time as that it is not for the caller.
            Err(error) if error.is_refusal() && error.denial.is_none() => {
                vec![asked.row(scope, Outcome::Denied, error.reason)]
            }
            Err(_) => return found,
        };
        let tenant = scope.tenant().clone();
        // What was searched for or told again is never the same, and neither is a page of a history.
        let exact = |row: &AuditRow| row.about.task_version.or(row.about.document_version).is_some();
        let one = found.is_ok() && asked.is_read() && rows.len() == 1 && rows.iter().all(exact);
        match rows.pop() {
            Some(row) if one => self.reads.record_read(tenant, row).await?,
            last => {
                rows.extend(last);
                self.reads.record(tenant, rows).await?;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use handoff_domain::audit::{Agent, Context};
    use handoff_domain::ids::CorrelationId;

    use super::*;

    fn row(actor: &str, correlation: &str, version: i64) -> AuditRow {
        let context = Context {
            tenant: TenantId::default_tenant(),
            correlation: CorrelationId::parse(correlation).unwrap(),
            now: Timestamp(0),
            agent: Arc::new(Agent {
                actor: Some(actor.to_owned()),
                ..Agent::default()
            }),
        };
        context
            .row(Event::TaskRead, Outcome::Success, Reason::Permitted)
            .about(About {
                task_version: Some(version),
                ..About::of_task(&TaskId::parse("1").unwrap())
            })
    }

    #[test]
    fn a_batch_holds_so_many_rows_and_one_read_at_least() {
        let read = |rows| {
            (
                TenantId::default_tenant(),
                vec![row("Practitioner/a", "c", 1); rows],
            )
        };
        let ends = |sizes: &[usize]| {
            let rows: Rows = sizes.iter().map(|size| read(*size)).collect();
            let (mut from, mut ends) = (0, Vec::new());
            while from < rows.len() {
                from = end_of_batch(&rows, from);
                ends.push(from);
            }
            ends
        };
        assert_eq!(ends(&[1; 512]), [512]);
        assert_eq!(ends(&[500; 5]), [2, 4, 5]);
        assert_eq!(ends(&[1, 3 * MOST_ROWS, 1, 1]), [1, 2, 4]);
        assert_eq!(ends(&[MOST_ROWS, 1]), [1, 2]);
    }

    #[test]
    fn a_read_is_the_same_whatever_it_is_called_and_only_for_a_minute() {
        let (known, tenant) = (Known::default(), TenantId::default_tenant());
        let digest = |actor, correlation, version| known.digest(&tenant, &row(actor, correlation, version));
        let first = digest("Practitioner/a", "c-1", 1);
        assert_eq!(first, digest("Practitioner/a", "c-2", 1));
        assert_ne!(first, digest("Practitioner/b", "c-1", 1));
        assert_ne!(first, digest("Practitioner/a", "c-1", 2));
        let elsewhere = TenantId::parse("b").unwrap();
        assert_ne!(first, known.digest(&elsewhere, &row("Practitioner/a", "c-1", 1)));
        assert!(!known.has(first, Timestamp(0)));
        known.note(first, Timestamp(5));
        assert!(known.has(first, Timestamp(5).plus(Span::seconds(59))));
        assert!(!known.has(first, Timestamp(5).plus(SAME)));
        // A clock that was set back makes it another one.
        assert!(!known.has(first, Timestamp(4)));
    }

    #[test]
    fn what_is_known_has_a_most() {
        let known = Known::default();
        for digest in 0..=KNOWN as u64 {
            known.note(digest, Timestamp(0));
        }
        assert!(!known.has(0, Timestamp(0)) && known.has(KNOWN as u64, Timestamp(0)));
    }
}
