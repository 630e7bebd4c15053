//! What one redemption is decided on, read under lock in the order Task, grant, document, and what follows from the
//! decision: the use taken, the redemption opened or gone on with, the refusal with its reason.

use std::sync::Arc;

use handoff_domain::access::{Action, Object, Relation};
use handoff_domain::audit::{About, Event, Outcome};
use handoff_domain::document::{Document, StoredBinary};
use handoff_domain::facts::Facts;
use handoff_domain::gate::Gate;
use handoff_domain::grant::Grant;
use handoff_domain::ids::{RedemptionId, TaskId};
use handoff_domain::outbox::{Topic, TopicEvent};
use handoff_domain::ports::Tx;
use handoff_domain::reason::Reason;
use handoff_domain::redemption::{Redemption, RedemptionState, ResumeError};
use handoff_domain::scan::{Scan, Withheld};
use handoff_domain::scopes::Interaction;
use handoff_domain::standing::{Standing, StreamFacts};
use handoff_domain::task::Task;

use super::caps::Reach;
use super::effects::about_grant;
use super::error::Busy;
use super::redeem::{Continue, Decided, Leave, strong_etag};
use super::streams::Streams;
use super::{AppError, Class, Scope, scan, told};

/// Everything that decides, read under lock.
pub(super) struct Scene {
    pub(super) task: Task,
    pub(super) document: Option<Document>,
    pub(super) grant: Option<Grant>,
    pub(super) binary: StoredBinary,
    pub(super) policy_allows: bool,
    /// What is blocked, by the store and not by what this process last saw.
    pub(super) standing: Standing,
    /// What a scan said of the bytes; not asked for where releases don't ask for it.
    scan: Option<Scan>,
}

impl Scene {
    pub(super) fn lock(
        tx: &mut dyn Tx,
        scope: &Scope,
        task: &TaskId,
        binary: StoredBinary,
    ) -> Result<Self, AppError> {
        let task = scope
            .lock_tasks(tx, std::slice::from_ref(task))?
            .into_iter()
            .next()
            .ok_or_else(AppError::not_found)?;
        let grants = tx.grants_of_task(scope.tenant(), &task.id)?;
        let me = &scope.caller.principal.actor;
        let grant = grants.into_iter().rfind(|g| {
            g.sha256 == binary.sha256
                && g.grantee() == Some(me)
                && binary.document.as_ref().is_none_or(|d| g.document == *d)
        });
        let id = grant
            .as_ref()
            .map(|g| &g.document)
            .or(binary.document.as_ref())
            .cloned();
        let document = match id {
            Some(id) => scope.lock_documents(tx, &[id], false)?.into_iter().next(),
            None => None,
        };
        let mut relation = scope.caller.relation_to(&task);
        relation.grantee = grant.is_some();
        relation.through_task = super::tasks::sees(scope, &task);
        // Who placed a Task can never fetch under it, whatever other roles they have.
        let told = told::about(tx, scope.tenant(), &task, document.as_ref(), me)?;
        let policy_allows = !relation.creator && may_fetch(scope, relation, &task, document.as_ref(), &told);
        // What is found while the Task is held takes back what is decided here.
        let scan = match scope.settings.scan {
            Some(_) => tx.scan(scope.tenant(), &binary.id)?,
            None => None,
        };
        Ok(Self {
            task,
            document,
            grant,
            binary,
            policy_allows,
            standing: tx.standing(scope.tenant())?.knowing(told),
            scan,
        })
    }

    pub(super) fn gate<'a>(&'a self, scope: &'a Scope) -> Gate<'a> {
        Gate {
            caller: &scope.caller.principal,
            address: scope.caller.address(),
            task: &self.task,
            document: self.document.as_ref(),
            grant: self.grant.as_ref(),
            binary: &self.binary,
            workflow: scope.rules.workflows.of(&self.task.facts.code),
            standing: &self.standing,
            withheld: self.withheld(scope),
            policy_allows: self.policy_allows,
            now: scope.now(),
        }
    }

