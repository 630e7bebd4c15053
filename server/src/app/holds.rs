//! Legal holds: placed and lifted by records managers. What one is on is not deleted while it stands.

use handoff_domain::access::{Action, Object, Relation};
use handoff_domain::audit::{About, Event, Outcome, patient_named};
use handoff_domain::document::Document;
use handoff_domain::hold::{Hold, HoldTarget};
use handoff_domain::ids::{DocumentId, HoldId};
use handoff_domain::ports::Tx;
use handoff_domain::reason::Reason;
use handoff_domain::retention::{DisposalState, holding};
use handoff_domain::scopes::Interaction;
use handoff_domain::time::Timestamp;

use super::caps::Reach;
use super::standing::note_of;
use super::{App, AppError, Caller, Class, Cuts, Scope, documents};

/// The most holds of a tenant that stand.
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
        let note = note_of(note)?;
        let scope = self.scope(caller);
        if until.is_some_and(|until| until <= scope.now()) {
            return Err(AppError::rule("until", "a hold ends later than now"));
        }
        let hold = Hold {
            id: HoldId::parse(scope.ordered_id()).map_err(|e| AppError::bad(e.to_string()))?,
            target,
            note,
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
            may(&scope, Action::RecordsRead, Event::RecordsRead)?;
            let document = match &of {
                Some(id) => Some(tx.document(scope.tenant(), id)?.ok_or_else(AppError::not_found)?),
                None => None,
            };
            let mut holds = tx.holds(scope.tenant(), scope.now(), MOST_HOLDS)?;
            let mut row = scope.row(Event::RecordsRead, Outcome::Success, Reason::Permitted);
            if let Some(document) = document {
                holds.retain(|hold| hold.target.covers(&document));
                row = row.about(documents::about(&document));
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
    if let HoldTarget::Document(id) = &hold.target {
        tx.document(scope.tenant(), id)?.ok_or_else(AppError::not_found)?;
        let content = tx.disposals_of(scope.tenant(), id)?;
        if !content.is_empty() && content.iter().all(|one| one.state != DisposalState::Marked) {
            return Err(AppError::new(
                Class::Conflict,
                Reason::DocumentDeleted,
                "the document's content is gone already; the audit says when and why",
            ));
        }
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
            format!("{MOST_HOLDS} holds stand already; lift some, or hold what they have in common"),
        ));
    }
    tx.place_hold(scope.tenant(), hold)?;
    record(tx, scope, Event::DocumentHeld, hold)?;
    Ok((hold.clone(), true))
}

fn lift(tx: &mut dyn Tx, scope: &Scope, hold: &Hold) -> Result<(), AppError> {
    let by = &scope.caller.principal.actor;
    if tx.lift_hold(scope.tenant(), &hold.id, by, scope.now())? {
        record(tx, scope, Event::DocumentReleased, hold)?;
    }
    Ok(())
}

/// Records what became of a hold, and on what it is.
fn record(tx: &mut dyn Tx, scope: &Scope, event: Event, hold: &Hold) -> Result<(), AppError> {
    let about = match &hold.target {
        HoldTarget::Document(id) => {
            let document = tx.document(scope.tenant(), id)?;
            document.as_ref().map(documents::about).unwrap_or_default()
        }
        HoldTarget::Patient(patient) => About {
            patient: patient_named(patient),
            ..About::default()
        },
        HoldTarget::Case(_) => About::default(),
    };
    let mut row = scope
        .row(event, Outcome::Success, Reason::LegalHold)
        .about(about)
        .detail("hold", hold.id.as_str())
        .detail(hold.target.kind(), hold.target.reference())
        .detail("note", hold.note.as_str());
    if let Some(until) = hold.until {
        row = row.detail("until", until.to_instant());
    }
    tx.record(scope.tenant(), row);
    Ok(())
}

/// Refuses to delete a document, or content of one, that is held.
pub(super) fn deny(tx: &mut dyn Tx, scope: &Scope, document: &Document) -> Result<(), AppError> {
    let holds = tx.holds(scope.tenant(), scope.now(), MOST_HOLDS)?;
    deny_by(scope, document, &holds)
}

/// The same by holds that were read, under lock say.
pub(super) fn deny_by(scope: &Scope, document: &Document, holds: &[Hold]) -> Result<(), AppError> {
    if holding(document, scope.now(), holds).is_empty() {
        return Ok(());
    }
    let text =
        "a legal hold is on the document: nothing of it can be deleted until a records manager lifts that";
    Err(held(scope, document, Event::DocumentDeleted, text))
}

/// Refuses a change of whose a document is, or of which case, by which a hold would not be on it any more; unless one is on the
/// document itself.
pub(super) fn deny_escape(
    tx: &mut dyn Tx,
    scope: &Scope,
    before: &Document,
    after: &Document,
) -> Result<(), AppError> {
    if before.facts.subject == after.facts.subject && before.facts.encounters == after.facts.encounters {
        return Ok(());
    }
    let mut holds = tx.holds(scope.tenant(), scope.now(), MOST_HOLDS)?;
    holds.retain(|hold| hold.target.covers(before));
    let itself = HoldTarget::Document(before.id.clone());
    if holds.iter().all(|hold| hold.target.covers(after)) || holds.iter().any(|hold| hold.target == itself) {
        return Ok(());
    }
    let text = "a legal hold is on the document by its patient or case, which can't be changed until a records manager lifts that, \
                or holds the document itself";
    Err(held(scope, before, Event::DocumentUpdated, text))
}

fn held(scope: &Scope, document: &Document, event: Event, text: &str) -> AppError {
    let row = scope
        .row(event, Outcome::Denied, Reason::LegalHold)
        .about(documents::about(document));
    AppError::new(Class::Conflict, Reason::LegalHold, text).recorded(row)
}
