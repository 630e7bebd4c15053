//! Why one question is answered as it is: which rules decided, and what would have to be otherwise.

use handoff_domain::access::{Action, Decision};

use crate::rules::{Rule, RuleSet};
use crate::situation::{CaseProblem, Situation};
use crate::vary::{Choice, axes};

/// One decision, and the reasons for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
    /// The deciding rules: id, file, line.
    pub deciding: Vec<(String, String, usize)>,
    /// What could not be evaluated.
    pub errors: Vec<String>,
    /// What would have allowed it, each alone, in words that follow "if"; or, where nothing alone would, two together.
    pub would_allow: Vec<String>,
    /// Facts that rules about this action ask for and the question does not give.
    pub not_given: Vec<&'static str>,
}

/// Explains what `rules` say to `situation`.
pub fn explain(rules: &RuleSet, situation: &Situation) -> Result<Explanation, CaseProblem> {
    let facts = situation.facts()?;
    let request = facts.request();
    let nothing = cedar_policy::PolicySet::new();
    let slice = rules.about(request.action);
    let (decision, errors) = rules.decide_by(slice.map_or(&nothing, |slice| &slice.set), &request);
    let deciding = decision
        .rules
        .iter()
        .filter_map(|id| rules.rules.iter().find(|rule| rule.id == *id))
        .map(|rule| (rule.id.to_string(), rule.file.clone(), rule.line))
        .collect();
    Ok(Explanation {
        would_allow: if decision.allowed {
            Vec::new()
        } else {
            would_allow(rules, situation, request.action)
        },
        not_given: not_given(rules, situation, request.action),
        decision,
        deciding,
        errors,
    })
}

fn would_allow(rules: &RuleSet, situation: &Situation, action: Action) -> Vec<String> {
    let Some(slice) = rules.about(action) else {
        return Vec::new();
    };
    let about: Vec<&Rule> = rules
        .rules
        .iter()
        .filter(|rule| slice.set.policy(rule.policy.id()).is_some())
        .collect();
    let axes = axes(about);
    let choices: Vec<&Choice> = axes.iter().flatten().collect();
    let allowed = |situation: &Situation| situation.decide(rules).is_ok_and(|decision| decision.allowed);
    let alone: Vec<String> = choices
        .iter()
        .filter(|choice| allowed(&choice.apply(situation)))
        .map(|choice| choice.said.clone())
        .collect();
    if !alone.is_empty() {
        return alone;
    }
    let mut together = Vec::new();
    for (index, first) in choices.iter().enumerate() {
        let changed = first.apply(situation);
        for second in choices.iter().skip(index.saturating_add(1)) {
            if allowed(&second.apply(&changed)) {
                together.push(format!("{}, and {}", first.said, second.said));
            }
        }
    }
    together
}

fn not_given(rules: &RuleSet, situation: &Situation, action: Action) -> Vec<&'static str> {
    let caller = &situation.caller;
    let optional = [
        ("department", caller.department.is_none()),
        ("location", caller.location.is_none()),
        ("delegate", caller.delegate.is_none()),
        ("purposeOfUse", caller.purpose_of_use.is_none()),
        ("sessionAge", caller.session_age.is_none()),
        ("address", situation.address.is_none()),
        ("class", situation.document.class.is_none()),
    ];
    optional
        .into_iter()
        .filter(|(name, absent)| *absent && rules.about(action).is_some_and(|s| s.mentioned.contains(*name)))
        .map(|(name, _)| name)
        .collect()
}