    /// Why the bytes are not released, by what a scan said of them.
    fn withheld(&self, scope: &Scope) -> Option<Withheld> {
        let rule = scope.settings.scan?;
        rule.withholds(self.scan.as_ref(), scope.now())
    }

    /// The gate for a new use. Who only placed or requested the Task, or runs the server, is told that it is not
    /// for them, whatever the state of things.
    pub(super) fn pass(&self, scope: &Scope) -> Result<(), AppError> {
        let relation = scope.caller.relation_to(&self.task);
        let bystander = !relation.owner && !relation.recipient && !relation.former_owner && !relation.team;
        if bystander && self.grant.is_none() {
            return Err(self.refuse(scope, Reason::PolicyDenied));
        }
        self.gate(scope)
            .check()
            .map_err(|reason| self.refuse(scope, reason))
    }

    /// Whether an open redemption may go on.
    pub(super) fn may_resume(&self, scope: &Scope) -> Result<(), AppError> {
        self.gate(scope)
            .check_resume()
            .map_err(|reason| self.refuse(scope, reason))
    }

    /// Whether the scopes reach the content, for one who is known to hold its grant.
    pub(super) fn check_reach(&self, tx: &mut dyn Tx, scope: &Scope, reach: &Reach) -> Result<(), AppError> {
        let document = self.document.as_ref().map(|d| &d.id);
        if reach.covers_content_of(tx, scope, document)? {
            return Ok(());
        }
        let row = scope
            .row(
                Event::RedemptionDenied,
                Outcome::Denied,
                Reason::InsufficientScope,
            )
            .about(self.about(None));
        Err(scope.beyond_scope("Binary", Interaction::Read).recorded(row))
    }

    pub(super) fn refuse(&self, scope: &Scope, reason: Reason) -> AppError {
        let row = scope
            .row(Event::RedemptionDenied, Outcome::Denied, reason)
            .about(self.about(None));
        match self
            .withheld(scope)
            .filter(|_| reason == Reason::DocumentWithheld)
        {
            Some(why) => {
                let text = scan::explain(why);
                AppError::new(Class::Forbidden, reason, text).recorded(row.detail("scan", why.as_str()))
            }
            None => AppError::forbidden(reason).recorded(row),
        }
    }

    /// A refusal of what is asked for, not of who asks.
    pub(super) fn not_sent(
        &self,
        scope: &Scope,
        class: Class,
        reason: Reason,
        text: impl Into<String>,
    ) -> AppError {
        let row = scope
            .row(Event::RedemptionDenied, Outcome::Denied, reason)
            .about(self.about(None));
        AppError::new(class, reason, text).recorded(row)
    }

    /// Whose stream it would be, and of what.
    fn stream_facts(&self, scope: &Scope) -> StreamFacts {
        let principal = &scope.caller.principal;
        let of_document = self.document.as_ref().and_then(|d| d.facts.subject.clone());
        StreamFacts {
            actor: principal.actor.clone(),
            client: principal.client.clone(),
            issuer: principal.issuer.clone(),
            task: self.task.id.clone(),
            document: self.document.as_ref().map(|d| d.id.clone()),
            patients: self
                .task
                .facts
                .subject
                .clone()
                .into_iter()
                .chain(of_document)
                .collect(),
        }
    }

    /// The content's strong `ETag`.
    pub(super) fn etag(&self) -> String {
        strong_etag(&self.binary)
    }

    pub(super) fn about(&self, redemption: Option<&RedemptionId>) -> About {
        let documents = self.document.as_slice();
        let mut about = match &self.grant {
            Some(grant) => about_grant(&self.task, documents, grant),
            None => super::effects::about_task(&self.task),
        };
        about.binary = Some(format!("Binary/{}", self.binary.id));
        about.redemption = redemption.map(ToString::to_string);
        about
    }

