//! By whose rights subscribers are told: those of the token that made the Subscription, as the rules, the blocks and the
//! issuers stand at the moment of telling. What they have no right to is withheld, and nothing of it is sent.

use std::collections::HashMap;
use std::sync::Arc;

use handoff_domain::access::{Action, Object, Principal, Relation};
use handoff_domain::audit::{Agent, Context};
use handoff_domain::ids::{CorrelationId, TaskId, TenantId};
use handoff_domain::outbox::TopicEvent;
use handoff_domain::ports::{Kind, Read, Version};
use handoff_domain::reason::Reason;
use handoff_domain::scopes::Interaction;
use handoff_domain::subscription::{NumberedEvent, Subscription};
use handoff_domain::task::Task;

use super::caps::{Caps, Reach};
use super::read::check_visible;
use super::tasks::sees;
use super::{App, AppError, Caller, Class, Scope};

type CapsOf = dyn Fn(&Principal) -> Caps + Send + Sync;
type IsIssuer = dyn Fn(&TenantId, &str) -> bool + Send + Sync;

/// What says of a principal, without a token at hand, what it may still do.
#[derive(Clone)]
pub struct Standings {
    caps: Arc<CapsOf>,
    is_issuer: Arc<IsIssuer>,
}

impl Standings {
    /// `caps` reads the scopes of a principal; `is_issuer` tells whether a tenant still accepts an issuer's tokens.
    pub fn new(
        caps: impl Fn(&Principal) -> Caps + Send + Sync + 'static,
        is_issuer: impl Fn(&TenantId, &str) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            caps: Arc::new(caps),
            is_issuer: Arc::new(is_issuer),
        }
    }
}

/// An event as it is told to one subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its number.
    pub number: i64,
    /// The event.
    pub event: TopicEvent,
    /// The version of the focus that shows the change; empty for a deletion.
    pub body: Vec<u8>,
}

/// Events of a subscription, told as far as the rights of the one who is told go.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Telling {
    /// What is told, in order.
    pub told: Vec<Told>,
    /// The numbers of what is withheld.
    pub withheld: Vec<i64>,
    /// The number of the last event that was looked at; `None` where there was none.
    pub until: Option<i64>,
}

/// Bytes of resources from which on no further event is put into a notification.
pub const MUCH: usize = 1 << 20;

/// What was read for several who are told of the same, in one look at the database: nobody reads it twice.
#[derive(Default)]
pub struct Known {
    tasks: HashMap<TaskId, Option<Task>>,
    versions: HashMap<(Kind, String, i64), Option<Version>>,
}

impl Known {
    /// A Task as it stands, and on the way its newest version, which is mostly the one that is told.
    fn task(&mut self, read: &mut dyn Read, tenant: &TenantId, id: &str) -> Result<Option<&Task>, AppError> {
        let Ok(id) = TaskId::parse(id) else {
            return Ok(None);
        };
        if !self.tasks.contains_key(&id) {
            let found = read.current_task(tenant, &id)?.map(|(task, version)| {
                let key = (Kind::Task, id.to_string(), version.version);
                self.versions.insert(key, Some(version));
                task
            });
            self.tasks.insert(id.clone(), found);
        }
        Ok(self.tasks.get(&id).and_then(Option::as_ref))
    }

    /// A version, which never changes.
    pub fn version(
        &mut self,
        read: &mut dyn Read,
        tenant: &TenantId,
        kind: Kind,
        id: &str,
        version: i64,
    ) -> Result<Option<&Version>, AppError> {
        if kind == Kind::Task {
            self.task(read, tenant, id)?;
        }
        let key = (kind, id.to_owned(), version);
        if !self.versions.contains_key(&key) {
            let found = read.version(tenant, kind, id, version)?;
            self.versions.insert(key.clone(), found);
        }
        Ok(self.versions.get(&key).and_then(Option::as_ref))
    }
}

/// Somebody who is told, with how far the scopes reach.
pub struct Listener {
    scope: Scope,
    tasks: Option<Reach>,
    documents: Option<Reach>,
}

impl Listener {
    /// The caller of a request.
    pub fn caller(scope: Scope) -> Self {
        let reach = |kind| scope.caller.caps.reach(kind, Interaction::Read);
        Self {
            tasks: reach(Kind::Task.as_str()),
            documents: reach(Kind::Document.as_str()),
            scope,
        }
    }

    /// The tenant.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Whether the scopes are about resources of this type at all.
    pub const fn reaches(&self, kind: Kind) -> bool {
        match kind {
            Kind::Task => self.tasks.is_some(),
            Kind::Document => self.documents.is_some(),
            Kind::Binary | Kind::Subscription => false,
        }
    }

