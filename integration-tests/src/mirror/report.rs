//! What came of a run, for people: figures, and what was found.

use std::fmt;

use super::Outcome;
use super::check::{Rule, Violation, check};

/// The whole.
#[derive(Debug, Clone)]
pub struct Report {
    /// What does not hold.
    pub found: Vec<Violation>,
    lines: Vec<String>,
}

impl Report {
    /// Judges an outcome.
    pub fn of(outcome: &Outcome) -> Self {
        let (mut found, mut lines) = (Vec::new(), Vec::new());
        for moment in &outcome.moments {
            let mut here = check(&moment.seen, &moment.expected);
            if !moment.is_quiet {
                here.push(Violation {
                    rule: Rule::Waiting,
                    what: "it stands still before all is applied".to_owned(),
                });
            }
            let versions = |side: &std::collections::BTreeMap<String, Vec<_>>| {
                side.values().map(Vec::len).sum::<usize>()
            };
            lines.push(format!(
                "{:24} {} Tasks, {} versions at the source, {} at the mirror, {} quarantined, quiet after {} ms",
                moment.name,
                moment.seen.source.len(),
                versions(&moment.seen.source),
                versions(&moment.seen.mirror),
                moment.seen.quarantine.len(),
                moment.took.as_millis()
            ));
            found.extend(here.into_iter().map(|one| Violation {
                what: format!("{}: {}", moment.name, one.what),
                ..one
            }));
        }
        let fates: Vec<String> = outcome
            .fates
            .iter()
            .map(|(fate, count)| format!("{count} {}", fate.name()))
            .collect();
        let notices: Vec<String> = outcome
            .notices
            .iter()
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        lines.push(format!(
            "{} changes; notifications in trouble: {}",
            outcome.changes,
            fates.join(", ")
        ));
        lines.push(format!("notices at the mirror: {}", notices.join(", ")));
        Self { found, lines }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}
