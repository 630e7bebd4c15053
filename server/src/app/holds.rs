//! Legal holds: placed and lifted by records managers. What one is on is not deleted while it stands.

use handoff_domain::access::{Action, Object, Relation};
use handoff_domain::audit::{About, AuditRow, Event, Outcome};
use handoff_domain::document::Document;
use handoff_domain::hold::{Hold, HoldTarget};
use handoff_domain::ids::{DocumentId, HoldId};
use handoff_domain::ports::Tx;
use handoff_domain::reason::Reason;
use handoff_domain::retention::{DisposalState, holding};
use handoff_domain::scopes::Interaction;
use handoff_domain::standing::is_note;
use handoff_domain::time::Timestamp;

use super::caps::Reach;
use super::{App, AppError, Caller, Class, Cuts, Scope};

/// The most holds of a tenant that are not lifted.
pub const MOST_HOLDS: u32 = 10_000;

impl App {
    /// Places a hold, or answers the one that says the same already; whether it is new.
    pub async fn place_hold(
        &self,
        caller: &Caller,
        target: HoldTarget,
        note: &str,
        until: Option<Timestamp>,
    ) -> Result<(Hold, bool), AppError> {
        if !is_note(note) {
            return Err(AppError::rule("reason", "say why, in 1 to 500 characters"));
        }
        let scope = self.scope(caller);
        if until.is_some_and(|until| until <= scope.now()) {
            return Err(AppError::rule("until", "a hold ends later than now"));
        }
        let hold = Hold {
            id: HoldId::parse(scope.ordered_id()).map_err(|e| AppError::bad(e.to_string()))?,
            target,
            note: note.trim().to_owned(),
            placed_at: scope.now(),
            placed_by: caller.principal.actor.clone(),
            until,
            lifted: None,
        };
        self.write(caller.tenant(), move |tx| {
            may(&scope, Action::RecordsManage, Event::DocumentHeld)?;
            Ok((place(tx, &scope, &hold)?, Cuts::none()))
        })
        .await
    }

    /// The holds that stand, newest first; of one document, where one is named, those that are on it.
    pub async fn holds(&self, caller: &Caller, of: Option<DocumentId>) -> Result<Vec<Hold>, AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            may(&scope, Action::RecordsRead, Event::Retention)?;
            let document = match &of {
                Some(id) => Some(tx.document(scope.tenant(), id)?.ok_or_else(AppError::not_found)?),
                None => None,
            };
            let mut holds = tx.holds(scope.tenant(), scope.now(), MOST_HOLDS)?;
            let mut row = scope
                .row(Event::Retention, Outcome::Success, Reason::Permitted)
                .detail("act", "read");
            if let Some(document) = document {
                holds.retain(|hold| hold.target.covers(&document));
                row = row.about(super::documents::about(&document));
            }
            tx.record(scope.tenant(), row.detail("holds", holds.len().to_string()));
            Ok((holds, Cuts::none()))
        })
        .await
    }

    /// Lifts a hold. Doing so again is no error.
    pub async fn lift_hold(&self, caller: &Caller, id: HoldId) -> Result<(), AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            may(&scope, Action::RecordsManage, Event::DocumentReleased)?;
            let hold = tx.hold(scope.tenant(), &id)?.ok_or_else(AppError::not_found)?;
            lift(tx, &scope, &hold)?;
            Ok(((), Cuts::none()))
        })
        .await
    }

    /// Lifts the holds that are on one document by its name; those on its patient or case stand on.
    pub async fn release_document(&self, caller: &Caller, id: DocumentId) -> Result<(), AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            may(&scope, Action::RecordsManage, Event::DocumentReleased)?;
            tx.document(scope.tenant(), &id)?
                .ok_or_else(AppError::not_found)?;
            let target = HoldTarget::Document(id.clone());
            for hold in tx.holds(scope.tenant(), scope.now(), MOST_HOLDS)? {
                if hold.target == target {
                    lift(tx, &scope, &hold)?;
                }
            }
            Ok(((), Cuts::none()))
        })
        .await
    }
}

/// Whether the rules let the caller manage records, or see how they are kept; with a token whose scopes are not confined to a
/// part of the documents.
pub(super) fn may(scope: &Scope, action: Action, event: Event) -> Result<(), AppError> {
    let interaction = match action {
        Action::RecordsManage => Interaction::Update,
        _ => Interaction::Read,
    };
    if !matches!(scope.demand("DocumentReference", interaction)?, Reach::All) {
        let row = scope.row(event, Outcome::Denied, Reason::InsufficientScope);
        return Err(scope.beyond_scope("DocumentReference", interaction).recorded(row));
    }
    scope
        .permit(action, Relation::default(), Object::Tenant, event)
        .map(drop)
}

