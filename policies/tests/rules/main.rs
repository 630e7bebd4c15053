//! Rule sets: what is refused when one is loaded, what a whole set is looked through for, and what it says of itself.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod files;

use handoff_domain::access::{Action, Policy as _};
use handoff_policies::{AboutDocument, Asker, RuleSet, Situation, Source, explain, review};

/// The shipped rules and these.
fn with(text: &str) -> Source {
    let mut source = Source::shipped();
    source.rules.push(("zz-own.cedar".to_owned(), text.to_owned()));
    source
}

fn compiled(text: &str) -> RuleSet {
    RuleSet::compile(&with(text)).unwrap()
}

fn problems(text: &str) -> Vec<String> {
    let error = RuleSet::compile(&with(text)).unwrap_err();
    error.0.iter().map(ToString::to_string).collect()
}

fn one_problem(text: &str) -> String {
    let found = problems(text);
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0].clone()
}

fn grantee(change: impl FnOnce(&mut Situation)) -> Situation {
    let mut situation = Situation {
        relation: vec!["grantee".to_owned()],
        caller: Asker {
            roles: vec!["fulfiller".to_owned()],
            ..Asker::default()
        },
        ..Situation::about(Action::BinaryFetch)
    };
    change(&mut situation);
    situation
}

fn decided(rules: &RuleSet, situation: &Situation) -> (bool, Vec<String>) {
    let decision = situation.decide(rules).unwrap();
    (
        decision.allowed,
        decision.rules.iter().map(ToString::to_string).collect(),
    )
}

#[test]
fn the_shipped_rules_have_no_findings() {
    assert_eq!(review(&RuleSet::shipped().unwrap()), []);
}

#[test]
fn what_is_not_well_written_is_refused_with_its_place() {
    assert_eq!(
        one_problem("// a comment\n\npermit (principal, action, resource)\nwhen { principal.tenant == };"),
        "zz-own.cedar:4: unexpected token `}`"
    );
    let unknown = one_problem(
        "@id(\"typo\")\npermit (principal in Role::\"fulfiler\", action == Action::\"task-read\", resource);",
    );
    assert!(unknown.starts_with("zz-own.cedar:1: rule `typo`: "), "{unknown}");
    let attribute = one_problem(
        "@id(\"no-such\") permit (principal, action == Action::\"task-read\", resource) when { resource.owner == \"x\" };",
    );
    assert!(attribute.contains("`owner`"), "{attribute}");
    let action = one_problem("@id(\"a\") permit (principal, action == Action::\"task-reed\", resource);");
    assert!(action.contains("task-reed"), "{action}");
    // An attribute that may be absent has to be asked for first.
    let unsafe_access = one_problem(
        "@id(\"absent\") permit (principal, action == Action::\"task-read\", resource) when { principal.department == \"x\" };",
    );
    assert!(unsafe_access.contains("department"), "{unsafe_access}");
}

#[test]
fn a_rule_without_an_id_of_its_own_is_refused() {
    let rule = "permit (principal in Role::\"auditor\", action == Action::\"task-search\", resource);";
    assert!(one_problem(rule).starts_with("zz-own.cedar:1: a rule has no `@id("));
    assert!(one_problem(&format!("@id(\"Grantee Fetches\") {rule}")).contains("is not 1 to 64"));
    assert_eq!(
        one_problem(&format!("@id(\"grantee-fetches\") {rule}")),
        "zz-own.cedar:1: rule `grantee-fetches`: the id is there twice"
    );
}

#[test]
fn all_problems_are_named_at_once_those_of_the_workflow_file_too() {
    let mut source = with("@id(\"a\") permit (principal, action == Action::\"nowhere\", resource);");
    source.workflows = "[default]\nmax_uses = 0\nno_such = 1\n".to_owned();
    let found = RuleSet::compile(&source).unwrap_err();
    // Rules are held to the schema once everything can be read.
    let text = found.to_string();
    assert!(text.contains("workflow.toml:2: `default.max_uses`"), "{text}");
    assert!(text.contains("workflow.toml:3: `default.no_such`"), "{text}");
}

