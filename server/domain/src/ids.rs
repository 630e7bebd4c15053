//! Typed ids: a string of one kind cannot be handed in where another is meant.
//! They carry no authority and no meaning beyond identity.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A text that is not an id: outside `[A-Za-z0-9.-]{1,64}` (FHIR R4, datatypes, `id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an id: 1 to 64 of letters, digits, `-` and `.`")]
pub struct IdError;

/// Whether `text` is a FHIR R4 `id`.
pub fn is_fhir_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

macro_rules! id_types {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id in `text`, if it is one.
            pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                if is_fhir_id(&text) { Ok(Self(text)) } else { Err(IdError) }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    )+};
}

id_types! {
    /// One customer organisation. Part of every key; nothing is reachable without it.
    TenantId,
    /// Logical id of a Task.
    TaskId,
    /// Logical id of a DocumentReference.
    DocumentId,
    /// Logical id of a Binary. Its content never changes: new content is a new Binary or a new version.
    BinaryId,
    /// A grant's id: safe to log, opens nothing.
    GrantId,
    /// The part of a handoff link that finds the grant. It carries no authority.
    Handle,
    /// One use of a grant.
    RedemptionId,
    /// A standing block's id.
    BlockId,
    /// A legal hold's id.
    HoldId,
    /// Logical id of a Subscription.
    SubscriptionId,
    /// Another server that tells us what changed there, by the name in our URLs.
    SourceId,
    /// One thing that a source told us.
    NoticeId,
    /// One request's id, from the caller's first word to the last byte and audit row.
    CorrelationId,
}

impl TenantId {
    /// The tenant that `/fhir` serves.
    pub fn default_tenant() -> Self {
        Self("default".to_owned())
    }
}

/// A relative FHIR reference to a person, organisation, team or device: `Practitioner/lane`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ActorRef(String);

/// The resource types that can act in a workflow (R4 `Task.owner` and `Task.requester`).
const ACTOR_TYPES: [&str; 9] = [
    "Practitioner",
    "PractitionerRole",
    "Organization",
    "CareTeam",
    "HealthcareService",
    "Patient",
    "Device",
    "RelatedPerson",
    "Group",
];

impl ActorRef {
    /// The reference in `text` (`Type/id`), if the type is one that can act.
    pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
        let text = text.into();
        match text.split_once('/') {
            Some((kind, id)) if ACTOR_TYPES.contains(&kind) && is_fhir_id(id) => Ok(Self(text)),
            _ => Err(IdError),
        }
    }

    /// The reference as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The resource type before the slash.
    pub fn kind(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// Whether this names one person or system, who can hold a grant; an organisation, a team, a service
    /// or a group cannot, until one of them claims the Task.
    pub fn can_hold_a_grant(&self) -> bool {
        matches!(
            self.kind(),
            "Practitioner" | "PractitionerRole" | "Patient" | "RelatedPerson" | "Device"
        )
    }

    /// Whether this names a person, not a system or several.
    pub fn is_person(&self) -> bool {
        matches!(
            self.kind(),
            "Practitioner" | "PractitionerRole" | "Patient" | "RelatedPerson"
        )
    }
}

impl fmt::Display for ActorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ActorRef {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl From<ActorRef> for String {
    fn from(actor: ActorRef) -> Self {
        actor.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_letters_digits_dash_and_dot_up_to_64() {
        assert!(TaskId::parse("a-1.B").is_ok());
        for bad in ["", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert_eq!(TaskId::parse(bad), Err(IdError), "{bad}");
        }
    }

    #[test]
    fn an_organisation_cannot_hold_a_grant_and_a_person_can() {
        let organisation = ActorRef::parse("Organization/clinic").unwrap();
        let person = ActorRef::parse("Practitioner/lane").unwrap();
        assert!(!organisation.can_hold_a_grant());
        assert!(person.can_hold_a_grant());
        assert_eq!(ActorRef::parse("Observation/1"), Err(IdError));
    }
}
