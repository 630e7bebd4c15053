//! Where the blob store and the records differ: content without a record, records without their content. Knows neither of them; it compares
//! what one lists with what the other says.

use std::cmp::Ordering;

use crate::ids::BinaryId;
use crate::ports::Listed;
use crate::time::{Span, Timestamp};

/// What is younger is on its way: content is in the blob store before its record is in the database, and leaves it before that is recorded.
pub const SETTLED_AFTER: Span = Span::hours(1);

/// How the two differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DriftKind {
    /// Content that nothing names: its upload's process died, or the database was put back to an earlier state.
    Orphaned,
    /// Something in the container that was never ours.
    Foreign,
    /// A record whose content is not there.
    Missing,
    /// A record in whose place something else lies. It is not released: each block is held against its digest.
    Altered,
    /// Content that was disposed of and is there again.
    Lingering,
}

impl DriftKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Orphaned,
        Self::Foreign,
        Self::Missing,
        Self::Altered,
        Self::Lingering,
    ];

    /// The word in store, audit and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Orphaned => "orphaned",
            Self::Foreign => "foreign",
            Self::Missing => "missing",
            Self::Altered => "altered",
            Self::Lingering => "lingering",
        }
    }

    /// The kind that a word names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Whether it is content that no record needs, so that it may be removed.
    pub const fn is_needless(self) -> bool {
        matches!(self, Self::Orphaned | Self::Lingering)
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The name of the object below its tenant.
    pub name: String,
    /// How they differ.
    pub kind: DriftKind,
    /// Length in bytes: of what is there, or of what should be.
    pub size: u64,
    /// When it was first seen.
    pub found: Timestamp,
}

impl Drift {
    /// The Binary that it is about, where the name can be one's.
    pub fn binary(&self) -> Option<BinaryId> {
        own(&self.name)
    }
}

/// Whether the blob store should have content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// It should.
    Kept,
    /// It is being deleted.
    Going,
    /// It should not.
    Gone,
}

/// What a record says of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelved {
    /// The Binary.
    pub id: BinaryId,
    /// Length in bytes.
    pub size: u64,
    /// The strong `ETag` that was pinned.
    pub etag: String,
    /// Whether it should be there.
    pub shelf: Shelf,
    /// Since when that is so.
    pub since: Timestamp,
}

/// The last time that all of a tenant's content was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How many objects there were.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When another one was asked for last.
    pub asked: Option<Timestamp>,
}

impl Look {
    /// Whether it is time for another one by `now`, which comes as often as `every`.
    pub fn is_over(&self, every: Span, now: Timestamp) -> bool {
        now.since(self.began) >= every || self.asked.is_some_and(|asked| asked >= self.began)
    }
}

/// How objects and records of the same range differ, both in the order of the bytes of their names. What is on one side alone counts once
/// it is older than `settled`.
pub fn compare(objects: &[Listed], records: &[Shelved], now: Timestamp, settled: Span) -> Vec<Drift> {
    let mut found = Vec::new();
    let (mut objects, mut records) = (objects.iter().peekable(), records.iter().peekable());
    loop {
        let order = match (objects.peek(), records.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(object), Some(record)) => object.name.as_str().cmp(record.id.as_str()),
        };
        let object = if order.is_le() { objects.next() } else { None };
        let record = if order.is_ge() { records.next() } else { None };
        let drift = match (object, record) {
            (Some(object), None) => {
                without_record(object, settled).map(|kind| (object.name.as_str(), kind, object.size))
            }
            (None, Some(record)) => {
                without_object(record, now, settled).map(|kind| (record.id.as_str(), kind, record.size))
            }
            (Some(object), Some(record)) => {
                with_both(object, record, now, settled).map(|kind| (object.name.as_str(), kind, object.size))
            }
            (None, None) => None,
        };
        found.extend(drift.map(|(name, kind, size)| Drift {
            name: name.to_owned(),
            kind,
            size,
            found: now,
        }));
    }
}

/// The Binary of this name, if it is one that we give: 32 hexadecimal digits. Any other file may be called anything.
fn own(name: &str) -> Option<BinaryId> {
    let is_ours = name.len() == 32
        && name
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    BinaryId::parse(name).ok().filter(|_| is_ours)
}

fn without_record(object: &Listed, settled: Span) -> Option<DriftKind> {
    let kind = match own(&object.name) {
        Some(_) => DriftKind::Orphaned,
        None => DriftKind::Foreign,
    };
    (object.age >= settled).then_some(kind)
}

fn is_settled(record: &Shelved, now: Timestamp, settled: Span) -> bool {
    now.since(record.since) >= settled
}

