//! The built-in rules of access: the role table, as one list. Each rule allows; what no rule allows is denied.
//! Whether a caller may know that a thing exists is decided by what it may read; which move of a Task it may make
//! is `handoff_domain::moves`.

use handoff_domain::access::{AccessRequest, Action, Decision, Policy, Relation, Role};

/// One rule: these roles may do these things where the relation holds.
struct Rule {
    /// Stands in audit rows: never reused for another meaning.
    id: &'static str,
    roles: &'static [Role],
    actions: &'static [Action],
    when: fn(Relation) -> bool,
}

/// Those who work on Tasks; a document-viewer does it as the person it acts for.
const WORKERS: &[Role] = &[Role::Fulfiller, Role::TeamMember, Role::DocumentViewer];

/// Those who see everything of their tenant, and fetch nothing.
const OVERSEERS: &[Role] = &[Role::Operator, Role::RecordsManager, Role::Auditor];

const RULES: &[Rule] = &[
    Rule {
        id: "search-what-may-be-seen",
        roles: &[
            Role::Placer,
            Role::Fulfiller,
            Role::TeamMember,
            Role::DocumentViewer,
            Role::Operator,
            Role::RecordsManager,
            Role::Auditor,
        ],
        actions: &[Action::TaskSearch, Action::DocumentSearch],
        when: always,
    },
    Rule {
        id: "subscriber-follows-tasks",
        roles: &[Role::Subscriber],
        actions: &[Action::TaskRead, Action::TaskSearch],
        when: always,
    },
    Rule {
        id: "overseer-sees-the-tenant",
        roles: OVERSEERS,
        actions: &[Action::TaskRead, Action::DocumentRead],
        when: always,
    },
    Rule {
        id: "placer-reads-own-tasks",
        roles: &[Role::Placer],
        actions: &[Action::TaskRead],
        when: |r| r.creator || is_named(r),
    },
    Rule {
        id: "worker-reads-own-and-team-tasks",
        roles: WORKERS,
        actions: &[Action::TaskRead],
        when: |r| is_named(r) || r.team,
    },
    Rule {
        id: "placer-creates-tasks",
        roles: &[Role::Placer],
        actions: &[Action::TaskCreate],
        when: always,
    },
    Rule {
        id: "placer-changes-own-tasks",
        roles: &[Role::Placer],
        actions: &[Action::TaskUpdate],
        when: |r| r.creator || r.owner,
    },
    Rule {
        id: "placer-deletes-own-tasks",
        roles: &[Role::Placer],
        actions: &[Action::TaskDelete],
        when: |r| r.creator,
    },
    Rule {
        id: "worker-moves-or-claims-tasks",
        roles: WORKERS,
        actions: &[Action::TaskUpdate],
        when: |r| r.owner || r.team,
    },
    Rule {
        id: "placer-reads-own-documents",
        roles: &[Role::Placer],
        actions: &[Action::DocumentRead],
        when: |r| r.creator || r.through_task,
    },
    Rule {
        id: "worker-reads-documents-through-a-task",
        roles: WORKERS,
        actions: &[Action::DocumentRead],
        when: |r| r.through_task,
    },
    Rule {
        id: "placer-and-records-take-in-documents",
        roles: &[Role::Placer, Role::RecordsManager],
        actions: &[Action::DocumentCreate, Action::BinaryCreate],
        when: always,
    },
    Rule {
        id: "placer-changes-own-documents",
        roles: &[Role::Placer],
        actions: &[
            Action::DocumentUpdate,
            Action::DocumentDelete,
            Action::BinaryDelete,
        ],
        when: |r| r.creator,
    },
    Rule {
        id: "grantee-fetches",
        roles: WORKERS,
        actions: &[Action::BinaryFetch],
        when: |r| r.grantee,
    },
    Rule {
        id: "placer-grants-under-own-tasks",
        roles: &[Role::Placer],
        actions: &[Action::GrantIssue, Action::GrantRead, Action::GrantRevoke],
        when: |r| r.creator,
    },
    Rule {
        id: "operator-grants-and-revokes",
        roles: &[Role::Operator],
        actions: &[Action::GrantIssue, Action::GrantRead, Action::GrantRevoke],
        when: always,
    },
    Rule {
        id: "holder-asks-for-a-grant",
        roles: WORKERS,
        actions: &[Action::GrantIssue],
        when: |r| r.grantee || r.owner || r.recipient,
    },
    Rule {
        id: "worker-reads-grants-of-own-tasks",
        roles: WORKERS,
        actions: &[Action::GrantRead],
        when: |r| r.grantee || is_named(r) || r.team,
    },
    Rule {
        id: "grantee-revokes-own-grants",
        roles: WORKERS,
        actions: &[Action::GrantRevoke],
        when: |r| r.grantee,
    },
    Rule {
        id: "auditor-reads-the-audit",
        roles: &[Role::Auditor],
        actions: &[Action::AuditRead, Action::GrantRead],
        when: always,
    },
    Rule {
        id: "operator-administers",
        roles: &[Role::Operator],
        actions: &[Action::AdminAct],
        when: always,
    },
];

const fn always(_: Relation) -> bool {
    true
}

/// Whether the Task itself names the caller. Having owned it before does not count: it is no longer theirs.
const fn is_named(relation: Relation) -> bool {
    relation.requester || relation.owner || relation.recipient
}

/// The built-in rules. A caller with several roles has what any of them gives.
#[derive(Debug, Clone, Copy, Default)]
pub struct BuiltIn;

impl Policy for BuiltIn {
    fn decide(&self, request: &AccessRequest<'_>) -> Decision {
        let rules: Vec<&'static str> = RULES
            .iter()
            .filter(|rule| {
                rule.actions.contains(&request.action)
                    && request.principal.has_any(rule.roles)
                    && (rule.when)(request.relation)
            })
            .map(|rule| rule.id)
            .collect();
        Decision {
            allowed: !rules.is_empty(),
            rules,
        }
    }

    fn version(&self) -> &'static str {
        "built-in-1"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_rule_has_an_id_of_its_own() {
        let ids: BTreeSet<&str> = RULES.iter().map(|r| r.id).collect();
        assert_eq!(ids.len(), RULES.len());
    }
}
