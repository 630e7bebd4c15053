//! Searches of the audit: R4 parameters of AuditEvent in, the ledger's own question out.

use handoff_domain::audit::{Event, Outcome};
use handoff_domain::ports::AuditSearch;
use handoff_fhir_profiles::canonical::AUDIT_EVENT_SYSTEM;

use super::{outcome_code, shape};
use crate::app::AppError;
use crate::fhir::search::control::not_supported;
use crate::fhir::search::parameters;
use crate::fhir::search::rows::Page;
use crate::fhir::search::values;

/// A word that no event and no outcome has: what can't be matched is still asked for, and finds nothing.
const NOTHING: &str = "none";

/// A search of the audit as it was understood.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// What to look for.
    pub search: AuditSearch,
    /// Which page of it.
    pub page: Page,
}

/// The search that `pairs` (decoded names and values) ask for. `strict` refuses what would be ignored; `base` is
/// our own FHIR base with its trailing slash.
///
/// Fails with 400. Every parameter takes one value, but for `type`, `subtype` and `action` with alternatives.
pub fn parse(pairs: &[(String, String)], strict: bool, base: &str) -> Result<Parsed, AppError> {
    let mut asked = Asked::default();
    let is_known = |name: &str| parameters::of_audit_events().any(|parameter| parameter.name == name);
    let page = Page::read("AuditEvent", pairs, strict, is_known, "date", |name, value| {
        asked.take(name, value, base)
    })?;
    Ok(Parsed {
        search: page.of(asked.finish()),
        page,
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
                search.recorded = Some(values::within(name, value, search.recorded)?);
                Ok(())
            }
            "_id" => once(name, &mut search.id, values::unescape(value)),
            "agent" => once(name, &mut search.actor, values::actor(name, value, base)?),
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