fn place(tx: &mut dyn Tx, scope: &Scope, hold: &Hold) -> Result<(Hold, bool), AppError> {
    // Before it is looked at what is left: nothing begins to be deleted meanwhile.
    let all = tx.lock_holds(scope.tenant(), scope.now(), MOST_HOLDS)?;
    let mut about = About::default();
    match &hold.target {
        HoldTarget::Document(id) => {
            let document = tx.document(scope.tenant(), id)?.ok_or_else(AppError::not_found)?;
            let content = tx.disposals_of(scope.tenant(), id)?;
            if !content.is_empty() && content.iter().all(|one| one.state != DisposalState::Marked) {
                return Err(AppError::new(
                    Class::Conflict,
                    Reason::DocumentDeleted,
                    "the document's content is gone already; the audit says when and why",
                ));
            }
            about = super::documents::about(&document);
        }
        HoldTarget::Patient(patient) => about.patient = handoff_domain::audit::patient_named(patient),
        HoldTarget::Case(_) => {}
    }
    let says_the_same =
        |other: &&Hold| other.target == hold.target && other.note == hold.note && other.until == hold.until;
    if let Some(known) = all.iter().find(says_the_same) {
        return Ok((known.clone(), false));
    }
    if u32::try_from(all.len()).unwrap_or(u32::MAX) >= MOST_HOLDS {
        return Err(AppError::new(
            Class::Conflict,
            Reason::TooLarge,
            format!(
                "{MOST_HOLDS} holds stand or were never lifted; lift some, or hold what they have in common"
            ),
        ));
    }
    tx.place_hold(scope.tenant(), hold)?;
    let row = scope
        .row(Event::DocumentHeld, Outcome::Success, Reason::LegalHold)
        .about(about);
    tx.record(scope.tenant(), describe(row, hold));
    Ok((hold.clone(), true))
}

fn lift(tx: &mut dyn Tx, scope: &Scope, hold: &Hold) -> Result<(), AppError> {
    let by = &scope.caller.principal.actor;
    if tx.lift_hold(scope.tenant(), &hold.id, by, scope.now())? {
        let mut about = About::default();
        match &hold.target {
            HoldTarget::Document(id) => {
                if let Some(document) = tx.document(scope.tenant(), id)? {
                    about = super::documents::about(&document);
                }
            }
            HoldTarget::Patient(patient) => about.patient = handoff_domain::audit::patient_named(patient),
            HoldTarget::Case(_) => {}
        }
        let row = scope
            .row(Event::DocumentReleased, Outcome::Success, Reason::LegalHold)
            .about(about);
        tx.record(scope.tenant(), describe(row, hold));
    }
    Ok(())
}

fn describe(row: AuditRow, hold: &Hold) -> AuditRow {
    let row = row
        .detail("hold", hold.id.as_str())
        .detail(hold.target.kind(), hold.target.reference())
        .detail("note", hold.note.as_str());
    match hold.until {
        Some(until) => row.detail("until", until.to_instant()),
        None => row,
    }
}

/// Refuses to delete a document, or content of one, that is held.
pub(super) fn deny(tx: &mut dyn Tx, scope: &Scope, document: &Document) -> Result<(), AppError> {
    let holds = tx.holds(scope.tenant(), scope.now(), MOST_HOLDS)?;
    if holding(document, scope.now(), &holds).is_empty() {
        return Ok(());
    }
    let text =
        "a legal hold is on the document: nothing of it can be deleted until a records manager lifts that";
    Err(held(scope, document, Event::DocumentDeleted, text))
}

/// Refuses a change by which a document would not be held any more that is: of its patient, or its case.
pub(super) fn deny_escape(
    tx: &mut dyn Tx,
    scope: &Scope,
    before: &Document,
    after: &Document,
) -> Result<(), AppError> {
    let same =
        before.facts.subject == after.facts.subject && before.facts.encounters == after.facts.encounters;
    if same {
        return Ok(());
    }
    let holds = tx.holds(scope.tenant(), scope.now(), MOST_HOLDS)?;
    let still = holding(after, scope.now(), &holds);
    if holding(before, scope.now(), &holds)
        .iter()
        .all(|hold| still.contains(hold))
    {
        return Ok(());
    }
    let text = "a legal hold is on the document by its patient or case, which can't be changed until a records manager lifts that, \
                or holds the document itself";
    let is_held_itself = holds
        .iter()
        .any(|hold| hold.target == HoldTarget::Document(before.id.clone()));
    if is_held_itself {
        return Ok(());
    }
    Err(held(scope, before, Event::DocumentUpdated, text))
}

fn held(scope: &Scope, document: &Document, event: Event, text: &str) -> AppError {
    let row = scope
        .row(event, Outcome::Denied, Reason::LegalHold)
        .about(super::documents::about(document));
    AppError::new(Class::Conflict, Reason::LegalHold, text).recorded(row)
}
