//! Checkpoints (C2SP `tlog-checkpoint`) and the notes they are signed in (C2SP `signed-note`). There is one text for each
//! checkpoint; whatever differs from it is refused.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use thiserror::Error;

use crate::hash::Hash;
use crate::key::{SigningKey, VerifierKey};

/// The longest note that is read.
pub const MOST_NOTE_BYTES: usize = 64 * 1024;
/// How many signatures a note has at most.
pub const MOST_SIGNATURES: usize = 100;

/// An em dash and a blank: how the line of a signature begins.
const SIGNATURE_PREFIX: &str = "\u{2014} ";
const ID_BYTES: usize = 4;

/// Why a text is no note of a checkpoint, or one that nobody known vouches for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoteError {
    /// More than [`MOST_NOTE_BYTES`].
    #[error("the note is longer than {MOST_NOTE_BYTES} bytes")]
    TooLong,
    /// Not a text at all.
    #[error("the note is not UTF-8")]
    NotText,
    /// Some program made it a text of Windows, and what was signed another one.
    #[error("the note has CRLF line ends: it has to be kept as it was written, with LF")]
    LineEnds,
    /// It could look like another note.
    #[error("the note has control characters")]
    Control,
    /// Not a text, a blank line and signatures.
    #[error("the note is not text, a blank line and signatures, each line ended")]
    Form,
    /// Which log it is of.
    #[error("the first line of a checkpoint is its origin")]
    Origin,
    /// How large the tree is.
    #[error(
        "the second line of a checkpoint is the size of the tree: decimal digits, the first of them not 0"
    )]
    Size,
    /// What the tree is.
    #[error("the third line of a checkpoint is the root of the tree: the base64 of 32 bytes")]
    Root,
    /// Lines after these three.
    #[error("an extension line of a checkpoint is empty or has control characters")]
    Extension,
    /// A line that is no signature.
    #[error("signature {0} is not an em dash, the name of a key, and base64")]
    Signature(usize),
    /// More than [`MOST_SIGNATURES`].
    #[error("the note has more than {MOST_SIGNATURES} signatures")]
    Signatures,
    /// A key that is known did not sign this.
    #[error("the signature by the known key {0} of the list is wrong")]
    Invalid(usize),
    /// No key that is known signed this.
    #[error("no known key signed the note")]
    Unknown,
    /// A log is signed for by keys of its name.
    #[error("the origin of the checkpoint is not the name of the key")]
    Foreign,
}

/// The state of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many leaves its tree has.
    pub size: u64,
    /// The root of that tree.
    pub root: Hash,
    /// Further lines, which nothing here gives a meaning to.
    pub extensions: Vec<String>,
}

impl Checkpoint {
    /// The checkpoint that `text` is, with its last line ended.
    fn parse(text: &str) -> Result<Self, NoteError> {
        let mut lines = text.strip_suffix('\n').ok_or(NoteError::Form)?.split('\n');
        let mut line = || lines.next().unwrap_or_default();
        let origin = line().to_owned();
        let size = decimal(line());
        let root = Hash::from_base64(line());
        let checkpoint = Self {
            origin,
            size: size.ok_or(NoteError::Size)?,
            root: root.map_err(|_| NoteError::Root)?,
            extensions: lines.map(str::to_owned).collect(),
        };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// Whether it has a text.
    fn check(&self) -> Result<(), NoteError> {
        let is_line = |line: &String| !line.is_empty() && !line.chars().any(char::is_control);
        if !is_line(&self.origin) {
            Err(NoteError::Origin)
        } else if !self.extensions.iter().all(is_line) {
            Err(NoteError::Extension)
        } else {
            Ok(())
        }
    }
}

/// The text that is signed.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            origin, size, root, ..
        } = self;
        write!(f, "{origin}\n{size}\n{}\n", root.to_base64())?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl SigningKey {
    /// The note of `checkpoint`, whose origin is the name of this key. Never sign two that do not go together.
    pub fn sign(&self, checkpoint: &Checkpoint) -> Result<String, NoteError> {
        checkpoint.check()?;
        if checkpoint.origin != self.name() {
            return Err(NoteError::Foreign);
        }
        let text = checkpoint.to_string();
        let note = format!("{text}\n{}", self.line(&text));
        if note.len() > MOST_NOTE_BYTES {
            return Err(NoteError::TooLong);
        }
        Ok(note)
    }

    /// `note` with the signature of this key as well: while one key replaces another both sign.
    pub fn sign_also(&self, note: &Note) -> Result<String, NoteError> {
        if note.checkpoint.origin != self.name() {
            return Err(NoteError::Foreign);
        }
        let more = format!("{}{}", note.text, self.line(note.signed_text()));
        Note::parse(&more).map(|note| note.text)
    }

    fn line(&self, text: &str) -> String {
        format!("{SIGNATURE_PREFIX}{} {}\n", self.name(), self.signature(text))
    }
}

