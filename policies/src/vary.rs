//! Situations that differ in what rules ask about, so that a set can be searched for rules that never apply, and a
//! denial for what is missing. The values tried are those that stand in the rules, and one that stands in none.

use std::collections::BTreeSet;

use cedar_policy::{Effect, ResourceConstraint};
use handoff_domain::access::{Action, Role};
use handoff_domain::document::DocumentStatus;
use handoff_domain::task::{Priority, TaskStatus};
use handoff_domain::time::{Span, Timestamp};
use serde_json::Value;

use crate::facts::RELATIONS;
use crate::rules::Rule;
use crate::situation::Situation;

/// One thing that may be otherwise.
pub(crate) struct Choice {
    /// In words that follow "if": "the caller held the grant".
    pub(crate) said: String,
    change: Box<dyn Fn(&mut Situation)>,
}

impl Choice {
    pub(crate) fn apply(&self, situation: &Situation) -> Situation {
        let mut changed = situation.clone();
        (self.change)(&mut changed);
        changed
    }
}

fn choice(said: impl Into<String>, change: impl Fn(&mut Situation) + 'static) -> Choice {
    Choice {
        said: said.into(),
        change: Box::new(change),
    }
}

/// What may be chosen of one fact, beside leaving it as it is.
pub(crate) type Axis = Vec<Choice>;

/// A text that no rule knows.
const ANOTHER: &str = "another";

/// What stands in rules as values, and the words that they are made of.
#[derive(Default)]
struct Literals {
    words: BTreeSet<String>,
    texts: BTreeSet<String>,
    numbers: BTreeSet<i64>,
    /// Type and id.
    entities: BTreeSet<(String, String)>,
}

impl Literals {
    fn gather(&mut self, json: &Value) {
        match json {
            Value::Object(object) => {
                if let (Some(Value::String(kind)), Some(Value::String(id))) =
                    (object.get("type"), object.get("id"))
                {
                    self.entities.insert((kind.clone(), id.clone()));
                }
                match object.get("Value") {
                    Some(Value::String(text)) => {
                        self.texts.insert(text.clone());
                    }
                    Some(Value::Number(number)) => self.numbers.extend(number.as_i64()),
                    _ => {}
                }
                object.values().for_each(|value| self.gather(value));
            }
            Value::Array(all) => all.iter().for_each(|value| self.gather(value)),
            Value::String(word) => {
                self.words.insert(word.clone());
            }
            _ => {}
        }
    }

    fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a String> {
        self.entities
            .iter()
            .filter(move |(known, _)| known == kind)
            .map(|(_, id)| id)
    }

    fn asks(&self, name: &str) -> bool {
        self.words.contains(name)
    }

    /// One of the texts, or one that is none of them.
    fn one(&self, what: &str, set: fn(&mut Situation, String)) -> Axis {
        let texts = self.texts.iter().map(String::as_str).chain([ANOTHER]);
        texts
            .map(|text| {
                let text = text.to_owned();
                choice(format!("{what} were `{text}`"), move |s| set(s, text.clone()))
            })
            .collect()
    }

    /// Any of the texts together.
    fn any(&self, what: &str, add: fn(&mut Situation, String)) -> Vec<Axis> {
        let each = self.texts.iter().cloned();
        each.map(|text| {
            vec![choice(format!("{what} were `{text}`"), move |s| {
                add(s, text.clone());
            })]
        })
        .collect()
    }
}

/// Every fact that these rules ask about, with what it may be.
pub(crate) fn axes<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> Vec<Axis> {
    let mut literals = Literals::default();
    for rule in rules {
        literals.gather(&rule.json);
    }
    let mut axes = about_caller(&literals);
    axes.extend(about_things(&literals));
    axes.extend(about_circumstances(&literals));
    axes.retain(|axis| !axis.is_empty());
    axes
}

