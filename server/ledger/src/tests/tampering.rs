//! What can be done to an export, and that each is found, and where.

use std::borrow::Cow;

use super::log::{Log, ORIGIN, file, key, keys, named_key};
use crate::{Checkpoint, Finding, Hash, Note, Report, leaf_hash, verify_export};

const FROM: u64 = 13;
const UNTIL: u64 = 60;
/// The line of a row is that of its position, and this.
const SHIFT: usize = 12;

fn honest() -> (Log, Vec<String>) {
    let log = Log::new(80);
    let lines = log.export(FROM, UNTIL);
    (log, lines)
}

fn check(lines: &[String], kept: &[Note]) -> Report {
    verify_export(file(lines).as_bytes(), &keys(&[1]), kept).unwrap()
}

/// What is found in an export that `tamper` changed, held against checkpoints of 20, 40 and 60 rows.
fn found(tamper: impl FnOnce(&mut Vec<String>)) -> Vec<Finding> {
    let (log, mut lines) = honest();
    tamper(&mut lines);
    let kept = [60, 20, 40].map(|size| log.note(size, 1));
    let report = check(&lines, &kept);
    assert!(!report.is_clean());
    let doubtful = |finding: &Finding| {
        matches!(
            finding,
            Finding::RootMismatch { .. } | Finding::TreeTruncated { .. } | Finding::CheckpointInvalid { .. }
        )
    };
    if report.findings.iter().any(doubtful) {
        assert_eq!(report.vouched_size, None);
    }
    report.findings
}

fn replace(line: &mut String, from: &str, to: &str) {
    assert!(line.contains(from), "{line}");
    *line = line.replacen(from, to, 1);
}

fn mismatch(size: u64, last_good_size: u64) -> Finding {
    Finding::RootMismatch {
        size,
        last_good_size: Some(last_good_size),
    }
}

fn gap(expected: u64, found: u64) -> Finding {
    Finding::PositionGap { expected, found }
}

fn order(position: u64, before: i64, found: i64) -> Finding {
    Finding::SequenceOrder {
        position,
        before,
        found,
    }
}

/// What is said of rows 21 to 40, and of the whole.
fn between_20_and_40() -> Vec<Finding> {
    vec![mismatch(40, 20), mismatch(60, 20)]
}

#[test]
fn an_honest_export_is_clean() {
    let (log, lines) = honest();
    let kept = [20, 5, 40, 60, 13].map(|size| log.note(size, 1));
    let report = check(&lines, &kept);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(
        (report.rows, report.erased, report.from, report.size),
        (47, 5, 13, 60)
    );
    assert_eq!(report.root, Some(log.checkpoint(60).root));
    assert_eq!((report.kept_agreed, report.kept_before), (4, 1));
    assert_eq!(report.vouched_size, Some(60));
    let spans: Vec<_> = report
        .erased_spans
        .iter()
        .map(|span| (span.first, span.last))
        .collect();
    assert_eq!(spans, [(17, 17), (27, 27), (37, 37), (47, 47), (57, 57)]);
    assert!(check(&log.export(0, 80), &[]).is_clean());
    assert!(check(&log.export(80, 80), &[log.note(80, 1)]).is_clean());
    assert!(check(&Log::new(0).export(0, 0), &[Log::new(0).note(0, 1)]).is_clean());
    // Windows line ends lie outside of what is sealed, and no line end has to close the file.
    let windows = file(&lines).replace('\n', "\r\n");
    let cut = file(&lines);
    for text in [&windows, cut.trim_end()] {
        assert!(
            verify_export(text.as_bytes(), &keys(&[1]), &[])
                .unwrap()
                .is_clean()
        );
    }
}

