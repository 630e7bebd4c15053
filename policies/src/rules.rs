//! A rule set in force: compiled from its text, held to the schema, and asked one question at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::thread;

use cedar_policy::{
    ActionConstraint, AuthorizationError, Authorizer, Decision as Verdict, Effect, Entities, Entity,
    EntityTypeName, EntityUid, Policy as CedarPolicy, PolicyId, PolicySet, ResourceConstraint, Schema,
    ValidationMode, ValidationWarning, Validator,
};
use handoff_domain::access::{AccessRequest, Action, Decision, Policy, RuleId};
use handoff_domain::retention::Schedules;
use handoff_domain::workflow::Workflows;
use miette::Diagnostic;
use serde_json::Value;
use thiserror::Error;

use crate::expression::{
    depth, is_monotone, mentions, mentions_of_resource, mentions_relation, within_limits,
};
use crate::facts::{Mentioned, Names, question};
use crate::memo::{Memo, is_memorable};
use crate::reading::FileProblem;
use crate::retention_file::parse_retention;
use crate::source::{RETENTION, SCHEMA, Source, WORKFLOWS};
use crate::workflow_file::parse_workflows;

/// The stack of the thread that compiles, in bytes. No more of it is taken than is used.
const STACK: usize = 256 << 20;
/// How deep a rule may be nested once it is read: a chain of operators is nested as deep as it is long.
const DEEPEST: usize = 80;

/// One thing wrong with a rule set, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyProblem {
    /// The file: `roles.cedar`.
    pub file: String,
    /// The line, from 1, where it can be told.
    pub line: Option<usize>,
    /// The id of the rule, where it can be told.
    pub rule: Option<String>,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(rule) = &self.rule {
            write!(f, ": rule `{rule}`")?;
        }
        write!(f, ": {}", self.text)
    }
}

/// Why a text is no rule set: every problem of it at once.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", list(.0))]
pub struct CompileError(pub Vec<PolicyProblem>);

fn list(problems: &[PolicyProblem]) -> String {
    let lines: Vec<String> = problems.iter().map(PolicyProblem::to_string).collect();
    lines.join("\n")
}

/// As a file looks that is being written.
fn says_nothing(text: &str) -> bool {
    text.lines()
        .all(|line| line.trim().is_empty() || line.trim().starts_with('#'))
}

/// One rule.
pub(crate) struct Rule {
    pub(crate) id: RuleId,
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) policy: CedarPolicy,
    /// The rule as JSON, without its annotations.
    pub(crate) json: Value,
}

/// The rules about one action.
pub(crate) struct Slice {
    pub(crate) set: PolicySet,
    pub(crate) entity: Entity,
    pub(crate) mentioned: Mentioned,
    /// What is remembered, where rules ask for so little that it can be.
    memo: Option<Memo>,
    looks_at_object: bool,
}

/// A rule set, fit to decide.
pub struct RuleSet {
    pub(crate) rules: Vec<Rule>,
    names: Names,
    by_action: BTreeMap<Action, Slice>,
    ids: BTreeMap<PolicyId, RuleId>,
    authorizer: Authorizer,
    workflows: Workflows,
    schedules: Schedules,
    version: String,
}

impl fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleSet")
            .field("version", &self.version)
            .field("rules", &self.rules.len())
            .finish_non_exhaustive()
    }
}

impl RuleSet {
    /// Compiles a rule set, or names every problem with it. Anything that the validator so much as warns of is one:
    /// a rule that can never apply is a mistake somewhere.
    pub fn compile(source: &Source) -> Result<Self, CompileError> {
        // Expressions are walked as deep as they are nested, by us and by Cedar.
        thread::scope(|scope| {
            thread::Builder::new()
                .name("handoff-rules".to_owned())
                .stack_size(STACK)
                .spawn_scoped(scope, || Self::compile_here(source))
                .map_err(internal)?
                .join()
                .unwrap_or_else(|_| Err(internal("the rules could not be compiled")))
        })
    }

