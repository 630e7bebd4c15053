//! When a document may be released, and how long its content is kept: two clocks beside the grants' own expiry, none of
//! which moves another. A legal hold stops the last one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::document::Document;
use crate::hold::Hold;
use crate::ids::{BinaryId, DocumentId, HoldId};
use crate::time::{Span, Timestamp};

/// From when, and until before when, a document may be released at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Availability {
    /// Not before this instant; `None` for no such limit.
    pub from: Option<Timestamp>,
    /// Not at this instant or later; `None` for no such limit.
    pub until: Option<Timestamp>,
}

impl Availability {
    /// Whether the document may be released at `now`, as far as this clock goes.
    pub fn is_open(self, now: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= now) && self.until.is_none_or(|until| now < until)
    }

    /// When that changes next.
    pub fn next_change(self, now: Timestamp) -> Option<Timestamp> {
        // A window that ends before it begins is never open.
        let opens = self
            .from
            .filter(|from| self.until.is_none_or(|until| *from < until));
        [opens, self.until]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min()
    }
}

/// From when on a document's content is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptFrom {
    /// When the document was created.
    Created,
    /// When the document, or its content, last changed; its deletion is a change too.
    LastChanged,
}

impl KeptFrom {
    /// The word in `retention.toml`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::LastChanged => "last-changed",
        }
    }

    /// What a word means.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Created, Self::LastChanged]
            .into_iter()
            .find(|from| from.as_str() == word)
    }
}

/// How long documents of a class are kept and released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// How long content is kept, and then disposed of; for ever where `None`.
    pub keep: Option<Span>,
    /// From when that is counted.
    pub from: KeptFrom,
    /// How long a new document may be released, from its creation; for as long as it is kept where `None`.
    pub available: Option<Span>,
    /// How long after it was marked content is still there: time to place a hold.
    pub grace: Span,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            keep: None,
            from: KeptFrom::Created,
            available: None,
            grace: Span::hours(24),
        }
    }
}

/// The schedules of all classes (`retention.toml`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedules {
    /// For classes that have none of their own, and for documents without a class.
    pub default: Schedule,
    /// By class (CodeSystem `document-class`).
    pub by_class: BTreeMap<String, Schedule>,
}

impl Schedules {
    /// The schedule of a class.
    pub fn of(&self, class: Option<&str>) -> &Schedule {
        class
            .and_then(|class| self.by_class.get(class))
            .unwrap_or(&self.default)
    }

    /// Whether anything is ever disposed of.
    pub fn dispose(&self) -> bool {
        self.default.keep.is_some() || self.by_class.values().any(|one| one.keep.is_some())
    }
}

/// What the retention clock of a document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retention {
    /// Kept until this instant at the least; for ever where `None`.
    Until(Option<Timestamp>),
    /// Its time is over, and holds keep it.
    Held(Vec<HoldId>),
    /// Its time is over, and nothing keeps it.
    Over,
}

/// A document as the retention clock sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptDocument {
    /// The document.
    pub document: Document,
    /// When it was created; `None` where that is not known, and it is kept for ever.
    pub created: Option<Timestamp>,
}

impl KeptDocument {
    /// Until when its content is kept, holds aside; for ever where `None`. What a records manager asked for, and the classes that
    /// it had before, lengthen what its class has, and never shorten it.
    pub fn until(&self, schedules: &Schedules) -> Option<Timestamp> {
        let document = &self.document;
        let mut until = self.by(schedules.of(document.class.as_deref()))?;
        for class in &document.past_classes {
            until = until.max(self.by(schedules.of(class.as_deref()))?);
        }
        Some(document.retain_until.map_or(until, |asked| asked.max(until)))
    }

    /// Until when by one schedule.
    fn by(&self, schedule: &Schedule) -> Option<Timestamp> {
        let created = self.created?;
        let from = match schedule.from {
            KeptFrom::Created => created,
            KeptFrom::LastChanged => self.document.last_updated,
        };
        Some(from.plus(schedule.keep?))
    }