#[test]
fn a_changed_entry_salt_or_number_lies_between_two_checkpoints() {
    let entry = found(|lines| replace(&mut lines[25 - SHIFT], "AuditEvent", "AuditEvemt"));
    assert_eq!(entry, between_20_and_40());
    let blank = found(|lines| replace(&mut lines[25 - SHIFT], r#""action":"#, r#""action": "#));
    assert_eq!(blank, between_20_and_40());
    let salt = found(|lines| replace(&mut lines[25 - SHIFT], "GRkZ", "GRkY"));
    assert_eq!(salt, between_20_and_40());
    let number = found(|lines| replace(&mut lines[25 - SHIFT], r#""sequence":80"#, r#""sequence":81"#));
    assert_eq!(number, between_20_and_40());
    let at_the_end = found(|lines| replace(&mut lines[59 - SHIFT], "AuditEvent", "AuditEvemt"));
    assert_eq!(at_the_end, [mismatch(60, 40)]);
    let text = mismatch(60, 40).to_string();
    assert_eq!(
        text,
        "the first 60 rows are not those that were signed: the difference is after the first 40, which are"
    );
}

#[test]
fn a_changed_entry_beside_what_its_leaf_commits_to_is_named() {
    let (log, mut lines) = honest();
    let commitment = log.rows[25].content.commitment().0.to_base64();
    let said = format!(r#""commitment":"{commitment}","salt":"#);
    replace(&mut lines[25 - SHIFT], r#""salt":"#, &said);
    assert!(check(&lines, &[]).is_clean());
    replace(&mut lines[25 - SHIFT], "AuditEvent", "AuditEvemt");
    let changed = Finding::RowChanged {
        position: 25,
        sequence: 80,
    };
    assert_eq!(check(&lines, &[]).findings, [changed]);
}

#[test]
fn rows_that_are_dropped_added_or_moved_leave_a_gap() {
    let dropped = found(|lines| drop(lines.remove(25 - SHIFT)));
    assert_eq!(dropped, [vec![gap(25, 26)], between_20_and_40()].concat());
    let added = found(|lines| lines.insert(26 - SHIFT, lines[25 - SHIFT].clone()));
    let expected = [gap(26, 25), order(25, 80, 80)];
    assert_eq!(added, [expected.to_vec(), between_20_and_40()].concat());
    let swapped = found(|lines| lines.swap(25 - SHIFT, 26 - SHIFT));
    let expected = [gap(25, 26), gap(27, 25), order(25, 83, 80), gap(26, 27)];
    assert_eq!(swapped, [expected.to_vec(), between_20_and_40()].concat());
}

#[test]
fn rows_that_are_numbered_anew_are_no_more_those_that_were_signed() {
    let renumber = |lines: &mut Vec<String>, from: u64, by: i64| {
        for position in from..UNTIL {
            let Some(line) = lines.get_mut(usize::try_from(position).unwrap() - SHIFT) else {
                break;
            };
            let old = format!(r#"{{"position":{position},"#);
            replace(
                line,
                &old,
                &format!(r#"{{"position":{},"#, position.strict_add_signed(by)),
            );
        }
    };
    let dropped = found(|lines| {
        renumber(lines, 26, -1);
        lines.remove(25 - SHIFT);
    });
    let truncated = Finding::TreeTruncated { size: 59, known: 60 };
    assert_eq!(dropped, [mismatch(40, 20), truncated]);
    let added = found(|lines| {
        let line = lines[25 - SHIFT].replace(r#""sequence":80"#, r#""sequence":81"#);
        renumber(lines, 26, 1);
        lines.insert(26 - SHIFT, line.replace(r#""position":25"#, r#""position":26"#));
    });
    let beyond = Finding::RowsBeyond { size: 60, found: 61 };
    assert_eq!(added, [mismatch(40, 20), beyond, mismatch(60, 20)]);
    let swapped = found(|lines| {
        lines.swap(25 - SHIFT, 26 - SHIFT);
        replace(&mut lines[25 - SHIFT], r#""position":26"#, r#""position":25"#);
        replace(&mut lines[26 - SHIFT], r#""position":25"#, r#""position":26"#);
    });
    assert_eq!(swapped, [vec![order(26, 83, 80)], between_20_and_40()].concat());
}

#[test]
fn a_tail_that_is_cut_off_is_missed() {
    let truncated = |size| Finding::TreeTruncated { size, known: 60 };
    let with_the_checkpoint = found(|lines| lines.truncate(50 - SHIFT));
    assert_eq!(with_the_checkpoint, [Finding::CheckpointMissing, truncated(50)]);
    let before_the_checkpoint = found(|lines| drop(lines.drain(50 - SHIFT..60 - SHIFT)));
    assert_eq!(before_the_checkpoint, [truncated(50)]);
    let in_a_row = found(|lines| {
        lines.truncate(51 - SHIFT);
        lines[50 - SHIFT].truncate(80);
    });
    let line = Finding::Line {
        line: 39,
        why: "line 39 is not JSON: see column 80".to_owned(),
    };
    assert_eq!(in_a_row, [line, Finding::CheckpointMissing, truncated(50)]);
    let text = truncated(50).to_string();
    assert_eq!(
        text,
        "there are 50 rows, and 60 were signed: the last 10 are cut off"
    );
}

#[test]
fn an_older_honest_checkpoint_does_not_hide_what_a_newer_one_told() {
    let (log, _) = honest();
    let older = log.export(FROM, 50);
    let report = check(&older, &[log.note(60, 1), log.note(55, 1), log.note(20, 1)]);
    assert_eq!(report.findings, [Finding::TreeTruncated { size: 50, known: 60 }]);
    assert!(check(&older, &[log.note(50, 1)]).is_clean());
}

#[test]
fn a_header_that_says_something_else_is_found() {
    // Leaves are of a tenant: of another one all are different.
    let tenant = found(|lines| replace(&mut lines[0], r#""north""#, r#""south""#));
    assert_eq!(tenant, [mismatch_from_start(20), mismatch_from_start(60)]);
    let before = found(|lines| {
        let other = leaf_hash(b"other").to_base64();
        let start = lines[0].find("\"before\":[\"").unwrap() + 11;
        lines[0].replace_range(start..start + 44, &other);
    });
    assert_eq!(before, [mismatch_from_start(20), mismatch_from_start(60)]);
    let origin = found(|lines| replace(&mut lines[0], ORIGIN, "handoff.example/audit/south"));
    let of_another = |size| Finding::CheckpointInvalid {
        size,
        why: "it is of another log".to_owned(),
    };
    assert_eq!(origin, [60, 20, 40, 60].map(of_another));
    let size = found(|lines| replace(&mut lines[0], r#""size":60"#, r#""size":61"#));
    let differs = Finding::SizeDiffers {
        header: 61,
        checkpoint: 60,
    };
    assert_eq!(size, [differs]);
    // As many peaks as for 13.
    let from = found(|lines| replace(&mut lines[0], r#""from":13"#, r#""from":14"#));
    assert_eq!(from[0], gap(14, 13));
    assert_eq!(from[1..], [mismatch_from_start(20), mismatch_from_start(60)]);
}

fn mismatch_from_start(size: u64) -> Finding {
    Finding::RootMismatch {
        size,
        last_good_size: None,
    }
}

fn with_note(lines: &mut [String], note: &str) {
    let last = lines.last_mut().unwrap();
    *last = serde_json::json!({ "checkpoint": note }).to_string();
}

fn invalid(size: u64, why: &str) -> Finding {
    Finding::CheckpointInvalid {
        size,
        why: why.to_owned(),
    }
}

#[test]
fn a_checkpoint_that_nobody_known_signed_vouches_for_nothing() {
    let (log, _) = honest();
    let by_another = found(|lines| with_note(lines, log.note(60, 9).as_str()));
    assert_eq!(by_another, [invalid(60, "no known key signed the note")]);
    let changed = found(|lines| with_note(lines, &log.note(60, 1).as_str().replace("\n60\n", "\n61\n")));
    let why = "the signature by the known key 1 of the list is wrong";
    let differs = Finding::SizeDiffers {
        header: 60,
        checkpoint: 61,
    };
    let truncated = Finding::TreeTruncated { size: 60, known: 61 };
    assert_eq!(changed, [differs, truncated, invalid(61, why)]);
    let windows = found(|lines| with_note(lines, &log.note(60, 1).as_str().replace('\n', "\r\n")));
    let why = "the note has CRLF line ends: it has to be kept as it was written, with LF";
    assert_eq!(windows, [invalid(60, why)]);
    let foreign = named_key("handoff.example/audit/south", 1);
    let note = foreign.sign(&Checkpoint {
        origin: foreign.name().to_owned(),
        ..log.checkpoint(60)
    });
    let of_another_log = found(|lines| with_note(lines, &note.unwrap()));
    assert_eq!(of_another_log, [invalid(60, "no known key signed the note")]);
}

#[test]
fn a_log_that_was_signed_twice_is_a_fork() {
    let forged = Checkpoint {
        root: leaf_hash(b"other"),
        ..Log::new(80).checkpoint(60)
    };
    let note = key(1).sign(&forged).unwrap();
    let at_the_end = found(|lines| with_note(lines, &note));
    assert_eq!(
        at_the_end,
        [mismatch(60, 60), Finding::NotConsistent { size: 60 }]
    );
    let (log, lines) = honest();
    let kept = [Note::parse(note).unwrap(), log.note(60, 1)];
    let report = check(&lines, &kept);
    assert_eq!(report.findings[0], Finding::NotConsistent { size: 60 });
}

#[test]
fn a_row_that_is_said_to_be_erased_keeps_what_it_committed_to() {
    let (log, _) = honest();
    let erase = |lines: &mut Vec<String>, commitment: Hash| {
        let start = r#"{"position":25,"sequence":80,"#;
        assert!(lines[25 - SHIFT].starts_with(start));
        let commitment = commitment.to_base64();
        lines[25 - SHIFT] = format!(r#"{start}"commitment":"{commitment}","erased":true}}"#);
    };
    let forged = found(|lines| erase(lines, leaf_hash(b"other")));
    assert_eq!(forged, between_20_and_40());
    // With what it had committed to it is indeed erased, and told as that.
    let mut lines = log.export(FROM, UNTIL);
    erase(&mut lines, log.commitment(25).0);
    let report = check(&lines, &[]);
    assert!(report.is_clean());
    assert_eq!(report.erased, 6);
}

#[test]
fn lines_that_are_not_those_of_an_export_are_told_and_passed_over() {
    let after = found(|lines| lines.push(lines[1].clone()));
    let line = |line, why: &str| Finding::Line {
        line,
        why: why.to_owned(),
    };
    let why = "line 50 stands after the checkpoint, which is the last line of an export";
    assert_eq!(after, [line(50, why)]);
    let blank = found(|lines| lines.insert(3, String::new()));
    assert_eq!(blank, [line(4, "line 4 is not JSON: see column 0")]);
    let twice = found(|lines| {
        replace(
            &mut lines[25 - SHIFT],
            r#""sequence":80"#,
            r#""sequence":80,"sequence":80"#,
        );
    });
    assert!(matches!(&twice[0], Finding::Line { line: 14, .. }));
    assert_eq!(twice[1], gap(25, 26));
    let headless = Cow::from(file(&honest().1[1..]));
    let failed = verify_export(headless.as_bytes(), &keys(&[1]), &[]).unwrap_err();
    assert!(
        failed.to_string().starts_with("line 1: wanted the header"),
        "{failed}"
    );
}