    fn compile_here(source: &Source) -> Result<Self, CompileError> {
        let mut problems = Vec::new();
        let mut of_file = |file: &str, found: Vec<FileProblem>| {
            problems.extend(found.into_iter().map(|problem| PolicyProblem {
                file: file.to_owned(),
                line: Some(problem.line),
                rule: None,
                text: problem.described(),
            }));
        };
        let workflows = parse_workflows(&source.workflows).unwrap_or_else(|found| {
            of_file(WORKFLOWS, found);
            Workflows::default()
        });
        let retention = source.retention.as_deref();
        let schedules = retention.map_or_else(
            || Ok(Schedules::default()),
            |text| parse_retention(text).map_err(|found| of_file(RETENTION, found)),
        );
        for (file, text) in [
            (WORKFLOWS, Some(source.workflows.as_str())),
            (RETENTION, retention),
        ] {
            if text.is_some_and(says_nothing) {
                problems.push(PolicyProblem {
                    file: file.to_owned(),
                    line: None,
                    rule: None,
                    text: "there is nothing in it".to_owned(),
                });
            }
        }
        let rules = parse(source, &mut problems);
        let schema = schema()?;
        if problems.is_empty() {
            validate(&rules, &schema, &mut problems);
        }
        if !problems.is_empty() {
            problems.sort();
            return Err(CompileError(problems));
        }
        let names = Names::new().map_err(internal)?;
        let actions = schema.action_entities().map_err(internal)?;
        let mut by_action = BTreeMap::new();
        for action in Action::ALL {
            by_action.insert(action, slice(&rules, &names.action(action), &schema, &actions)?);
        }
        Ok(Self {
            names,
            by_action,
            ids: rules
                .iter()
                .map(|rule| (rule.policy.id().clone(), Arc::clone(&rule.id)))
                .collect(),
            authorizer: Authorizer::new(),
            workflows,
            schedules: schedules.unwrap_or_default(),
            version: source.digest().to_hex(),
            rules,
        })
    }

    /// The rules that ship with the server.
    pub fn shipped() -> Result<Self, CompileError> {
        Self::compile(&Source::shipped())
    }

    /// The workflows that belong to it.
    pub const fn workflows(&self) -> &Workflows {
        &self.workflows
    }

    /// How long documents are kept by it.
    pub const fn schedules(&self) -> &Schedules {
        &self.schedules
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules about an action.
    pub(crate) fn about(&self, action: Action) -> Option<&Slice> {
        self.by_action.get(&action)
    }

    /// The decision of some rules alone, and what of them could not be evaluated.
    pub(crate) fn decide_by(&self, set: &PolicySet, request: &AccessRequest<'_>) -> (Decision, Vec<String>) {
        let failed = |text: String| {
            let decision = Decision {
                allowed: false,
                rules: Vec::new(),
                failed: true,
            };
            (decision, vec![text])
        };
        let Some(slice) = self.about(request.action) else {
            return failed("there is no such action".to_owned());
        };
        let (asked, entities) = match question(&self.names, &slice.entity, &slice.mentioned, request) {
            Ok(question) => question,
            Err(error) => return failed(error.to_string()),
        };
        let response = self.authorizer.is_authorized(&asked, set, &entities);
        let diagnostics = response.diagnostics();
        // Cedar goes on without a rule that fails. Had it been one that forbids, that would let somebody in.
        let errors: Vec<String> = diagnostics.errors().map(ToString::to_string).collect();
        let erring = diagnostics.errors().map(|error| match error {
            AuthorizationError::PolicyEvaluationError(error) => error.policy_id(),
        });
        let mut rules: Vec<RuleId> = if errors.is_empty() {
            diagnostics
                .reason()
                .filter_map(|id| self.ids.get(id).cloned())
                .collect()
        } else {
            erring.filter_map(|id| self.ids.get(id).cloned()).collect()
        };
        rules.sort();
        let decision = Decision {
            allowed: errors.is_empty() && response.decision() == Verdict::Allow,
            rules,
            failed: !errors.is_empty(),
        };
        (decision, errors)
    }
}

impl Policy for RuleSet {
    fn decide(&self, request: &AccessRequest<'_>) -> Decision {
        let Some(slice) = self.about(request.action) else {
            return self.decide_by(&PolicySet::new(), request).0;
        };
        let work_out = || self.decide_by(&slice.set, request).0;
        match &slice.memo {
            Some(memo) => memo.decide(request, work_out),
            None => work_out(),
        }
    }

