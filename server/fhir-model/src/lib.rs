//! FHIR R4 in and out: bytes to a checked [`Resource`], the facts that the rules need from it, bytes again.
//!
//! The only crate that touches fhirbolt. Raw input never reaches it: our own reader and the table of R4 elements
//! come first ([`parse`]), fhirbolt's strict `Element` is the second check. Knows no HTTP and no storage.
//!
//! An [`Issue`] never repeats a value that was sent.

mod check;
mod element;
mod formats;
mod invariants;
mod json;
mod narrative;
mod path;

pub mod binary;
pub mod bundle;
pub mod dates;
pub mod facts;
pub mod issue;
pub mod links;
pub mod outcome;
pub mod parameters;
pub mod payload;
pub mod references;
pub mod resource;
pub mod search_values;

pub use binary::{Binary, binary};
pub use bundle::{Bundle, Entry, Request, bundle};
pub use facts::{clinical_sayings, document_facts, task_facts};
pub use issue::{Issue, IssueType, Severity};
pub use links::LinkKind;
pub use parameters::{Content, Parameter, parameters};
pub use resource::{ParseOptions, Resource, from_value, parse, parse_stored};
pub use search_values::search_index;