    /// What its clock says at `now`, by these schedules and the holds that stand.
    pub fn at<'h>(
        &self,
        now: Timestamp,
        schedules: &Schedules,
        holds: impl IntoIterator<Item = &'h Hold>,
    ) -> Retention {
        let until = self.until(schedules);
        if until.is_none_or(|until| now < until) {
            return Retention::Until(until);
        }
        let holds = holding(&self.document, now, holds);
        if holds.is_empty() {
            Retention::Over
        } else {
            Retention::Held(holds)
        }
    }
}

/// The holds that keep a document's content at `now`.
pub fn holding<'h>(
    document: &Document,
    now: Timestamp,
    holds: impl IntoIterator<Item = &'h Hold>,
) -> Vec<HoldId> {
    holds
        .into_iter()
        .filter(|hold| hold.stands_at(now) && hold.target.covers(document))
        .map(|hold| hold.id.clone())
        .collect()
}

/// Why content is disposed of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It was kept for as long as its class says.
    Retention,
    /// A records manager purged it.
    Purge,
    /// It was deleted, and belongs to no document that says how long to keep it.
    Deleted,
}

impl Cause {
    const ALL: [Self; 3] = [Self::Retention, Self::Purge, Self::Deleted];

    /// The word in store and audit.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Purge => "purge",
            Self::Deleted => "deleted",
        }
    }

    /// What a word means.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == word)
    }
}

/// How far it is with content that is disposed of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisposalState {
    /// Nobody is released it any more, and it is still there: a hold keeps it.
    Marked,
    /// It is being deleted: a hold comes too late.
    Deleting,
    /// It is gone, which is recorded.
    Gone,
}

impl DisposalState {
    const ALL: [Self; 3] = [Self::Marked, Self::Deleting, Self::Gone];

    /// The word in store and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Marked => "marked",
            Self::Deleting => "deleting",
            Self::Gone => "gone",
        }
    }

    /// What a word means.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// Content that is disposed of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disposal {
    /// The Binary with the bytes.
    pub binary: BinaryId,
    /// The document that it belongs to.
    pub document: Option<DocumentId>,
    /// Why.
    pub cause: Cause,
    /// What was decided by, in words: `progress-note: 10y from created`.
    pub schedule: String,
    /// Since when nobody is released it.
    pub marked_at: Timestamp,
    /// From when on it may be deleted.
    pub due: Timestamp,
    /// How far it is.
    pub state: DisposalState,
    /// Since when.
    pub state_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from: Option<i64>, until: Option<i64>) -> Availability {
        Availability {
            from: from.map(Timestamp),
            until: until.map(Timestamp),
        }
    }

    #[test]
    fn a_window_is_open_from_its_beginning_until_before_its_end() {
        let open = |from, until| -> Vec<i64> {
            (0..5)
                .filter(|now| window(from, until).is_open(Timestamp(*now)))
                .collect()
        };
        assert_eq!(open(None, None), [0, 1, 2, 3, 4]);
        assert_eq!(open(Some(2), None), [2, 3, 4]);
        assert_eq!(open(None, Some(2)), [0, 1]);
        assert_eq!(open(Some(1), Some(3)), [1, 2]);
        assert_eq!(open(Some(3), Some(3)), [] as [i64; 0]);
    }

    #[test]
    fn its_next_change_is_the_next_instant_at_which_it_is_another() {
        for (from, until) in [
            (None, None),
            (Some(2), None),
            (None, Some(2)),
            (Some(1), Some(3)),
            (Some(3), Some(1)),
        ] {
            let window = window(from, until);
            for now in 0..5 {
                let is_open = window.is_open(Timestamp(now));
                let changes = (now + 1..6).find(|at| window.is_open(Timestamp(*at)) != is_open);
                let told = window.next_change(Timestamp(now)).map(|at| at.0);
                // A window that is never open may be told of once for nothing.
                if changes.is_some() {
                    assert_eq!(told, changes, "{window:?} at {now}");
                }
            }
        }
    }
}