    /// Takes one use and opens its redemption.
    pub(super) fn take_use(
        &self,
        tx: &mut dyn Tx,
        scope: &Scope,
        id: &RedemptionId,
    ) -> Result<Redemption, AppError> {
        let workflow = scope.rules.workflows.of(&self.task.facts.code);
        let grant = self
            .grant
            .clone()
            .ok_or_else(|| self.refuse(scope, Reason::NotBound))?;
        let used = grant
            .take_use(scope.now())
            .map_err(|_| self.refuse(scope, Reason::Exhausted))?;
        tx.update_grant(scope.tenant(), &used)?;
        let principal = &scope.caller.principal;
        let redemption = Redemption {
            id: id.clone(),
            grant: used.id.clone(),
            grantee: principal.actor.clone(),
            client: principal.client.clone(),
            key: principal.key.clone(),
            session: scope.caller.session.clone(),
            state: RedemptionState::Authorized,
            cut_reason: None,
            opened_at: scope.now(),
            window_end: scope.now().plus(workflow.redemption_window),
            ended_at: None,
            size: self.binary.size,
            bytes_sent: 0,
            sent_up_to: 0,
            streams: 0,
            process: Some(scope.settings.process.clone()),
            revision: 1,
        };
        tx.insert_redemption(scope.tenant(), &redemption)?;
        let row = scope
            .row(Event::RedemptionAuthorized, Outcome::Success, Reason::Permitted)
            .about(self.about(Some(id)))
            .detail("sha256", self.binary.sha256.to_hex())
            .detail("size", self.binary.size.to_string())
            .detail("use", format!("{} of {}", used.uses, used.max_uses));
        tx.record(scope.tenant(), row);
        tx.tell(
            scope.tenant(),
            TopicEvent {
                grant: Some(used.id.to_string()),
                ..scope.event(
                    Topic::Redemption,
                    format!("Task/{}", self.task.id),
                    self.task.version,
                    RedemptionState::Authorized.as_str(),
                )
            },
        );
        Ok(redemption)
    }

    /// The newest redemption of the caller's grant that may still go on.
    pub(super) fn open_redemption(
        &self,
        tx: &mut dyn Tx,
        scope: &Scope,
    ) -> Result<Option<Redemption>, AppError> {
        let Some(grant) = &self.grant else { return Ok(None) };
        let redemptions = tx.redemptions_of_grant(scope.tenant(), &grant.id)?;
        Ok(redemptions
            .into_iter()
            .find(|r| r.window_end > scope.now() || r.state == RedemptionState::Streaming))
    }

    /// A use that the caller took by this grant's link and of which nothing was asked for yet: the answer to it may
    /// have been lost on the way. In a browser session also one that broke off, which a person goes on with by the same
    /// button.
    pub(super) fn unanswered(&self, tx: &mut dyn Tx, scope: &Scope) -> Result<Option<Redemption>, AppError> {
        let Some(newest) = self.open_redemption(tx, scope)? else {
            return Ok(None);
        };
        let principal = &scope.caller.principal;
        let same = newest
            .same_client(
                &principal.client,
                principal.key.as_deref(),
                scope.caller.session.as_deref(),
            )
            .is_ok();
        let unasked = match newest.state {
            RedemptionState::Authorized => newest.streams == 0,
            RedemptionState::Interrupted => scope.caller.session.is_some(),
            _ => false,
        };
        Ok((same && unasked && newest.grantee == principal.actor).then_some(newest))
    }

    /// Starts a stream of an open redemption, where Task, document and grant still allow it.
    pub(super) fn resume(
        self,
        tx: &mut dyn Tx,
        scope: &Scope,
        streams: &Arc<Streams>,
        redemption: Redemption,
        wanted: Option<Continue>,
    ) -> Result<Decided, AppError> {
        let principal = &scope.caller.principal;
        redemption
            .same_client(
                &principal.client,
                principal.key.as_deref(),
                scope.caller.session.as_deref(),
            )
            .map_err(|e| self.refuse(scope, e.reason()))?;
        self.may_resume(scope)?;
        self.start(tx, scope, streams, redemption, wanted)
    }