#[test]
fn a_rule_that_can_never_apply_is_refused_or_found() {
    // The validator sees this one by itself.
    let never = "@id(\"never\") permit (principal, action == Action::\"task-read\", resource is Document);";
    assert!(one_problem(never).contains("rule `never`"));
    // This one only asking shows.
    let rules = compiled(
        "@id(\"contradiction\") permit (principal, action == Action::\"document-read\", resource)\n\
         when { resource has class && resource.class == \"imaging\" && resource.class == \"consent\" };",
    );
    let found: Vec<String> = review(&rules).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("zz-own.cedar:1: rule `contradiction`: was found to apply in no situation"));
}

#[test]
fn a_rule_that_others_always_overrule_and_one_said_twice_are_found() {
    let rules = compiled(
        "@id(\"imaging-is-closed\") forbid (principal, action == Action::\"binary-fetch\", resource)\n\
         when { resource has class && resource.class == \"imaging\" };\n\
         @id(\"team-fetches-imaging\") permit (principal in Role::\"team-member\", action == Action::\"binary-fetch\", resource)\n\
         when { resource has class && resource.class == \"imaging\" && context.relation.grantee };\n\
         @id(\"auditor-again\") permit (principal in Role::\"auditor\", action == Action::\"audit-read\", resource);",
    );
    let found: Vec<String> = review(&rules).iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "zz-own.cedar:3: rule `team-fetches-imaging`: is contradicted wherever it was found to apply, by `imaging-is-closed`",
            "zz-own.cedar:5: rule `auditor-again`: says the same as `auditor-reads-the-audit`",
        ]
    );
}

#[test]
fn a_rule_that_cannot_be_evaluated_denies_even_where_it_would_only_forbid() {
    let rules = compiled(
        "@id(\"overflows\") forbid (principal, action == Action::\"binary-fetch\", resource)\n\
         when { context has sessionAge && context.sessionAge * 9223372036854775807 > 5 };",
    );
    let fresh = grantee(|s| s.caller.session_age = Some(0));
    assert_eq!(
        decided(&rules, &fresh),
        (true, vec!["grantee-fetches".to_owned()])
    );
    let old = grantee(|s| s.caller.session_age = Some(10));
    let decision = old.decide(&rules).unwrap();
    assert!(!decision.allowed && decision.failed);
    assert_eq!(decided(&rules, &old).1, ["overflows"]);
}

