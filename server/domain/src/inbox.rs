//! What sources told us, one notice a resource and event: taken in once, applied in the order of the source's own versions,
//! or laid aside where somebody can see it. Knows neither HTTP nor what applying does.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::ids::{CorrelationId, NoticeId, SourceId, is_fhir_id};
use crate::reason::Reason;
use crate::time::{Span, Timestamp};

/// The most stretches of events that are known to be missing; beyond that they are taken together.
const MOST_GAPS: usize = 100;
/// The highest number of an event.
pub const MOST_EVENTS: i64 = i64::MAX / 4;

/// Which version of a resource a source told of, as far as it said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceVersion {
    /// `meta.lastUpdated`.
    pub updated: Option<Timestamp>,
    /// `meta.versionId`.
    pub version: Option<String>,
}

/// How one version stands to another of the same resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// It came after.
    Newer,
    /// It is the same.
    Same,
    /// It came before.
    Older,
    /// What was said does not tell.
    Untold,
}

/// How far a source's clock may be ahead of ours.
const AHEAD: Span = Span::minutes(5);

impl SourceVersion {
    /// The same as of `now`: an instant that has not come yet would stand above every later version, and says nothing.
    #[must_use]
    pub fn not_ahead(self, now: Timestamp) -> Self {
        let latest = now.plus(AHEAD);
        Self {
            updated: self.updated.filter(|at| *at <= latest),
            ..self
        }
    }

    /// How this one stands to `held`. The instant decides; version ids are numbers only by habit, and count where the
    /// instants are the same or missing.
    pub fn against(&self, held: &Self) -> Age {
        let number = |of: &Self| of.version.as_deref().and_then(|text| text.parse::<u64>().ok());
        let by_instant = match (self.updated, held.updated) {
            (Some(mine), Some(theirs)) => Some(mine.cmp(&theirs)),
            _ => None,
        };
        let by_number = match (number(self), number(held)) {
            (Some(mine), Some(theirs)) => Some(mine.cmp(&theirs)),
            _ => None,
        };
        match (by_instant, by_number) {
            (Some(Ordering::Less), _) | (Some(Ordering::Equal) | None, Some(Ordering::Less)) => Age::Older,
            (Some(Ordering::Greater), _) | (Some(Ordering::Equal) | None, Some(Ordering::Greater)) => {
                Age::Newer
            }
            (Some(Ordering::Equal) | None, Some(Ordering::Equal)) => Age::Same,
            _ if self.version.is_some() && self.version == held.version => Age::Same,
            // Much may happen within an instant of a clock that counts seconds.
            _ => Age::Untold,
        }
    }
}

/// Which event of which subscription a notice is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// The subscription at the source, as the source names it.
    pub subscription: String,
    /// `event-number`.
    pub event: i64,
    /// Which resource of the event: 0 the focus, then its context.
    pub part: i64,
}

/// What a notice is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matter {
    /// A resource: `Type/id` at the source.
    Resource(String),
    /// Whatever changed at the source: it is asked.
    Changes,
}

impl Matter {
    /// The reference, where it is about one resource.
    pub fn reference(&self) -> Option<&str> {
        match self {
            Self::Resource(reference) => Some(reference),
            Self::Changes => None,
        }
    }
}

/// A resource's type and id in `Type/id`.
pub fn split_reference(reference: &str) -> Option<(&str, &str)> {
    let (kind, id) = reference.split_once('/')?;
    let is_type = !kind.is_empty() && kind.len() <= 64 && kind.bytes().all(|b| b.is_ascii_alphabetic());
    (is_type && is_fhir_id(id)).then_some((kind, id))
}