    /// Starts a stream of the whole content, or of the range that is wanted.
    pub(super) fn start(
        self,
        tx: &mut dyn Tx,
        scope: &Scope,
        streams: &Arc<Streams>,
        redemption: Redemption,
        wanted: Option<Continue>,
    ) -> Result<Decided, AppError> {
        let size = self.binary.size;
        let ranged = wanted.is_some();
        let resumed = redemption.streams > 0;
        let wanted = wanted.unwrap_or(Continue { from: 0, until: None });
        let until = wanted.until.unwrap_or(size).min(size);
        if wanted.from > until || (wanted.from >= size && size > 0) {
            return Err(self.not_sent(
                scope,
                Class::RangeNotSatisfiable { size },
                Reason::Invalid,
                "the range lies outside of the content",
            ));
        }
        let length = until.saturating_sub(wanted.from);
        let id = redemption.id.clone();
        let process = scope.settings.process.as_str();
        let elsewhere = redemption.state == RedemptionState::Streaming
            && redemption.process.as_deref().is_some_and(|p| p != process);
        let redemption = match redemption
            .clone()
            .start(wanted.from, length, process, scope.now())
        {
            Ok(redemption) => redemption,
            Err(ResumeError::Busy) if elsewhere => {
                tx.update_redemption(scope.tenant(), &redemption.give_up_stream())?;
                let row = scope
                    .row(
                        Event::RedemptionDenied,
                        Outcome::Denied,
                        ResumeError::Busy.reason(),
                    )
                    .about(self.about(Some(&id)));
                return Ok(Decided::RunsElsewhere(Box::new(row)));
            }
            Err(error) => return Err(self.refuse_start(scope, &redemption, error)),
        };
        tx.update_redemption(scope.tenant(), &redemption)?;
        let about = self.about(Some(&redemption.id));
        if resumed {
            let row = scope
                .row(Event::RedemptionResumed, Outcome::Success, Reason::Permitted)
                .about(about.clone())
                .detail("from", wanted.from.to_string())
                .detail("until", until.to_string());
            tx.record(scope.tenant(), row);
        }
        // Announced before the commit: a cut that commits after ours finds the stream.
        let announced = streams.announce(
            scope.tenant(),
            self.stream_facts(scope),
            &redemption.grant,
            &redemption.id,
        );
        Ok(Decided::Content(Box::new(Leave {
            redemption,
            task: self.task.id.clone(),
            about,
            from: wanted.from,
            until,
            ranged,
            announced,
            binary: self.binary,
        })))
    }

    fn refuse_start(&self, scope: &Scope, redemption: &Redemption, error: ResumeError) -> AppError {
        let mut refusal = self.refuse(scope, error.reason());
        if error == ResumeError::WindowClosed && redemption.bytes_sent == 0 {
            "nothing of it was sent, and its use was given back; open the link, or ask for the content, again"
                .clone_into(&mut refusal.text);
        }
        if error == ResumeError::Busy {
            // Not a refusal yet: the caller's own earlier stream is being ended.
            refusal.busy = refusal.denial.take().map(|row| {
                Box::new(Busy {
                    redemption: redemption.id.clone(),
                    row: *row,
                })
            });
        }
        refusal
    }
}

fn may_fetch(
    scope: &Scope,
    relation: Relation,
    task: &Task,
    document: Option<&Document>,
    told: &Facts,
) -> bool {
    let encounter = task.facts.encounter.as_deref();
    let workflow = scope.rules.workflows.of(&task.facts.code);
    let content = Object::Content {
        document,
        task,
        break_glass: super::break_glass::is_of(task),
        approved_step: workflow.approved_steps.contains(&scope.caller.principal.actor),
        encounter_over: encounter.is_some_and(|encounter| told.is_over(encounter)),
    };
    scope.allows(Action::BinaryFetch, relation, content).is_ok()
}
