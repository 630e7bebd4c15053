//! A source: another FHIR server that tells us what changed there. Who it is, how it proves that, what it may speak of and
//! with whose rights. Knows nothing of how its notices arrive.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{ActorRef, SourceId};
use crate::time::Timestamp;

/// The most topics that a source is confined to.
const MOST_TOPICS: usize = 50;
/// The longest URL.
const MOST_URL: usize = 500;

macro_rules! feed_types {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// A resource type that sources may speak of, in the order in which those of one notice are applied: what stops
        /// releases first, then documents, then the Tasks that name them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum FeedType { $($(#[$doc])* $variant),+ }

        impl FeedType {
            /// Every type.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The FHIR resource type.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The type of this name.
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

feed_types! {
    /// Merged into another.
    Patient = "Patient",
    /// Withdrawn, or given.
    Consent = "Consent",
    /// Somebody who acts no more.
    Practitioner = "Practitioner",
    /// A membership that ended, or began.
    PractitionerRole = "PractitionerRole",
    /// A team with its members.
    CareTeam = "CareTeam",
    /// Finished.
    Encounter = "Encounter",
    /// New, superseded, or entered in error.
    DocumentReference = "DocumentReference",
    /// Mirrored.
    Task = "Task",
}

/// Whether what a source sends is taken as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// A resource that came with a notice is applied.
    AsSent,
    /// A notice is a hint: what it is about is read from the source.
    ReRead,
}

/// What becomes of a mirrored document's content that lies at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContentRule {
    /// Its address is kept. Nothing of it is ever released from here.
    Keep,
    /// It is fetched and governed like what is uploaded.
    Fetch,
}

/// Where a secret is read from when it is needed. Never the secret itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretPlace {
    /// A file.
    File(String),
    /// A variable of the server's environment.
    Environment(String),
}

/// How a source proves to us who it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// A shared secret in `Authorization: Bearer`, of which no more than the SHA-256 is kept.
    Bearer {
        /// SHA-256 of the secret.
        sha256: [u8; 32],
    },
    /// Signatures over each notice (Standard Webhooks, HMAC-SHA-256).
    Signature {
        /// Where the key is: `whsec_` and base64, or base64 alone.
        key: SecretPlace,
    },
}

impl Proof {
    /// The word for people.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Bearer { .. } => "bearer",
            Self::Signature { .. } => "signature",
        }
    }
}

/// Prints the kind alone.
impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How we prove to a source who we are: SMART backend services with `private_key_jwt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Our client id there.
    pub client_id: String,
    /// Where tokens are asked for; found by the source's `smart-configuration` where `None`.
    pub token_url: Option<String>,
    /// Where our private key is, as PKCS #8 in PEM: P-384 for ES384, RSA for RS384.
    pub key: SecretPlace,
    /// The key's id in the set that we registered.
    pub key_id: Option<String>,
    /// The scopes to ask for.
    pub scope: String,
}

/// What an operator set of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Its FHIR base without a trailing slash; `None` where it can't be asked.
    pub base: Option<String>,
    /// The placer that it acts as, with that placer's rights and no more.
    pub acts_as: ActorRef,
    /// The topics that it may tell of, by canonical URL; any where there is none.
    pub topics: BTreeSet<String>,
    /// What it may speak of.
    pub types: BTreeSet<FeedType>,
    /// Whether what it sends is taken as it stands.
    pub trust: Trust,
    /// What becomes of content that lies there.
    pub content: ContentRule,
    /// How it proves to us who it is.
    pub proof: Proof,
    /// How we prove to it who we are; nothing is sent along where `None`.
    pub credentials: Option<Credentials>,
}

/// Settings that can't be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SettingsError(pub &'static str);

impl Settings {
    /// Whether a topic is one that the source may tell of. One that is limited to some may not tell without naming one.
    pub fn may_tell_of(&self, topic: Option<&str>) -> bool {
        let is_one = |topic: &str| {
            // A canonical may name a version.
            let bare = topic.split('|').next().unwrap_or(topic);
            self.topics.contains(topic) || self.topics.contains(bare)
        };
        self.topics.is_empty() || topic.is_some_and(is_one)
    }

    /// What is wrong with them, whatever they were read from.
    pub fn check(&self) -> Result<(), SettingsError> {
        let is_url = |text: &String| {
            text.len() <= MOST_URL
                && (text.starts_with("https://") || text.starts_with("http://"))
                && !text
                    .chars()
                    .any(|c| c.is_control() || c.is_whitespace() || matches!(c, '"' | '<' | '>' | '\\'))
        };
        let is_base = |text: &String| is_url(text) && !text.ends_with('/') && !text.contains(['?', '#', '@']);
        if matches!(
            self.acts_as.as_str().split('/').next(),
            Some("Patient" | "RelatedPerson")
        ) {
            return Err(SettingsError(
                "--acts-as: a source acts as a placer: an Organization, Practitioner, PractitionerRole or Device",
            ));
        }
        if !self.base.iter().all(is_base) {
            return Err(SettingsError(
                "--base: a FHIR base is a URL like `https://ehr.example/fhir`, without user, query and slash at the end",
            ));
        }
        if self.topics.len() > MOST_TOPICS || !self.topics.iter().all(is_url) {
            return Err(SettingsError(
                "--topic: topics are at most 50 canonical URLs, like `https://ehr.example/topics/orders`",
            ));
        }
        if self.types.is_empty() {
            return Err(SettingsError("a source that may speak of nothing is none"));
        }
        let asks = self.trust == Trust::ReRead || self.content == ContentRule::Fetch;
        if self.base.is_none() && (asks || self.credentials.is_some()) {
            return Err(SettingsError(
                "what is to be read from the source needs its FHIR base: `--base`",
            ));
        }
        Ok(())
    }
}

