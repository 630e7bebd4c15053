//! The check of what a database holds: leaves with their commitments, rows and stored nodes.

use std::borrow::Cow;

use super::log::{Log, ORIGIN, TENANT, at, key, keys, root_of};
use crate::{
    Checkpoint, Content, Finding, Hash, Held, Leaf, MOST_FINDINGS, Note, Report, Start, Verifier,
    VerifierKey, leaf_hash,
};

/// What may be done to a database before it is walked through.
#[derive(Default)]
struct Database {
    changed: Vec<u64>,
    missing: Vec<u64>,
    erased: Vec<u64>,
    /// Leaves that are gone with their rows.
    gone: Vec<u64>,
    nodes: Vec<(u8, u64, Option<Hash>)>,
}

struct Walk<'a> {
    log: &'a Log,
    from: u64,
    until: u64,
    keys: Vec<VerifierKey>,
    kept: Vec<Note>,
}

impl Walk<'_> {
    fn through(&self, database: &Database, last: Option<&Note>) -> Report {
        let Self { log, from, until, .. } = *self;
        let mut verifier = Verifier::new(Start {
            tenant: TENANT,
            origin: ORIGIN,
            from: log.frontier(from),
            keys: &self.keys,
            kept: &self.kept,
            until: last.map(|note| note.checkpoint().size),
            stored_nodes: true,
        });
        let mut nodes = log.tree.stored.clone();
        for &(level, index, hash) in &database.nodes {
            match hash {
                Some(hash) => nodes.insert((level, index), hash),
                None => nodes.remove(&(level, index)),
            };
        }
        let mut nodes: Vec<_> = nodes.into_iter().collect();
        // Half of them come before their leaves, half after.
        for ((level, index), hash) in nodes.extract_if(.., |((_, index), _)| index.is_multiple_of(2)) {
            verifier.stored_node(level, index, hash);
        }
        for row in &log.rows[at(from)..at(until)] {
            if database.gone.contains(&row.position) {
                continue;
            }
            let commitment = log.commitment(row.position);
            let held = match &row.content {
                _ if database.missing.contains(&row.position) => Held::Missing { commitment },
                Content::Erased(_) => Held::Erased {
                    commitment,
                    allowed: !database.erased.contains(&row.position),
                },
                Content::Present { salt, entry, .. } => Held::Present {
                    commitment: Some(commitment),
                    salt,
                    entry: if database.changed.contains(&row.position) {
                        b"{}"
                    } else {
                        entry.as_bytes()
                    },
                },
            };
            verifier.leaf(&Leaf {
                position: row.position,
                sequence: row.sequence,
                held,
            });
        }
        for ((level, index), hash) in nodes {
            verifier.stored_node(level, index, hash);
        }
        verifier.finish(last)
    }
}

fn walk(log: &Log) -> Walk<'_> {
    Walk {
        log,
        from: 0,
        until: 700,
        keys: keys(&[1]),
        kept: vec![log.note(300, 1), log.note(600, 1)],
    }
}

#[test]
fn a_whole_database_is_clean() {
    let log = Log::new(700);
    let report = walk(&log).through(&Database::default(), Some(&log.note(700, 1)));
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.kept_agreed, report.rows, report.erased), (2, 700, 70));
    assert_eq!(report.root, Some(root_of(&log.tree.leaves)));
    assert_eq!(report.vouched_size, Some(700));
    // The last rows need not be signed yet.
    let report = walk(&log).through(&Database::default(), Some(&log.note(650, 1)));
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.vouched_size, report.size), (Some(650), 700));
    assert!(walk(&log).through(&Database::default(), None).is_clean());
    let part = Walk {
        from: 290,
        ..walk(&log)
    };
    let report = part.through(&Database::default(), Some(&log.note(700, 1)));
    assert!(report.is_clean(), "{report:?}");
    let empty = Log::new(0);
    let none = Walk {
        log: &empty,
        until: 0,
        kept: Vec::new(),
        ..walk(&log)
    };
    let report = none.through(&Database::default(), None);
    assert!(report.is_clean() && report.root == Some(crate::empty_hash()));
}

