//! Rules and cases as files: what a directory holds, what the cases come to, and that the README says what is so.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use handoff_domain::access::Policy as _;
use handoff_policies::{
    Cases, Place, RuleSet, SHIPPED_RETENTION, SHIPPED_WORKFLOWS, Situation, Source, review, run_case,
};

use super::{compiled, decided, grantee, one_problem};

#[test]
fn every_shipped_case_comes_out_as_written() {
    let rules = RuleSet::shipped().unwrap();
    let cases = Cases::shipped();
    assert_eq!(cases.unread, []);
    assert!(cases.cases.len() > 30);
    for case in &cases.cases {
        run_case(&rules, case).unwrap();
    }
}

#[test]
fn the_shipped_cases_are_all_that_are_there() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let read = Cases::read(&directory);
    assert_eq!(read.unread, []);
    let whys = |cases: &Cases| -> BTreeSet<String> {
        cases.cases.iter().map(|case| case.why().to_owned()).collect()
    };
    assert_eq!(whys(&read), whys(&Cases::shipped()));
}

#[test]
fn every_shipped_rule_that_allows_is_what_some_case_is_about() {
    let rules = RuleSet::shipped().unwrap();
    let mut missing: BTreeSet<String> = BTreeSet::new();
    for (_, text) in Source::shipped().rules {
        missing.extend(
            text.lines()
                .filter_map(|line| Some(line.strip_prefix("@id(\"")?.strip_suffix("\")")?.to_owned())),
        );
    }
    for case in Cases::shipped().cases {
        for rule in case.question().decide(&rules).unwrap().rules {
            missing.remove(&*rule);
        }
    }
    assert_eq!(missing, BTreeSet::new());
}

#[test]
fn a_case_that_comes_out_otherwise_says_by_which_rule() {
    let rules = compiled("@id(\"closed\") forbid (principal, action == Action::\"binary-fetch\", resource);");
    let failures: Vec<String> = Cases::shipped()
        .cases
        .iter()
        .filter(|case| case.file == "ALLOW/workers.toml")
        .filter_map(|case| Some(run_case(&rules, case).err()?.to_string()))
        .take(1)
        .collect();
    assert_eq!(
        failures,
        [
            "ALLOW/workers.toml: denied by `closed`; must be allowed: A physician fetches the document that she holds a grant for."
        ]
    );
}

#[test]
fn a_directory_is_read_whole_and_its_digest_is_that_of_its_text() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place {
        directory: Some(folder.path().to_owned()),
        ..Place::default()
    };
    let error = place.read().unwrap_err().to_string();
    assert!(error.ends_with("holds no file that ends in `.cedar`"), "{error}");
    for (name, text) in Source::shipped().rules {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let error = place.read().unwrap_err().to_string();
    assert!(
        error.contains("workflow.toml") && error.contains("can't be read"),
        "{error}"
    );
    fs::write(folder.path().join("workflow.toml"), SHIPPED_WORKFLOWS).unwrap();
    fs::write(folder.path().join(".hidden.cedar"), "not read").unwrap();
    // Without a word on retention everything is kept.
    let kept = place.read().unwrap();
    assert_eq!(kept.retention, None);
    assert!(!RuleSet::compile(&kept).unwrap().schedules().dispose());
    fs::write(folder.path().join("retention.toml"), SHIPPED_RETENTION).unwrap();
    assert_eq!(place.read().unwrap(), Source::shipped());
    assert_ne!(kept.digest(), Source::shipped().digest());
    assert_eq!(
        RuleSet::compile(&place.read().unwrap()).unwrap().version(),
        RuleSet::shipped().unwrap().version()
    );
    fs::write(folder.path().join("workflow.toml"), "[default]\nmax_uses = 2\n").unwrap();
    let changed = RuleSet::compile(&place.read().unwrap()).unwrap();
    assert_eq!(changed.workflows().default.max_uses, 2);
    assert_ne!(changed.version(), RuleSet::shipped().unwrap().version());
    fs::write(folder.path().join("big.cedar"), vec![b' '; (256 << 10) + 1]).unwrap();
    assert!(place.read().unwrap_err().to_string().contains("is larger than"));
}

