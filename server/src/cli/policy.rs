//! `handoff policy check`, `test` and `explain`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use handoff_domain::access::{Action, Policy as _, Role};
use handoff_domain::ids::ActorRef;
use handoff_domain::task::TaskStatus;
use handoff_domain::time::Timestamp;
use handoff_policies::{
    AboutDocument, AboutTask, Asker, Cases, Explanation, Place, RuleSet, Situation, explain, relation_names,
    review, run_case,
};

use super::{ConfigFile, Failed, say};
use crate::config::compile_rules;

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Name everything wrong with the rules and the workflow file, or say that nothing is
    #[command(
        after_help = "Examples:\n  handoff policy check\n  handoff policy check --policies /etc/handoff/policies"
    )]
    Check(Where),
    /// Ask every case of `cases/ALLOW` and `cases/DENY`, and name those that come out otherwise
    #[command(
        after_help = "Examples:\n  handoff policy test\n  handoff policy test --policies /etc/handoff/policies"
    )]
    Test(Where),
    /// Say what the rules answer to one question, by which rules, and what is missing
    #[command(
        after_help = "Examples:\n  handoff policy explain --action binary-fetch --role fulfiller\n  \
                      handoff policy explain --action binary-fetch --role fulfiller --relation grantee --label R"
    )]
    Explain(Box<Question>),
}

/// Where the rules are: those that ship with the server, unless said otherwise.
#[derive(Debug, Args)]
pub(super) struct Where {
    /// A directory with `*.cedar`, `workflow.toml`, maybe `retention.toml`, and the cases under `cases/`
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    policies: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
}

impl Where {
    fn place(&self) -> Result<Place, Failed> {
        if let Some(directory) = &self.policies {
            return Ok(Place {
                directory: Some(directory.clone()),
                ..Place::default()
            });
        }
        if self.config.is_named() {
            return Ok(self.config.load()?.policies);
        }
        // As the server would have it from the environment alone.
        let named = |key: &str| std::env::var_os(key).map(PathBuf::from);
        Ok(Place {
            directory: named("HANDOFF__POLICIES__DIRECTORY"),
            workflow: named("HANDOFF__POLICIES__WORKFLOW"),
            retention: named("HANDOFF__POLICIES__RETENTION"),
        })
    }
}

/// One question. What is not said is absent, or as it mostly is.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Question {
    #[command(flatten)]
    rules: Where,
    /// What is asked for: `task-read`, `binary-fetch`, …
    #[arg(long, value_parser = PossibleValuesParser::new(Action::ALL.map(Action::as_str)))]
    action: String,
    /// A canonical role of the caller
    #[arg(long, value_name = "ROLE", value_parser = PossibleValuesParser::new(Role::ALL.map(Role::as_str)))]
    role: Vec<String>,
    /// How the caller stands to the thing: `creator`, `requester`, `owner`, `formerOwner`, `recipient`, `team`,
    /// `grantee`, `throughTask`
    #[arg(long, value_name = "RELATION", value_parser = PossibleValuesParser::new(relation_names()))]
    relation: Vec<String>,
    /// A team of the caller
    #[arg(long, value_name = "CODE")]
    team: Vec<String>,
    /// The caller as a FHIR reference
    #[arg(long, value_name = "REFERENCE", value_parser = reference, default_value_t = Asker::default().actor)]
    actor: String,
    /// The OAuth client
    #[arg(long, value_name = "ID", default_value_t = Asker::default().client)]
    client: String,
    /// The issuer's configuration lists the client as trusted
    #[arg(long)]
    trusted_client: bool,
    /// Who acts for the caller
    #[arg(long, value_name = "ID")]
    delegate: Option<String>,
    /// The caller's department
    #[arg(long, value_name = "NAME")]
    department: Option<String>,
    /// The caller's location
    #[arg(long, value_name = "NAME")]
    location: Option<String>,
    /// What for: `TREAT`, `ETREAT`, …
    #[arg(long, value_name = "CODE")]
    purpose_of_use: Option<String>,
    /// Seconds since the person signed in
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(0..))]
    session_age: Option<i64>,
    /// Where the request comes from
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// When, as `2026-01-07T12:00:00Z`
    #[arg(long, value_name = "INSTANT", value_parser = instant)]
    at: Option<String>,
    /// A code of the Task
    #[arg(long, value_name = "CODE")]
    task_code: Vec<String>,
    /// The Task's status
    #[arg(long, value_name = "CODE", value_parser = PossibleValuesParser::new(TaskStatus::ALL.map(TaskStatus::as_str)), default_value_t = AboutTask::default().status)]
    task_status: String,
    /// A team that the Task is for
    #[arg(long, value_name = "CODE")]
    task_team: Vec<String>,
    /// The document's class
    #[arg(long, value_name = "CODE")]
    class: Option<String>,
    /// A security label of the document
    #[arg(long, value_name = "CODE")]
    label: Vec<String>,
    /// The Task's workflow approves the caller as an automated step
    #[arg(long)]
    approved_step: bool,
    /// The server made the Task because its owner broke the glass
    #[arg(long)]
    break_glass: bool,
    /// A source told that the Task's encounter is over
    #[arg(long)]
    encounter_over: bool,
}

/// A reference to somebody who can act.
fn reference(text: &str) -> Result<String, String> {
    match ActorRef::parse(text) {
        Ok(actor) => Ok(actor.as_str().to_owned()),
        Err(_) => Err("write a reference like `Practitioner/7` or `Device/archive`".to_owned()),
    }
}

