//! Searches of the audit: R4 parameters of AuditEvent in, the ledger's own question out.

use handoff_domain::audit::{Event, Outcome};
use handoff_domain::ports::AuditSearch;
use handoff_domain::time::Timestamp;
use handoff_fhir_profiles::canonical::AUDIT_EVENT_SYSTEM;

use super::{outcome_code, shape};
use crate::app::AppError;
use crate::fhir::search::control::{Controls, not_supported, shown};
use crate::fhir::search::link::{self, Check, Cursor};
use crate::fhir::search::parameters;
use crate::fhir::search::values::{self, Range};

/// A word that no event and no outcome has: what can't be matched is still asked for, and finds nothing.
const NOTHING: &str = "none";

/// A search of the audit as it was understood.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// What to look for; its limit is one more than the page, to know whether more follow.
    pub search: AuditSearch,
    /// How many a page holds.
    pub count: u32,
    /// The parameters that took effect, as the link `self` lists them.
    pub used: Vec<(String, String)>,
    /// Names of parameters without effect.
    pub ignored: Vec<String>,
    /// What ties cursors to this search.
    pub check: Check,
}

/// The search that `pairs` (decoded names and values) ask for. `strict` refuses what would be ignored; `base` is
/// our own FHIR base with its trailing slash.
///
/// Fails with 400. Every parameter takes one value, but for `type`, `subtype` and `action` with alternatives.
pub fn parse(pairs: &[(String, String)], strict: bool, base: &str) -> Result<Parsed, AppError> {
    let (mut controls, rest) = Controls::split(pairs)?;
    let mut asked = Asked::default();
    let mut used = Vec::new();
    for (written, value) in rest {
        let (name, modifier) = written
            .split_once(':')
            .map_or((written, None), |(n, m)| (n, Some(m)));
        if !parameters::of_audit_events().any(|parameter| parameter.name == name) {
            controls.ignore(written);
            continue;
        }
        if let Some(modifier) = modifier {
            return Err(not_supported(format!(
                "the modifier `:{}` is not supported for `{name}`",
                shown(modifier)
            )));
        }
        asked.take(name, value, base)?;
        used.push((written.to_owned(), value.to_owned()));
    }
    controls.settle(strict)?;
    if controls.only_count || controls.total {
        return Err(not_supported("audit events are not counted"));
    }
    asked.search.oldest_first = match controls.sort.as_deref() {
        None | Some("-date") => false,
        Some("date") => true,
        Some(_) => return Err(not_supported("results can be sorted by `date` or `-date`")),
    };
    used.append(&mut controls.used);
    let check = link::check("AuditEvent", &used);
    if let Some(page) = &controls.page {
        asked.search.after = Some(Cursor::decode(page, check)?.at);
    }
    let count = controls.limit();
    asked.search.limit = count.saturating_add(1);
    Ok(Parsed {
        search: asked.finish(),
        count,
        used,
        ignored: controls.ignored,
        check,
    })
}

#[derive(Default)]
struct Asked {
    search: AuditSearch,
    events: Option<Vec<Event>>,
}

impl Asked {
    fn take(&mut self, name: &str, value: &str, base: &str) -> Result<(), AppError> {
        let parts = values::alternatives(name, value)?;
        match name {
            "type" => self.narrow(name, &parts, |event, system, code| {
                let (own_system, own_code) = shape(event).kind;
                matches(system, code, own_system, own_code)
            }),
            "subtype" => self.narrow(name, &parts, |event, system, code| {
                matches(system, code, AUDIT_EVENT_SYSTEM, event.as_str())
                    || shape(event)
                        .subtype
                        .is_some_and(|(s, c)| matches(system, code, s, c))
            }),
            "action" => self.narrow(name, &parts, |event, system, code| {
                matches(
                    system,
                    code,
                    "http://hl7.org/fhir/audit-event-action",
                    shape(event).action,
                )
            }),
            _ => {
                let [one] = parts.as_slice() else {
                    return Err(not_supported(format!("`{name}` takes one value")));
                };
                self.single(name, one, base)
            }
        }
    }

    fn single(&mut self, name: &str, value: &str, base: &str) -> Result<(), AppError> {
        let search = &mut self.search;
        match name {
            "date" => {
                let ranges = values::date(name, value)?;
                let [range] = ranges.as_slice() else {
                    return Err(not_supported("the prefix `ne` is not supported for `date`"));
                };
                search.recorded = Some(search.recorded.map_or(*range, |before| overlap(before, *range)));
                Ok(())
            }
            "_id" => once(name, &mut search.id, values::unescape(value)),
            "agent" => {
                let actor = values::reference(name, value, base, None)?;
                if actor.starts_with("*/") {
                    return Err(not_supported(
                        "`agent` needs the type of the actor: `Practitioner/id`",
                    ));
                }
                once(name, &mut search.actor, actor)
            }
            "patient" => {
                let patient = values::reference(name, value, base, Some("Patient"))?;
                once(name, &mut search.patient, patient)
            }
            "entity" => {
                let entity = values::reference(name, value, base, None)?;
                let entity = entity.strip_prefix("*/").map(str::to_owned).unwrap_or(entity);
                once(name, &mut search.entity, entity)
            }
            "outcome" => {
                let (_, code) = values::token(name, value)?;
                let all = [Outcome::Success, Outcome::Denied, Outcome::Failed];
                let word = all
                    .into_iter()
                    .find(|o| code.as_deref() == Some(outcome_code(*o)));
                once(
                    name,
                    &mut search.outcome,
                    word.map_or(NOTHING, Outcome::as_str).to_owned(),
                )
            }
            _ => once(name, &mut search.correlation, values::unescape(value)),
        }
    }

    /// Keeps the events for which any of the tokens holds.
    fn narrow(
        &mut self,
        name: &str,
        parts: &[&str],
        holds: impl Fn(Event, Option<&str>, Option<&str>) -> bool,
    ) -> Result<(), AppError> {
        let tokens = parts
            .iter()
            .map(|part| values::token(name, part))
            .collect::<Result<Vec<_>, _>>()?;
        let before = self.events.take().unwrap_or_else(|| Event::ALL.to_vec());
        let fits = |event: &Event| {
            tokens
                .iter()
                .any(|(system, code)| holds(*event, system.as_deref(), code.as_deref()))
        };
        self.events = Some(before.into_iter().filter(fits).collect());
        Ok(())
    }

    fn finish(self) -> AuditSearch {
        let mut search = self.search;
        search.events = match self.events {
            None => Vec::new(),
            // No event at all would ask for every one.
            Some(events) if events.is_empty() => vec![NOTHING.to_owned()],
            Some(events) => events
                .into_iter()
                .map(|event| event.as_str().to_owned())
                .collect(),
        };
        search
    }
}

fn matches(system: Option<&str>, code: Option<&str>, own_system: &str, own_code: &str) -> bool {
    system.is_none_or(|s| s == own_system) && code.is_none_or(|c| c == own_code)
}

fn once(name: &str, slot: &mut Option<String>, value: String) -> Result<(), AppError> {
    if slot.replace(value).is_some() {
        return Err(not_supported(format!("`{name}` may be given once only")));
    }
    Ok(())
}

fn overlap(a: Range, b: Range) -> (Timestamp, Timestamp) {
    (a.0.max(b.0), a.1.min(b.1))
}