#[test]
fn what_is_no_file_is_not_waited_for_and_a_file_without_rules_is_none() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("rules.cedar")).unwrap();
    let error = Source::read(folder.path()).unwrap_err().to_string();
    assert!(error.ends_with("it is no file"), "{error}");
    assert_eq!(
        one_problem("// nothing yet\n"),
        "zz-own.cedar: there is no rule in it"
    );
    assert_eq!(one_problem(""), "zz-own.cedar: there is no rule in it");
}

#[test]
fn the_rules_and_the_case_of_the_readme_are_what_it_says() {
    let readme = include_str!("../../README.md");
    let block = |language: &str| {
        let (_, rest) = readme.split_once(&format!("```{language}\n")).unwrap();
        let (block, _) = rest.split_once("```").unwrap();
        block.lines().map(str::trim_start).collect::<Vec<_>>().join("\n")
    };
    let folder = tempfile::tempdir().unwrap();
    for name in ["ALLOW", "DENY"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("ALLOW/own.toml"), block("toml")).unwrap();
    let rules = compiled(&block("cedar"));
    let cases = Cases::read(folder.path());
    assert_eq!((cases.unread.len(), cases.cases.len()), (0, 1));
    run_case(&rules, &cases.cases[0]).unwrap();
    // And absent gives no leave.
    let without = |change: fn(&mut Situation)| {
        let mut question = cases.cases[0].question().clone();
        change(&mut question);
        decided(&rules, &question)
    };
    assert_eq!(
        without(|s| s.caller.session_age = None),
        (false, vec!["sign-in-again-after-an-hour".to_owned()])
    );
    assert_eq!(
        without(|s| s.caller.department = None),
        (false, vec!["restricted-is-for-psychiatry".to_owned()])
    );
}

#[test]
fn what_the_readme_forbids_in_an_emergency_is_forbidden() {
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once("## Emergency access\n").unwrap();
    let block = |language: &str| {
        let (_, rest) = section.split_once(&format!("```{language}\n")).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    let folder = tempfile::tempdir().unwrap();
    for name in ["ALLOW", "DENY"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("DENY/own.toml"), block("toml")).unwrap();
    let rules = compiled(&block("cedar"));
    assert_eq!(review(&rules), []);
    let cases = Cases::read(folder.path());
    assert_eq!((cases.unread.len(), cases.cases.len()), (0, 1));
    run_case(&rules, &cases.cases[0]).unwrap();
    // Any other document is opened still.
    let mut question = cases.cases[0].question().clone();
    question.document.labels = vec!["R".to_owned()];
    assert_eq!(
        decided(&rules, &question),
        (true, vec!["person-breaks-the-glass".to_owned()])
    );
    // And a rule about content that is to give way in an emergency does.
    let (_, rest) = section.split_once("`unless {").unwrap();
    let unless = format!("unless {{{}", rest.split_once('`').unwrap().0);
    let rules = compiled(&format!(
        "@id(\"own\") forbid (principal, action in Action::\"payload\", resource)
        when {{ resource.labels.contains(\"R\") }} {unless};"
    ));
    let mut question = grantee(|s| s.document.labels = vec!["R".to_owned()]);
    assert!(!decided(&rules, &question).0);
    question.break_glass = true;
    assert!(decided(&rules, &question).0);
}

#[test]
fn an_empty_workflow_file_is_none_and_a_mark_at_the_beginning_does_no_harm() {
    let mut source = Source::shipped();
    for empty in ["", " \n", "# all of it is commented out\n"] {
        source.workflows = empty.to_owned();
        let error = RuleSet::compile(&source).unwrap_err().to_string();
        assert_eq!(error, "workflow.toml: there is nothing in it");
    }
    let mut source = Source::shipped();
    source.retention = Some("# all of it is commented out\n".to_owned());
    let error = RuleSet::compile(&source).unwrap_err().to_string();
    assert_eq!(error, "retention.toml: there is nothing in it");
    source.retention = Some("[default]\nkeep = 3\n".to_owned());
    let error = RuleSet::compile(&source).unwrap_err().to_string();
    assert!(error.starts_with("retention.toml:2: `default.keep`"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in Source::shipped().rules {
        fs::write(folder.path().join(name), format!("\u{feff}{text}")).unwrap();
    }
    fs::write(
        folder.path().join("workflow.toml"),
        format!("\u{feff}{SHIPPED_WORKFLOWS}"),
    )
    .unwrap();
    fs::write(folder.path().join("retention.toml"), SHIPPED_RETENTION).unwrap();
    assert_eq!(Source::read(folder.path()).unwrap(), Source::shipped());
}
