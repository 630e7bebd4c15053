//! Documents that prove something.

use std::borrow::Cow;

use super::log::{Log, at, key, keys, named_key};
use crate::prove::{Consistency, DocumentError, Proof};
use crate::{Checkpoint, Content, Note, NoteError, ProofError, Row, TreeError, leaf_hash};

fn proof(log: &Log, position: u64) -> Proof {
    let row = log.rows[at(position)].clone();
    Proof::build(&mut log.tree.clone(), "north", row, log.note(300, 1)).unwrap()
}

#[test]
fn a_document_proves_that_a_row_is_in_the_log() {
    let mut log = Log::new(0);
    for row in Log::new(299).rows {
        log.push(row);
    }
    let entry = Cow::Borrowed("not JSON\n");
    log.push(Row {
        position: 299,
        sequence: 9000,
        content: Content::Present {
            salt: [3; 32],
            entry,
            commitment: None,
        },
    });
    for position in [0, 7, 255, 256, 298, 299] {
        let proof = proof(&log, position);
        let json = proof.to_json().unwrap();
        assert_eq!(Proof::parse(&json), Ok(proof.clone()), "{json}");
        let proved = proof.check(&keys(&[2, 1])).unwrap();
        assert_eq!((proved.checkpoint, proved.key), (log.checkpoint(300), 1));
    }
    let json = proof(&log, 8).to_json().unwrap();
    assert!(json.starts_with(r#"{"format":"handoff-audit-proof","version":1,"tenant":"north","path":[""#));
    assert!(
        json.ends_with(r#""entry":{"resourceType":"AuditEvent","action":"R","id":"8"}}"#),
        "{json}"
    );
    assert!(proof(&log, 7).to_json().unwrap().ends_with("\"erased\":true}"));
    assert!(
        proof(&log, 299)
            .to_json()
            .unwrap()
            .ends_with(r#""entry_text":"not JSON\n"}"#)
    );
    let row = log.rows[0].clone();
    let beyond = Proof::build(
        &mut log.tree.clone(),
        "north",
        Row { position: 300, ..row },
        log.note(300, 1),
    );
    assert_eq!(beyond, Err(TreeError::Beyond));
}

#[test]
fn a_changed_document_proves_nothing() {
    let log = Log::new(300);
    let json = proof(&log, 25).to_json().unwrap();
    let root = DocumentError::Proof(ProofError::Root);
    for (from, to, expected) in [
        (r#""tenant":"north""#, r#""tenant":"south""#, root),
        (r#""position":25"#, r#""position":24"#, root),
        (r#""sequence":80"#, r#""sequence":81"#, root),
        (r#""action":"R""#, r#""action":"E""#, root),
        (r#""action":"R""#, r#""action": "R""#, root),
        ("GRkZ", "GRkY", root),
        (
            r#""path":[""#,
            r#""path":["47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",""#,
            DocumentError::Proof(ProofError::TooLong),
        ),
        (
            "\\n300\\n",
            "\\n301\\n",
            DocumentError::Checkpoint(NoteError::Invalid(1)),
        ),
    ] {
        assert!(json.contains(from), "{from}");
        let changed = Proof::parse(&json.replacen(from, to, 1)).unwrap();
        assert_eq!(changed.check(&keys(&[1])), Err(expected), "{from}");
    }
    let unknown = DocumentError::Checkpoint(NoteError::Unknown);
    assert_eq!(proof(&log, 25).check(&keys(&[2])), Err(unknown));
    for (from, to) in [
        ("-proof", "-consistency"),
        (r#""position":25"#, r#""position":25,"position":25"#),
        (r#""position":25"#, r#""position":25,"note":1"#),
        (r#""position":25,"#, ""),
        (r#""position":25"#, r#""position":25,"erased":true"#),
        (r#""entry":"#, r#""entry_text":"","entry":"#),
        ("}}", "}"),
    ] {
        let changed = Proof::parse(&json.replacen(from, to, 1));
        assert!(matches!(changed, Err(DocumentError::Form(..))), "{from}");
    }
    let newer = Proof::parse(&json.replace(r#""version":1"#, r#""version":2"#));
    assert_eq!(newer, Err(DocumentError::Version));
    let cut = Proof::parse(&json.replace("\\n300\\n", "\\n0300\\n"));
    assert_eq!(cut, Err(DocumentError::Checkpoint(NoteError::Size)));
}

#[test]
fn a_document_proves_that_a_log_goes_on_from_an_earlier_state() {
    let log = Log::new(300);
    for first in [0, 1, 255, 256, 257, 300] {
        let proof = Consistency::build(&mut log.tree.clone(), first, log.note(300, 1)).unwrap();
        let json = proof.to_json().unwrap();
        assert_eq!(Consistency::parse(&json), Ok(proof.clone()));
        let proved = proof.check(&log.note(first, 2), &keys(&[1, 2])).unwrap();
        assert_eq!((proved.checkpoint, proved.key), (log.checkpoint(300), 0));
    }
    let proof = Consistency::build(&mut log.tree.clone(), 100, log.note(300, 1)).unwrap();
    let check = |earlier: &Note| proof.check(earlier, &keys(&[1])).unwrap_err();
    assert_eq!(
        check(&log.note(100, 2)),
        DocumentError::Earlier(NoteError::Unknown)
    );
    let sizes = DocumentError::Sizes {
        first: 100,
        second: 300,
    };
    assert_eq!(check(&log.note(101, 1)), sizes);
    let forged = Checkpoint {
        root: leaf_hash(b"other"),
        ..log.checkpoint(100)
    };
    let forged = Note::parse(key(1).sign(&forged).unwrap()).unwrap();
    assert_eq!(check(&forged), DocumentError::Proof(ProofError::FirstRoot));
    let south = named_key("handoff.example/audit/south", 4);
    let foreign = Checkpoint {
        origin: south.name().to_owned(),
        ..log.checkpoint(100)
    };
    let foreign = Note::parse(south.sign(&foreign).unwrap()).unwrap();
    let both = [key(1).verifier(), south.verifier()];
    assert_eq!(proof.check(&foreign, &both), Err(DocumentError::Origins));
    let json = proof.to_json().unwrap();
    assert!(json.starts_with(
        r#"{"format":"handoff-audit-consistency","version":1,"first":100,"second":300,"path":[""#
    ));
    let other = Consistency::parse(&json.replace(r#""second":300"#, r#""second":299"#));
    assert_eq!(
        other,
        Err(DocumentError::Sizes {
            first: 100,
            second: 299
        })
    );
    let beyond = Consistency::build(&mut log.tree.clone(), 301, log.note(300, 1));
    assert_eq!(beyond, Err(TreeError::Beyond));
}
