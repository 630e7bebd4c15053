//! Cases: questions with what must come of them, which a person can read and add to. A file holds any number.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::rules::RuleSet;
use crate::situation::Situation;
use crate::source::read_text;

/// File, what must come of its cases, and its text.
const SHIPPED_CASES: [(&str, Expected, &str); 11] = [
    (
        "ALLOW/break-glass.toml",
        Expected::Allow,
        include_str!("../cases/ALLOW/break-glass.toml"),
    ),
    (
        "ALLOW/oversight.toml",
        Expected::Allow,
        include_str!("../cases/ALLOW/oversight.toml"),
    ),
    (
        "ALLOW/placers.toml",
        Expected::Allow,
        include_str!("../cases/ALLOW/placers.toml"),
    ),
    (
        "ALLOW/subscriptions.toml",
        Expected::Allow,
        include_str!("../cases/ALLOW/subscriptions.toml"),
    ),
    (
        "ALLOW/workers.toml",
        Expected::Allow,
        include_str!("../cases/ALLOW/workers.toml"),
    ),
    (
        "DENY/break-glass.toml",
        Expected::Deny,
        include_str!("../cases/DENY/break-glass.toml"),
    ),
    (
        "DENY/content.toml",
        Expected::Deny,
        include_str!("../cases/DENY/content.toml"),
    ),
    (
        "DENY/oversight.toml",
        Expected::Deny,
        include_str!("../cases/DENY/oversight.toml"),
    ),
    (
        "DENY/subscriptions.toml",
        Expected::Deny,
        include_str!("../cases/DENY/subscriptions.toml"),
    ),
    (
        "DENY/tenants.toml",
        Expected::Deny,
        include_str!("../cases/DENY/tenants.toml"),
    ),
    (
        "DENY/workers.toml",
        Expected::Deny,
        include_str!("../cases/DENY/workers.toml"),
    ),
];

/// What a case expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// To be allowed.
    Allow,
    /// To be denied.
    Deny,
}

/// One case: a situation and what must come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The file it stands in.
    pub file: String,
    /// What must come of it.
    pub expected: Expected,
    written: Written,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// What the case is about, in words.
    why: String,
    /// The rules that must have decided; whichever they were, where there are none.
    #[serde(default)]
    rules: Vec<String>,
    question: Situation,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    case: Vec<Written>,
}

impl Case {
    /// What it is about.
    pub fn why(&self) -> &str {
        &self.written.why
    }

    /// The question.
    pub const fn question(&self) -> &Situation {
        &self.written.question
    }
}

/// A case that did not come out as expected, or that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{file}: {text}")]
pub struct Failure {
    /// The file.
    pub file: String,
    /// What is wrong.
    pub text: String,
}

/// Cases, and what of the files is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cases {
    /// In order of their files.
    pub cases: Vec<Case>,
    /// What could not be read.
    pub unread: Vec<Failure>,
}

impl Cases {
    /// The cases that belong to the shipped rules.
    pub fn shipped() -> Self {
        let mut cases = Self::default();
        for (file, expected, text) in SHIPPED_CASES {
            cases.add(file, expected, Ok(text.to_owned()));
        }
        cases
    }

    /// The cases of a directory that holds `ALLOW` and `DENY`.
    pub fn read(directory: &Path) -> Self {
        let mut cases = Self::default();
        for (name, expected) in [("ALLOW", Expected::Allow), ("DENY", Expected::Deny)] {
            let directory = directory.join(name);
            let mut files: Vec<PathBuf> = match fs::read_dir(&directory) {
                Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
                Err(error) => {
                    cases.fail(
                        &directory.display().to_string(),
                        format!("can't be read: {error}"),
                    );
                    continue;
                }
            };
            files.retain(|path| path.extension().is_some_and(|e| e == "toml"));
            files.sort();
            for file in files {
                let text = read_text(&file).map_err(|error| error.to_string());
                cases.add(&file.display().to_string(), expected, text);
            }
        }
        cases
    }

    fn fail(&mut self, file: &str, text: String) {
        self.unread.push(Failure {
            file: file.to_owned(),
            text,
        });
    }

    fn add(&mut self, file: &str, expected: Expected, text: Result<String, String>) {
        let read = text.and_then(|text| toml::from_str::<CaseFile>(&text).map_err(|error| error.to_string()));
        let written = match read {
            Ok(file) => file.case,
            Err(text) => return self.fail(file, text),
        };
        for written in written {
            if let Err(problem) = written.question.facts() {
                self.fail(file, format!("{}: {problem}", written.why));
                continue;
            }
            self.cases.push(Case {
                file: file.to_owned(),
                expected,
                written,
            });
        }
    }
}

/// Asks a case, and says what did not come out as it expects.
pub fn run_case(rules: &RuleSet, case: &Case) -> Result<(), Failure> {
    let failed = |text: String| Failure {
        file: case.file.clone(),
        text,
    };
    let decision = case
        .question()
        .decide(rules)
        .map_err(|problem| failed(problem.to_string()))?;
    let by = if decision.rules.is_empty() {
        "no rule".to_owned()
    } else {
        let names: Vec<String> = decision.rules.iter().map(|id| format!("`{id}`")).collect();
        names.join(", ")
    };
    match (case.expected, decision.allowed) {
        (Expected::Allow, false) => {
            return Err(failed(format!("denied by {by}; must be allowed: {}", case.why())));
        }
        (Expected::Deny, true) => {
            return Err(failed(format!("allowed by {by}; must be denied: {}", case.why())));
        }
        (Expected::Allow, true) | (Expected::Deny, false) => {}
    }
    let wanted = &case.written.rules;
    let decided: BTreeSet<&str> = decision.rules.iter().map(AsRef::as_ref).collect();
    if wanted.is_empty() || wanted.iter().map(String::as_str).collect::<BTreeSet<_>>() == decided {
        Ok(())
    } else {
        Err(failed(format!(
            "decided by {by}, not by `{}`",
            wanted.join("`, `")
        )))
    }
}
