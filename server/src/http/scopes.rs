//! From the scopes of a token to what they leave of the caller's rights: each is read to the letter, a constraint as a
//! search reads it. A scope that can't be evaluated reaches nothing; it never counts as one without its constraint.

use handoff_domain::access::Principal;
use handoff_domain::ports::{Filter, Kind};
use handoff_domain::scopes::{Level, SmartScope};

use crate::app::caps::{CAPPED, Cap, Caps};
use crate::fhir::search;

/// What the scopes of `principal` leave; `base` is the FHIR base of its tenant with its trailing slash.
pub fn caps_of(principal: &Principal, base: &str) -> Caps {
    let mut caps = Vec::new();
    for written in &principal.scopes {
        let scope = match SmartScope::parse(written) {
            None => continue,
            Some(Ok(scope)) => scope,
            Some(Err(problem)) => {
                tracing::debug!(problem, "a scope of an access token reaches nothing");
                continue;
            }
        };
        if !counts(scope.level, principal) {
            continue;
        }
        for kind in CAPPED {
            if scope.kind.as_deref().is_some_and(|own| own != kind) {
                continue;
            }
            if let Some(within) = within(&scope, kind, principal, base) {
                caps.push(Cap {
                    kind,
                    scope: scope.clone(),
                    within,
                });
            }
        }
    }
    Caps::Union(caps.into())
}

/// The three levels are kept apart: a person's token does not act for a system, nor a system's for a person.
fn counts(level: Level, principal: &Principal) -> bool {
    match level {
        Level::Patient => principal.patient.is_some(),
        Level::User => principal.actor.is_person(),
        Level::System => !principal.actor.is_person() || principal.subject == principal.client,
    }
}

/// The filters that a scope comes to for one type; `None` where they can't be evaluated.
fn within(scope: &SmartScope, kind: &str, principal: &Principal, base: &str) -> Option<Vec<Filter>> {
    let mut filters = Vec::new();
    if scope.level == Level::Patient {
        let patient = principal.patient.as_deref()?;
        filters.push(Filter::Reference {
            name: "patient".to_owned(),
            any_of: vec![format!("Patient/{patient}")],
        });
    }
    if !scope.constraints.is_empty() {
        let kind = match kind {
            "Task" => Kind::Task,
            "DocumentReference" => Kind::Document,
            "Subscription" => Kind::Subscription,
            _ => return None,
        };
        filters.extend(search::constraints(kind, &scope.constraints, base)?);
    }
    // The audit is of everybody, and a Subscription of no patient.
    let is_of_patients =
        !matches!(kind, "AuditEvent") && (kind != "Subscription" || scope.level != Level::Patient);
    (is_of_patients || filters.is_empty()).then_some(filters)
}