#[test]
fn rules_may_ask_about_everything_that_the_schema_names() {
    let rules = compiled(
        r#"
@id("restricted-by-department")
forbid (principal, action == Action::"binary-fetch", resource)
when { resource.labels.contains("R") }
unless { principal has department && principal.department == "psychiatry" };

@id("only-in-house")
forbid (principal, action == Action::"binary-fetch", resource)
when { context has address && !context.address.isInRange(ip("10.0.0.0/8")) && !context.client.trusted };

@id("sign-in-again-after-an-hour")
forbid (principal, action == Action::"binary-fetch", resource)
when { context has sessionAge && context.sessionAge > 3600 };

@id("for-treatment")
forbid (principal, action == Action::"binary-fetch", resource)
when { context has purposeOfUse && context.purposeOfUse == "HMARKT" };

@id("not-by-night")
forbid (principal in Team::"day-clinic", action == Action::"binary-fetch", resource)
when { context.now.toTime() < duration("6h") };

@id("stat-first")
forbid (principal, action == Action::"binary-fetch", resource)
when { context has task && context.task.codes.contains("embargo") && context.task.priority != "stat" };
"#,
    );
    let by = |change: fn(&mut Situation)| decided(&rules, &grantee(change));
    assert_eq!(review(&rules), []);
    assert_eq!(by(|_| {}), (true, vec!["grantee-fetches".to_owned()]));
    let denied = |rule: &str| (false, vec![rule.to_owned()]);
    assert_eq!(
        by(|s| s.document.labels = vec!["R".to_owned()]),
        denied("restricted-by-department")
    );
    assert!(
        by(|s| {
            s.document.labels = vec!["R".to_owned()];
            s.caller.department = Some("psychiatry".to_owned());
        })
        .0
    );
    assert_eq!(
        by(|s| s.address = Some([192, 0, 2, 7].into())),
        denied("only-in-house")
    );
    assert!(by(|s| s.address = Some([10, 1, 2, 3].into())).0);
    assert!(
        by(|s| {
            s.address = Some([192, 0, 2, 7].into());
            s.caller.trusted_client = true;
        })
        .0
    );
    // An IPv4 address that came over an IPv6 socket is what it is.
    assert!(by(|s| s.address = Some("::ffff:10.1.2.3".parse().unwrap())).0);
    assert_eq!(
        by(|s| s.caller.session_age = Some(3601)),
        denied("sign-in-again-after-an-hour")
    );
    assert_eq!(
        by(|s| s.caller.purpose_of_use = Some("HMARKT".to_owned())),
        denied("for-treatment")
    );
    assert_eq!(
        by(|s| {
            s.caller.teams = vec!["day-clinic".to_owned()];
            s.at = "2026-01-07T05:59:59Z".to_owned();
        }),
        denied("not-by-night")
    );
    assert_eq!(
        by(|s| s.task.codes = vec!["embargo".to_owned()]),
        denied("stat-first")
    );
}

#[test]
fn an_explanation_names_what_is_missing_and_what_forbids() {
    let rules = compiled(
        "@id(\"restricted-by-department\") forbid (principal, action == Action::\"binary-fetch\", resource)\n\
         when { resource.labels.contains(\"R\") } unless { principal has department && principal.department == \"psychiatry\" };",
    );
    let without_grant = explain(&rules, &grantee(|s| s.relation.clear())).unwrap();
    assert!(!without_grant.decision.allowed);
    assert_eq!(without_grant.deciding, []);
    assert_eq!(without_grant.would_allow, ["the caller held the grant"]);
    assert_eq!(without_grant.not_given, ["department"]);
    let restricted = explain(
        &rules,
        &grantee(|s| {
            s.document = AboutDocument {
                labels: vec!["R".to_owned()],
                ..AboutDocument::default()
            };
        }),
    )
    .unwrap();
    assert_eq!(
        restricted.deciding,
        [(
            "restricted-by-department".to_owned(),
            "zz-own.cedar".to_owned(),
            1
        )]
    );
    assert!(
        restricted
            .would_allow
            .contains(&"the caller's department were `psychiatry`".to_owned()),
        "{restricted:?}"
    );
    let nobody = explain(
        &rules,
        &grantee(|s| {
            s.relation.clear();
            s.caller.roles.clear();
        }),
    )
    .unwrap();
    assert_eq!(
        nobody.would_allow[0],
        "the caller had the role `document-viewer`, and the caller held the grant"
    );
    let allowed = explain(&rules, &grantee(|_| {})).unwrap();
    assert!(allowed.decision.allowed && allowed.would_allow.is_empty());
    assert_eq!(allowed.deciding[0].0, "grantee-fetches");
}

#[test]
fn a_search_is_told_whether_rules_ask_more_than_how_the_caller_stands() {
    let shipped = RuleSet::shipped().unwrap();
    assert!(!shipped.looks_at_object(Action::TaskRead));
    assert!(!shipped.looks_at_object(Action::DocumentRead));
    let by_label = compiled(
        "@id(\"hide\") forbid (principal, action in Action::\"metadata\", resource is Document) when { resource.labels.contains(\"V\") };",
    );
    assert!(by_label.looks_at_object(Action::DocumentRead));
    assert!(!by_label.looks_at_object(Action::TaskRead));
    let by_relation = compiled(
        "@id(\"hide\") forbid (principal, action == Action::\"task-read\", resource) when { context.relation.recipient };",
    );
    assert!(by_relation.looks_at_object(Action::TaskRead));
    let by_id = compiled(
        "@id(\"hide\") forbid (principal, action == Action::\"task-read\", resource == Task::\"7\");",
    );
    assert!(by_id.looks_at_object(Action::TaskRead));
    let as_such = compiled(
        "@id(\"hide\") forbid (principal, action == Action::\"task-read\", resource) when { resource == Task::\"7\" };",
    );
    assert!(as_such.looks_at_object(Action::TaskRead));
}

