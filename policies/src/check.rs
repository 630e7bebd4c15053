//! What is wrong with a set whose every rule is well formed: rules that never apply, that others always overrule,
//! that say the same. Found by asking, in situations that differ in what the rules ask about.

use std::collections::BTreeSet;
use std::fmt;

use cedar_policy::PolicySet;
use handoff_domain::access::{Action, Policy as _, RuleId};

use crate::rules::{PolicyProblem, Rule, RuleSet};
use crate::vary::{axes, combinations, forbids, is_modelled};

/// The most situations that one rule is tried in, for one action.
const MOST_SITUATIONS: usize = 20_000;

/// One such thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What and where.
    pub problem: PolicyProblem,
    /// Whether it is so. Else a person should look: not everything that the rule asks about could be tried.
    pub certain: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl Finding {
    fn of(rule: &Rule, certain: bool, text: String) -> Self {
        Self {
            problem: PolicyProblem {
                file: rule.file.clone(),
                line: Some(rule.line),
                rule: Some(rule.id.to_string()),
                text,
            },
            certain,
        }
    }
}

/// Looks at a set as a whole.
pub fn review(rules: &RuleSet) -> Vec<Finding> {
    let mut findings = Vec::new();
    let shipped = RuleSet::shipped().map(|set| set.rules).unwrap_or_default();
    for rule in &shipped {
        if !rules.rules.iter().any(|other| other.id == rule.id) {
            findings.push(Finding::of(
                rule,
                false,
                "ships with the server, and is not among these".to_owned(),
            ));
        }
    }
    for (index, rule) in rules.rules.iter().enumerate() {
        let earlier = rules
            .rules
            .iter()
            .take(index)
            .find(|other| other.json == rule.json);
        if let Some(earlier) = earlier {
            findings.push(Finding::of(
                rule,
                true,
                format!("says the same as `{}`", earlier.id),
            ));
            continue;
        }
        let (fate, certain) = fate(rules, rule);
        match fate {
            Fate::Decides => {}
            Fate::NeverApplies => {
                let text = "was found to apply in no situation: do its conditions contradict each other?";
                findings.push(Finding::of(rule, certain, text.to_owned()));
            }
            Fate::Overruled(by) => {
                let by: Vec<String> = by.iter().map(|id| format!("`{id}`")).collect();
                let text = format!(
                    "is contradicted wherever it was found to apply, by {}",
                    by.join(", ")
                );
                findings.push(Finding::of(rule, certain, text));
            }
        }
    }
    findings
}

/// What becomes of a rule.
enum Fate {
    Decides,
    NeverApplies,
    Overruled(BTreeSet<RuleId>),
}

/// What becomes of a rule, and whether that is certain.
fn fate(rules: &RuleSet, rule: &Rule) -> (Fate, bool) {
    let Ok(alone) = PolicySet::from_policies([rule.policy.clone()]) else {
        return (Fate::Decides, false);
    };
    let (mut applies, mut certain) = (false, true);
    // Those that overruled it each time, and those that ever did.
    let (mut always, mut ever): (Option<BTreeSet<RuleId>>, BTreeSet<RuleId>) = (None, BTreeSet::new());
    for action in Action::ALL {
        let Some(slice) = rules.about(action) else {
            continue;
        };
        if slice.set.policy(rule.policy.id()).is_none() {
            continue;
        }
        let against = rules.rules.iter().filter(|other| {
            forbids(other) && !forbids(rule) && slice.set.policy(other.policy.id()).is_some()
        });
        let asking: Vec<&Rule> = std::iter::once(rule).chain(against).collect();
        let tried = combinations(action, &axes(asking.iter().copied()), MOST_SITUATIONS);
        certain &= tried.complete && asking.into_iter().all(is_modelled);
        for situation in tried.situations {
            let Ok(facts) = situation.facts() else { continue };
            let request = facts.request();
            if !rules.decide_by(&alone, &request).0.rules.contains(&rule.id) {
                continue;
            }
            applies = true;
            if forbids(rule) {
                return (Fate::Decides, true);
            }
            let decision = rules.decide(&request);
            if decision.allowed {
                return (Fate::Decides, true);
            }
            let by: BTreeSet<RuleId> = decision.rules.into_iter().collect();
            always = Some(always.map_or_else(|| by.clone(), |before| &before & &by));
            ever.extend(by);
        }
    }
    if applies {
        let by = always.filter(|rules| !rules.is_empty()).unwrap_or(ever);
        (Fate::Overruled(by), certain)
    } else {
        (Fate::NeverApplies, certain)
    }
}
