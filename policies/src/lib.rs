//! The rules that a hospital can read and change: the workflows of `workflow.toml`, and who may do what.
//! Knows no HTTP, no storage and no tokens: it is handed facts and text, and answers in the domain's words.

mod builtin;
mod workflow_file;

pub use builtin::BuiltIn;
pub use workflow_file::{WorkflowProblem, parse_workflows};

/// The `workflow.toml` that ships with the server, for a server that is given none.
pub const SHIPPED_WORKFLOWS: &str = include_str!("../workflow.toml");
