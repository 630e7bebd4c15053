//! Checkpoints and the notes they are in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::log::{Log, ORIGIN, key, keys, named_key};
use crate::{Checkpoint, Hash, Note, NoteError, empty_hash};

/// The example in C2SP `tlog-checkpoint`.
const PUBLISHED: &str = "example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
";

fn signed(size: u64, seed: u8) -> String {
    let checkpoint = Checkpoint {
        origin: ORIGIN.to_owned(),
        size,
        root: empty_hash(),
        extensions: Vec::new(),
    };
    key(seed).sign(&checkpoint).unwrap()
}

#[test]
fn the_published_checkpoint_is_read() {
    let note = Note::parse(PUBLISHED).unwrap();
    let expected = Checkpoint {
        origin: "example.com/behind-the-sofa".to_owned(),
        size: 20_852_163,
        root: Hash::from_base64("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=").unwrap(),
        extensions: Vec::new(),
    };
    assert_eq!(*note.checkpoint(), expected);
    assert_eq!(note.as_str(), PUBLISHED);
    assert!(PUBLISHED.starts_with(&expected.to_string()));
    assert_eq!(note.verified_by(&keys(&[1])), Err(NoteError::Unknown));
}

#[test]
fn a_signed_checkpoint_is_vouched_for_by_its_key() {
    let mut checkpoint = Log::new(11).checkpoint(11);
    checkpoint.extensions = vec!["one".to_owned(), "— two".to_owned()];
    let text = key(1).sign(&checkpoint).unwrap();
    let note = Note::parse(&text).unwrap();
    assert_eq!((note.checkpoint(), note.as_str()), (&checkpoint, &*text));
    assert_eq!(note.verified_by(&keys(&[1])), Ok(0));
    assert_eq!(note.verified_by(&keys(&[2, 3, 1])), Ok(2));
    assert_eq!(note.verified_by(&keys(&[2, 3])), Err(NoteError::Unknown));
    assert_eq!(note.verified_by(&[]), Err(NoteError::Unknown));
    // The same key under another name is another key.
    let renamed = [named_key("handoff.example/audit/south", 1).verifier()];
    assert_eq!(note.verified_by(&renamed), Err(NoteError::Unknown));
}

#[test]
fn a_wrong_signature_by_a_known_key_spoils_a_good_one() {
    let one = Note::parse(signed(8, 1)).unwrap();
    let both = Note::parse(key(2).sign_also(&one).unwrap()).unwrap();
    assert_eq!(both.verified_by(&keys(&[2, 1])), Ok(0));
    assert_eq!(both.verified_by(&keys(&[3, 1])), Ok(1));
    let other = signed(9, 2);
    let line = other.lines().last().unwrap();
    let spoilt = Note::parse(format!("{}{line}\n", signed(8, 1))).unwrap();
    assert_eq!(spoilt.verified_by(&keys(&[1])), Ok(0));
    assert_eq!(spoilt.verified_by(&keys(&[1, 2])), Err(NoteError::Invalid(2)));
    assert_eq!(spoilt.verified_by(&keys(&[2, 1])), Err(NoteError::Invalid(1)));
    let changed = Note::parse(signed(8, 1).replace("\n8\n", "\n9\n")).unwrap();
    assert_eq!(changed.verified_by(&keys(&[1])), Err(NoteError::Invalid(1)));
    let cut = signed(8, 1);
    let (start, encoded) = cut.trim_end().rsplit_once(' ').unwrap();
    let bytes = STANDARD.decode(encoded).unwrap();
    for length in [5, 67] {
        let short = STANDARD.encode(&bytes[..length]);
        let note = Note::parse(format!("{start} {short}\n")).unwrap();
        assert_eq!(
            note.verified_by(&keys(&[1])),
            Err(NoteError::Invalid(1)),
            "{length}"
        );
    }
}

#[test]
fn a_key_vouches_for_the_log_of_its_name_alone() {
    let mut checkpoint = Log::new(3).checkpoint(3);
    checkpoint.origin = "handoff.example/audit/south".to_owned();
    assert_eq!(key(1).sign(&checkpoint), Err(NoteError::Foreign));
    // A witness signs what is not its own.
    let south = named_key(&checkpoint.origin, 2);
    let note = Note::parse(south.sign(&checkpoint).unwrap()).unwrap();
    assert_eq!(key(1).sign_also(&note), Err(NoteError::Foreign));
    let text = checkpoint.to_string();
    let foreign = format!("{text}\n— {ORIGIN} {}\n", key(1).signature(&text));
    let foreign = Note::parse(foreign).unwrap();
    assert_eq!(foreign.verified_by(&keys(&[1])), Err(NoteError::Foreign));
}

