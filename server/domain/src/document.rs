//! The document: a DocumentReference with the content it governs, and whether that content may be released.

use serde::{Deserialize, Serialize};

use crate::ids::{ActorRef, BinaryId, DocumentId};
use crate::reason::Reason;
use crate::retention::Availability;
use crate::task::Code;
use crate::time::Timestamp;

/// `DocumentReference.status` (R4, required binding).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the codes are FHIR's own")]
pub enum DocumentStatus {
    Current,
    Superseded,
    EnteredInError,
}

impl DocumentStatus {
    /// The FHIR code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Superseded => "superseded",
            Self::EnteredInError => "entered-in-error",
        }
    }

    /// The status that a FHIR code names.
    pub fn parse(code: &str) -> Option<Self> {
        [Self::Current, Self::Superseded, Self::EnteredInError]
            .into_iter()
            .find(|s| s.as_str() == code)
    }
}

/// A SHA-256 digest. Printed as lower-case hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The digest as 64 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |n: u8| char::from(DIGITS.get(usize::from(n)).copied().unwrap_or(b'0'));
        self.0
            .iter()
            .flat_map(|b| [digit(b >> 4), digit(b & 15)])
            .collect()
    }

    /// The digest that 64 hexadecimal digits write.
    pub fn parse_hex(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        let mut digest = [0u8; 32];
        for (slot, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            let mut value = 0u8;
            for &c in pair {
                value = (value << 4) | u8::try_from(char::from(c).to_digit(16)?).ok()?;
            }
            *slot = value;
        }
        Some(Self(digest))
    }
}

impl TryFrom<String> for Sha256 {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse_hex(&text).ok_or("not a SHA-256 digest in hexadecimal")
    }
}

impl From<Sha256> for String {
    fn from(digest: Sha256) -> Self {
        digest.to_hex()
    }
}

/// `DocumentReference.content.attachment` as a caller wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentFacts {
    /// `url`, with the server's own base taken off (`Binary/1`).
    pub url: Option<String>,
    /// Whether inline `data` is present. The bytes themselves are handled at ingest and never kept here.
    pub has_data: bool,
    /// `contentType`.
    pub content_type: Option<String>,
    /// `size` in bytes.
    pub size: Option<u64>,
    /// `hash`: SHA-1 of the bytes.
    pub sha1: Option<Vec<u8>>,
    /// Our extension `content-sha256`.
    pub sha256: Option<Sha256>,
    /// `title`.
    pub title: Option<String>,
}

/// What the rules need to know of a DocumentReference resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentFacts {
    /// `DocumentReference.status`.
    pub status: DocumentStatus,
    /// `DocumentReference.docStatus`.
    pub doc_status: Option<String>,
    /// `DocumentReference.subject.reference`.
    pub subject: Option<String>,
    /// `DocumentReference.type.coding`.
    pub kind: Vec<Code>,
    /// `DocumentReference.category.coding`.
    pub category: Vec<Code>,
    /// `securityLabel` and `meta.security` together.
    pub security: Vec<Code>,
    /// Targets of `relatesTo` with code `replaces`.
    pub replaces: Vec<String>,
    /// `context.encounter.reference`: encounters and episodes of care.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encounters: Vec<String>,
    /// `content.attachment`, in order.
    pub attachments: Vec<AttachmentFacts>,
}

/// One rendition of a document whose bytes we hold: immutable and exactly identified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The Binary with the bytes.
    pub binary: BinaryId,
    /// SHA-256 of the bytes: the identity of this content version.
    pub sha256: Sha256,
    /// Length in bytes.
    pub size: u64,
    /// Media type.
    pub content_type: String,
    /// `attachment.title`, for the file name offered to the person.
    pub title: Option<String>,
    /// Whether malware was found in the bytes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub infected: bool,
}