#[test]
fn attributes_are_built_in_whatever_form_a_rule_asks_for_them() {
    let forms = [
        "context has client.id && !context.client.trusted",
        "context.client == {id: \"an-app\", trusted: false}",
        "[{id: \"an-app\", trusted: false}].contains(context.client)",
        "context has task.status && context.task.codes.contains(\"embargo\")",
        "context[\"client\"][\"id\"] == \"an-app\"",
        "if context.relation.grantee then context.client.id like \"an-*\" else false",
        "context.relation == {creator: false, requester: false, owner: false, formerOwner: false, recipient: false, \
         team: false, grantee: true, throughTask: false}",
        "principal == User::\"Practitioner/somebody\"",
    ];
    for form in forms {
        let rule = format!(
            "@id(\"no\") forbid (principal, action == Action::\"binary-fetch\", resource) when {{ {form} }};"
        );
        let asked = grantee(|s| s.task.codes = vec!["embargo".to_owned()]);
        assert_eq!(
            decided(&compiled(&rule), &asked),
            (false, vec!["no".to_owned()]),
            "{form}"
        );
    }
}

#[test]
fn a_search_is_held_to_rules_that_permit_less_for_more_relations() {
    let with_condition = |condition: &str| {
        compiled(&format!(
            "@id(\"own\") permit (principal in Role::\"auditor\", action == Action::\"task-read\", resource) {condition};"
        ))
        .looks_at_object(Action::TaskRead)
    };
    assert!(!with_condition(""));
    assert!(!with_condition(
        "when { context.relation.owner || (context.relation.team && context.client.trusted) }"
    ));
    assert!(with_condition("unless { context.relation.owner }"));
    assert!(with_condition("when { !context.relation.owner }"));
    assert!(with_condition("when { context.relation.owner == false }"));
    assert!(with_condition(
        "when { if context.relation.owner then false else true }"
    ));
    assert!(with_condition(
        "when { context.relation.team } unless { context.relation.formerOwner && true }"
    ));
}

#[test]
fn what_is_nested_too_deep_is_refused_and_does_no_harm() {
    let chain = |terms: usize| {
        let terms: Vec<String> = (0..terms)
            .map(|n| format!("principal == User::\"Practitioner/{n}\""))
            .collect();
        format!(
            "@id(\"list\") permit (principal, action == Action::\"task-search\", resource) when {{ {} }};",
            terms.join(" || ")
        )
    };
    assert!(one_problem(&chain(60)).contains("nested too deep"));
    assert!(one_problem(&chain(2_500)).contains("a rule is longer than 8192 bytes"));
    // This long they are held to the schema, and decide.
    let rules = compiled(&chain(30));
    let mut asked = Situation::about(Action::TaskSearch);
    asked.caller.actor = "Practitioner/29".to_owned();
    assert_eq!(decided(&rules, &asked), (true, vec!["list".to_owned()]));
    assert!(one_problem(&chain(30).replace("Practitioner/29\"", "x\".no")).contains("zz-own.cedar"));
    for (open, close) in [("(", ")"), ("[", "]"), ("{a: ", "}"), ("!(", ")")] {
        let nested = format!("{}true{}", open.repeat(1_000), close.repeat(1_000));
        let rule = format!("@id(\"n\") permit (principal, action, resource) when {{ {nested} }};");
        assert!(
            one_problem(&rule).contains("brackets are nested more than 50 deep"),
            "{open}"
        );
    }
    // As long and as deep as can be without brackets.
    for chain in [".a", "+1", " == 1", "[\"a\"]", " has a.a"] {
        let body = format!("context{}", chain.repeat(7_000 / chain.len()));
        let rule = format!("@id(\"n\") permit (principal, action, resource) when {{ {body} }};");
        assert!(!problems(&rule).is_empty(), "{chain}");
    }
    let branches = "if true then true else ".repeat(340);
    let rule = format!("@id(\"n\") permit (principal, action, resource) when {{ {branches} true }};");
    assert!(!problems(&rule).is_empty());
}

