//! The role table as it works out: every role, action and relation, compared with the committed matrix.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fmt::Write as _;

use handoff_domain::access::{AccessRequest, Action, Policy, Principal, Relation, Role, authorize};
use handoff_domain::{ActorRef, Reason, TenantId};
use handoff_policies::BuiltIn;

const ACTIONS: [Action; 18] = [
    Action::TaskRead,
    Action::TaskSearch,
    Action::TaskCreate,
    Action::TaskUpdate,
    Action::TaskDelete,
    Action::DocumentRead,
    Action::DocumentSearch,
    Action::DocumentCreate,
    Action::DocumentUpdate,
    Action::DocumentDelete,
    Action::BinaryCreate,
    Action::BinaryDelete,
    Action::BinaryFetch,
    Action::GrantIssue,
    Action::GrantRead,
    Action::GrantRevoke,
    Action::AuditRead,
    Action::AdminAct,
];

fn relations() -> [(&'static str, Relation); 9] {
    let none = Relation::default();
    [
        ("none", none),
        (
            "creator",
            Relation {
                creator: true,
                ..none
            },
        ),
        (
            "requester",
            Relation {
                requester: true,
                ..none
            },
        ),
        ("owner", Relation { owner: true, ..none }),
        (
            "former",
            Relation {
                former_owner: true,
                ..none
            },
        ),
        (
            "recipient",
            Relation {
                recipient: true,
                ..none
            },
        ),
        ("team", Relation { team: true, ..none }),
        (
            "grantee",
            Relation {
                grantee: true,
                ..none
            },
        ),
        (
            "via-task",
            Relation {
                through_task: true,
                ..none
            },
        ),
    ]
}

fn all_relations() -> Relation {
    Relation {
        creator: true,
        requester: true,
        owner: true,
        former_owner: true,
        recipient: true,
        team: true,
        grantee: true,
        through_task: true,
    }
}

fn caller(roles: &[Role]) -> Principal {
    Principal {
        tenant: TenantId::default_tenant(),
        issuer: "https://issuer.example".to_owned(),
        subject: "someone".to_owned(),
        client: "app".to_owned(),
        actor: ActorRef::parse("Practitioner/someone").unwrap(),
        delegate: None,
        roles: roles.iter().copied().collect(),
        teams: BTreeSet::new(),
        scopes: BTreeSet::new(),
        patient: None,
        key: None,
        token_id: "t".to_owned(),
    }
}

fn allowed(roles: &[Role], action: Action, relation: Relation) -> bool {
    let principal = caller(roles);
    BuiltIn
        .decide(&AccessRequest {
            principal: &principal,
            action,
            relation,
        })
        .allowed
}

fn matrix() -> String {
    let mut text =
        String::from("# Who may do what. `yes`: allowed where only this relation holds; `-`: denied.\n");
    for role in Role::ALL {
        write!(text, "\n{:<16}", role.as_str()).unwrap();
        for (name, _) in relations() {
            write!(text, " {name:>9}").unwrap();
        }
        text.push('\n');
        for action in ACTIONS {
            write!(text, "{:<16}", action.as_str()).unwrap();
            for (_, relation) in relations() {
                write!(
                    text,
                    " {:>9}",
                    if allowed(&[role], action, relation) {
                        "yes"
                    } else {
                        "-"
                    }
                )
                .unwrap();
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
    assert!(!allowed(&never, Action::BinaryFetch, all_relations()));
    for role in [Role::Fulfiller, Role::TeamMember, Role::DocumentViewer] {
        assert!(allowed(&[role], Action::BinaryFetch, all_relations()));
        assert!(!allowed(
            &[role],
            Action::BinaryFetch,
            Relation {
                grantee: false,
                ..all_relations()
            }
        ));
    }
}

#[test]
fn a_placer_who_is_also_a_fulfiller_fetches_as_grantee() {
    assert!(allowed(
        &[Role::Placer, Role::Fulfiller],
        Action::BinaryFetch,
        all_relations()
    ));
}

#[test]
fn a_caller_without_role_may_do_nothing() {
    for action in ACTIONS {
        assert!(!allowed(&[], action, all_relations()), "{action:?}");
    }
}

#[test]
fn several_roles_give_what_any_of_them_gives() {
    for action in ACTIONS {
        for (name, relation) in relations() {
            let any = Role::ALL.iter().any(|role| allowed(&[*role], action, relation));
            assert_eq!(allowed(&Role::ALL, action, relation), any, "{action:?} {name}");
        }
    }
}

#[test]
fn a_permit_names_the_rules_that_gave_it_and_a_denial_the_reason() {
    let principal = caller(&[Role::Fulfiller]);
    let relation = Relation {
        grantee: true,
        ..Relation::default()
    };
    let request = AccessRequest {
        principal: &principal,
        action: Action::BinaryFetch,
        relation,
    };
    assert_eq!(
        authorize(&BuiltIn, &request).unwrap().rules(),
        ["grantee-fetches"]
    );
    let request = AccessRequest {
        action: Action::AdminAct,
        ..request
    };
    assert_eq!(
        authorize(&BuiltIn, &request).unwrap_err().reason,
        Reason::PolicyDenied
    );
}