/// Where a notice is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeState {
    /// To be applied.
    Waiting {
        /// When it is tried next.
        due: Timestamp,
    },
    /// Done, with what it became here, where it became something.
    Applied {
        /// When.
        at: Timestamp,
        /// `Task/1`.
        ours: Option<String>,
    },
    /// A newer version had been applied, or this one.
    Superseded {
        /// When that was seen.
        at: Timestamp,
    },
    /// Refused, until somebody tries again.
    Quarantined {
        /// When.
        at: Timestamp,
        /// Why.
        reason: Reason,
        /// The OperationOutcome that says so. Repeats nothing that was sent.
        outcome: String,
    },
    /// Given up by an operator.
    Dismissed {
        /// When.
        at: Timestamp,
    },
}

impl NoticeState {
    /// The words of the store.
    pub const WORDS: [&'static str; 5] = ["waiting", "applied", "superseded", "quarantined", "dismissed"];

    /// The word in store, answers and metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Applied { .. } => "applied",
            Self::Superseded { .. } => "superseded",
            Self::Quarantined { .. } => "quarantined",
            Self::Dismissed { .. } => "dismissed",
        }
    }

    /// Whether nothing more becomes of it: then what was sent is not kept.
    pub const fn is_settled(&self) -> bool {
        matches!(
            self,
            Self::Applied { .. } | Self::Superseded { .. } | Self::Dismissed { .. }
        )
    }
}

/// One thing that a source told us.
#[derive(Clone, PartialEq, Eq)]
pub struct Notice {
    /// Its id.
    pub id: NoticeId,
    /// Who told.
    pub source: SourceId,
    /// Its place among all that this source told.
    pub place: i64,
    /// Which event, where it has a number.
    pub numbered: Option<Numbered>,
    /// What it is about.
    pub matter: Matter,
    /// Which version of it.
    pub version: SourceVersion,
    /// The resource as it was sent; empty where it has to be read from the source, or was deleted.
    pub body: Vec<u8>,
    /// Whether it tells that the resource was deleted.
    pub gone: bool,
    /// When it came.
    pub received_at: Timestamp,
    /// The request that it came with.
    pub correlation: CorrelationId,
    /// Where it is.
    pub state: NoticeState,
    /// How often applying it was begun.
    pub tries: u32,
    /// Counts its changes, from 1.
    pub revision: i64,
}

/// Prints nothing that may be about a patient.
impl std::fmt::Debug for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notice")
            .field("id", &self.id)
            .field("source", &self.source)
            .field("state", &self.state.as_str())
            .finish_non_exhaustive()
    }
}

impl Notice {
    /// The same in another state. What was sent goes once it is settled.
    #[must_use]
    pub fn become_state(self, state: NoticeState) -> Self {
        let body = if state.is_settled() { Vec::new() } else { self.body };
        Self {
            body,
            state,
            revision: self.revision.saturating_add(1),
            ..self
        }
    }

    /// When to try again after something behind us failed: later each time, an hour at the most.
    pub fn next_try(&self, now: Timestamp) -> Timestamp {
        let seconds = 2_i64.checked_pow(self.tries.min(12)).unwrap_or(3600).min(3600);
        now.plus(Span::seconds(seconds))
    }
}

/// A resource at a source that we know of: what it is here, and which version of it came last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Whose.
    pub source: SourceId,
    /// `Type/id` there.
    pub theirs: String,
    /// `Type/id` here, where it is mirrored.
    pub ours: Option<String>,
    /// The version applied last.
    pub version: SourceVersion,
    /// The notice that brought it.
    pub notice: NoticeId,
    /// That notice's place in the feed: of versions that do not tell their order the later one counts.
    pub place: i64,
    /// References to resources of the source that were not mirrored when it came, where the resource is to be looked at
    /// again once they are.
    pub awaits: Vec<String>,
    /// Counts its changes, from 1.
    pub revision: i64,
}

impl Mirror {
    /// Whether a version may still be applied, and if not that it is an old one.
    pub fn takes(&self, notice: &Notice) -> bool {
        match notice.version.against(&self.version) {
            Age::Newer => true,
            // Begun before and not finished.
            Age::Same | Age::Untold if self.notice == notice.id => true,
            Age::Untold => notice.place > self.place,
            Age::Same | Age::Older => false,
        }
    }
}

