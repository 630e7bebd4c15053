//! Decisions that are remembered: where rules ask for nothing but roles, relations and tenants, the same question has the
//! same answer for as long as the set is in force, and most questions are the same few.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use handoff_domain::access::{AccessRequest, Decision, Role};
use handoff_domain::ids::TenantId;
use serde_json::Value;

use crate::facts::{Kind, Mentioned, RELATIONS};

/// The most decisions that are remembered of one action. Tenants are few, and so are combinations of roles.
const MOST: usize = 10_000;

/// What a decision may depend on beyond what is a question here: no rule that asks for any of these is remembered.
const VOLATILE: [&str; 18] = [
    "department",
    "location",
    "codes",
    "status",
    "priority",
    "teams",
    "class",
    "labels",
    "task",
    "client",
    "delegate",
    "purposeOfUse",
    "sessionAge",
    "address",
    "now",
    "approvedStep",
    "breakGlass",
    "encounterOver",
];

/// Everything that such rules can see.
#[derive(PartialEq, Eq, Hash)]
struct Question {
    kind: Kind,
    roles: Vec<Role>,
    own_tenant: TenantId,
    tenant: TenantId,
    relation: [bool; 8],
}

/// Decisions on one action.
#[derive(Default)]
pub(crate) struct Memo(RwLock<HashMap<Question, Decision>>);

impl Memo {
    /// The decision on `request`, worked out only where it is not known.
    pub(crate) fn decide(
        &self,
        request: &AccessRequest<'_>,
        work_out: impl FnOnce() -> Decision,
    ) -> Decision {
        let question = Question::of(request);
        let known = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&question)
            .cloned();
        if let Some(known) = known {
            return known;
        }
        let decision = work_out();
        // One that failed may have failed for want of room on the stack.
        if !decision.failed {
            let mut memo = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if memo.len() >= MOST {
                memo.clear();
            }
            memo.insert(question, decision.clone());
        }
        decision
    }
}

impl Question {
    fn of(request: &AccessRequest<'_>) -> Self {
        let mut relation = request.relation;
        Self {
            kind: Kind::of(request.principal),
            roles: request.principal.roles.iter().copied().collect(),
            own_tenant: request.principal.tenant.clone(),
            tenant: request.tenant.clone(),
            relation: RELATIONS.map(|(_, fact)| *fact(&mut relation)),
        }
    }
}

/// Whether these rules, in which these words stand, can see no more than a question holds.
pub(crate) fn is_memorable<'r>(rules: impl IntoIterator<Item = &'r Value>, words: &Mentioned) -> bool {
    VOLATILE.iter().all(|word| !words.contains(*word)) && rules.into_iter().all(names_roles_alone)
}

/// Whether no one person, team or thing is named.
fn names_roles_alone(json: &Value) -> bool {
    match json {
        Value::Object(object) => {
            if object.contains_key("id")
                && let Some(Value::String(kind)) = object.get("type")
                && !matches!(kind.as_str(), "Role" | "Action")
            {
                return false;
            }
            object.values().all(names_roles_alone)
        }
        Value::Array(all) => all.iter().all(names_roles_alone),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SCHEMA;

    #[test]
    fn every_attribute_of_the_schema_is_in_the_question_or_keeps_a_rule_from_being_remembered() {
        // The members of records are asked for by way of these.
        let seen = ["tenant", "relation", "id", "trusted"];
        let attributes: Vec<&str> = SCHEMA
            .lines()
            .filter(|line| line.starts_with("  ") && !line.trim_start().starts_with("principal: ["))
            .filter_map(|line| Some(line.split_once(": ")?.0.trim().trim_end_matches('?')))
            .filter(|name| !name.starts_with('/'))
            .collect();
        assert!(attributes.len() > 30, "{attributes:?}");
        for name in attributes {
            let known = seen.contains(&name)
                || VOLATILE.contains(&name)
                || RELATIONS.iter().any(|(relation, _)| *relation == name);
            assert!(known, "`{name}` is neither in a question nor volatile");
        }
    }
}
