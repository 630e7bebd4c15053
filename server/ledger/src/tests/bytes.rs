//! Whatever comes in: nothing breaks, and nothing but what was signed is vouched for.

use proptest::prelude::*;
use proptest::sample::Index;

use super::log::{Log, file, key, keys};
use crate::prove::{Consistency, Proof};
use crate::{Hash, Note, SigningKey, VerifierKey, verify_export};

fn export() -> Vec<u8> {
    file(&Log::new(12).export(3, 12)).into_bytes()
}

/// A few bytes put in the place of others.
fn changed(mut bytes: Vec<u8>, changes: &[(Index, Index, Vec<u8>)]) -> Vec<u8> {
    for (start, length, new) in changes {
        let start = start.index(bytes.len() + 1);
        let end = (start + length.index(4)).min(bytes.len());
        bytes.splice(start..end, new.iter().copied());
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(Index, Index, Vec<u8>)>> {
    let new = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..4),
        "[0-9a-z\"{}\\[\\]\\\\:,+=\n\r —]{0,3}".prop_map(String::into_bytes),
    ];
    proptest::collection::vec((any::<Index>(), any::<Index>(), new), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_break_what_reads_them(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in any::<String>()) {
        let _ = Note::parse(&bytes);
        let _ = Note::parse(&text);
        let _ = verify_export(&*bytes, &keys(&[1]), &[]);
        let _ = verify_export(text.as_bytes(), &keys(&[1]), &[]);
        let _ = SigningKey::from_pkcs8("name", &bytes);
        let _ = SigningKey::from_pem(&text, &text);
        let _ = VerifierKey::parse(&text);
        let _ = Hash::from_base64(&text);
        let _ = Proof::parse(&text);
        let _ = Consistency::parse(&text);
    }

    #[test]
    fn a_changed_export_is_found_or_says_the_same(changes in changes()) {
        let log = Log::new(12);
        let honest = verify_export(&*export(), &keys(&[1]), &[log.note(7, 1)]).unwrap();
        let changed = changed(export(), &changes);
        if let Ok(report) = verify_export(&*changed, &keys(&[1]), &[log.note(7, 1)]) && report.is_clean() {
            prop_assert_eq!(report, honest);
        }
    }

    #[test]
    fn a_changed_note_is_refused_or_says_the_same(changes in changes()) {
        let log = Log::new(12);
        let honest = log.note(12, 1);
        let both = Note::parse(key(2).sign_also(&honest).unwrap()).unwrap();
        let changed = changed(both.as_str().as_bytes().to_vec(), &changes);
        if let Ok(note) = Note::parse(changed) && note.verified_by(&keys(&[1])).is_ok() {
            prop_assert_eq!(note.checkpoint(), honest.checkpoint());
        }
    }

    #[test]
    fn changed_documents_are_refused_or_say_the_same(changes in changes()) {
        let log = Log::new(12);
        let mut tree = log.tree.clone();
        let proof = Proof::build(&mut tree, "north", log.rows[5].clone(), log.note(12, 1)).unwrap();
        let changed_proof = changed(proof.to_json().unwrap().into_bytes(), &changes);
        let read = String::from_utf8(changed_proof).ok().and_then(|json| Proof::parse(&json).ok());
        if let Some(read) = read && read.check(&keys(&[1])).is_ok() {
            prop_assert_eq!((read.row, read.tenant), (proof.row, proof.tenant));
        }
        let proof = Consistency::build(&mut tree, 5, log.note(12, 1)).unwrap();
        let changed_proof = changed(proof.to_json().unwrap().into_bytes(), &changes);
        let read = String::from_utf8(changed_proof).ok().and_then(|json| Consistency::parse(&json).ok());
        if let Some(read) = read && read.check(&log.note(5, 1), &keys(&[1])).is_ok() {
            prop_assert_eq!((read.first, read.path), (proof.first, proof.path));
        }
    }
}
