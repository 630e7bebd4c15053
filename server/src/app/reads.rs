//! What was read goes into the audit before it is shown. Reads are many and each a row: those that come while one transaction
//! commits go into the next one together.

use std::ops::Range;
use std::sync::Arc;

use handoff_domain::audit::{About, AuditRow, Event, Outcome};
use handoff_domain::ids::{DocumentId, TaskId, TenantId};
use handoff_domain::ports::{self, Found, Kind, Store, Version};
use handoff_domain::reason::Reason;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::error::explain;
use super::{App, AppError, Class, Scope, Stored};

/// How many reads wait to be written at most; who comes then waits to wait.
const WAITING: usize = 4_096;
/// How many are written in one transaction.
const TOGETHER: usize = 512;
/// How many transactions there are at once: while one waits for the disk, the next one fills.
const AT_ONCE: usize = 3;
/// How much of a query is kept, in characters.
const QUERY_LENGTH: usize = 1_000;

/// The rows of one read, and where to tell whether they are written.
struct Entry {
    tenant: TenantId,
    rows: Vec<AuditRow>,
    written: oneshot::Sender<Result<(), AppError>>,
}

/// Where reads are brought to be written down.
#[derive(Debug, Clone)]
pub struct ReadLog {
    entries: mpsc::Sender<Entry>,
    /// Whether reads that were allowed are recorded too.
    all: bool,
}

impl ReadLog {
    /// Starts writing, for as long as anybody holds it. Refusals are written in any case, reads that were allowed if `all`.
    pub fn start(store: Arc<dyn Store>, background: &Handle, all: bool) -> Self {
        let (entries, inbox) = mpsc::channel(WAITING);
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..AT_ONCE {
            background.spawn(write_down(Arc::clone(&store), Arc::clone(&inbox)));
        }
        Self { entries, all }
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

async fn write_down(store: Arc<dyn Store>, inbox: Arc<Mutex<mpsc::Receiver<Entry>>>) {
    let mut entries = Vec::with_capacity(TOGETHER);
    loop {
        let came = inbox.lock().await.recv_many(&mut entries, TOGETHER).await;
        if came == 0 {
            return;
        }
        let (mut rows, mut waiting) = (Vec::with_capacity(came), Vec::with_capacity(came));
        for entry in entries.drain(..) {
            rows.push((entry.tenant, entry.rows));
            waiting.push(entry.written);
        }
        let rows: Arc<[_]> = rows.into();
        let outcome = write(store.as_ref(), &rows, 0..came).await;
        // One of them may be refused for itself, which is no matter of the others.
        let alone = came > 1
            && outcome
                .as_ref()
                .is_err_and(|error| error.class != Class::Unavailable);
        for (place, written) in waiting.into_iter().enumerate() {
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

impl Shown for Vec<Version> {
    fn rows(&self, scope: &Scope, asked: AuditRow) -> Vec<AuditRow> {
        let bodies = self.iter().map(|version| version.body.as_slice());
        each_patient(scope, bodies, &asked.detail("versions", self.len().to_string()))
    }
}

impl Shown for Found {
    fn rows(&self, scope: &Scope, asked: AuditRow) -> Vec<AuditRow> {
        let bodies = self.resources.iter().map(|(_, _, body)| body.as_slice());
        each_patient(scope, bodies, &asked)
    }
}

/// One row for each patient of what was shown, in the order of their references, and one without where it is nobody's.
pub(super) fn each_patient<'a>(
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
    let local = match reference.strip_prefix(&scope.fhir_base()) {
        Some(local) => local.to_owned(),
        None => reference,
    };
    local.starts_with("Patient/").then_some(local)
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
        let rows = match &found {
            Ok(_) if !self.reads.all => return found,
            Ok(shown) => shown.rows(scope, asked.row(scope, Outcome::Success, Reason::Permitted)),
            // That something is unknown is told in the same time as that it is not for the caller.
            Err(error) if error.is_refusal() && error.denial.is_none() => {
                vec![asked.row(scope, Outcome::Denied, error.reason)]
            }
            Err(_) => return found,
        };
        self.reads.record(scope.tenant().clone(), rows).await?;
        found
    }
}

impl Scope {
    /// A refusal that says nothing for the audit yet, with the row that does: `event` was asked for, `about` this.
    pub(super) fn refused(&self, error: AppError, event: Event, about: About) -> AppError {
        let refused = error.is_refusal() || error.class == Class::PreconditionFailed;
        if !refused || error.denial.is_some() {
            return error;
        }
        let row = self.row(event, Outcome::Denied, error.reason).about(about);
        error.recorded(row)
    }

    /// The row of what was answered as done because there was nothing to do that the caller may know of.
    pub(super) fn in_vain(&self, event: Event, about: About) -> AuditRow {
        self.row(event, Outcome::Denied, Reason::NotFound).about(about)
    }
}