    fn looks_at_object(&self, action: Action) -> bool {
        self.about(action).is_none_or(|slice| slice.looks_at_object)
    }

    fn version(&self) -> &str {
        &self.version
    }
}

fn internal(error: impl fmt::Display) -> CompileError {
    CompileError(vec![PolicyProblem {
        file: "handoff.cedarschema".to_owned(),
        line: None,
        rule: None,
        text: error.to_string(),
    }])
}

fn schema() -> Result<Schema, CompileError> {
    Schema::from_cedarschema_str(SCHEMA)
        .map(|(schema, _)| schema)
        .map_err(internal)
}

/// The rules of all files, each under the id that its `@id` gives it.
fn parse(source: &Source, problems: &mut Vec<PolicyProblem>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut ids = BTreeSet::new();
    for (file, text) in &source.rules {
        let mut problem = |line, rule: Option<&str>, text: String| {
            problems.push(PolicyProblem {
                file: file.clone(),
                line,
                rule: rule.map(str::to_owned),
                text,
            });
        };
        // Before Cedar's parser, which goes as deep as the text does.
        if let Err(what) = within_limits(text) {
            problem(None, None, what);
            continue;
        }
        let set: PolicySet = match text.parse() {
            Ok(set) => set,
            Err(error) => {
                let errors: cedar_policy::ParseErrors = error;
                for error in errors.iter() {
                    problem(line_of_error(text, error), None, error.to_string());
                }
                continue;
            }
        };
        if set.templates().next().is_some() {
            problem(
                None,
                None,
                "templates (`?principal`, `?resource`) are not used here".to_owned(),
            );
        }
        // As a file looks that is being written, or was when the disk was full.
        if set.policies().next().is_none() {
            problem(None, None, "there is no rule in it".to_owned());
        }
        for policy in set.policies() {
            let source = policy.to_cedar().unwrap_or_default();
            let id = match policy.annotation("id") {
                Some(id) if is_id(id) => id.to_owned(),
                Some(id) => {
                    problem(
                        None,
                        None,
                        format!("the id {} is not 1 to 64 of `a-z`, `0-9` and `-`", shown(id)),
                    );
                    continue;
                }
                None => {
                    let first = source.lines().next().unwrap_or_default();
                    problem(
                        line_of(text, first),
                        None,
                        format!("a rule has no `@id(\"…\")`: `{first}`"),
                    );
                    continue;
                }
            };
            let line = line_of(text, &format!("@id(\"{id}\")"));
            if !ids.insert(id.clone()) {
                problem(line, Some(&id), "the id is there twice".to_owned());
                continue;
            }
            let policy = policy.new_id(PolicyId::new(&id));
            let mut json = match policy.to_json() {
                Ok(json) if depth(&json) <= DEEPEST => json,
                Ok(_) => {
                    problem(
                        line,
                        Some(&id),
                        "it is nested too deep; use `in [..]` or `contains`".to_owned(),
                    );
                    continue;
                }
                Err(error) => {
                    problem(line, Some(&id), error.to_string());
                    continue;
                }
            };
            if let Some(object) = json.as_object_mut() {
                object.remove("annotations");
            }
            rules.push(Rule {
                id: id.into(),
                file: file.clone(),
                line: line.unwrap_or(1),
                policy,
                json,
            });
        }
    }
    rules
}

/// Somebody's text, cut and escaped.
fn shown(text: &str) -> String {
    let text: String = text.chars().take(64).flat_map(char::escape_default).collect();
    format!("`{text}`")
}

fn is_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn line_of(text: &str, wanted: &str) -> Option<usize> {
    text.lines()
        .position(|line| line.contains(wanted))
        .map(|index| index.saturating_add(1))
}

fn line_of_error(text: &str, error: &dyn Diagnostic) -> Option<usize> {
    let at = error.labels()?.next()?.offset();
    let before = text.as_bytes().get(..at)?;
    Some(before.split(|b| *b == b'\n').count())
}

fn validate(rules: &[Rule], schema: &Schema, problems: &mut Vec<PolicyProblem>) {
    let policies = rules.iter().map(|rule| rule.policy.clone());
    let set = match PolicySet::from_policies(policies) {
        Ok(set) => set,
        Err(error) => {
            problems.extend(internal(error).0);
            return;
        }
    };
    let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
    let errors: Vec<_> = result
        .validation_errors()
        .map(|error| (error.policy_id(), error.to_string()))
        .collect();
    // What is wrong with a rule can make it impossible too; that would be to say it twice.
    let warnings = result
        .validation_warnings()
        // Texts in several scripts are what some hospitals have.
        .filter(|warning| !matches!(warning, ValidationWarning::MixedScriptString(_)))
        .filter(|warning| !errors.iter().any(|(id, _)| *id == warning.policy_id()))
        .map(|warning| (warning.policy_id(), warning.to_string()));
    let mut found: Vec<_> = errors.iter().cloned().chain(warnings).collect();
    found.dedup_by(|later, first| later.0 == first.0);
    for (id, text) in found {
        let rule = rules.iter().find(|rule| rule.policy.id() == id);
        // It begins by naming the rule, which we do ourselves.
        let named = format!("for policy `{id}`, ");
        problems.push(PolicyProblem {
            file: rule.map(|r| r.file.clone()).unwrap_or_default(),
            line: rule.map(|r| r.line),
            rule: Some(id.to_string()),
            text: text.strip_prefix(&named).unwrap_or(&text).to_owned(),
        });
    }
}

/// The rules about one action: the others could never apply to it.
fn slice(
    rules: &[Rule],
    action: &EntityUid,
    schema: &Schema,
    actions: &Entities,
) -> Result<Slice, CompileError> {
    let about: Vec<&EntityTypeName> = schema
        .resources_for_action(action)
        .into_iter()
        .flatten()
        .collect();
    let groups: BTreeSet<EntityUid> = actions
        .ancestors(action)
        .map(|groups| groups.cloned().collect())
        .unwrap_or_default();
    let of_action: Vec<&Rule> = rules
        .iter()
        .filter(|rule| match rule.policy.action_constraint() {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(one) => one == *action,
            ActionConstraint::In(any) => any.iter().any(|one| one == action || groups.contains(one)),
        })
        .filter(|rule| match rule.policy.resource_constraint() {
            ResourceConstraint::Is(kind) | ResourceConstraint::IsIn(kind, _) => about.contains(&&kind),
            ResourceConstraint::Any | ResourceConstraint::In(_) | ResourceConstraint::Eq(_) => true,
        })
        .collect();
    let mut mentioned = Mentioned::new();
    let mut looks_at_object = false;
    for rule in &of_action {
        mentions(&rule.json, &mut mentioned);
        let mut asked = Mentioned::new();
        mentions_of_resource(&rule.json, &mut asked);
        asked.remove("tenant");
        let by_relation = match rule.policy.effect() {
            Effect::Forbid => mentions_relation(&rule.json),
            Effect::Permit => !is_monotone(&rule.json),
        };
        let named = matches!(
            rule.policy.resource_constraint(),
            ResourceConstraint::Eq(_) | ResourceConstraint::In(_) | ResourceConstraint::IsIn(..)
        );
        looks_at_object |= !asked.is_empty() || by_relation || named;
    }
    let policies = of_action.iter().map(|rule| rule.policy.clone());
    let groups = groups.into_iter().collect();
    let memorable = is_memorable(of_action.iter().map(|rule| &rule.json), &mentioned);
    Ok(Slice {
        memo: memorable.then(Memo::default),
        set: PolicySet::from_policies(policies).map_err(internal)?,
        entity: Entity::new_no_attrs(action.clone(), groups),
        mentioned,
        looks_at_object,
    })
}
