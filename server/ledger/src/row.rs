//! A row of the audit as a file holds it: exact to the byte. An entry that is one line of JSON stands there as it is, so that it can
//! be read, and anything else as a string.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::hash::{Commitment, Hash, commit};

/// A row of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'a> {
    /// The place of its leaf, counted from 0.
    pub position: u64,
    /// Its number, which ascends, with holes.
    pub sequence: i64,
    /// What is known of it.
    pub content: Content<'a>,
}

/// What is known of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content<'a> {
    /// All.
    Present {
        /// What the entry is sealed with.
        salt: [u8; 32],
        /// The exact text of the entry.
        entry: Cow<'a, str>,
        /// What its leaf says that it commits to, where that is said: of a row that was changed another than it does.
        commitment: Option<Commitment>,
    },
    /// That it was erased, and what it had committed to.
    Erased(Commitment),
}

impl Content<'_> {
    /// What the row commits to, whatever is said of that.
    pub fn commitment(&self) -> Commitment {
        match self {
            Self::Present { salt, entry, .. } => commit(salt, entry.as_bytes()),
            Self::Erased(commitment) => *commitment,
        }
    }

    /// The same, borrowed from nothing.
    pub fn into_owned(self) -> Content<'static> {
        match self {
            Self::Present {
                salt,
                entry,
                commitment,
            } => Content::Present {
                salt,
                entry: Cow::Owned(entry.into_owned()),
                commitment,
            },
            Self::Erased(commitment) => Content::Erased(commitment),
        }
    }
}

impl Row<'_> {
    /// The same, borrowed from nothing.
    pub fn into_owned(self) -> Row<'static> {
        Row {
            position: self.position,
            sequence: self.sequence,
            content: self.content.into_owned(),
        }
    }
}

/// The fields of a row, in the order in which they are written. The entry is last: its bytes end before the brace of the line.
#[derive(Serialize)]
pub(crate) struct Written<'a> {
    position: u64,
    sequence: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<Hash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commitment: Option<Commitment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    erased: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry_text: Option<&'a str>,
}

impl<'a> Written<'a> {
    pub(crate) fn new(row: &'a Row<'a>) -> Self {
        let mut written = Self {
            position: row.position,
            sequence: row.sequence,
            salt: None,
            commitment: None,
            erased: None,
            entry: None,
            entry_text: None,
        };
        match &row.content {
            Content::Present {
                salt,
                entry,
                commitment,
            } => {
                written.commitment = *commitment;
                written.salt = Some(Hash(*salt));
                written.entry = as_json(entry);
                written.entry_text = written.entry.is_none().then_some(entry);
            }
            Content::Erased(commitment) => {
                written.commitment = Some(*commitment);
                written.erased = Some(true);
            }
        }
        written
    }
}

/// `entry` as JSON, where all of it is one value in one line.
fn as_json(entry: &str) -> Option<&RawValue> {
    if entry.contains(['\n', '\r']) {
        return None;
    }
    let json: &RawValue = serde_json::from_str(entry).ok()?;
    // Blanks around a value are no part of it, and would be lost.
    (json.get().len() == entry.len()).then_some(json)
}

/// What the fields of a row say, where they are those of one.
pub(crate) fn content<'a>(
    salt: Option<Hash>,
    entry: Option<&'a RawValue>,
    entry_text: Option<Text<'a>>,
    commitment: Option<Commitment>,
    erased: Option<bool>,
) -> Option<Content<'a>> {
    match (salt, entry, entry_text, commitment, erased) {
        (Some(Hash(salt)), Some(json), None, commitment, None) => Some(Content::Present {
            salt,
            entry: Cow::Borrowed(json.get()),
            commitment,
        }),
        (Some(Hash(salt)), None, Some(Text(entry)), commitment, None) => Some(Content::Present {
            salt,
            entry,
            commitment,
        }),
        (None, None, None, Some(commitment), Some(true)) => Some(Content::Erased(commitment)),
        _ => None,
    }
}

/// For a field that may be absent but is not null: JSON's null is an entry like any other, and no salt.
pub(crate) fn some<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A string, borrowed where nothing in it is escaped.
#[derive(Debug)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyText;
        impl<'de> Visitor<'de> for AnyText {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(AnyText)
    }
}