/// What is known of a subscription at a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedSubscription {
    /// Whose.
    pub source: SourceId,
    /// The subscription, as the source names it.
    pub reference: String,
    /// Its status there, as last told.
    pub status: String,
    /// The highest event number that was told.
    pub last_event: i64,
    /// Events below it that never came: first and last of each stretch, ascending.
    pub missing: Vec<(i64, i64)>,
    /// When it was last heard of.
    pub heard_at: Timestamp,
    /// How often it says that it lives, where we asked for it.
    pub heartbeat: Option<Span>,
    /// Counts its changes, from 1; 0 where it is not stored yet.
    pub revision: i64,
}

impl FeedSubscription {
    /// One that was not heard of before.
    pub fn new(source: SourceId, reference: String, now: Timestamp) -> Self {
        Self {
            source,
            reference,
            status: "requested".to_owned(),
            last_event: 0,
            missing: Vec::new(),
            heard_at: now,
            heartbeat: None,
            revision: 0,
        }
    }

    /// Whether event `number` was taken in already; from now on it was.
    pub fn is_repeated(&mut self, number: i64) -> bool {
        if number > self.last_event {
            self.note_up_to(number.saturating_sub(1));
            self.last_event = number;
            return false;
        }
        let Some(at) = self
            .missing
            .iter()
            .position(|(first, last)| (*first..=*last).contains(&number))
        else {
            return true;
        };
        let (first, last) = self.missing.remove(at);
        if number < last {
            self.missing.insert(at, (number.saturating_add(1), last));
        }
        if first < number {
            self.missing.insert(at, (first, number.saturating_sub(1)));
        }
        self.join();
        false
    }

    /// The source says that it has counted so many events: those up to there that did not come are missing. A smaller
    /// number than is known was said earlier, and came late.
    pub fn counted(&mut self, total: i64) {
        self.note_up_to(total);
        self.last_event = self.last_event.max(total);
    }

    /// The source says so in a handshake, where a smaller number means that it began anew: of what it has told since, nothing
    /// is known.
    pub fn began_with(&mut self, total: i64) {
        if total < self.last_event {
            self.last_event = 0;
            self.missing.clear();
        }
        self.counted(total);
    }

    /// Whether a sign of life with so many events can only be of one that began anew. What is a little less came late.
    pub const fn seems_begun_anew(&self, total: i64) -> bool {
        total < self.last_event / 2
    }

    fn note_up_to(&mut self, number: i64) {
        if number > self.last_event {
            self.missing.push((self.last_event.saturating_add(1), number));
            self.join();
        }
    }

    /// Few stretches are kept: an event in between that did come is taken again, and found to be known.
    fn join(&mut self) {
        while self.missing.len() > MOST_GAPS {
            let (first, _) = self.missing.remove(0);
            if let Some(next) = self.missing.first_mut() {
                next.0 = first;
            }
        }
    }

    /// Nothing is missing any more up to this event: it was asked for.
    pub fn healed(&mut self, up_to: i64) {
        self.missing.retain_mut(|(first, last)| {
            *first = (*first).max(up_to.saturating_add(1));
            first <= last
        });
    }

