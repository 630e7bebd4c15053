//! The rules that a hospital can read and change: who may do what, in Cedar (`*.cedar`), and the workflows of
//! `workflow.toml`. Knows no HTTP, no storage and no tokens: it is handed facts and text, and answers in the
//! domain's words.

mod cases;
mod check;
mod explain;
mod expression;
mod facts;
mod memo;
mod reading;
mod retention_file;
mod rules;
mod situation;
mod source;
mod vary;
mod workflow_file;

pub use cases::{Case, Cases, Expected, Failure, run_case};
pub use check::{Finding, review};
pub use explain::{Explanation, explain};
pub use facts::relation_names;
pub use reading::FileProblem;
pub use retention_file::parse_retention;
pub use rules::{CompileError, PolicyProblem, RuleSet};
pub use situation::{AboutDocument, AboutTask, Asker, CaseProblem, Facts, Situation};
pub use source::{Place, SCHEMA, Source, SourceError};
pub use workflow_file::parse_workflows;

/// The `workflow.toml` that ships with the server, for a server that is given none.
pub const SHIPPED_WORKFLOWS: &str = include_str!("../workflow.toml");

/// The `retention.toml` that ships with the server: nothing is disposed of.
pub const SHIPPED_RETENTION: &str = include_str!("../retention.toml");