    /// The events, as far as they may be told: at least one of them, and none more once their resources take `most`
    /// bytes.
    pub fn tell(
        &self,
        read: &mut dyn Read,
        events: Vec<NumberedEvent>,
        most: usize,
    ) -> Result<Telling, AppError> {
        let (mut telling, mut known) = (Telling::default(), Known::default());
        let mut bytes = 0_usize;
        for NumberedEvent { number, event } in events {
            if bytes >= most {
                break;
            }
            telling.until = Some(number);
            match self.sees(read, &mut known, &event)? {
                Some(body) => {
                    bytes = bytes.saturating_add(body.len());
                    telling.told.push(Told { number, event, body });
                }
                None => telling.withheld.push(number),
            }
        }
        Ok(telling)
    }

    /// The version of its focus that shows an event, where it may be seen; nothing else says why not.
    pub fn sees(
        &self,
        read: &mut dyn Read,
        known: &mut Known,
        event: &TopicEvent,
    ) -> Result<Option<Vec<u8>>, AppError> {
        let Some((kind, id)) = focus_of(event) else {
            return Ok(None);
        };
        let reach = match kind {
            Kind::Task => self.tasks.as_ref(),
            _ => self.documents.as_ref(),
        };
        let Some(reach) = reach else {
            return Ok(None);
        };
        let tenant = self.scope.tenant();
        if kind == Kind::Task {
            if !known
                .task(read, tenant, id)?
                .is_some_and(|task| sees(&self.scope, task))
            {
                return Ok(None);
            }
        } else {
            match check_visible(read, &self.scope, kind, id) {
                Ok(()) => {}
                Err(error) if error.class == Class::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let Some(version) = known.version(read, tenant, kind, id, event.version)? else {
            return Ok(None);
        };
        let body = version.body.clone();
        // A deleted resource is within the scopes where it was before.
        let shown = if body.is_empty() {
            event.version.saturating_sub(1)
        } else {
            event.version
        };
        let reached = match reach {
            Reach::All => true,
            Reach::Within(_) => known
                .version(read, tenant, kind, id, shown)?
                .is_some_and(|shown| reach.covers(&self.scope, id, shown.last_updated, &shown.body)),
        };
        Ok(reached.then_some(body))
    }
}

/// The type and id that an event's focus names.
pub fn focus_of(event: &TopicEvent) -> Option<(Kind, &str)> {
    let (name, id) = event.focus.split_once('/')?;
    [Kind::Task, Kind::Document]
        .into_iter()
        .find(|kind| kind.as_str() == name)
        .map(|kind| (kind, id))
}

impl App {
    /// Who a Subscription was made by, as a caller, whether it may do anything now or not.
    fn subscriber(
        &self,
        tenant: &TenantId,
        subscription: &Subscription,
        correlation: Option<CorrelationId>,
    ) -> Result<Caller, AppError> {
        let principal = &subscription.subscriber;
        let correlation = match correlation {
            Some(known) => known,
            None => CorrelationId::parse(self.entropy.ordered_id(self.clock.now()))
                .map_err(|e| AppError::bad(e.to_string()))?,
        };
        let context = Context {
            tenant: tenant.clone(),
            correlation,
            now: self.clock.now(),
            agent: Arc::new(Agent::default()),
        };
        Ok(Caller {
            context: context.with_principal(principal),
            principal: Arc::new(principal.clone()),
            session: None,
            caps: (self.standings.caps)(principal),
        })
    }

    /// Who would be told by a Subscription if nothing stood in its way but what each event is about.
    pub fn would_be_listener(
        &self,
        tenant: &TenantId,
        subscription: &Subscription,
    ) -> Result<Listener, AppError> {
        let caller = self.subscriber(tenant, subscription, None)?;
        Ok(Listener::caller(self.scope(&caller)))
    }

    /// Who is told by a Subscription, at this moment; or why nobody is.
    pub fn listener(
        &self,
        tenant: &TenantId,
        subscription: &Subscription,
        correlation: Option<CorrelationId>,
    ) -> Result<Result<Listener, Reason>, AppError> {
        let principal = &subscription.subscriber;
        if principal.tenant != *tenant || !(self.standings.is_issuer)(tenant, &principal.issuer) {
            return Ok(Err(Reason::TokenInvalid));
        }
        if let Some(reason) = self.standing.of(tenant).on_caller(principal) {
            return Ok(Err(reason));
        }
        let scope = self.scope(&self.subscriber(tenant, subscription, correlation)?);
        let own = Relation {
            creator: true,
            ..Relation::default()
        };
        if scope
            .allows(Action::SubscriptionRead, own, Object::Subscription)
            .is_err()
        {
            return Ok(Err(Reason::PolicyDenied));
        }
        Ok(Ok(Listener::caller(scope)))
    }
}