    /// Whether it should have been heard of by `now`: after two heartbeats without any.
    pub fn is_silent(&self, now: Timestamp) -> bool {
        self.heartbeat
            .is_some_and(|period| now.since(self.heard_at).0 > period.0.saturating_mul(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(updated: Option<i64>, id: Option<&str>) -> SourceVersion {
        SourceVersion {
            updated: updated.map(Timestamp),
            version: id.map(str::to_owned),
        }
    }

    #[test]
    fn the_instant_decides_and_the_number_where_it_does_not() {
        for (mine, held, age) in [
            (
                version(Some(2), Some("1")),
                version(Some(1), Some("9")),
                Age::Newer,
            ),
            (
                version(Some(1), Some("9")),
                version(Some(2), Some("1")),
                Age::Older,
            ),
            (
                version(Some(1), Some("3")),
                version(Some(1), Some("2")),
                Age::Newer,
            ),
            (
                version(Some(1), Some("2")),
                version(Some(1), Some("3")),
                Age::Older,
            ),
            (
                version(Some(1), Some("2")),
                version(Some(1), Some("2")),
                Age::Same,
            ),
            (version(None, Some("3")), version(Some(1), Some("2")), Age::Newer),
            (version(None, Some("a")), version(None, Some("a")), Age::Same),
            (version(None, Some("a")), version(None, Some("b")), Age::Untold),
            (
                version(Some(1), Some("a")),
                version(Some(1), Some("b")),
                Age::Untold,
            ),
            (version(Some(1), None), version(Some(1), None), Age::Untold),
            (version(None, None), version(Some(1), Some("2")), Age::Untold),
            (version(None, None), version(None, None), Age::Untold),
        ] {
            assert_eq!(mine.against(&held), age, "{mine:?} {held:?}");
        }
    }

    fn subscription() -> FeedSubscription {
        FeedSubscription::new(
            SourceId::parse("ehr").unwrap(),
            "Subscription/1".to_owned(),
            Timestamp(0),
        )
    }

    #[test]
    fn events_are_taken_once_in_whichever_order_they_come() {
        let mut known = subscription();
        let taken: Vec<bool> = [1, 2, 5, 5, 3, 1, 4, 3, 6]
            .into_iter()
            .map(|n| !known.is_repeated(n))
            .collect();
        assert_eq!(taken, [true, true, true, false, true, false, true, false, true]);
        assert_eq!((known.last_event, known.missing.as_slice()), (6, &[][..]));
    }

    #[test]
    fn a_count_tells_of_what_did_not_come() {
        let mut known = subscription();
        assert!(!known.is_repeated(2));
        known.counted(5);
        assert_eq!(known.missing, [(1, 1), (3, 5)]);
        assert!(!known.is_repeated(4));
        assert_eq!(known.missing, [(1, 1), (3, 3), (5, 5)]);
        // Said before the fifth, and late.
        known.counted(2);
        assert_eq!(known.missing, [(1, 1), (3, 3), (5, 5)]);
        known.healed(4);
        assert_eq!(known.missing, [(5, 5)], "what came since is still missing");
        known.healed(5);
        assert!(known.is_repeated(4));
        // It began anew, and counts already: what it has told since is missing, however far it was before.
        known.counted(100);
        known.began_with(3);
        assert_eq!((known.last_event, known.missing.as_slice()), (3, &[(1, 3)][..]));
        assert!(!known.is_repeated(1));
        known.began_with(3);
        assert_eq!(known.missing, [(2, 3)], "a handshake again is no beginning");
    }

    #[test]
    fn of_many_gaps_the_oldest_are_taken_together() {
        let mut known = subscription();
        for n in 1..=300 {
            assert!(!known.is_repeated(n * 2));
        }
        assert_eq!(known.missing.len(), MOST_GAPS);
        assert!(!known.is_repeated(1), "still missing");
    }

    #[test]
    fn who_misses_two_heartbeats_is_silent() {
        let mut known = subscription();
        assert!(!known.is_silent(Timestamp(i64::MAX)));
        known.heartbeat = Some(Span::seconds(60));
        assert!(!known.is_silent(Timestamp(120_000_000)));
        assert!(known.is_silent(Timestamp(120_000_001)));
    }

    #[test]
    fn a_reference_has_a_type_and_an_id() {
        assert_eq!(split_reference("Task/1"), Some(("Task", "1")));
        for text in [
            "Task",
            "Task/",
            "/1",
            "Task/1/2",
            "https://x/Task/1",
            "Ta sk/1",
            "Task/a b",
        ] {
            assert_eq!(split_reference(text), None, "{text}");
        }
    }
}