fn about_caller(literals: &Literals) -> Vec<Axis> {
    let named: Vec<Role> = literals.of("Role").filter_map(|id| Role::parse(id)).collect();
    let roles = named.into_iter().map(|role| {
        let said = format!("the caller had the role `{}`", role.as_str());
        vec![choice(said, move |s| {
            s.caller.roles.push(role.as_str().to_owned());
        })]
    });
    let mut axes: Vec<Axis> = roles.collect();
    axes.extend(
        RELATIONS
            .iter()
            .filter(|(name, _)| literals.asks(name))
            .map(|(name, _)| {
                vec![choice(said_of_relation(name), move |s| {
                    s.relation.push((*name).to_owned());
                })]
            }),
    );
    axes.extend(literals.of("Team").cloned().map(|team| {
        vec![choice(
            format!("the caller were in the team `{team}`"),
            move |s| {
                s.caller.teams.push(team.clone());
            },
        )]
    }));
    let actors = ["User", "Client", "System"]
        .into_iter()
        .flat_map(|kind| literals.of(kind));
    let actors: Vec<String> = actors.cloned().collect();
    let named = actors.into_iter().map(|actor| {
        choice(format!("the caller were `{actor}`"), move |s| {
            s.caller.actor.clone_from(&actor);
        })
    });
    axes.push(kinds().into_iter().chain(named).collect());
    if literals.asks("department") {
        axes.push(literals.one("the caller's department", |s, text| {
            s.caller.department = Some(text);
        }));
    }
    if literals.asks("location") {
        axes.push(literals.one("the caller's location", |s, text| s.caller.location = Some(text)));
    }
    if literals.asks("tenant") {
        let other = choice("the caller's token were for another tenant", |s| {
            ANOTHER.clone_into(&mut s.caller.tenant);
        });
        let both = literals.one("the tenant", |s, text| {
            s.caller.tenant.clone_from(&text);
            s.tenant = text;
        });
        axes.push([other].into_iter().chain(both).collect());
    }
    axes
}

fn about_things(literals: &Literals) -> Vec<Axis> {
    let mut axes = Vec::new();
    if literals.asks("class") {
        axes.push(literals.one("the document's class", |s, text| s.document.class = Some(text)));
    }
    if literals.asks("labels") {
        axes.extend(literals.any("a label of the document", |s, text| s.document.labels.push(text)));
    }
    if literals.asks("codes") {
        axes.extend(literals.any("a code of the Task", |s, text| s.task.codes.push(text)));
    }
    if literals.asks("teams") {
        axes.extend(literals.any("a team of the Task", |s, text| s.task.teams.push(text)));
    }
    if literals.asks("status") {
        axes.push(literals.one("the status", |s, text| {
            if DocumentStatus::parse(&text).is_some() {
                s.document.status = Some(text.clone());
            }
            if TaskStatus::parse(&text).is_some() {
                s.task.status = text;
            }
        }));
    }
    if literals.asks("priority") {
        axes.push(literals.one("the Task's priority", |s, text| {
            if Priority::parse(&text).is_some() {
                s.task.priority = text;
            }
        }));
    }
    axes
}

fn about_circumstances(literals: &Literals) -> Vec<Axis> {
    let mut axes = Vec::new();
    if literals.asks("client") {
        axes.push(literals.one("the client", |s, text| s.caller.client = text));
        axes.push(vec![choice("the client were trusted", |s| {
            s.caller.trusted_client = true;
        })]);
    }
    if literals.asks("delegate") {
        axes.push(literals.one("whoever acts for the caller", |s, text| {
            s.caller.delegate = Some(text);
        }));
    }
    if literals.asks("purposeOfUse") {
        axes.push(literals.one("the purpose of use", |s, text| {
            s.caller.purpose_of_use = Some(text);
        }));
    }
    if literals.asks("address") {
        axes.push(literals.one("the address", |s, text| {
            let first = text.split('/').next().unwrap_or_default();
            s.address = first
                .parse()
                .ok()
                .or_else(|| (text == ANOTHER).then(|| [192, 0, 2, 1].into()));
        }));
    }
    if literals.asks("approvedStep") {
        let said = "the Task's workflow approved the caller as an automated step";
        axes.push(vec![choice(said, |s| {
            s.approved_step = true;
        })]);
    }
    if literals.asks("breakGlass") {
        let said = "the server had made the Task because its owner broke the glass";
        axes.push(vec![choice(said, |s| {
            s.break_glass = true;
        })]);
    }
    if literals.asks("encounterOver") {
        let said = "the Task's encounter was over";
        axes.push(vec![choice(said, |s| {
            s.encounter_over = true;
        })]);
    }
    if literals.asks("sessionAge") {
        let around = literals
            .numbers
            .iter()
            .flat_map(|n| [n.saturating_sub(1), *n, n.saturating_add(1)]);
        let choices = around.map(|age| {
            choice(format!("the person had signed in {age} seconds ago"), move |s| {
                s.caller.session_age = Some(age);
            })
        });
        axes.push(choices.collect());
    }
    if literals.asks("now") {
        axes.push(instants(literals));
    }
    axes
}

