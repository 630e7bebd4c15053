//! Decisions that are remembered: where rules ask for nothing but roles, relations and tenants, the same question has the
//! same answer for as long as the set is in force, and most questions are the same few.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use handoff_domain::access::{AccessRequest, Decision, Principal, Relation, Role};
use handoff_domain::ids::TenantId;
use serde_json::Value;

use crate::facts::Mentioned;

/// The most decisions that are remembered of one action. Tenants are few, and so are combinations of roles.
const MOST: usize = 10_000;

/// What a decision may depend on beyond what is a question here: no rule that asks for any of these is remembered.
const VOLATILE: [&str; 16] = [
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

/// The type of the principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    User,
    Client,
    System,
}

impl Kind {
    pub(crate) fn of(principal: &Principal) -> Self {
        if principal.actor.is_person() {
            Self::User
        } else if principal.subject == principal.client {
            Self::Client
        } else {
            Self::System
        }
    }
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
        let Relation {
            creator,
            requester,
            owner,
            former_owner,
            recipient,
            team,
            grantee,
            through_task,
        } = request.relation;
        Self {
            kind: Kind::of(request.principal),
            roles: request.principal.roles.iter().copied().collect(),
            own_tenant: request.principal.tenant.clone(),
            tenant: request.tenant.clone(),
            relation: [
                creator,
                requester,
                owner,
                former_owner,
                recipient,
                team,
                grantee,
                through_task,
            ],
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
