//! The clocks of a document beside its grants' own: when it may be released, and how long it is kept. Records managers set them;
//! what time changes about the first is carried out here, about the second in [`super::disposal`].

use handoff_domain::access::Action;
use handoff_domain::audit::{Event, Outcome};
use handoff_domain::document::Document;
use handoff_domain::hold::Hold;
use handoff_domain::ids::{DocumentId, TenantId};
use handoff_domain::ports::Tx;
use handoff_domain::reason::Reason;
use handoff_domain::retention::{Availability, Disposal, Retention, Schedule};
use handoff_domain::time::Timestamp;

use super::documents::{about, lock_with_tasks, settle_tasks};
use super::finish::server_itself;
use super::holds::{MOST_HOLDS, may};
use super::standing::note_of;
use super::{App, AppError, Caller, Class, Cuts, Scope};

/// How many documents are handled in one run.
const BATCH: u32 = 200;

/// What becomes of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// It stays as it is.
    Stays,
    /// There is none any more.
    Gone,
    /// It is this one.
    At(Timestamp),
}

impl Limit {
    const fn after(self, before: Option<Timestamp>) -> Option<Timestamp> {
        match self {
            Self::Stays => before,
            Self::Gone => None,
            Self::At(at) => Some(at),
        }
    }
}

/// What a records manager wants of a document's clocks.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// From when it may be released.
    pub from: Limit,
    /// Until when it may be released.
    pub until: Limit,
    /// Until when it is kept at the least, beyond what its class's schedule says.
    pub retain_until: Limit,
    /// Why: 1 to 500 characters.
    pub note: String,
}

/// How a document is kept.
#[derive(Debug, Clone)]
pub struct Keeping {
    /// The document.
    pub document: Document,
    /// When it was created, where that is known.
    pub created: Option<Timestamp>,
    /// The schedule of its class.
    pub schedule: Schedule,
    /// What its retention clock says.
    pub retention: Retention,
    /// The holds that are on it.
    pub holds: Vec<Hold>,
    /// What is disposed of it.
    pub disposals: Vec<Disposal>,
    /// When all that is so.
    pub at: Timestamp,
}

impl App {
    /// How a document is kept.
    pub async fn keeping(&self, caller: &Caller, id: DocumentId) -> Result<Keeping, AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            may(&scope, Action::RecordsRead, Event::RecordsRead)?;
            let keeping = keeping(tx, &scope, &id)?;
            let row = scope
                .row(Event::RecordsRead, Outcome::Success, Reason::Permitted)
                .about(about(&keeping.document));
            tx.record(scope.tenant(), row);
            Ok((keeping, Cuts::none()))
        })
        .await
    }

    /// Sets when a document may be released and until when it is kept at the least. Grants follow in the same transaction: what
    /// is withheld is suspended, and comes back where its own time is not over.
    pub async fn set_clocks(
        &self,
        caller: &Caller,
        id: DocumentId,
        wanted: Wanted,
    ) -> Result<Keeping, AppError> {
        let wanted = Wanted {
            note: note_of(&wanted.note)?,
            ..wanted
        };
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            may(&scope, Action::RecordsManage, Event::Retention)?;
            // The answer says how it is kept.
            may(&scope, Action::RecordsRead, Event::RecordsRead)?;
            let cuts = set_clocks(tx, &scope, &id, &wanted)?;
            Ok((keeping(tx, &scope, &id)?, cuts))
        })
        .await
    }
}

fn keeping(tx: &mut dyn Tx, scope: &Scope, id: &DocumentId) -> Result<Keeping, AppError> {
    let kept = tx.kept_document(scope.tenant(), id)?;
    let kept = kept.ok_or_else(AppError::not_found)?;
    let schedules = &scope.rules.schedules;
    let mut holds = tx.holds(scope.tenant(), scope.now(), MOST_HOLDS)?;
    holds.retain(|hold| hold.target.covers(&kept.document));
    Ok(Keeping {
        schedule: *schedules.of(kept.document.class.as_deref()),
        retention: kept.at(scope.now(), schedules, &holds),
        disposals: tx.disposals_of(scope.tenant(), id)?,
        document: kept.document,
        created: kept.created,
        holds,
        at: scope.now(),
    })
}

