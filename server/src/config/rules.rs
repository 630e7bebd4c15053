//! Compiling a rule set as this server takes it: the classes that its files name have to be those of the CodeSystem.

use handoff_fhir_profiles::canonical::DOCUMENT_CLASS_SYSTEM;
use handoff_fhir_profiles::document_class;
use handoff_policies::{CompileError, PolicyProblem, RuleSet, Source};

/// The rule set that a text is, or every problem with it.
pub fn compile_rules(source: &Source) -> Result<RuleSet, CompileError> {
    let set = RuleSet::compile(source)?;
    let unknown: Vec<PolicyProblem> = set
        .schedules()
        .by_class
        .keys()
        .filter(|class| document_class(DOCUMENT_CLASS_SYSTEM, class).is_none())
        .map(|class| PolicyProblem {
            file: "retention.toml".to_owned(),
            line: None,
            rule: None,
            text: format!("`class.{class}`: there is no such class in CodeSystem document-class"),
        })
        .collect();
    if unknown.is_empty() {
        Ok(set)
    } else {
        Err(CompileError(unknown))
    }
}