/// A checkpoint that is signed, by whomever: [`Note::verified_by`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    /// How much of the text is signed.
    signed: usize,
    checkpoint: Checkpoint,
    signatures: Vec<Signature>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Signature {
    name: String,
    id: [u8; ID_BYTES],
    bytes: Vec<u8>,
}

impl Note {
    /// The note that is these bytes, and no others.
    pub fn parse(note: impl AsRef<[u8]>) -> Result<Self, NoteError> {
        let note = note.as_ref();
        if note.len() > MOST_NOTE_BYTES {
            return Err(NoteError::TooLong);
        }
        let note = str::from_utf8(note).map_err(|_| NoteError::NotText)?;
        if note.contains('\r') {
            return Err(NoteError::LineEnds);
        }
        if note.chars().any(|c| c != '\n' && c.is_control()) {
            return Err(NoteError::Control);
        }
        let (text, lines) = note.rsplit_once("\n\n").ok_or(NoteError::Form)?;
        let signed = text.len() + 1;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Form)?.split('\n');
        if lines.clone().count() > MOST_SIGNATURES {
            return Err(NoteError::Signatures);
        }
        let signatures = lines.enumerate().map(|(place, line)| {
            let signature = Signature::parse(line);
            signature.ok_or(NoteError::Signature(place + 1))
        });
        let signatures = signatures.collect::<Result<_, _>>()?;
        let text = note.to_owned();
        let checkpoint = Checkpoint::parse(note.get(..signed).unwrap_or_default())?;
        Ok(Self {
            text,
            signed,
            checkpoint,
            signatures,
        })
    }

    /// What is signed.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// All of the note, as it was read.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Which of `keys` signed it: the first of them if more did. Signatures by other keys are passed over, but none by one of
    /// these is wrong.
    pub fn verified_by(&self, keys: &[VerifierKey]) -> Result<usize, NoteError> {
        let mut first = None;
        for (place, key) in keys.iter().enumerate() {
            for signature in &self.signatures {
                if signature.name != key.name() || signature.id != key.id() {
                    continue;
                }
                if !key.verifies(self.signed_text(), &signature.bytes) {
                    return Err(NoteError::Invalid(place + 1));
                }
                if key.name() != self.checkpoint.origin {
                    return Err(NoteError::Foreign);
                }
                first = first.or(Some(place));
            }
        }
        first.ok_or(NoteError::Unknown)
    }

    fn signed_text(&self) -> &str {
        self.text.get(..self.signed).unwrap_or_default()
    }
}

impl Signature {
    fn parse(line: &str) -> Option<Self> {
        let (name, encoded) = line.strip_prefix(SIGNATURE_PREFIX)?.split_once(' ')?;
        let bytes = STANDARD.decode(encoded).ok()?;
        let (id, signature) = bytes.split_first_chunk()?;
        let is_name = !name.is_empty() && !name.contains(|c: char| c == '+' || c.is_whitespace());
        (is_name && !signature.is_empty()).then(|| Self {
            name: name.to_owned(),
            id: *id,
            bytes: signature.to_vec(),
        })
    }
}

/// The number that `text` is the one decimal of.
fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