/// A stored document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Logical id of the DocumentReference.
    pub id: DocumentId,
    /// `meta.versionId` of the DocumentReference, from 1.
    pub version: i64,
    /// Counts changes of content, from 1; edits of metadata leave it.
    pub content_version: i64,
    /// `meta.lastUpdated`.
    pub last_updated: Timestamp,
    /// What the resource says.
    pub facts: DocumentFacts,
    /// Canonical document class (CodeSystem `document-class`); `None` where nothing maps.
    pub class: Option<String>,
    /// Who created it, and alone may release it.
    pub created_by: ActorRef,
    /// The renditions whose bytes we hold; foreign URLs are not among them.
    pub attachments: Vec<Attachment>,
    /// Whether another document took its place (`relatesTo.replaces`).
    pub superseded: bool,
    /// Whether it has been deleted.
    pub deleted: bool,
    /// From when, and until when, it may be released at all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub availability: Availability,
    /// Until when a records manager wants its content kept, beyond what its class's schedule says.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retain_until: Option<Timestamp>,
    /// The classes that it had before, `None` for none: its content is kept for as long as any of them says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past_classes: Vec<Option<String>>,
    /// Whether its content is being disposed of, or is gone. It never comes back.
    #[serde(default, skip_serializing_if = "is_default")]
    pub disposed: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Document {
    /// Why nothing of this document may be released; `None` while it may.
    pub fn blocks_release(&self) -> Option<Reason> {
        if self.deleted || self.disposed {
            return Some(Reason::DocumentDeleted);
        }
        if self.facts.doc_status.as_deref() == Some("entered-in-error") {
            return Some(Reason::DocumentEnteredInError);
        }
        match self.facts.status {
            DocumentStatus::EnteredInError => Some(Reason::DocumentEnteredInError),
            DocumentStatus::Superseded => Some(Reason::DocumentSuperseded),
            DocumentStatus::Current if self.superseded => Some(Reason::DocumentSuperseded),
            DocumentStatus::Current => None,
        }
    }

    /// Why this content may not be released from the document: as [`Self::blocks_release`], or because the
    /// document now holds other content, or malware was found in it.
    pub fn blocks_content(&self, sha256: &Sha256) -> Option<Reason> {
        self.blocks_release().or_else(|| {
            let mut same = self.attachments.iter().filter(|a| a.sha256 == *sha256).peekable();
            if same.peek().is_none() {
                return Some(Reason::DocumentSuperseded);
            }
            same.any(|a| a.infected).then_some(Reason::DocumentWithheld)
        })
    }

    /// The same document as its next version: it is not kept for a shorter time by being called something else.
    #[must_use]
    pub fn remembering_class(mut self, before: &Self) -> Self {
        if self.class != before.class && !self.past_classes.contains(&before.class) {
            self.past_classes.push(before.class.clone());
        }
        self
    }

    /// Why it is withheld at `now`, and may be released at another time; `None` while it is not.
    pub fn withheld_at(&self, now: Timestamp) -> Option<Reason> {
        (!self.availability.is_open(now)).then_some(Reason::DocumentWithheld)
    }

    /// The same document once malware was found in this content.
    #[must_use]
    pub fn with_infected(mut self, sha256: &Sha256) -> Self {
        for attachment in self.attachments.iter_mut().filter(|a| a.sha256 == *sha256) {
            attachment.infected = true;
        }
        self
    }

    /// The same document as its next version: malware that was found in content is not forgotten by naming that again.
    #[must_use]
    pub fn remembering_infected(self, before: &Self) -> Self {
        let infected = before.attachments.iter().filter(|a| a.infected);
        infected.fold(self, |document, a| document.with_infected(&a.sha256))
    }

    /// Whether the document may be released under a Task about `subject`: both say the same, or one says nothing.
    pub fn is_about(&self, subject: Option<&str>) -> bool {
        match (self.facts.subject.as_deref(), subject) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => true,
        }
    }
}

/// Bytes that we hold, and how to prove that they are still the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBinary {
    /// Logical id of the Binary.
    pub id: BinaryId,
    /// `meta.lastUpdated`: when the upload was complete.
    pub created: Timestamp,
    /// Who uploaded it.
    pub uploaded_by: ActorRef,
    /// The first document that named it, which it then belongs to.
    pub document: Option<DocumentId>,
    /// `Binary.contentType`.
    pub content_type: String,
    /// `Binary.securityContext.reference`.
    pub security_context: Option<String>,
    /// Length in bytes.
    pub size: u64,
    /// SHA-1 of the whole (FHIR's `Attachment.hash`).
    pub sha1: [u8; 20],
    /// SHA-256 of the whole.
    pub sha256: Sha256,
    /// Where the blob store keeps the bytes.
    pub pin: crate::ports::BlobPin,
    /// Whether it has been deleted.
    pub deleted: bool,
}

/// Bytes are hashed, verified and sent in blocks of this size.
pub const BLOCK_SIZE: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_round_trips_through_hexadecimal() {
        let digest = Sha256([0xab; 32]);
        assert_eq!(Sha256::parse_hex(&digest.to_hex()), Some(digest));
        assert_eq!(Sha256::parse_hex("xyz"), None);
    }
}
