//! The rules: read when the server starts, and again whenever their files change. A set that is not well written never
//! takes the place of a good one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use handoff_domain::audit::{Event, Outcome};
use handoff_domain::document::Sha256;
use handoff_domain::ids::TenantId;
use handoff_domain::ports::AuditSearch;
use handoff_domain::reason::Reason;
use handoff_policies::{CompileError, Place, Source, SourceError};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::StartError;
use super::jobs::explain;
use crate::app::finish::server_itself;
use crate::app::{App, AppError, Cuts, Rules};
use crate::config::compile_rules;
use crate::telemetry::metrics;

/// A change takes effect when it was seen twice the same: not in the midst of being written.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The rules that are written at `place`, with the digest of their text.
pub(super) fn read(place: &Place) -> Result<(Rules, Sha256), StartError> {
    let source = place.read()?;
    Ok((compile(&source)?, source.digest()))
}

fn compile(source: &Source) -> Result<Rules, CompileError> {
    let set = compile_rules(source)?;
    Ok(Rules {
        workflows: set.workflows().clone(),
        schedules: set.schedules().clone(),
        policy: Arc::new(set),
    })
}

/// Looks after the files.
pub(super) struct Watch {
    place: Place,
    tenants: BTreeSet<TenantId>,
    /// What is in force.
    in_force: Sha256,
    /// What was read last.
    last: Sha256,
    /// What was refused last.
    refused: Option<Sha256>,
    /// Why nothing could be read when last looked at.
    unread: Option<String>,
    recording: Recording,
}

/// A change that is being recorded, in one tenant's audit after the other.
struct Recording {
    outcome: Outcome,
    to: String,
    done: BTreeSet<TenantId>,
}

/// What came of a look at the files.
enum Look {
    Unread(SourceError),
    /// Nothing to do, or not yet.
    Same(Sha256),
    Changed(Sha256, Result<Box<Rules>, CompileError>),
}

impl Watch {
    pub(super) const fn of(place: Place, in_force: Sha256, tenants: BTreeSet<TenantId>) -> Self {
        Self {
            place,
            tenants,
            in_force,
            last: in_force,
            refused: None,
            unread: None,
            recording: Recording {
                outcome: Outcome::Success,
                to: String::new(),
                done: BTreeSet::new(),
            },
        }
    }

    /// Records the rules that the server starts with where the audit does not end with them: they may have been changed
    /// while it was down.
    pub(super) async fn record_start(&mut self, app: &App) -> Result<(), AppError> {
        let to = self.in_force.to_hex();
        let mut from = String::new();
        for tenant in self.tenants.clone() {
            let (of, search) = (tenant.clone(), last_change());
            let last = app.read(move |read| Ok(read.audit(&of, &search)?)).await?;
            let last = last.first().and_then(|recorded| recorded.row.detail.get("to"));
            if last == Some(&to) {
                self.recording.done.insert(tenant);
            } else if let Some(last) = last {
                from.clone_from(last);
            }
        }
        self.recording.to.clone_from(&to);
        self.record(app, Outcome::Success, &from, &to).await
    }

