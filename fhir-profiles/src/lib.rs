//! The FHIR artifacts that Handoff ships, embedded at build time, and what is read from them: document classes,
//! roles, and the rules of the profiles.
//!
//! The JSON files are the source; the code here only reads them. It knows nothing of HTTP, storage or policy.

pub mod artifacts;
pub mod canonical;
pub mod elements;
pub mod profile_rules;
pub mod terminology;

pub use artifacts::{Artifact, Example, artifacts, by_url, example, examples, find};
pub use terminology::{canonical_role, classification, document_class};
