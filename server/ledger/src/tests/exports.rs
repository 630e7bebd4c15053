//! Exports, written and read.

use std::borrow::Cow;
use std::io::{self, BufReader, Read};

use proptest::prelude::*;

use super::log::{Log, ORIGIN, TENANT, file};
use crate::export::{
    ExportError, ExportReader, ExportWriteError, Header, Line, MOST_HEADER_BYTES, MOST_LINE_BYTES,
    write_header, write_row,
};
use crate::{Content, Frontier, Row, commit};

fn row(entry: &str) -> Row<'_> {
    Row {
        position: 3,
        sequence: -9,
        content: Content::Present {
            salt: [7; 32],
            entry: Cow::Borrowed(entry),
            commitment: None,
        },
    }
}

fn line_of(row: &Row<'_>) -> String {
    let mut out = Vec::new();
    write_row(&mut out, row).unwrap();
    String::from_utf8(out).unwrap()
}

/// The line after a header.
fn read(line: &str) -> Result<Line<'static>, ExportError> {
    let text = format!("{}\n{line}", Log::new(0).export(0, 0)[0]);
    let mut reader = ExportReader::new(text.as_bytes());
    reader.next_line()?;
    Ok(match reader.next_line()?.unwrap() {
        Line::Header(header) => Line::Header(header),
        Line::Row(row) => Line::Row(row.into_owned()),
        Line::Checkpoint(note) => Line::Checkpoint(note.into_owned().into()),
    })
}

/// Whether `entry` comes back byte for byte, as JSON or else as a string.
fn comes_back(entry: &str, as_json: bool) {
    let row = row(entry);
    let line = line_of(&row);
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    assert_eq!(line.contains("\"entry\":"), as_json, "{line}");
    assert_eq!(line.contains("\"entry_text\":"), !as_json, "{line}");
    assert_eq!(read(&line).unwrap(), Line::Row(row.clone()), "{line}");
    if as_json {
        // Who has no parser for it finds the entry between these.
        let (_, rest) = line.split_once("\"entry\":").unwrap();
        assert_eq!(rest, format!("{entry}}}\n"));
    }
}

#[test]
fn an_entry_of_json_stands_there_as_it_is() {
    for entry in [
        r#"{"a":1}"#,
        "{ \"a\" :\t1 , \"a\":2,\"\": [ ] }",
        r#"{"a":1,"a":1,"a":{"a":null}}"#,
        r#"{"n":[1.0,1.00,1e400,-0,-0.0,123456789012345678901234567890.10,1E+2]}"#,
        r#"{"s":"\u00e9é\/\\\"\ud83d\ude00😀\ud800 \u0000"}"#,
        r#"{"$serde_json::private::RawValue":"x","$serde_json::private::Number":"y"}"#,
        "null",
        "true",
        "0",
        r#""""#,
        "[]",
        "{\"line\":\"\u{2028}\u{7f}\"}",
    ] {
        comes_back(entry, true);
    }
    let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
    comes_back(&deep, true);
}

#[test]
fn an_entry_that_is_not_one_line_of_json_stands_there_as_a_string() {
    for entry in [
        "",
        " ",
        "{\"a\":1} ",
        "\t{\"a\":1}",
        "{\"a\":\n1}",
        "{\"a\":\r1}",
        "{\"a\":1}\n",
        "{\"a\":1",
        "{\"a\":01}",
        "{'a':1}",
        "{\"a\":1}{\"a\":1}",
        "NaN",
        "\u{feff}{}",
        "é\"\\\u{0}\u{1f}\u{7f}\u{2028}😀",
        "{\"s\":\"a\tb\"}",
    ] {
        comes_back(entry, false);
    }
}