/// Another server that tells us what changed there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name in our URLs.
    pub id: SourceId,
    /// What an operator set.
    pub settings: Settings,
    /// Since when it is known.
    pub added_at: Timestamp,
    /// Where its feed is.
    pub feed: Feed,
}

/// How far we are with a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Feed {
    /// How many notices were taken in: the place of the last one.
    pub place: i64,
    /// When it was last heard of.
    pub heard_at: Option<Timestamp>,
    /// Everything that changed there up to this instant was asked for.
    pub asked_to: Option<Timestamp>,
}

impl Source {
    /// Our name for the source as a client, in audit rows and blocks.
    pub fn client(&self) -> String {
        format!("source/{}", self.id)
    }

    /// A reference of the source's own as it stands here: its base taken off, and a version.
    pub fn local<'r>(&self, reference: &'r str) -> &'r str {
        let named = reference.split("/_history/").next().unwrap_or(reference);
        let base = self.settings.base.as_deref();
        base.and_then(|base| named.strip_prefix(base))
            .and_then(|rest| rest.strip_prefix('/'))
            .unwrap_or(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            base: Some("https://ehr.example/fhir".to_owned()),
            acts_as: ActorRef::parse("Organization/clinic").unwrap(),
            topics: BTreeSet::new(),
            types: FeedType::ALL.iter().copied().collect(),
            trust: Trust::ReRead,
            content: ContentRule::Keep,
            proof: Proof::Bearer { sha256: [7; 32] },
            credentials: None,
        }
    }

    #[test]
    fn settings_that_can_not_be_are_refused() {
        assert_eq!(settings().check(), Ok(()));
        let refused = |change: fn(&mut Settings)| {
            let mut changed = settings();
            change(&mut changed);
            assert!(changed.check().is_err(), "{changed:?}");
        };
        refused(|s| s.base = None);
        refused(|s| s.base = Some("ftp://ehr.example".to_owned()));
        refused(|s| s.base = Some("https://ehr.example/fhir/".to_owned()));
        refused(|s| s.base = Some("https://a@ehr.example/fhir".to_owned()));
        refused(|s| s.types.clear());
        refused(|s| s.topics = [String::from("a topic")].into());
    }

    #[test]
    fn the_sources_own_references_lose_its_base_and_others_do_not() {
        let source = Source {
            id: SourceId::parse("ehr").unwrap(),
            settings: settings(),
            added_at: Timestamp(0),
            feed: Feed::default(),
        };
        for (reference, local) in [
            ("Task/1", "Task/1"),
            ("https://ehr.example/fhir/Task/1", "Task/1"),
            ("https://ehr.example/fhir/Task/1/_history/3", "Task/1"),
            (
                "https://ehr.example/fhirs/Task/1",
                "https://ehr.example/fhirs/Task/1",
            ),
            (
                "https://other.example/fhir/Task/1",
                "https://other.example/fhir/Task/1",
            ),
        ] {
            assert_eq!(source.local(reference), local);
        }
    }

    #[test]
    fn nothing_prints_what_proves_a_source() {
        let printed = format!("{:?}", settings().proof);
        assert_eq!(printed, "bearer");
    }
}