#[test]
fn rows_that_are_changed_gone_or_erased_are_named() {
    let log = Log::new(700);
    let database = Database {
        changed: vec![25, 699],
        missing: vec![26],
        erased: vec![27],
        ..Database::default()
    };
    let report = walk(&log).through(&database, Some(&log.note(700, 1)));
    let expected = [
        Finding::RowChanged {
            position: 25,
            sequence: 80,
        },
        Finding::RowMissing {
            position: 26,
            sequence: 83,
        },
        Finding::RowErased {
            position: 27,
            sequence: 86,
        },
        Finding::RowChanged {
            position: 699,
            sequence: 2102,
        },
    ];
    assert_eq!(report.findings, expected);
    assert_eq!(report.vouched_size, Some(700));
    let json = serde_json::to_value(&report).unwrap();
    let first = serde_json::json!({ "finding": "row_changed", "position": 25, "sequence": 80 });
    assert_eq!(json["findings"][0], first);
    assert_eq!(
        report.findings[1].to_string(),
        "row 83 (position 26) is gone and was not erased by the rules"
    );
}

#[test]
fn a_leaf_that_was_made_anew_with_its_row_lies_between_two_checkpoints() {
    let honest = Log::new(700);
    let mut log = Log {
        rows: Vec::new(),
        ..Log::new(0)
    };
    for mut row in honest.rows.clone() {
        if row.position == 400 {
            let entry = Cow::Borrowed("{}");
            row.content = Content::Present {
                salt: [1; 32],
                entry,
                commitment: None,
            };
        }
        log.push(row);
    }
    let walk = Walk {
        log: &log,
        ..walk(&honest)
    };
    let report = walk.through(&Database::default(), Some(&honest.note(700, 1)));
    let mismatch = |size| Finding::RootMismatch {
        size,
        last_good_size: Some(300),
    };
    assert_eq!(report.findings, [mismatch(600), mismatch(700)]);
    // With the old node it says so as well.
    let database = Database {
        nodes: vec![(8, 1, Some(honest.tree.stored[&(8, 1)]))],
        ..Database::default()
    };
    let report = walk.through(&database, Some(&honest.note(700, 1)));
    let node = Finding::NodeChanged { level: 8, index: 1 };
    assert_eq!(report.findings, [mismatch(600), node, mismatch(700)]);
}

#[test]
fn stored_nodes_are_what_the_leaves_make() {
    let log = Log::new(700);
    let other = leaf_hash(b"other");
    let database = Database {
        nodes: vec![
            (8, 0, Some(other)),
            (8, 1, None),
            (8, 2, Some(other)),
            (16, 0, Some(other)),
            (7, 0, Some(other)),
            (72, 0, Some(other)),
        ],
        ..Database::default()
    };
    let report = walk(&log).through(&database, Some(&log.note(700, 1)));
    let surplus = |level, index| Finding::NodeSurplus { level, index };
    let expected = [
        surplus(7, 0),
        surplus(72, 0),
        Finding::NodeChanged { level: 8, index: 0 },
        Finding::NodeMissing { level: 8, index: 1 },
        surplus(8, 2),
        surplus(16, 0),
    ];
    assert_eq!(report.findings, expected);
}

#[test]
fn a_leaf_that_is_gone_breaks_the_tree_from_there() {
    let log = Log::new(700);
    let database = Database {
        gone: vec![400],
        changed: vec![500],
        ..Database::default()
    };
    let report = walk(&log).through(&database, Some(&log.note(700, 1)));
    let mismatch = |size| Finding::RootMismatch {
        size,
        last_good_size: Some(300),
    };
    let expected = [
        Finding::PositionGap {
            expected: 400,
            found: 401,
        },
        Finding::RowChanged {
            position: 500,
            sequence: 1505,
        },
        mismatch(600),
        mismatch(700),
    ];
    assert_eq!(report.findings, expected);
    assert_eq!((report.root, report.size, report.vouched_size), (None, 700, None));
}