#[test]
fn legitimate_rules_are_not_called_impossible() {
    let rules = compiled(
        r#"
@id("no-double-role") forbid (principal in Role::"placer", action == Action::"binary-fetch", resource)
when { principal in Role::"fulfiller" };
@id("one-person") forbid (principal == User::"Practitioner/7", action == Action::"binary-fetch", resource);
@id("both-labels") forbid (principal, action == Action::"binary-fetch", resource)
when { resource.labels.contains("R") && resource.labels.contains("PSY") };
@id("both-relations") forbid (principal, action == Action::"task-read", resource)
when { context.relation.team && context.relation.recipient && !context.relation.owner };
@id("an-error") forbid (principal, action == Action::"document-read", resource)
when { resource has status && resource.status == "entered-in-error" };
@id("four") forbid (principal, action == Action::"binary-fetch", resource)
when {
  resource has class && resource.class == "imaging" && resource.labels.contains("R") &&
  context.client.id == "kiosk" && principal has department && principal.department == "icu"
};
@id("tenant-b") forbid (principal, action == Action::"task-create", resource) when { resource.tenant == "b" };
@id("ward") permit (principal, action == Action::"task-search", resource)
when { principal has department && principal.department == "ICU病棟" };
"#,
    );
    let certain: Vec<String> = review(&rules)
        .iter()
        .filter(|found| found.certain)
        .map(ToString::to_string)
        .collect();
    assert_eq!(certain, [""; 0]);
    let like = compiled(
        "@id(\"kiosks\") forbid (principal, action == Action::\"binary-fetch\", resource) when { context.client.id like \"kiosk-*\" };",
    );
    let found = review(&like);
    assert!(found.iter().all(|found| !found.certain), "{found:?}");
}

#[test]
fn what_is_remembered_of_a_decision_is_the_decision() {
    let own = compiled(
        "@id(\"clients-do-not-search\") forbid (principal is Client, action == Action::\"task-search\", resource);\n\
         @id(\"b-is-closed\") forbid (principal, action == Action::\"task-create\", resource) when { resource.tenant == \"b\" };\n\
         @id(\"only-one\") forbid (principal == User::\"Practitioner/7\", action == Action::\"task-read\", resource);",
    );
    for rules in [&RuleSet::shipped().unwrap(), &own] {
        for round in 0..2 {
            for action in Action::ALL {
                for (actor, subject) in [
                    ("Practitioner/7", None),
                    ("Practitioner/8", None),
                    ("Device/x", None),
                    ("Device/x", Some("x".to_owned())),
                ] {
                    for (role, relation, tenant) in [
                        ("placer", "creator", "default"),
                        ("placer", "creator", "b"),
                        ("fulfiller", "owner", "default"),
                        ("auditor", "team", "default"),
                        ("operator", "grantee", "b"),
                    ] {
                        let mut situation = Situation::about(action);
                        situation.caller.actor = actor.to_owned();
                        situation.caller.subject.clone_from(&subject);
                        situation.caller.roles = vec![role.to_owned()];
                        situation.caller.tenant = tenant.to_owned();
                        situation.tenant = tenant.to_owned();
                        situation.relation = vec![relation.to_owned()];
                        let worked_out = explain(rules, &situation).unwrap().decision;
                        assert_eq!(
                            situation.decide(rules).unwrap(),
                            worked_out,
                            "{round} {situation:?}"
                        );
                    }
                }
            }
        }
    }
}