fn instant(text: &str) -> Result<String, String> {
    match Timestamp::parse_instant(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("write an instant like `2026-01-07T12:00:00Z`".to_owned()),
    }
}

impl Question {
    fn situation(&self) -> Situation {
        let plain = Situation::default();
        Situation {
            action: self.action.clone(),
            relation: self.relation.clone(),
            caller: Asker {
                actor: self.actor.clone(),
                roles: self.role.clone(),
                teams: self.team.clone(),
                client: self.client.clone(),
                trusted_client: self.trusted_client,
                delegate: self.delegate.clone(),
                department: self.department.clone(),
                location: self.location.clone(),
                purpose_of_use: self.purpose_of_use.clone(),
                session_age: self.session_age,
                ..Asker::default()
            },
            task: AboutTask {
                codes: self.task_code.clone(),
                status: self.task_status.clone(),
                teams: self.task_team.clone(),
                ..AboutTask::default()
            },
            document: AboutDocument {
                class: self.class.clone(),
                labels: self.label.clone(),
                ..AboutDocument::default()
            },
            address: self.address,
            at: self.at.clone().unwrap_or_else(|| plain.at.clone()),
            approved_step: self.approved_step,
            break_glass: self.break_glass,
            encounter_over: self.encounter_over,
            ..plain
        }
    }
}

pub(super) fn run(command: &PolicyCommand) -> Result<(), Failed> {
    match command {
        PolicyCommand::Check(place) => check(&place.place()?),
        PolicyCommand::Test(place) => test(&place.place()?),
        PolicyCommand::Explain(question) => tell(question),
    }
}

fn compile(place: &Place) -> Result<RuleSet, Failed> {
    let source = place.read()?;
    compile_rules(&source).map_err(|error| Failed(format!("{}:\n{error}", problems(error.0.len()))))
}

fn problems(number: usize) -> String {
    let many = if number == 1 { "problem" } else { "problems" };
    format!("the rules have {number} {many}")
}

/// What was looked at.
fn named(place: &Place) -> String {
    match &place.directory {
        Some(directory) => format!("`{}`", directory.display()),
        None => "the rules that ship with the server".to_owned(),
    }
}

fn check(place: &Place) -> Result<(), Failed> {
    let rules = compile(place)?;
    let (certain, notes): (Vec<_>, Vec<_>) = review(&rules).into_iter().partition(|found| found.certain);
    for note in &notes {
        say(&format!("look at this: {note}"))?;
    }
    if !certain.is_empty() {
        let lines: Vec<String> = certain.iter().map(ToString::to_string).collect();
        return Err(Failed(format!(
            "{}:\n{}",
            problems(lines.len()),
            lines.join("\n")
        )));
    }
    let found = if notes.is_empty() {
        "no problems"
    } else {
        "no other problems"
    };
    say(&format!(
        "{}, {} rules and the workflow file: {found}",
        named(place),
        rules.len()
    ))?;
    say(&format!("digest {}", rules.version()))
}

fn test(place: &Place) -> Result<(), Failed> {
    let rules = compile(place)?;
    let cases = match &place.directory {
        Some(directory) => Cases::read(&directory.join("cases")),
        None => Cases::shipped(),
    };
    let failed: Vec<String> = cases
        .unread
        .iter()
        .map(ToString::to_string)
        .chain(
            cases
                .cases
                .iter()
                .filter_map(|case| Some(run_case(&rules, case).err()?.to_string())),
        )
        .collect();
    if !failed.is_empty() {
        let text = format!(
            "{} of the cases did not come out as written:\n{}",
            failed.len(),
            failed.join("\n")
        );
        return Err(Failed(text));
    }
    if cases.cases.is_empty() {
        return Err(Failed("there are no cases".to_owned()));
    }
    say(&format!(
        "{}: {} cases came out as written",
        named(place),
        cases.cases.len()
    ))
}

fn tell(question: &Question) -> Result<(), Failed> {
    let rules = compile(&question.rules.place()?)?;
    let explanation = explain(&rules, &question.situation())?;
    say(&in_words(&question.action, &explanation))?;
    say(&format!("rules {}", rules.version()))
}

fn in_words(action: &str, explanation: &Explanation) -> String {
    let decision = &explanation.decision;
    let mut lines = vec![format!(
        "{} {action}",
        if decision.allowed { "ALLOW" } else { "DENY" }
    )];
    let by = match (decision.allowed, decision.failed) {
        (true, _) => "allowed by",
        (false, true) => "denied, because it could not be evaluated:",
        (false, false) => "forbidden by",
    };
    for (id, file, line) in &explanation.deciding {
        lines.push(format!("  {by} `{id}` ({file}:{line})"));
    }
    if decision.rules.is_empty() {
        lines.push("  no rule allows it".to_owned());
    }
    if decision.allowed && action == Action::BinaryFetch.as_str() {
        lines.push("  (a live grant and an actionable Task are asked for besides)".to_owned());
    }
    lines.extend(explanation.errors.iter().map(|error| format!("  {error}")));
    if !explanation.would_allow.is_empty() {
        lines.push("it would be allowed".to_owned());
        lines.extend(explanation.would_allow.iter().map(|what| format!("  if {what}")));
    }
    if !explanation.not_given.is_empty() {
        lines.push(format!(
            "rules also ask for what was not given: {}",
            explanation.not_given.join(", ")
        ));
    }
    lines.join("\n")
}
