//! Reads `workflow.toml`. Strict: an unknown key, a status that FHIR does not have or a window out of range is a
//! problem with its line and key, and all problems are named at once. A file with any problem gives no rules.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use handoff_domain::ids::ActorRef;
use handoff_domain::task::TaskStatus;
use handoff_domain::time::Span;
use handoff_domain::workflow::{OnExpiry, Workflow, Workflows};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::reading::{FileProblem, Reader, Unit, is_class};

/// The keys that `[default]` and every `[[workflow]]` may have.
const RULE_KEYS: &[&str] = &[
    "actionable",
    "grant_window",
    "redemption_window",
    "max_uses",
    "self_reissue",
    "documents",
    "on_expiry",
    "reissue_at_most",
    "if_match",
    "releases",
    "approved_steps",
    "transitions",
];

/// The units that a window may be written in.
const WINDOWS: &[Unit] = &[Unit::Second, Unit::Minute, Unit::Hour];
const LEAST_WINDOW: Span = Span::seconds(1);
const LONGEST_WINDOW: Span = Span::hours(24);

/// The workflows that `text` describes, or every problem with it.
///
/// `[default]` changes the server's defaults; each `[[workflow]]` starts from `[default]` and applies to the Tasks
/// of its `code` (with `system`, where given; else of that code in any system).
pub fn parse_workflows(text: &str) -> Result<Workflows, Vec<FileProblem>> {
    Reader::read(text, Reader::workflows)
}