#[test]
fn a_whole_export_comes_back() {
    let log = Log::new(30);
    let lines = log.export(13, 29);
    let text = file(&lines);
    let mut reader = ExportReader::new(text.as_bytes());
    let header = Header::new(TENANT, ORIGIN, &log.frontier(13), 29);
    assert_eq!(reader.next_line().unwrap(), Some(Line::Header(header)));
    for row in &log.rows[13..29] {
        assert_eq!(reader.next_line().unwrap(), Some(Line::Row(row.clone())));
    }
    let note = log.note(29, 1);
    assert_eq!(
        reader.next_line().unwrap(),
        Some(Line::Checkpoint(note.as_str().into()))
    );
    assert!(reader.next_line().unwrap().is_none());
    assert!(reader.next_line().unwrap().is_none());
    assert!(lines[0].starts_with(
        r#"{"format":"handoff-audit-export","version":1,"tenant":"north","origin":"handoff.example/audit/north","from":13,"size":29,"before":[""#
    ));
    assert!(
        lines[1].starts_with(r#"{"position":13,"sequence":44,"salt":"DQ0N"#),
        "{}",
        lines[1]
    );
    let erased = &lines[5];
    assert!(
        erased.starts_with(r#"{"position":17,"sequence":56,"commitment":""#),
        "{erased}"
    );
    assert!(erased.ends_with(r#"","erased":true}"#), "{erased}");
}

fn failure(line: &str) -> String {
    read(line).unwrap_err().to_string()
}

#[test]
fn a_line_has_its_fields_once_and_no_other() {
    let salt = r#""salt":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=""#;
    let made = commit(&[7; 32], b"x").0.to_base64();
    let commitment = format!(r#""commitment":"{made}""#);
    let wanted = "line 2: wanted a row (`position`, `sequence`, and `salt` with `entry` or `entry_text`, or \
        `commitment` with `erased`) or the checkpoint (`checkpoint`), with each field once and no other";
    let place = r#""position":1,"sequence":2"#;
    for good in [
        format!(r#"{{{place},{salt},"entry":{{}}}}"#),
        format!(r#" {{ {salt} , {place} , "entry" :  {{}} }} "#),
        format!(r#"{{{place},{salt},"entry_text":"x"}}"#),
        format!(r#"{{{place},{salt},"entry":{{}},{commitment}}}"#),
        format!(r#"{{{place},{commitment},"erased":true}}"#),
        r#"{"checkpoint":"x"}"#.to_owned(),
    ] {
        assert!(read(&good).is_ok(), "{good}");
    }
    for bad in [
        "{}".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        format!("{{{place}}}"),
        format!("{{{place},{salt}}}"),
        format!(r#"{{{place},"entry":{{}}}}"#),
        format!(r#"{{"position":1,{salt},"entry":{{}}}}"#),
        format!(r#"{{"sequence":1,{salt},"entry":{{}}}}"#),
        format!(r#"{{{place},{salt},"entry":{{}},"entry":{{}}}}"#),
        format!(r#"{{{place},{salt},"entry":{{}},"entry_text":"{{}}"}}"#),
        format!(r#"{{{place},{salt},{salt},"entry":{{}}}}"#),
        format!(r#"{{{place},"position":1,{salt},"entry":{{}}}}"#),
        format!(r#"{{{place},{salt},"entry":{{}},"note":""}}"#),
        format!(r#"{{{place},{salt},"entry":{{}},"erased":false}}"#),
        format!(r#"{{{place},{salt},"entry_text":null}}"#),
        format!(r#"{{{place},"salt":null,"entry":{{}}}}"#),
        format!(r#"{{{place},"salt":"BwcH","entry":{{}}}}"#),
        format!("{{{place},{commitment}}}"),
        format!(r#"{{{place},{commitment},"erased":false}}"#),
        format!(r#"{{{place},{commitment},"erased":null}}"#),
        format!(r#"{{{place},"erased":true}}"#),
        format!(r#"{{"position":-1,"sequence":2,{salt},"entry":{{}}}}"#),
        format!(r#"{{"position":1.0,"sequence":2,{salt},"entry":{{}}}}"#),
        format!(r#"{{"position":"1","sequence":2,{salt},"entry":{{}}}}"#),
        format!(r#"{{"position":1,"sequence":9223372036854775808,{salt},"entry":{{}}}}"#),
        r#"{"checkpoint":"x","erased":true}"#.to_owned(),
        r#"{"checkpoint":"x","checkpoint":"x"}"#.to_owned(),
        r#"{"checkpoint":null}"#.to_owned(),
        format!(r#"{{"checkpoint":"x",{place}}}"#),
    ] {
        assert_eq!(failure(&bad), wanted, "{bad}");
    }
    assert_eq!(failure("\n"), "line 2 is not JSON: see column 0");
    assert_eq!(failure("{\"position\":1,"), "line 2 is not JSON: see column 14");
    assert_eq!(
        failure("{\"checkpoint\":\"x\"} {}"),
        "line 2 is not JSON: see column 20"
    );
}

#[test]
fn a_header_is_what_it_should_be() {
    let good = Log::new(6).export(5, 6)[0].clone();
    let read = |text: &str| {
        ExportReader::new(text.as_bytes())
            .next_line()
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    assert_eq!(read(&good), Ok(()));
    let all = "line 1: wanted the header of an audit's export, with each of its fields once and no other";
    let peaks = "line 1: wanted a header whose `before` has one hash for each bit that is set in `from`";
    let newer = "line 1: wanted version 1 of the format: a newer program made this file";
    for (bad, expected) in [
        (String::new(), all),
        (Log::new(6).export(5, 6)[1].clone(), all),
        (
            good.replace("-export", "-proof"),
            "line 1: wanted the header of an audit's export",
        ),
        (good.replace("\"version\":1", "\"version\":2"), newer),
        (good.replace("\"version\":1", "\"version\":2,\"more\":[]"), newer),
        (good.replace("\"from\":5,", "\"from\":5,\"from\":5,"), all),
        (good.replace("\"from\":5,", "\"from\":5,\"since\":5,"), all),
        (good.replace("\"from\":5,", ""), all),
        (good.replace("\"from\":5,", "\"from\":4,"), peaks),
        (good.replace("=\",\"", "\",\""), all),
        (
            good.replace("\"from\":5", "\"from\":7"),
            "line 1: wanted a header whose `from` is not beyond its `size`",
        ),
        (
            good.replace("north\",\"origin", "\\n\",\"origin"),
            "line 1: wanted a header whose `tenant` and `origin` are texts without control characters",
        ),
        (good[..40].to_owned(), "line 1 is not JSON: see column 40"),
    ] {
        assert_eq!(read(&bad), Err(expected.to_owned()), "{bad}");
    }
    let mut out = Vec::new();
    let header = Header::new("", ORIGIN, &Frontier::new(), 0);
    let refused = write_header(&mut out, &header);
    assert!(matches!(refused, Err(ExportWriteError::Header(_))) && out.is_empty());
}

#[test]
fn lines_that_are_too_long_are_passed_over() {
    let lines = Log::new(2).export(0, 2);
    let long = "x".repeat(MOST_LINE_BYTES);
    let text = format!("{}\n{long}\n{}\n\u{0}\n", lines[0], lines[3]);
    let mut text = text.into_bytes();
    text.push(0xff);
    let mut reader = ExportReader::new(&*text);
    assert!(matches!(reader.next_line(), Ok(Some(Line::Header(_)))));
    let found = reader.next_line().unwrap_err();
    assert!(matches!(
        found,
        ExportError::TooLong {
            line: 2,
            most: MOST_LINE_BYTES
        }
    ));
    assert!(matches!(reader.next_line(), Ok(Some(Line::Checkpoint(_)))));
    assert!(matches!(
        reader.next_line(),
        Err(ExportError::AfterCheckpoint { line: 4 })
    ));
    assert!(matches!(
        reader.next_line(),
        Err(ExportError::AfterCheckpoint { line: 5 })
    ));
    assert!(matches!(reader.next_line(), Ok(None)));
    let long = " ".repeat(MOST_HEADER_BYTES);
    let found = ExportReader::new(long.as_bytes()).next_line().unwrap_err();
    assert!(matches!(
        found,
        ExportError::TooLong {
            line: 1,
            most: MOST_HEADER_BYTES
        }
    ));
    let entry = "\u{1}".repeat(MOST_LINE_BYTES / 5);
    let refused = write_row(&mut Vec::new(), &row(&entry));
    assert!(matches!(refused, Err(ExportWriteError::TooLong(MOST_LINE_BYTES))));
}

#[test]
fn a_file_that_breaks_off_says_so() {
    let lines = Log::new(3).export(0, 3);
    let text = file(&lines[..3]);
    let mut reader = ExportReader::new(text.as_bytes());
    for _ in 0..3 {
        reader.next_line().unwrap();
    }
    let ended = reader.next_line().unwrap_err();
    assert_eq!(
        ended.to_string(),
        "the file ends after 3 lines, without a checkpoint"
    );
    let broken = text.as_bytes().chain(Broken);
    let mut reader = ExportReader::new(BufReader::new(broken));
    for _ in 0..3 {
        reader.next_line().unwrap();
    }
    assert!(matches!(
        reader.next_line(),
        Err(ExportError::Read { line: 4, .. })
    ));
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("broken"))
    }
}

proptest! {
    #[test]
    fn every_entry_comes_back_to_the_byte(
        entry in prop_oneof![any::<String>(), "[\\[\\]{}\",: 0-9a-z\\\\\n\r\t]{0,12}"],
        salt in any::<[u8; 32]>(),
        position in any::<u64>(),
        sequence in any::<i64>(),
    ) {
        let content = Content::Present { salt, entry: Cow::Owned(entry), commitment: None };
        let row = Row { position, sequence, content };
        prop_assert_eq!(read(&line_of(&row)).unwrap(), Line::Row(row.clone()));
        let row = Row { content: Content::Erased(row.content.commitment()), ..row };
        prop_assert_eq!(read(&line_of(&row)).unwrap(), Line::Row(row.clone()));
    }
}
