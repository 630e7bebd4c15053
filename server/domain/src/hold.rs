//! Legal holds: while one stands, nothing of what it is on is deleted, whoever asks and whatever any clock says. It changes
//! nothing about who may fetch.

use thiserror::Error;

use crate::document::Document;
use crate::ids::{ActorRef, DocumentId, HoldId, is_fhir_id};
use crate::standing::is_of;
use crate::time::Timestamp;

/// What a hold is on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum HoldTarget {
    /// A document.
    Document(DocumentId),
    /// Every document about a patient: `Patient/{id}`.
    Patient(String),
    /// Every document of a case, which is what its `context.encounter` names: `Encounter/{id}` or `EpisodeOfCare/{id}`.
    Case(String),
}

/// A text that names nothing that could be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct HoldTargetError(&'static str);

/// What a case may be.
const CASES: [&str; 2] = ["Encounter", "EpisodeOfCare"];

impl HoldTarget {
    /// The kinds, by name.
    pub const KINDS: [&'static str; 3] = ["document", "patient", "case"];

    /// What `value` names of a kind: a document and a patient by reference or id, a case by reference.
    pub fn parse(kind: &str, value: &str) -> Result<Self, HoldTargetError> {
        let id = |of: &str| {
            value
                .strip_prefix(of)
                .and_then(|rest| rest.strip_prefix('/'))
                .unwrap_or(value)
        };
        match kind {
            "document" => DocumentId::parse(id("DocumentReference"))
                .map(Self::Document)
                .map_err(|_| HoldTargetError("not a reference like `DocumentReference/7`")),
            "patient" if is_fhir_id(id("Patient")) => Ok(Self::Patient(format!("Patient/{}", id("Patient")))),
            "patient" => Err(HoldTargetError("not a reference like `Patient/7`")),
            "case" => match value.split_once('/') {
                Some((of, id)) if CASES.contains(&of) && is_fhir_id(id) => Ok(Self::Case(value.to_owned())),
                _ => Err(HoldTargetError(
                    "not a reference like `Encounter/7` or `EpisodeOfCare/7`",
                )),
            },
            _ => Err(HoldTargetError("not a kind of hold")),
        }
    }

    /// The kind, as in requests and store.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Document(_) => "document",
            Self::Patient(_) => "patient",
            Self::Case(_) => "case",
        }
    }

    /// What it names, as [`Self::parse`] takes it.
    pub fn value(&self) -> &str {
        match self {
            Self::Document(id) => id.as_str(),
            Self::Patient(reference) | Self::Case(reference) => reference,
        }
    }

    /// What it names, as it stands in answers.
    pub fn reference(&self) -> String {
        match self {
            Self::Document(id) => format!("DocumentReference/{id}"),
            Self::Patient(reference) | Self::Case(reference) => reference.clone(),
        }
    }

    /// Whether a document is what it is on. A patient and a case are found by whichever server's name: of two that might be the
    /// same, both are held.
    pub fn covers(&self, document: &Document) -> bool {
        match self {
            Self::Document(id) => document.id == *id,
            Self::Patient(patient) => document
                .facts
                .subject
                .as_deref()
                .is_some_and(|subject| is_of(subject, patient)),
            Self::Case(case) => document
                .facts
                .encounters
                .iter()
                .any(|encounter| is_of(encounter, case)),
        }
    }
}

/// One hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its id.
    pub id: HoldId,
    /// What it is on.
    pub target: HoldTarget,
    /// Why, in words: 1 to 500 characters.
    pub note: String,
    /// Since when.
    pub placed_at: Timestamp,
    /// By whom.
    pub placed_by: ActorRef,
    /// When it ends by itself; `None` where it is to be lifted.
    pub until: Option<Timestamp>,
    /// When it was lifted, and by whom; `None` while it was not.
    pub lifted: Option<(Timestamp, ActorRef)>,
}

impl Hold {
    /// Whether it stands at `now`.
    pub fn stands_at(&self, now: Timestamp) -> bool {
        self.lifted.is_none() && self.until.is_none_or(|until| now < until)
    }
}
