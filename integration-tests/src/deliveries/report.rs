//! What came of a run, for people: figures of each subscriber, and what was found.

use std::fmt;

use super::Outcome;
use super::check::{Asked, Figures, Rule, Violation, check, check_course, check_outbox};

/// One line of the report.
#[derive(Debug, Clone)]
pub struct Line {
    /// The subscriber.
    pub name: &'static str,
    /// Requests that were sent to it.
    pub attempts: usize,
    /// What it came to.
    pub figures: Figures,
}

/// The whole.
#[derive(Debug, Clone)]
pub struct Report {
    /// One a subscriber.
    pub lines: Vec<Line>,
    /// What does not hold.
    pub found: Vec<Violation>,
    what: String,
}

impl Report {
    /// Judges an outcome.
    pub fn of(outcome: &Outcome) -> Self {
        let (mut lines, mut found) = (Vec::new(), Vec::new());
        check_outbox(&outcome.truth, &outcome.store, &mut found);
        for one in &outcome.subscribers {
            let asked = Asked {
                name: one.kind.name(),
                status: one.kind.status(),
                most: one.kind.most(),
                answers: one.kind.answers(),
            };
            let (arrivals, attempts) = one.endpoint.so_far();
            let figures = check(&asked, &outcome.truth, &arrivals, &mut found);
            let course = outcome.store.courses.get(&one.subscription);
            let audited = outcome.store.audited.get(&one.subscription);
            check_course(
                &asked,
                &outcome.truth,
                course.copied().unwrap_or_default(),
                audited,
                &mut found,
            );
            lines.push(Line {
                name: asked.name,
                attempts,
                figures,
            });
        }
        if !outcome.came_to_rest {
            found.push(Violation {
                rule: Rule::Missing,
                what: "deliveries stand still before all is delivered".to_owned(),
            });
        }
        let (moved, after) = outcome.took;
        let what = format!(
            "{} changes of {} Tasks in {} s, {} servers killed; all is delivered {} s later",
            outcome.truth.count(None),
            outcome.truth.tasks.len(),
            moved.as_secs(),
            outcome.killed,
            after.as_secs()
        );
        Self { lines, found, what }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {}", self.what)?;
        for Line {
            name,
            attempts,
            figures,
        } in &self.lines
        {
            writeln!(
                f,
                "  {name:20} {} events, {attempts} attempts, {} duplicates, delay p50 {} ms, longest {} ms",
                figures.events,
                figures.duplicates,
                figures.median / 1000,
                figures.longest / 1000
            )?;
        }
        Ok(())
    }
}
