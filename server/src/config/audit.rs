//! `[audit]`: what the audit holds, and what it is sealed with.

use handoff_ledger::VerifierKey;
use toml::{Table, Value};

use super::Problem;
use super::reader::Section;
use crate::app::ledger::seal::SealKey;
use crate::app::reads::Recorded;

/// `[audit]`
#[derive(Debug, Clone)]
pub struct Audit {
    /// What seals it; without, what is recorded can't be proved complete.
    pub seal: Option<SealKey>,
    /// Which of the reads that were allowed it holds. Refusals it holds in any case.
    pub reads: Recorded,
}

pub(super) fn read(root: &mut Table, problems: &mut Vec<Problem>) -> Audit {
    let mut section = Section::take(root, "audit", problems);
    let reads = section.parsed(
        "reads",
        "write `each`, `once-a-minute` or `refused`",
        Recorded::parse,
    );
    let key = section.secret("key", "key_file");
    let is_unnamed = section.is_absent("origin");
    let origin = section.text("origin");
    let mut previous = Vec::new();
    for (place, text) in section
        .texts("previous_keys")
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        match VerifierKey::parse(text) {
            Ok(key) => previous.push(key),
            Err(error) => section.problem(
                "previous_keys",
                // It may be another key, put in the wrong place.
                format!("entry {} is no verifier key: {error}", place.saturating_add(1)),
                "write each as `handoff audit key` printed it while that key was in use",
            ),
        }
    }
    let seal = match (key, origin) {
        (Some(key), Some(origin)) => match SealKey::new(key, origin, previous) {
            Ok(seal) => Some(seal),
            Err(error) => {
                let remedy = "`key` is an Ed25519 key in PEM, as `openssl genpkey -algorithm ed25519` makes it; `origin` a name \
                              without blanks and `+`, like `handoff.example.org/audit`";
                section.problem("key", error.to_string(), remedy);
                None
            }
        },
        (Some(_), None) => {
            // What stands there and is no text was told.
            if is_unnamed {
                let remedy = "name the log, once and for all, like `handoff.example.org/audit`: checkpoints that were kept say it";
                section.problem("origin", "is missing", remedy);
            }
            None
        }
        (None, Some(_)) => {
            let remedy =
                "name a file with an Ed25519 key in PEM, as `openssl genpkey -algorithm ed25519` makes it";
            section.problem("key_file", "is missing beside `origin`", remedy);
            None
        }
        (None, None) => None,
    };
    section.finish();
    Audit {
        seal,
        reads: reads.unwrap_or_default(),
    }
}

pub(super) fn show(audit: &Audit) -> Vec<(&'static str, Value)> {
    let mut shown = vec![("reads", Value::String(audit.reads.as_str().to_owned()))];
    if let Some(seal) = &audit.seal {
        let previous = seal.previous().iter().map(|key| Value::String(key.to_string()));
        shown.extend([
            ("key", Value::String("(hidden)".to_owned())),
            ("origin", Value::String(seal.log().to_owned())),
            ("previous_keys", Value::Array(previous.collect())),
        ]);
    }
    shown
}
