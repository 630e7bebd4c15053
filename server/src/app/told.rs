//! Facts that sources told, as this process last saw them. All that stand are read once, and from then on what changed:
//! there may be many, and a Task's move must not cost a question to the database.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use handoff_domain::document::Document;
use handoff_domain::facts::{Fact, Facts, bare};
use handoff_domain::ids::{ActorRef, TenantId};
use handoff_domain::ports::Tx;
use handoff_domain::standing::Target;
use handoff_domain::task::Task;
use handoff_domain::time::{Span, Timestamp};
use tokio::time::Instant;

use super::{AppError, Scope};

/// A change is stamped before it is committed, by whichever process's clock: so far back it is looked for again.
const OVERLAP: Span = Span::minutes(2);
/// How long a validated token counts as a fact about its person's teams.
const TEAM_FACT_AGE: Span = Span::hours(24);
/// The most that are followed by the sweep at a time; beyond that the gate alone holds.
const MOST_LATELY: usize = 10_000;

/// What is known of facts.
#[derive(Debug, Default)]
pub(super) struct ToldFacts {
    by_tenant: HashMap<TenantId, Arc<Facts>>,
    /// When they were last read.
    read_at: Option<Timestamp>,
    /// What changed lately, and when that was seen here.
    lately: Vec<(Instant, TenantId, Target)>,
}

impl ToldFacts {
    /// Since when to ask for changes; `None` for all.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.read_at.map(|at| at.plus(Span(-OVERLAP.0)))
    }

    /// Takes in what was asked for at `now`; answers whether there was news.
    pub(super) fn learn(&mut self, facts: Vec<(TenantId, Fact)>, now: Timestamp) -> bool {
        let first = self.read_at.is_none();
        let mut news = false;
        for (tenant, fact) in facts {
            let known = self.by_tenant.entry(tenant.clone()).or_default();
            // What is known already must not be copied to find that out.
            if !is_news(known, &fact) {
                continue;
            }
            Arc::make_mut(known).learn(&fact);
            news = true;
            // At the start nobody is in the middle of anything that did not know of it.
            // Nor was anybody, who held something back for a fact that stood, told that it does no more.
            let bears = fact.stands || fact.saying.kind.only_holds();
            if !first
                && bears
                && self.lately.len() < MOST_LATELY
                && let Some(target) = fact.target()
            {
                self.lately.push((Instant::now(), tenant, target));
            }
        }
        self.read_at = Some(self.read_at.map_or(now, |before| before.max(now)));
        news
    }

    /// Those of each tenant that has some.
    pub(super) fn by_tenant(&self) -> impl Iterator<Item = (&TenantId, &Arc<Facts>)> {
        self.by_tenant.iter()
    }

    /// Of what something may be open that was issued by who did not know of a fact yet: told within `age`.
    pub(super) fn lately(&mut self, age: Duration) -> Vec<(TenantId, Target)> {
        self.lately.retain(|(seen, ..)| seen.elapsed() < age);
        let distinct: BTreeSet<(TenantId, Target)> = self
            .lately
            .iter()
            .map(|(_, tenant, target)| (tenant.clone(), target.clone()))
            .collect();
        distinct.into_iter().collect()
    }
}

fn is_news(known: &Facts, fact: &Fact) -> bool {
    known.knows(fact) != fact.stands
}

/// The facts about a Task, its encounter, its document and somebody who would fetch it, by the store and not by what was last seen.
pub(super) fn about(
    tx: &mut dyn Tx,
    tenant: &TenantId,
    task: &Task,
    document: Option<&Document>,
    actor: &ActorRef,
) -> Result<Arc<Facts>, AppError> {
    let named = [
        task.facts.subject.as_deref(),
        task.facts.encounter.as_deref(),
        document.and_then(|document| document.facts.subject.as_deref()),
    ];
    let mut subjects: Vec<String> = named
        .into_iter()
        .flatten()
        .filter_map(bare)
        .map(str::to_owned)
        .collect();
    subjects.push(actor.to_string());
    subjects.push(format!("Task/{}", task.id));
    subjects.extend(document.map(|document| format!("DocumentReference/{}", document.id)));
    subjects.dedup();
    let facts = tx.facts_about(tenant, &subjects)?;
    Ok(Arc::new(facts.into_iter().collect()))
}

/// Whether the person was in one of the caller's teams when last seen, or a source places them there.
pub(super) fn shares_team(tx: &mut dyn Tx, scope: &Scope, target: &ActorRef) -> Result<bool, AppError> {
    let since = Timestamp(scope.now().0.saturating_sub(TEAM_FACT_AGE.0));
    let facts = scope.standing.facts();
    let told = facts.teams_of(target);
    let theirs = tx.teams_of(scope.tenant(), target, since)?;
    Ok(theirs.into_iter().chain(told).any(|team| {
        scope.caller.principal.teams.contains(&team)
            && facts.on_member(target, &BTreeSet::from([team])).is_none()
    }))
}