    /// Replaces the rules in force whenever others are written.
    pub(super) async fn follow(mut self, app: App) {
        if !self.place.may_change() {
            return;
        }
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (place, last) = (self.place.clone(), self.last);
            let known = [Some(self.in_force), self.refused];
            let look = spawn_blocking(move || look(&place, last, known)).await;
            match look {
                Ok(look) => self.act_on(&app, look).await,
                Err(error) => {
                    metrics::job_failure("rules");
                    tracing::error!(%error, "the rules could not be looked at");
                }
            }
        }
    }

    async fn act_on(&mut self, app: &App, look: Look) {
        match look {
            Look::Unread(error) => {
                let text = error.to_string();
                if self.unread.as_ref() != Some(&text) && self.refuse(app, "", &text).await {
                    self.unread = Some(text);
                }
            }
            Look::Same(digest) => {
                if digest == self.in_force && (self.refused.take().is_some() || self.unread.is_some()) {
                    metrics::rules_in_force(true);
                    tracing::info!(
                        digest = digest.to_hex(),
                        "the rules in force are what is written again"
                    );
                }
                self.unread = None;
                self.last = digest;
            }
            Look::Changed(digest, Err(error)) => {
                if self.refuse(app, &digest.to_hex(), &error.to_string()).await {
                    self.refused = Some(digest);
                }
            }
            Look::Changed(digest, Ok(rules)) => {
                let (from, to) = (self.in_force.to_hex(), digest.to_hex());
                // Not in force before it is in the audit; until then it is tried again.
                match self.record(app, Outcome::Success, &from, &to).await {
                    Ok(()) => {
                        app.rules.replace(*rules);
                        self.in_force = digest;
                        self.refused = None;
                        metrics::rules_loaded("loaded");
                        metrics::rules_in_force(true);
                        tracing::info!(from, to, "other rules are in force");
                    }
                    Err(error) => {
                        tracing::error!(
                            cause = explain(&error),
                            "other rules are not in force yet: the audit can't be written"
                        );
                    }
                }
            }
        }
    }

    /// Tells of what can't be put in force, and answers whether that is in the audit.
    async fn refuse(&mut self, app: &App, to: &str, text: &str) -> bool {
        let from = self.in_force.to_hex();
        tracing::error!(
            from,
            to,
            problems = text,
            "the rules that are written can't be used; those in force stay"
        );
        metrics::rules_loaded("refused");
        metrics::rules_in_force(false);
        let recorded = self.record(app, Outcome::Failed, &from, to).await;
        if let Err(error) = &recorded {
            tracing::error!(
                cause = explain(error),
                "that rules were refused could not be recorded"
            );
        }
        recorded.is_ok()
    }

    /// Records in every tenant's audit that rules were put in force, or were not. Where it breaks off it goes on with the
    /// tenants that are left.
    async fn record(&mut self, app: &App, outcome: Outcome, from: &str, to: &str) -> Result<(), AppError> {
        if self.recording.outcome != outcome || self.recording.to != to {
            self.recording = Recording {
                outcome,
                to: to.to_owned(),
                done: BTreeSet::new(),
            };
        }
        for tenant in self.tenants.clone() {
            if self.recording.done.contains(&tenant) {
                continue;
            }
            let scope = app.scope(&server_itself(app, &tenant)?);
            let reason = match outcome {
                Outcome::Success => Reason::Permitted,
                Outcome::Denied | Outcome::Failed => Reason::Invalid,
            };
            let row = scope
                .row(Event::PolicyChanged, outcome, reason)
                .detail("from", from)
                .detail("to", to);
            let of = tenant.clone();
            app.write(&tenant, move |tx| {
                tx.record(&of, row.clone());
                Ok(((), Cuts::none()))
            })
            .await?;
            self.recording.done.insert(tenant);
        }
        // Should the same be written again after something else, it is another change.
        self.recording.done.clear();
        Ok(())
    }
}

/// The newest change of rules that took effect.
fn last_change() -> AuditSearch {
    AuditSearch {
        events: vec![Event::PolicyChanged.as_str().to_owned()],
        outcome: Some(Outcome::Success.as_str().to_owned()),
        limit: 1,
        ..AuditSearch::default()
    }
}

/// Looks at what is written. `last` is what was there the time before, `known` what needs no compiling.
fn look(place: &Place, last: Sha256, known: [Option<Sha256>; 2]) -> Look {
    let source = match place.read() {
        Ok(source) => source,
        Err(error) => return Look::Unread(error),
    };
    let digest = source.digest();
    if digest != last || known.contains(&Some(digest)) {
        return Look::Same(digest);
    }
    Look::Changed(digest, compile(&source).map(Box::new))
}
