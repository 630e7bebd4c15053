//! The shipped rules as they work out: every role, action and relation, compared with the committed matrix.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fmt::Write as _;
use std::sync::LazyLock;

use handoff_domain::Reason;
use handoff_domain::access::{Action, Role, authorize};
use handoff_policies::{Asker, RuleSet, Situation};

/// The names of the relations, and how the matrix heads their columns.
const RELATIONS: [(&str, &str); 9] = [
    ("none", ""),
    ("creator", "creator"),
    ("requester", "requester"),
    ("owner", "owner"),
    ("former", "formerOwner"),
    ("recipient", "recipient"),
    ("team", "team"),
    ("grantee", "grantee"),
    ("via-task", "throughTask"),
];

static SHIPPED: LazyLock<RuleSet> = LazyLock::new(|| RuleSet::shipped().unwrap());

fn all_relations() -> Vec<&'static str> {
    RELATIONS
        .iter()
        .map(|(_, name)| *name)
        .filter(|name| !name.is_empty())
        .collect()
}

fn question(roles: &[Role], action: Action, relations: &[&str]) -> Situation {
    Situation {
        relation: relations.iter().map(|name| (*name).to_owned()).collect(),
        caller: Asker {
            roles: roles.iter().map(|role| role.as_str().to_owned()).collect(),
            ..Asker::default()
        },
        ..Situation::about(action)
    }
}

fn allowed(roles: &[Role], action: Action, relations: &[&str]) -> bool {
    question(roles, action, relations)
        .decide(&SHIPPED)
        .unwrap()
        .allowed
}

fn alone(relation: &'static str) -> Vec<&'static str> {
    [relation].into_iter().filter(|name| !name.is_empty()).collect()
}

fn matrix() -> String {
    let mut text =
        String::from("# Who may do what. `yes`: allowed where only this relation holds; `-`: denied.\n");
    for role in Role::ALL {
        write!(text, "\n{:<20}", role.as_str()).unwrap();
        for (name, _) in RELATIONS {
            write!(text, " {name:>9}").unwrap();
        }
        text.push('\n');
        for action in Action::ALL {
            write!(text, "{:<20}", action.as_str()).unwrap();
            for (_, relation) in RELATIONS {
                let word = if allowed(&[role], action, &alone(relation)) {
                    "yes"
                } else {
                    "-"
                };
                write!(text, " {word:>9}").unwrap();
            }
            text.push('\n');
        }
    }
    text
}

#[test]
fn the_matrix_of_roles_actions_and_relations_is_the_committed_one() {
    let actual = matrix();
    if actual != include_str!("authorization_matrix.txt") {
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("authorization_matrix.txt");
        std::fs::write(&path, &actual).unwrap();
        panic!(
            "the matrix has changed; compare the committed one with {}",
            path.display()
        );
    }
}

#[test]
fn a_role_that_never_fetches_is_denied_content_however_it_stands_to_it() {
    let never = [
        Role::Placer,
        Role::Subscriber,
        Role::Operator,
        Role::RecordsManager,
        Role::Auditor,
        Role::BreakGlass,
    ];
    assert!(!allowed(&never, Action::BinaryFetch, &all_relations()));
    for role in [Role::Fulfiller, Role::TeamMember, Role::DocumentViewer] {
        assert!(allowed(&[role], Action::BinaryFetch, &all_relations()));
        let mut without = all_relations();
        without.retain(|name| *name != "grantee");
        assert!(!allowed(&[role], Action::BinaryFetch, &without));
    }
}

#[test]
fn a_caller_without_role_may_do_nothing() {
    for action in Action::ALL {
        assert!(!allowed(&[], action, &all_relations()), "{action:?}");
    }
}

#[test]
fn several_roles_give_what_any_of_them_gives() {
    for action in Action::ALL {
        for (name, relation) in RELATIONS {
            let any = Role::ALL
                .iter()
                .any(|role| allowed(&[*role], action, &alone(relation)));
            assert_eq!(
                allowed(&Role::ALL, action, &alone(relation)),
                any,
                "{action:?} {name}"
            );
        }
    }
}

#[test]
fn a_permit_names_the_rules_that_gave_it_and_a_denial_the_reason() {
    let facts = question(&[Role::Fulfiller], Action::BinaryFetch, &["grantee"])
        .facts()
        .unwrap();
    let permit = authorize(&*SHIPPED, &facts.request()).unwrap();
    let ids: Vec<&str> = permit.rules().iter().map(AsRef::as_ref).collect();
    assert_eq!(ids, ["grantee-fetches"]);
    let facts = question(&[Role::Fulfiller], Action::AdminAct, &["grantee"])
        .facts()
        .unwrap();
    let denied = authorize(&*SHIPPED, &facts.request()).unwrap_err();
    assert_eq!((denied.reason, denied.rules.len()), (Reason::PolicyDenied, 0));
}