/// Whether all that a rule asks is varied above, exactly and completely: then what no combination shows is not so.
pub(crate) fn is_modelled(rule: &Rule) -> bool {
    const UNDERSTOOD: [&str; 24] = [
        "Var",
        "Value",
        ".",
        "has",
        "==",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "&&",
        "||",
        "!",
        "in",
        "is",
        "contains",
        "Set",
        "if-then-else",
        "left",
        "right",
        "attr",
        "arg",
        "__entity",
        "entity_type",
    ];
    fn is_understood(json: &Value) -> bool {
        match json {
            Value::Object(object) => {
                let entity = object.contains_key("type") && object.contains_key("id");
                if entity {
                    let kind = object.get("type").and_then(Value::as_str);
                    return matches!(kind, Some("Role" | "Team" | "User" | "Client" | "System"));
                }
                object.iter().all(|(name, value)| {
                    (UNDERSTOOD.contains(&name.as_str()) || matches!(name.as_str(), "if" | "then" | "else"))
                        && is_understood(value)
                })
            }
            Value::Array(all) => all.iter().all(is_understood),
            _ => true,
        }
    }
    let conditions = rule.json.get("conditions").and_then(Value::as_array);
    let understood = conditions
        .into_iter()
        .flatten()
        .all(|condition| condition.get("body").is_some_and(is_understood));
    let any_resource = matches!(
        rule.policy.resource_constraint(),
        ResourceConstraint::Any | ResourceConstraint::Is(_)
    );
    understood && any_resource
}

fn said_of_relation(name: &str) -> &'static str {
    match name {
        "creator" => "the caller had created it",
        "requester" => "the caller were the Task's requester",
        "owner" => "the caller owned the Task",
        "formerOwner" => "the caller had owned the Task before",
        "recipient" => "the caller were a recipient of the Task",
        "team" => "the Task were for a team of the caller",
        "grantee" => "the caller held the grant",
        _ => "the caller reached the document through a Task",
    }
}

fn kinds() -> Axis {
    vec![
        choice("the caller were a backend service", |s| {
            "Device/something".clone_into(&mut s.caller.actor);
            s.caller.subject = None;
        }),
        choice("the caller were another system", |s| {
            "Device/something".clone_into(&mut s.caller.actor);
            s.caller.subject = Some("something".to_owned());
        }),
        choice("the caller were a person", |s| {
            "Practitioner/somebody".clone_into(&mut s.caller.actor);
        }),
    ]
}

/// Hours of a day in the week and at its end, and the instants that rules name.
fn instants(literals: &Literals) -> Axis {
    let named = literals
        .texts
        .iter()
        .filter_map(|text| Timestamp::parse_instant(text))
        .flat_map(|at| {
            [at.plus(Span::seconds(-1)), at, at.plus(Span::seconds(1))].map(Timestamp::to_instant)
        });
    let days = ["2026-01-07", "2026-01-10"].into_iter().flat_map(|day| {
        ["00:00", "05:30", "07:30", "12:00", "17:30", "20:00", "23:30"]
            .map(|hour| format!("{day}T{hour}:00Z"))
    });
    named
        .chain(days)
        .map(|at| choice(format!("it were {at}"), move |s| s.at.clone_from(&at)))
        .collect()
}

/// Situations about `action`.
pub(crate) struct Combinations {
    /// Each with other choices of the axes.
    pub(crate) situations: Vec<Situation>,
    /// Whether these are all that there are.
    pub(crate) complete: bool,
}

/// Situations about `action` with all choices of these axes; a sample where there are more than `most`.
pub(crate) fn combinations(action: Action, axes: &[Axis], most: usize) -> Combinations {
    let sizes: Vec<usize> = axes.iter().map(|axis| axis.len().saturating_add(1)).collect();
    let all = sizes.iter().try_fold(1usize, |all, size| all.checked_mul(*size));
    let complete = all.is_some_and(|all| all <= most);
    let mut dice = fastrand::Rng::with_seed(1);
    let situations = (0..all.unwrap_or(most).min(most)).map(|index| {
        let mut rest = index;
        let mut situation = Situation::about(action);
        for (axis, size) in axes.iter().zip(&sizes) {
            let pick = if complete {
                rest.checked_rem(*size).unwrap_or_default()
            } else {
                // Most facts are mostly as they are.
                if dice.bool() {
                    axis.len()
                } else {
                    dice.usize(..*size)
                }
            };
            rest = rest.checked_div(*size).unwrap_or_default();
            // The last leaves the fact as it is.
            if let Some(choice) = axis.get(pick) {
                situation = choice.apply(&situation);
            }
        }
        situation
    });
    Combinations {
        situations: situations.collect(),
        complete,
    }
}

/// Whether a rule forbids.
pub(crate) fn forbids(rule: &Rule) -> bool {
    rule.policy.effect() == Effect::Forbid
}
