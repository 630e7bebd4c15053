//! Standing blocks: what an operator has revoked in an emergency stays revoked until the block is lifted, whatever
//! Tasks do meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use thiserror::Error;

use crate::access::Principal;
use crate::document::Document;
use crate::facts::Facts;
use crate::ids::{ActorRef, BlockId, DocumentId, TaskId, is_fhir_id};
use crate::reason::Reason;
use crate::task::Task;
use crate::time::Timestamp;

/// The longest name of a client or an issuer, in bytes.
const MOST_NAME_BYTES: usize = 1024;
/// The longest note, in characters.
const MOST_NOTE: usize = 500;

/// What a block is on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A person or system, by whichever token.
    Actor(ActorRef),
    /// An OAuth client, for whomever it acts.
    Client(String),
    /// Everything about a patient: `Patient/{id}`.
    Patient(String),
    /// A document.
    Document(DocumentId),
    /// A Task.
    Task(TaskId),
    /// Whoever comes with a token of this issuer.
    Issuer(String),
    /// The whole tenant.
    All,
}

/// A text that names nothing that could be blocked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct TargetError(&'static str);

impl Target {
    /// The kinds, by name.
    pub const KINDS: [&'static str; 7] = ["actor", "client", "patient", "document", "task", "issuer", "all"];

    /// The target of a kind that `value` names. A patient, a document and a Task are named by reference or by id
    /// alone; `all` has no value.
    pub fn parse(kind: &str, value: &str) -> Result<Self, TargetError> {
        let named = |text: &str| {
            let fits = (1..=MOST_NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
            fits.then(|| text.to_owned()).ok_or(TargetError(
                "not a name: 1 to 1024 bytes without control characters",
            ))
        };
        let id = |of: &str| {
            value
                .strip_prefix(of)
                .and_then(|rest| rest.strip_prefix('/'))
                .unwrap_or(value)
        };
        match kind {
            "actor" => ActorRef::parse(value)
                .map(Self::Actor)
                .map_err(|_| TargetError("not a reference to somebody who can act, like `Practitioner/7`")),
            "client" => named(value).map(Self::Client),
            "issuer" => named(value).map(Self::Issuer),
            "patient" if is_fhir_id(id("Patient")) => Ok(Self::Patient(format!("Patient/{}", id("Patient")))),
            "patient" => Err(TargetError("not a reference like `Patient/7`")),
            "document" => DocumentId::parse(id("DocumentReference"))
                .map(Self::Document)
                .map_err(|_| TargetError("not a reference like `DocumentReference/7`")),
            "task" => TaskId::parse(id("Task"))
                .map(Self::Task)
                .map_err(|_| TargetError("not a reference like `Task/7`")),
            "all" if value.is_empty() => Ok(Self::All),
            "all" => Err(TargetError("takes no value")),
            _ => Err(TargetError("not a kind of block")),
        }
    }

    /// The kind, as in requests and store.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Actor(_) => "actor",
            Self::Client(_) => "client",
            Self::Patient(_) => "patient",
            Self::Document(_) => "document",
            Self::Task(_) => "task",
            Self::Issuer(_) => "issuer",
            Self::All => "all",
        }
    }

    /// What it names, as [`Self::parse`] takes it: references with their type but for documents and Tasks. Empty for
    /// the tenant.
    pub fn value(&self) -> &str {
        match self {
            Self::Actor(actor) => actor.as_str(),
            Self::Client(name) | Self::Issuer(name) | Self::Patient(name) => name,
            Self::Document(id) => id.as_str(),
            Self::Task(id) => id.as_str(),
            Self::All => "",
        }
    }

    /// What it names, as it stands in answers.
    pub fn reference(&self) -> String {
        match self {
            Self::Document(id) => format!("DocumentReference/{id}"),
            Self::Task(id) => format!("Task/{id}"),
            other => other.value().to_owned(),
        }
    }
}

/// One block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its id.
    pub id: BlockId,
    /// What it is on.
    pub target: Target,
    /// Why, in an operator's words: 1 to 500 characters.
    pub note: String,
    /// Since when.
    pub placed_at: Timestamp,
    /// By whom.
    pub placed_by: ActorRef,
    /// When it was lifted, and by whom; `None` while it stands.
    pub lifted: Option<(Timestamp, ActorRef)>,
}

/// Whether a reference is to this patient, or other thing, in whichever version and by whichever server's name: of two that
/// might be the same, a block is on both.
pub(crate) fn is_of(reference: &str, patient: &str) -> bool {
    let named = reference.split("/_history/").next().unwrap_or(reference);
    named
        .strip_suffix(patient)
        .is_some_and(|before| before.is_empty() || before.ends_with('/'))
}

/// Whether `note` says why something is decided: 1 to 500 characters on one line, none of which changes the direction of others.
pub fn is_note(note: &str) -> bool {
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let note = note.trim();
    (1..=MOST_NOTE).contains(&note.chars().count()) && !note.chars().any(|c| c.is_control() || turns(c))
}

/// Whose stream it is and what it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamFacts {
    /// The grantee.
    pub actor: ActorRef,
    /// By which client.
    pub client: String,
    /// With a token of which issuer.
    pub issuer: String,
    /// Under which Task.
    pub task: TaskId,
    /// Of which document; `None` where none governs the content.
    pub document: Option<DocumentId>,
    /// About which patients, by reference: the Task's and the document's.
    pub patients: Vec<String>,
}