#[test]
fn nothing_is_signed_that_has_no_text() {
    let signed = |change: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = Log::new(3).checkpoint(3);
        change(&mut checkpoint);
        key(1).sign(&checkpoint).err()
    };
    assert_eq!(signed(&|_| {}), None);
    assert_eq!(signed(&|c| c.origin.clear()), Some(NoteError::Origin));
    assert_eq!(signed(&|c| c.origin.push('\n')), Some(NoteError::Origin));
    assert_eq!(
        signed(&|c| c.extensions.push(String::new())),
        Some(NoteError::Extension)
    );
    assert_eq!(
        signed(&|c| c.extensions.push("a\nb".to_owned())),
        Some(NoteError::Extension)
    );
    assert_eq!(
        signed(&|c| c.extensions.push("e".repeat(70_000))),
        Some(NoteError::TooLong)
    );
}

#[test]
fn a_note_has_one_text() {
    let good = signed(10, 1);
    assert!(Note::parse(&good).is_ok());
    let root = empty_hash().to_base64();
    let line = good.lines().last().unwrap();
    let name = format!("{ORIGIN}\n");
    for (bad, expected) in [
        (String::new(), NoteError::Form),
        (good.replace('\n', "\r\n"), NoteError::LineEnds),
        (good.replace("handoff", "hand\toff"), NoteError::Control),
        (good.replace("handoff", "hand\u{85}off"), NoteError::Control),
        (good.replace("\n\n", "\n"), NoteError::Form),
        (good.trim_end().to_owned(), NoteError::Form),
        (format!("{good}\n"), NoteError::Form),
        (format!("{ORIGIN}\n10\n{root}\n\n"), NoteError::Form),
        (good.replacen(&name, "\n", 1), NoteError::Origin),
        (good.replacen(&name, "", 1), NoteError::Size),
        (good.replace("\n10\n", "\n010\n"), NoteError::Size),
        (good.replace("\n10\n", "\n+10\n"), NoteError::Size),
        (good.replace("\n10\n", "\n-10\n"), NoteError::Size),
        (good.replace("\n10\n", "\n\n"), NoteError::Size),
        (good.replace("\n10\n", "\n10 \n"), NoteError::Size),
        (
            good.replace("\n10\n", "\n18446744073709551616\n"),
            NoteError::Size,
        ),
        (good.replace(&root, &root[..43]), NoteError::Root),
        (good.replace(&root, "AAAA"), NoteError::Root),
        (good.replace(&root, &format!("{root} ")), NoteError::Root),
        (good.replace(&format!("{root}\n"), ""), NoteError::Root),
        (
            good.replace(&root, &format!("{root}\n\nmore")),
            NoteError::Extension,
        ),
        (good.replace('—', "-"), NoteError::Signature(1)),
        (good.replace("— ", "—"), NoteError::Signature(1)),
        (good.replace("— ", "—  "), NoteError::Signature(1)),
        (good.replace("— ", "— a+"), NoteError::Signature(1)),
        (good.replace("— ", "— \u{a0}"), NoteError::Signature(1)),
        (format!("{good}— x AAAAAA==\n"), NoteError::Signature(2)),
        (format!("{good}— x !\n"), NoteError::Signature(2)),
        (format!("{good}— x\n"), NoteError::Signature(2)),
        (
            good.clone() + &format!("{line}\n").repeat(100),
            NoteError::Signatures,
        ),
        (
            good.replace("\n\n", &format!("\n{}\n\n", "e".repeat(65_536))),
            NoteError::TooLong,
        ),
    ] {
        assert_eq!(Note::parse(&bad).err(), Some(expected), "{bad:.200}");
    }
    assert_eq!(Note::parse(b"\xff\n\n").err(), Some(NoteError::NotText));
    let many = good.clone() + &format!("{line}\n").repeat(99);
    assert_eq!(Note::parse(many).unwrap().verified_by(&keys(&[1])), Ok(0));
    let text = NoteError::LineEnds.to_string();
    assert!(text.contains("CRLF"), "{text}");
}