fn set_clocks(tx: &mut dyn Tx, scope: &Scope, id: &DocumentId, wanted: &Wanted) -> Result<Cuts, AppError> {
    let (tasks, before) = lock_with_tasks(tx, scope, id)?;
    let before = before.ok_or_else(AppError::not_found)?;
    if before.disposed {
        let text = "the document's content was disposed of; nothing of it is kept or released any more";
        return Err(AppError::new(Class::Gone, Reason::DocumentDeleted, text));
    }
    let availability = Availability {
        from: wanted.from.after(before.availability.from),
        until: wanted.until.after(before.availability.until),
    };
    if availability
        .from
        .zip(availability.until)
        .is_some_and(|(from, until)| until <= from)
    {
        return Err(AppError::rule("until", "`until` has to be later than `from`"));
    }
    let after = Document {
        availability,
        retain_until: wanted.retain_until.after(before.retain_until),
        ..before.clone()
    };
    let turns = after.availability.next_change(scope.now());
    tx.keep_document(scope.tenant(), &after, turns, scope.now())?;
    let mut row = scope
        .row(Event::Retention, Outcome::Success, Reason::Permitted)
        .about(about(&after))
        .detail("act", "set")
        .detail("note", wanted.note.as_str());
    for (name, before, after) in [
        ("from", before.availability.from, after.availability.from),
        ("until", before.availability.until, after.availability.until),
        ("retain-until", before.retain_until, after.retain_until),
    ] {
        let said = |at: Option<Timestamp>| at.map_or_else(|| "none".to_owned(), Timestamp::to_instant);
        if before != after {
            row = row.detail(name, format!("{} → {}", said(before), said(after)));
        }
    }
    tx.record(scope.tenant(), row);
    settle_tasks(tx, scope, &tasks)
}

/// Carries out what time has changed about the availability of documents. Answers how many were concerned.
pub async fn follow_availability(app: &App) -> Result<usize, AppError> {
    let now = app.clock.now();
    let turned: Vec<(TenantId, DocumentId)> = app
        .read(move |read| Ok(read.documents_turned(now, BATCH)?))
        .await?;
    let count = turned.len();
    for (tenant, id) in turned {
        let scope = app.scope(&server_itself(app, &tenant)?);
        // One that fails must not keep the others from being withheld in time.
        if let Err(error) = app.write(&tenant, move |tx| turn(tx, &scope, &id)).await {
            tracing::error!(cause = ?error.cause, reason = %error.reason, "a document's availability could not be carried out");
        }
    }
    Ok(count)
}

/// Judges the Tasks that release a document anew, whose availability has changed.
fn turn(tx: &mut dyn Tx, scope: &Scope, id: &DocumentId) -> Result<((), Cuts), AppError> {
    let (tasks, document) = lock_with_tasks(tx, scope, id)?;
    let Some(document) = document else {
        return Ok(((), Cuts::none()));
    };
    let turns = document.availability.next_change(scope.now());
    tx.keep_document(scope.tenant(), &document, turns, scope.now())?;
    if document.deleted || document.disposed {
        return Ok(((), Cuts::none()));
    }
    let (act, reason) = match document.withheld_at(scope.now()) {
        Some(reason) => ("withheld", reason),
        None => ("available", Reason::Permitted),
    };
    let row = scope
        .row(Event::Retention, Outcome::Success, reason)
        .about(about(&document))
        .detail("act", act);
    tx.record(scope.tenant(), row);
    Ok(((), settle_tasks(tx, scope, &tasks)?))
}