#[test]
fn a_database_that_was_set_back_is_shorter_than_what_was_signed() {
    let log = Log::new(700);
    let back = Walk {
        until: 650,
        kept: vec![log.note(699, 1), log.note(700, 1)],
        ..walk(&log)
    };
    let report = back.through(&Database::default(), Some(&log.note(640, 1)));
    assert_eq!(
        report.findings,
        [Finding::TreeTruncated {
            size: 650,
            known: 700
        }]
    );
}

#[test]
fn a_key_that_was_replaced_signs_nothing_new() {
    let log = Log::new(700);
    let with = |kept: &[(u64, u8)], last: u8| {
        let kept = kept.iter().map(|&(size, seed)| log.note(size, seed)).collect();
        let walk = Walk {
            keys: keys(&[3, 2, 1]),
            kept,
            ..walk(&log)
        };
        walk.through(&Database::default(), Some(&log.note(700, last)))
            .findings
    };
    let replaced = |size, newer| Finding::KeyReplaced { size, newer };
    assert_eq!(with(&[(100, 1), (200, 1), (200, 2), (300, 2), (300, 3)], 3), []);
    assert_eq!(
        with(&[(100, 1), (200, 2), (201, 1)], 3),
        [replaced(201, Some(200))]
    );
    assert_eq!(
        with(&[(100, 3), (200, 2), (201, 1)], 3),
        [replaced(200, Some(100)), replaced(201, Some(100))]
    );
    assert_eq!(with(&[(100, 1)], 2), [replaced(700, None)]);
    let text = replaced(201, Some(200)).to_string();
    assert_eq!(
        text,
        "the checkpoint of size 201 is signed by a key that was replaced by size 200"
    );
}

#[test]
fn checkpoints_that_are_no_use_are_told() {
    let log = Log::new(700);
    let foreign = log.note(100, 9);
    let walk = Walk {
        kept: vec![foreign, log.note(250, 1)],
        from: 290,
        ..walk(&log)
    };
    let report = walk.through(&Database::default(), Some(&log.note(280, 1)));
    let invalid = |size, why: &str| Finding::CheckpointInvalid {
        size,
        why: why.to_owned(),
    };
    let expected = [
        invalid(100, "no known key signed the note"),
        invalid(280, "its tree is not one that the rows were held against"),
    ];
    assert_eq!(report.findings, expected);
    assert_eq!(report.kept_before, 1);
    let forged = Checkpoint {
        root: leaf_hash(b"other"),
        ..log.checkpoint(290)
    };
    let forged = Note::parse(key(1).sign(&forged).unwrap()).unwrap();
    let walk = Walk {
        kept: vec![forged],
        ..walk
    };
    let report = walk.through(&Database::default(), Some(&log.note(700, 1)));
    let mismatch = Finding::RootMismatch {
        size: 290,
        last_good_size: None,
    };
    assert_eq!(report.findings, [mismatch]);
}

#[test]
fn of_very_many_findings_the_first_are_kept() {
    let mut verifier = Verifier::new(Start {
        tenant: TENANT,
        origin: ORIGIN,
        from: crate::Frontier::new(),
        keys: &[],
        kept: &[],
        until: None,
        stored_nodes: false,
    });
    let commitment = Log::new(1).commitment(0);
    for position in 0..1500 {
        let held = Held::Missing { commitment };
        verifier.leaf(&Leaf {
            position,
            sequence: -5,
            held,
        });
    }
    verifier.found(Finding::RowUnsealed { sequence: 7 });
    assert_eq!(verifier.position(), 1500);
    let report = verifier.finish(None);
    assert_eq!(
        (report.findings.len(), report.more_findings),
        (MOST_FINDINGS, 2000)
    );
    assert!(!report.is_clean());
}