fn without_object(record: &Shelved, now: Timestamp, settled: Span) -> Option<DriftKind> {
    (record.shelf == Shelf::Kept && is_settled(record, now, settled)).then_some(DriftKind::Missing)
}

fn with_both(object: &Listed, record: &Shelved, now: Timestamp, settled: Span) -> Option<DriftKind> {
    match record.shelf {
        Shelf::Kept => {
            let same =
                object.size == record.size && object.etag.as_ref().is_none_or(|etag| *etag == record.etag);
            (!same).then_some(DriftKind::Altered)
        }
        Shelf::Going => None,
        Shelf::Gone => is_settled(record, now, settled).then_some(DriftKind::Lingering),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORPHAN: &str = "b0123456789abcdef0123456789abcde";
    const NOW: Timestamp = Timestamp(100 * 3600 * 1_000_000);

    fn object(name: &str, size: u64, etag: Option<&str>, hours: i64) -> Listed {
        Listed {
            name: name.to_owned(),
            size,
            etag: etag.map(str::to_owned),
            age: Span::hours(hours),
        }
    }

    fn record(id: &str, shelf: Shelf, hours: i64) -> Shelved {
        Shelved {
            id: BinaryId::parse(id).unwrap(),
            size: 7,
            etag: "\"e\"".to_owned(),
            shelf,
            since: NOW.plus(Span(-Span::hours(hours).0)),
        }
    }

    fn kinds(objects: &[Listed], records: &[Shelved]) -> Vec<(String, &'static str)> {
        let found = compare(objects, records, NOW, SETTLED_AFTER);
        found
            .into_iter()
            .map(|drift| (drift.name, drift.kind.as_str()))
            .collect()
    }

    #[test]
    fn what_is_on_one_side_alone_is_told_once_it_is_settled() {
        let objects = [
            object("a", 7, Some("\"e\""), 5),
            object(ORPHAN, 7, Some("\"e\""), 5),
            object("b-young", 7, Some("\"e\""), 0),
            object("report-2026.pdf", 7, None, 5),
            object("x/../y.txt", 7, None, 5),
        ];
        let records = [
            record("a", Shelf::Kept, 5),
            record("c", Shelf::Kept, 5),
            record("d-young", Shelf::Kept, 0),
            record("e", Shelf::Going, 5),
            record("f", Shelf::Gone, 5),
        ];
        assert_eq!(
            kinds(&objects, &records),
            [
                (ORPHAN.to_owned(), "orphaned"),
                ("c".to_owned(), "missing"),
                ("report-2026.pdf".to_owned(), "foreign"),
                ("x/../y.txt".to_owned(), "foreign"),
            ]
        );
        assert_eq!(kinds(&[], &[]), []);
        assert_eq!(kinds(&objects[1..2], &[]), [(ORPHAN.to_owned(), "orphaned")]);
        assert_eq!(kinds(&[], &records[..1]), [("a".to_owned(), "missing")]);
    }

    #[test]
    fn what_lies_in_the_place_of_content_is_held_against_its_record() {
        let kept = [record("a", Shelf::Kept, 0)];
        assert_eq!(kinds(&[object("a", 7, None, 0)], &kept), []);
        for other in [
            object("a", 8, Some("\"e\""), 0),
            object("a", 7, Some("\"other\""), 9),
            object("a", 6, None, 0),
        ] {
            assert_eq!(kinds(&[other], &kept), [("a".to_owned(), "altered")]);
        }
        let there = [object("a", 7, Some("\"e\""), 9)];
        assert_eq!(kinds(&there, &[record("a", Shelf::Going, 9)]), []);
        assert_eq!(kinds(&there, &[record("a", Shelf::Gone, 0)]), []);
        assert_eq!(
            kinds(&there, &[record("a", Shelf::Gone, 9)]),
            [("a".to_owned(), "lingering")]
        );
    }

    #[test]
    fn another_look_comes_when_it_is_time_or_when_it_is_asked_for() {
        let look = |asked: Option<i64>| Look {
            began: NOW,
            ended: NOW,
            objects: 0,
            bytes: 0,
            asked: asked.map(|seconds| NOW.plus(Span::seconds(seconds))),
        };
        let is_over = |asked, hours| look(asked).is_over(Span::hours(24), NOW.plus(Span::hours(hours)));
        assert!(!is_over(None, 23) && is_over(None, 24));
        assert!(is_over(Some(5), 1), "while it went on, or after it");
        assert!(!is_over(Some(-5), 1), "that is the one that was asked for");
    }

    #[test]
    fn words_name_kinds() {
        for kind in DriftKind::ALL {
            assert_eq!(DriftKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(DriftKind::parse("lost"), None);
    }
}