impl Reader<'_> {
    fn workflows(&mut self, root: &DeTable<'_>) -> Workflows {
        let mut workflows = Workflows::default();
        self.deny_unknown(root, "", &["default", "workflow"], &[]);
        if let Some(default) = root.get("default") {
            match default.get_ref().as_table() {
                Some(table) => workflows.default = self.rules(table, "default", &Workflow::default()),
                None => self.wrong_type(default, "default", "a table"),
            }
        }
        let Some(listed) = root.get("workflow") else {
            return workflows;
        };
        let Some(array) = listed.get_ref().as_array() else {
            self.wrong_type(listed, "workflow", "an array of tables, written `[[workflow]]`");
            return workflows;
        };
        for (i, item) in array.iter().enumerate() {
            let key = format!("workflow[{}]", i.saturating_add(1));
            let Some(table) = item.get_ref().as_table() else {
                self.wrong_type(item, &key, "a table");
                continue;
            };
            self.deny_unknown(table, &key, &["code", "system"], RULE_KEYS);
            let rules = self.rules(table, &key, &workflows.default);
            let Some(name) = self.name(item.span(), table, &key) else {
                continue;
            };
            if workflows.by_code.insert(name.clone(), rules).is_some() {
                self.problem(item.span(), &key, format!("`{name}` is listed twice"));
            }
        }
        workflows
    }

    /// `system|code`, or `code` where no system is named.
    fn name(&mut self, at: Range<usize>, table: &DeTable<'_>, key: &str) -> Option<String> {
        let system = self.word(table, key, "system");
        let Some(code) = self.word(table, key, "code") else {
            if !table.contains_key("code") {
                self.problem(at, key, "`code` is missing");
            }
            return None;
        };
        Some(system.map_or_else(|| code.clone(), |system| format!("{system}|{code}")))
    }

    /// A text without blanks and bars, which no code or system has.
    fn word(&mut self, table: &DeTable<'_>, prefix: &str, name: &str) -> Option<String> {
        let value = table.get(name)?;
        let key = format!("{prefix}.{name}");
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(value, &key, "a string");
            return None;
        };
        if text.is_empty() || text.contains(|c: char| c == '|' || c.is_whitespace()) {
            self.problem(
                value.span(),
                &key,
                "must be a text without blanks and without `|`",
            );
            return None;
        }
        Some(text.to_owned())
    }

    fn rules(&mut self, table: &DeTable<'_>, prefix: &str, base: &Workflow) -> Workflow {
        if prefix == "default" {
            self.deny_unknown(table, prefix, RULE_KEYS, &[]);
        }
        let mut rules = base.clone();
        for (name, value) in table {
            let key = format!("{prefix}.{}", name.get_ref());
            match &**name.get_ref() {
                "actionable" => {
                    if let Some(listed) = self.statuses(value, &key) {
                        for (status, at) in &listed {
                            if status.is_terminal() || *status == TaskStatus::OnHold {
                                let text = format!("nothing can be released in `{}`", status.as_str());
                                self.problem(at.clone(), &key, text);
                            }
                        }
                        rules.actionable = listed.into_iter().map(|(status, _)| status).collect();
                    }
                }
                "grant_window" => self.window(value, &key, &mut rules.grant_window),
                "redemption_window" => self.window(value, &key, &mut rules.redemption_window),
                "max_uses" => self.number(value, &key, 1, &mut rules.max_uses),
                "self_reissue" => self.number(value, &key, 0, &mut rules.self_reissue),
                "documents" => self.number(value, &key, 1, &mut rules.max_documents),
                "if_match" => match value.get_ref().as_bool() {
                    Some(required) => rules.require_if_match = required,
                    None => self.wrong_type(value, &key, "true or false"),
                },
                "releases" => self.releases(value, &key, &mut rules),
                "approved_steps" => {
                    if let Some(listed) = self.systems(value, &key) {
                        rules.approved_steps = listed;
                    }
                }
                "transitions" => self.transitions(value, &key, &mut rules.transitions),
                _ => {}
            }
        }
        self.on_expiry(table, prefix, &mut rules);
        rules
    }

    fn on_expiry(&mut self, table: &DeTable<'_>, prefix: &str, rules: &mut Workflow) {
        let at_most_key = format!("{prefix}.reissue_at_most");
        let mut at_most = None;
        if let Some(value) = table.get("reissue_at_most") {
            let mut number = 1u32;
            self.number(value, &at_most_key, 1, &mut number);
            at_most = Some(number);
        }
        let key = format!("{prefix}.on_expiry");
        let mut reissues = false;
        if let Some(value) = table.get("on_expiry") {
            match value.get_ref().as_str() {
                Some("none") => rules.on_expiry = OnExpiry::None,
                Some("escalate") => rules.on_expiry = OnExpiry::Escalate,
                Some("reissue") => {
                    reissues = true;
                    match at_most {
                        Some(at_most) => rules.on_expiry = OnExpiry::Reissue { at_most },
                        None => {
                            self.problem(value.span(), &key, "`reissue` needs `reissue_at_most` beside it");
                        }
                    }
                }
                Some(_) => {
                    self.problem(value.span(), &key, "must be `none`, `escalate` or `reissue`");
                }
                None => self.wrong_type(value, &key, "a string"),
            }
        }
        if let Some(value) = table.get("reissue_at_most")
            && !reissues
        {
            self.problem(
                value.span(),
                &at_most_key,
                "has no effect without `on_expiry = \"reissue\"` beside it",
            );
        }
    }

    fn releases(&mut self, value: &Spanned<DeValue<'_>>, key: &str, rules: &mut Workflow) {
        if value.get_ref().as_str() == Some("all") {
            rules.releases = None;
            return;
        }
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, key, "`\"all\"` or a list of document classes");
            return;
        };
        let mut classes = BTreeSet::new();
        for item in array {
            match item.get_ref().as_str() {
                Some(class) if is_class(class) => {
                    classes.insert(class.to_owned());
                }
                Some(class) => self.problem(item.span(), key, format!("`{class}` is not a document class")),
                None => self.wrong_type(item, key, "a document class as a string"),
            }
        }
        rules.releases = Some(classes);
    }

    /// The systems of a list.
    fn systems(&mut self, value: &Spanned<DeValue<'_>>, key: &str) -> Option<BTreeSet<ActorRef>> {
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, key, "a list of systems, like `Device/archiver`");
            return None;
        };
        let mut systems = BTreeSet::new();
        for item in array {
            let actor = item.get_ref().as_str().map(ActorRef::parse);
            match actor {
                Some(Ok(actor)) if actor.can_hold_a_grant() && !actor.is_person() => {
                    systems.insert(actor);
                }
                Some(_) => {
                    let text = "must be a reference to a system that can own a Task, like `Device/archiver`";
                    self.problem(item.span(), key, text);
                }
                None => self.wrong_type(item, key, "a reference as a string"),
            }
        }
        Some(systems)
    }

    fn transitions(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        rows: &mut BTreeMap<Option<TaskStatus>, Vec<TaskStatus>>,
    ) {
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(value, key, "a table of statuses");
            return;
        };
        for (name, targets) in table {
            let key = format!("{key}.{}", name.get_ref());
            let from = match &**name.get_ref() {
                "create" => None,
                word => match TaskStatus::parse(word) {
                    Some(status) if status.is_terminal() => {
                        let text = "an ended Task goes nowhere but to `entered-in-error`, which needs no row";
                        self.problem(name.span(), &key, text);
                        continue;
                    }
                    Some(status) => Some(status),
                    None => {
                        self.problem(name.span(), &key, format!("`{word}` is not a Task status"));
                        continue;
                    }
                },
            };
            let Some(listed) = self.statuses(targets, &key) else {
                continue;
            };
            let mut row = Vec::new();
            for (to, at) in listed {
                if from.is_none() && (to.is_terminal() || to == TaskStatus::OnHold) {
                    self.problem(at, &key, format!("a Task cannot begin as `{}`", to.as_str()));
                } else if from == Some(to) {
                    self.problem(at, &key, "keeping the status is always legal and needs no entry");
                } else {
                    row.push(to);
                }
            }
            // A mistake can always be marked as one.
            if from.is_some() && !row.contains(&TaskStatus::EnteredInError) {
                row.push(TaskStatus::EnteredInError);
            }
            rows.insert(from, row);
        }
    }

    /// The statuses of a list, each once; `None` where it is no list.
    fn statuses(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
    ) -> Option<Vec<(TaskStatus, Range<usize>)>> {
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, key, "a list of Task statuses");
            return None;
        };
        let mut listed: Vec<(TaskStatus, Range<usize>)> = Vec::new();
        for item in array {
            let Some(word) = item.get_ref().as_str() else {
                self.wrong_type(item, key, "a Task status as a string");
                continue;
            };
            match TaskStatus::parse(word) {
                None => self.problem(item.span(), key, format!("`{word}` is not a Task status")),
                Some(status) if listed.iter().any(|(s, _)| *s == status) => {
                    self.problem(item.span(), key, format!("`{word}` is listed twice"));
                }
                Some(status) => listed.push((status, item.span())),
            }
        }
        Some(listed)
    }

    fn window(&mut self, value: &Spanned<DeValue<'_>>, key: &str, slot: &mut Span) {
        match self.duration(value, key, WINDOWS) {
            Some(span) if !(LEAST_WINDOW..=LONGEST_WINDOW).contains(&span) => {
                self.problem(value.span(), key, "must be from one second to 24 hours");
            }
            Some(span) => *slot = span,
            None => {}
        }
    }

    fn number<N: TryFrom<u32>>(&mut self, value: &Spanned<DeValue<'_>>, key: &str, least: u32, slot: &mut N) {
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(value, key, "a whole number");
            return;
        };
        let number = u32::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|n| *n >= least);
        match number.and_then(|n| N::try_from(n).ok()) {
            Some(number) => *slot = number,
            None => self.problem(value.span(), key, format!("must be {least} or more")),
        }
    }
}