/// All blocks of a tenant that stand, and the facts that stand in the way of releases as blocks do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing(BTreeSet<Target>, Arc<Facts>);

impl Standing {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty() && self.1.is_empty()
    }

    /// What is blocked.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.0.iter()
    }

    /// What sources told.
    pub fn facts(&self) -> &Facts {
        &self.1
    }

    /// The same blocks with these facts.
    #[must_use]
    pub fn knowing(self, facts: Arc<Facts>) -> Self {
        Self(self.0, facts)
    }

    /// Why nothing of this document is released under this Task, to anybody.
    pub fn on_release(&self, task: &Task, document: &Document) -> Option<Reason> {
        if self.is_empty() {
            return None;
        }
        let patients = [task.facts.subject.as_deref(), document.facts.subject.as_deref()];
        let stops = |target: &Target| match target {
            Target::All => true,
            Target::Task(id) => *id == task.id,
            Target::Document(id) => *id == document.id,
            Target::Patient(patient) => patients.into_iter().flatten().any(|about| is_of(about, patient)),
            Target::Actor(_) | Target::Client(_) | Target::Issuer(_) => false,
        };
        let told = || {
            patients
                .into_iter()
                .flatten()
                .find_map(|about| self.1.on_patient(about))
                .or_else(|| self.1.on_task(&task.id))
                .or_else(|| self.1.on_document(&document.id))
        };
        self.0
            .iter()
            .any(stops)
            .then_some(Reason::Emergency)
            .or_else(told)
    }

    /// Why nothing of this document is released under this Task for now, while what was granted stays.
    pub fn holds(&self, task: &TaskId, document: &DocumentId) -> Option<Reason> {
        self.1.holds(task, document)
    }

    /// Why nothing is released to this actor.
    pub fn on_actor(&self, actor: &ActorRef) -> Option<Reason> {
        let stops = |target: &Target| matches!(target, Target::Actor(blocked) if blocked == actor);
        let blocked = self.0.iter().any(stops).then_some(Reason::ActorRevoked);
        blocked.or_else(|| self.1.on_actor(actor))
    }

    /// Why nothing is released to this actor under this Task: as [`Self::on_actor`], or because the actor is of the
    /// Task's team no more.
    pub fn on_holder(&self, task: &Task, actor: &ActorRef) -> Option<Reason> {
        if self.is_empty() {
            return None;
        }
        self.on_actor(actor)
            .or_else(|| self.1.on_member(actor, &task.facts.teams()))
    }

    /// Why nothing is done for this caller.
    pub fn on_caller(&self, caller: &Principal) -> Option<Reason> {
        if self.is_empty() {
            return None;
        }
        let stops = |target: &Target| match target {
            Target::Client(client) => *client == caller.client,
            Target::Issuer(issuer) => *issuer == caller.issuer,
            // Whoever acts for another, where the token names them by reference.
            Target::Actor(actor) => caller.delegate.as_deref() == Some(actor.as_str()),
            _ => false,
        };
        self.on_actor(&caller.actor)
            .or_else(|| self.0.iter().any(stops).then_some(Reason::Emergency))
    }

    /// Why a stream must stop.
    pub fn on_stream(&self, of: &StreamFacts) -> Option<Reason> {
        let stops = |target: &Target| match target {
            Target::All => true,
            Target::Client(client) => *client == of.client,
            Target::Issuer(issuer) => *issuer == of.issuer,
            Target::Task(task) => *task == of.task,
            Target::Document(document) => of.document.as_ref() == Some(document),
            Target::Patient(patient) => of.patients.iter().any(|about| is_of(about, patient)),
            Target::Actor(_) => false,
        };
        self.on_actor(&of.actor)
            .or_else(|| self.0.iter().any(stops).then_some(Reason::Emergency))
            .or_else(|| of.patients.iter().find_map(|about| self.1.on_patient(about)))
            .or_else(|| self.1.on_task(&of.task))
            .or_else(|| {
                let document = of.document.as_ref()?;
                let ended = self.1.on_document(document);
                ended.or_else(|| self.1.holds(&of.task, document))
            })
    }
}

impl FromIterator<Target> for Standing {
    fn from_iter<I: IntoIterator<Item = Target>>(targets: I) -> Self {
        Self(targets.into_iter().collect(), Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_it_is_written() {
        for (kind, value) in [
            ("actor", "Practitioner/7"),
            ("client", "viewer-app"),
            ("patient", "Patient/ada"),
            ("document", "DocumentReference/1"),
            ("task", "Task/1"),
            ("issuer", "https://issuer.example"),
            ("all", ""),
        ] {
            let target = Target::parse(kind, value).unwrap();
            assert_eq!((target.kind(), target.reference().as_str()), (kind, value));
            assert_eq!(Target::parse(kind, target.value()).as_ref(), Ok(&target));
        }
        assert_eq!(
            Target::parse("patient", "ada"),
            Target::parse("patient", "Patient/ada")
        );
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for (kind, value) in [
            ("actor", "7"),
            ("actor", "Observation/7"),
            ("client", ""),
            ("client", "a\nb"),
            ("patient", "Group/7"),
            ("document", "Task/7"),
            ("task", "Task/7/_history/1"),
            ("all", "of it"),
            ("tenant", "b"),
        ] {
            assert!(Target::parse(kind, value).is_err(), "{kind} {value}");
        }
        for note in ["", "  ", &"x".repeat(501), "a\0b", "two\nlines", "a\u{202e}b"] {
            assert!(!is_note(note), "{note}");
        }
    }
}
