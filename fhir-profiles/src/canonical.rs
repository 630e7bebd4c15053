//! The canonical URLs of Handoff's artifacts, for code that writes or compares them.
//! A test holds that each names an artifact that exists.

/// The base of every canonical URL of ours; a name, not an address to fetch from.
pub const BASE: &str = "https://handoff.example/fhir";

macro_rules! canonicals {
    ($($(#[$doc:meta])* $name:ident = $kind:literal / $id:literal;)+) => {
        $($(#[$doc])* pub const $name: &str = concat!("https://handoff.example/fhir/", $kind, "/", $id);)+

        /// Every canonical above, with the type and id of the artifact it names.
        pub const ALL: &[(&str, &str, &str)] = &[$(($name, $kind, $id)),+];
    };
}

canonicals! {
    /// Why something was allowed, denied, revoked or expired.
    REASON_SYSTEM = "CodeSystem" / "handoff-reason";
    /// States of a grant.
    GRANT_STATUS_SYSTEM = "CodeSystem" / "grant-status";
    /// States of a redemption.
    REDEMPTION_STATUS_SYSTEM = "CodeSystem" / "redemption-status";
    /// What the server writes into `Task.businessStatus`.
    BUSINESS_STATUS_SYSTEM = "CodeSystem" / "business-status";
    /// Kinds of Task that the server makes itself, in `Task.code`.
    TASK_TYPE_SYSTEM = "CodeSystem" / "task-type";
    /// Canonical classes of documents.
    DOCUMENT_CLASS_SYSTEM = "CodeSystem" / "document-class";
    /// Levels of classification.
    CLASSIFICATION_SYSTEM = "CodeSystem" / "classification";
    /// Teams, as named in `Task.performerType`.
    TEAM_SYSTEM = "CodeSystem" / "team";
    /// Canonical roles.
    ROLE_SYSTEM = "CodeSystem" / "handoff-role";
    /// Role words of other systems.
    EXTERNAL_ROLE_SYSTEM = "CodeSystem" / "external-role";
    /// Kinds of audit event.
    AUDIT_EVENT_SYSTEM = "CodeSystem" / "audit-event";

    /// On an Attachment: SHA-256 of the content, `valueBase64Binary` of the 32 raw bytes.
    EXT_SHA256 = "StructureDefinition" / "content-sha256";
    /// On an Attachment: length in bytes, `valueDecimal`, also above 2 GiB.
    EXT_SIZE = "StructureDefinition" / "content-size";
    /// On an Attachment: version of the content, `valuePositiveInt` from 1.
    EXT_VERSION = "StructureDefinition" / "content-version";
    /// On a DocumentReference: `valueCoding` in [`DOCUMENT_CLASS_SYSTEM`].
    EXT_DOCUMENT_CLASS = "StructureDefinition" / "document-class";
    /// On a DocumentReference: `valueCode` in [`CLASSIFICATION_SYSTEM`].
    EXT_CLASSIFICATION = "StructureDefinition" / "classification";
    /// On a Task, once per grant: sub-extensions `grant`, `document`, `status`, `version`, `grantee`, `expires`, `reason`.
    EXT_GRANT_STATUS = "StructureDefinition" / "grant-status";
    /// On a Task on hold: `valueCode`, the status to come back to.
    EXT_HELD_FROM_STATUS = "StructureDefinition" / "held-from-status";
    /// On `Subscription.channel`, once: `valueString`, the key that notifications are signed with.
    EXT_SIGNING_SECRET = "StructureDefinition" / "signing-secret";
    /// On a `notification-event`: `valueCode`, what happened.
    EXT_EVENT_CHANGE = "StructureDefinition" / "event-change";
    /// On a `notification-event`: `valueId`, the grant concerned.
    EXT_EVENT_GRANT = "StructureDefinition" / "event-grant";

    /// The profile of Task.
    PROFILE_TASK = "StructureDefinition" / "handoff-task";
    /// The profile of DocumentReference.
    PROFILE_DOCUMENT = "StructureDefinition" / "handoff-document";

    /// The search parameter `-due` of Task.
    SEARCH_TASK_DUE = "SearchParameter" / "task-due";
    /// The search parameter `-recipient` of Task.
    SEARCH_TASK_RECIPIENT = "SearchParameter" / "task-recipient";

    /// `Task/{id}/$grant`.
    OPERATION_GRANT = "OperationDefinition" / "task-grant";
    /// `Task/{id}/$revoke-grants`.
    OPERATION_REVOKE_GRANTS = "OperationDefinition" / "task-revoke-grants";
    /// Disposes of a document's content before its time.
    OPERATION_PURGE = "OperationDefinition" / "document-purge";
    /// `$validate` on Task, DocumentReference and Subscription.
    OPERATION_VALIDATE = "OperationDefinition" / "validate";

    /// Document types of other systems to canonical classes.
    MAP_DOCUMENT_TYPES = "ConceptMap" / "document-types";
    /// Role words of other systems to canonical roles.
    MAP_EXTERNAL_ROLES = "ConceptMap" / "external-roles";
    /// HL7 confidentiality codes to levels of classification.
    MAP_CONFIDENTIALITY = "ConceptMap" / "confidentiality";
}

/// The canonical URL of a topic, without its name.
pub const TOPIC: &str = "https://handoff.example/fhir/SubscriptionTopic/";

/// The LOINC code system.
pub const LOINC: &str = "http://loinc.org";
/// The HL7 confidentiality codes, as used in `securityLabel`.
pub const CONFIDENTIALITY: &str = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_canonical_names_an_artifact_under_our_base() {
        for (url, kind, id) in ALL {
            assert!(url.starts_with(BASE));
            let artifact = crate::find(kind, id).unwrap_or_else(|| panic!("{url} names nothing"));
            assert_eq!(artifact.url, *url);
        }
    }
}
