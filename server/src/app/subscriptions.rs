//! Creating, changing, reading and deleting Subscriptions. Only the server moves one from `requested` to `active`; what is
//! secret in it is sealed, told to its creator once, and in no answer after.

use handoff_domain::access::{Action, Object, Relation};
use handoff_domain::audit::{Event, Outcome};
use handoff_domain::ids::SubscriptionId;
use handoff_domain::ports::{Attention, Kind, Read, SearchIndex, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::scopes::Interaction;
use handoff_domain::subscription::{
    Channel, Course, Criteria, Subscription, SubscriptionSecrets, SubscriptionStatus,
};
use handoff_domain::time::{Span, Timestamp};
use handoff_fhir_model::{Resource, search_index};
use serde_json::json;

use super::json_edit::{self, set_field};
use super::subscription_form::{is_redacted, redact, remove_field, shown_once, with_kept_values, written};
use super::subscription_secrets::{open_secrets, seal};
use super::tasks::Expected;
use super::{App, AppError, Caller, Class, Cuts, Scope, Stored};

/// How subscriptions are served.
#[derive(Debug, Clone)]
pub struct SubscriptionSettings {
    /// How long a subscriber that can't be reached is tried.
    pub give_up_after: Span,
    /// How long events are kept.
    pub keep: Span,
    /// The most Subscriptions of one creator that are not off.
    pub most_of_one: u64,
    /// The most of a tenant.
    pub most_of_all: u64,
}

impl Default for SubscriptionSettings {
    fn default() -> Self {
        Self {
            give_up_after: Span::hours(72),
            keep: Span::hours(24 * 14),
            most_of_one: 2_000,
            most_of_all: 10_000,
        }
    }
}

/// A Subscription as a client asks for it, read and checked.
#[derive(Debug, Clone)]
pub struct AskedFor {
    /// The resource as it was sent.
    pub resource: Resource,
    /// The status that it names.
    pub status: SubscriptionStatus,
    /// Which changes.
    pub criteria: Criteria,
    /// Which way.
    pub channel: Channel,
    /// `channel.header`, line by line; values may be redacted.
    pub headers: Vec<String>,
    /// `end`.
    pub end: Option<Timestamp>,
}

impl App {
    /// Creates a Subscription; its handshake follows. The answer, and no other, tells its headers and the key that its
    /// notifications are signed with.
    pub async fn create_subscription(&self, caller: &Caller, asked: AskedFor) -> Result<Stored, AppError> {
        let scope = self.scope(caller);
        let id = SubscriptionId::parse(scope.ordered_id()).map_err(|e| AppError::bad(e.to_string()))?;
        let app = self.clone();
        let made = self
            .write(caller.tenant(), move |tx| create(tx, &app, &scope, &id, &asked))
            .await?;
        Ok(made)
    }

    /// Changes a Subscription.
    pub async fn update_subscription(
        &self,
        caller: &Caller,
        id: SubscriptionId,
        asked: AskedFor,
        expected: Expected,
    ) -> Result<Stored, AppError> {
        let (scope, app) = (self.scope(caller), self.clone());
        self.write(caller.tenant(), move |tx| {
            update(tx, &app, &scope, &id, &asked, expected)
        })
        .await
    }

    /// Deletes a Subscription. Deleting it again is no error.
    pub async fn delete_subscription(
        &self,
        caller: &Caller,
        id: SubscriptionId,
        expected: Expected,
    ) -> Result<(), AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| delete(tx, &scope, &id, expected))
            .await
    }

    /// How Subscriptions stand, those that the caller may see; of one that it may not, 404.
    pub async fn subscription_status(
        &self,
        caller: &Caller,
        id: SubscriptionId,
    ) -> Result<Attention, AppError> {
        let scope = self.scope(caller);
        let reach = self
            .demand(&scope, Kind::Subscription.as_str(), Interaction::Read)
            .await?;
        self.read(move |read| {
            let found = visible(read, &scope, &id)?;
            if !reach.covers_present(read, &scope, Kind::Subscription, id.as_str())? {
                return Err(AppError::not_found());
            }
            Ok(found)
        })
        .await
    }
}

fn relation(scope: &Scope, subscription: &Subscription) -> Relation {
    Relation {
        creator: subscription.created_by == scope.caller.principal.actor,
        ..Relation::default()
    }
}

fn sees(scope: &Scope, subscription: &Subscription) -> bool {
    let relation = relation(scope, subscription);
    scope
        .allows(Action::SubscriptionRead, relation, Object::Subscription)
        .is_ok()
}

/// The Subscription, or the same 404 whether it is unknown or not for this caller.
pub(super) fn visible(
    read: &mut dyn Read,
    scope: &Scope,
    id: &SubscriptionId,
) -> Result<Attention, AppError> {
    let found = read
        .subscription(scope.tenant(), id)?
        .filter(|found| sees(scope, &found.subscription))
        .ok_or_else(AppError::not_found)?;
    if found.subscription.deleted {
        return Err(gone());
    }
    Ok(found)
}

/// A refusal for how the Subscription stands.
pub fn cannot_be(text: &str) -> AppError {
    AppError::new(Class::Conflict, Reason::Invalid, text)
}

fn gone() -> AppError {
    AppError::new(Class::Gone, Reason::NotFound, "the subscription was deleted")
}

/// Whether the caller may see the Subscription of this id, a deleted one too.
pub fn check_visible(read: &mut dyn Read, scope: &Scope, id: &str) -> Result<(), AppError> {
    match visible(
        read,
        scope,
        &SubscriptionId::parse(id).map_err(|_| AppError::not_found())?,
    ) {
        Err(error) if error.class == Class::Gone => Ok(()),
        answer => answer.map(drop),
    }
}

fn create(
    tx: &mut dyn Tx,
    app: &App,
    scope: &Scope,
    id: &SubscriptionId,
    asked: &AskedFor,
) -> Result<(Stored, Cuts), AppError> {
    let reach = scope.demand(Kind::Subscription.as_str(), Interaction::Create)?;
    scope.permit(
        Action::SubscriptionCreate,
        Relation::default(),
        Object::Tenant,
        Event::SubscriptionCreated,
    )?;
    if !matches!(
        asked.status,
        SubscriptionStatus::Requested | SubscriptionStatus::Off
    ) {
        return Err(AppError::rule(
            "Subscription.status",
            "a new subscription is `requested` (or `off`); only the server makes it `active`",
        ));
    }
    check_end(scope, asked)?;
    check_focus(scope, &asked.criteria)?;
    check_room(tx, scope, &app.settings.subscriptions)?;
    let subscription = Subscription {
        id: id.clone(),
        version: 1,
        last_updated: scope.now(),
        created_by: scope.caller.principal.actor.clone(),
        subscriber: (*scope.caller.principal).clone(),
        status: asked.status,
        criteria: asked.criteria.clone(),
        channel: asked.channel.clone(),
        end: asked.end,
        shape: 1,
        begun: false,
        deleted: false,
    };
    let secrets = SubscriptionSecrets {
        signing: app.fresh_signing_secret(),
        headers: asked.headers.clone(),
    };
    if let Some(line) = secrets.headers.iter().find(|line| is_redacted(line)) {
        let name = line.split(':').next().unwrap_or_default();
        return Err(AppError::rule(
            "Subscription.channel.header",
            format!("the value of `{name}` is redacted; send the value itself"),
        ));
    }
    let mut resource = written(asked.resource.clone(), &subscription, None);
    let shown = shown_once(&resource, &secrets, &subscription);
    redact(&mut resource);
    let index = index_of(scope, &resource);
    let answer = stored(&subscription, resource.to_json(), true);
    scope.keep_within(&reach, &answer, handoff_domain::audit::About::default())?;
    let sealed = if subscription.channel.is_pushed() {
        seal(app, scope, &subscription.id, &secrets)?
    } else {
        Vec::new()
    };
    tx.insert_subscription(scope.tenant(), &subscription, &answer.body, &index, &sealed)?;
    record(tx, scope, Event::SubscriptionCreated, &subscription);
    Ok((
        Stored {
            body: shown.to_json(),
            ..answer
        },
        Cuts::none(),
    ))
}

fn update(
    tx: &mut dyn Tx,
    app: &App,
    scope: &Scope,
    id: &SubscriptionId,
    asked: &AskedFor,
    expected: Expected,
) -> Result<(Stored, Cuts), AppError> {
    let reach = scope.demand(Kind::Subscription.as_str(), Interaction::Update)?;
    let before = tx
        .lock_subscription(scope.tenant(), id)?
        .filter(|found| sees(scope, found))
        .ok_or_else(AppError::not_found)?;
    if !reach.covers_present(tx, scope, Kind::Subscription, id.as_str())? {
        return Err(AppError::not_found());
    }
    if before.deleted {
        return Err(gone());
    }
    let own = relation(scope, &before);
    scope.permit(
        Action::SubscriptionUpdate,
        own,
        Object::Subscription,
        Event::SubscriptionUpdated,
    )?;
    expected.check(before.version, false)?;
    let now = tx
        .subscription(scope.tenant(), id)?
        .ok_or_else(AppError::not_found)?;
    let kept = open_secrets(app, scope, id, &now.sealed)?;
    let same_route = before.channel.route == asked.channel.route;
    if own.creator && !same_route && asked.headers.iter().any(|line| is_redacted(line)) {
        // Whoever gets them now did not get them from their subscriber.
        return Err(AppError::rule(
            "Subscription.channel.header",
            "the endpoint is another, so send the values of the headers again",
        ));
    }
    let headers = with_kept_values(&asked.headers, &kept.headers)?;
    let same_shape =
        before.criteria == asked.criteria && before.channel == asked.channel && headers == kept.headers;
    let current = tx
        .current(scope.tenant(), Kind::Subscription, id.as_str())?
        .ok_or_else(AppError::not_found)?;
    let current = json_edit::open(&current.body)?;
    let resource = if own.creator {
        asked.resource.clone()
    } else if same_shape && is_alike_but_for_status(&current, &asked.resource) {
        current.clone()
    } else {
        return Err(AppError::new(
            Class::Forbidden,
            Reason::PolicyDenied,
            "of another's subscription only `status` can be changed: what it is told goes by its subscriber's rights",
        ));
    };
    check_end(scope, asked)?;
    let status = match (before.status, asked.status) {
        (_, SubscriptionStatus::Off) => SubscriptionStatus::Off,
        // Read, changed and written back.
        (SubscriptionStatus::Active, SubscriptionStatus::Active) if same_shape => SubscriptionStatus::Active,
        (_, SubscriptionStatus::Requested) | (SubscriptionStatus::Active, SubscriptionStatus::Active) => {
            SubscriptionStatus::Requested
        }
        (SubscriptionStatus::Error, SubscriptionStatus::Error) if same_shape => SubscriptionStatus::Error,
        _ => {
            return Err(AppError::rule(
                "Subscription.status",
                "ask with `requested` (or end it with `off`); only the server makes it `active`",
            ));
        }
    };
    if own.creator {
        check_focus(scope, &asked.criteria)?;
        if before.status == SubscriptionStatus::Off && status != SubscriptionStatus::Off {
            check_room(tx, scope, &app.settings.subscriptions)?;
        }
    }
    let version = before.version.saturating_add(1);
    let subscription = Subscription {
        version,
        last_updated: before.last_updated.max(scope.now()),
        // An operator changes nothing of whose rights count.
        subscriber: if own.creator {
            (*scope.caller.principal).clone()
        } else {
            before.subscriber.clone()
        },
        status,
        criteria: asked.criteria.clone(),
        channel: asked.channel.clone(),
        end: asked.end,
        shape: if same_shape { before.shape } else { version },
        begun: before.begun_at(status),
        ..before.clone()
    };
    let mut resource = written(resource, &subscription, current.value().get("error"));
    redact(&mut resource);
    let answer = stored(&subscription, resource.to_json(), false);
    scope.keep_within(&reach, &answer, handoff_domain::audit::About::default())?;
    // Another endpoint gets another key.
    let has_key = !kept.signing.is_empty() && same_route;
    let secrets = SubscriptionSecrets {
        headers,
        signing: if has_key {
            kept.signing
        } else {
            app.fresh_signing_secret()
        },
    };
    let is_sealed_again = !same_shape && subscription.channel.is_pushed();
    let sealed = is_sealed_again
        .then(|| seal(app, scope, id, &secrets))
        .transpose()?;
    // Who had a web socket before has not been told a key yet.
    let shown =
        (is_sealed_again && !has_key).then(|| shown_once(&resource, &secrets, &subscription).to_json());
    let index = index_of(scope, &resource);
    tx.update_subscription(
        scope.tenant(),
        &subscription,
        &answer.body,
        &index,
        sealed.as_deref(),
    )?;
    let course = if status == before.status && same_shape && status == SubscriptionStatus::Active {
        now.course
    } else {
        let again = now.course.again();
        Course {
            // What was tried in another shape is not repeated in this one.
            trying: again.trying.filter(|_| same_shape),
            ..again
        }
    };
    tx.set_course(scope.tenant(), &subscription, &course, scope.now())?;
    record(tx, scope, Event::SubscriptionUpdated, &subscription);
    let body = shown.unwrap_or_else(|| answer.body.clone());
    Ok((Stored { body, ..answer }, Cuts::none()))
}

fn delete(
    tx: &mut dyn Tx,
    scope: &Scope,
    id: &SubscriptionId,
    expected: Expected,
) -> Result<((), Cuts), AppError> {
    let reach = scope.demand(Kind::Subscription.as_str(), Interaction::Delete)?;
    let Some(before) = tx
        .lock_subscription(scope.tenant(), id)?
        .filter(|found| !found.deleted && sees(scope, found))
    else {
        return Ok(((), Cuts::none()));
    };
    if !reach.covers_present(tx, scope, Kind::Subscription, id.as_str())? {
        return Ok(((), Cuts::none()));
    }
    scope.permit(
        Action::SubscriptionDelete,
        relation(scope, &before),
        Object::Subscription,
        Event::SubscriptionDeleted,
    )?;
    expected.check(before.version, false)?;
    let after = Subscription {
        version: before.version.saturating_add(1),
        last_updated: before.last_updated.max(scope.now()),
        status: SubscriptionStatus::Off,
        begun: false,
        deleted: true,
        ..before
    };
    // Nothing secret is left of it.
    tx.update_subscription(scope.tenant(), &after, &[], &SearchIndex::default(), Some(&[]))?;
    tx.set_course(scope.tenant(), &after, &Course::default(), scope.now())?;
    record(tx, scope, Event::SubscriptionDeleted, &after);
    Ok(((), Cuts::none()))
}

/// Moves a Subscription as the server itself, where it still is at `from` and of this shape; answers it as it is then.
pub fn move_on(
    tx: &mut dyn Tx,
    scope: &Scope,
    subscription: &Subscription,
    to: SubscriptionStatus,
    problem: Option<&str>,
) -> Result<Option<Subscription>, AppError> {
    let Some(before) = tx.lock_subscription(scope.tenant(), &subscription.id)? else {
        return Ok(None);
    };
    if before.deleted || before.status != subscription.status || before.shape != subscription.shape {
        return Ok(None);
    }
    let current = tx
        .current(scope.tenant(), Kind::Subscription, before.id.as_str())?
        .ok_or_else(AppError::not_found)?;
    let after = Subscription {
        version: before.version.saturating_add(1),
        last_updated: before.last_updated.max(scope.now()),
        status: to,
        begun: before.begun_at(to),
        ..before
    };
    let mut resource = json_edit::open(&current.body)?;
    set_field(resource.value_mut(), "status", json!(to.as_str()));
    match problem {
        Some(text) => set_field(resource.value_mut(), "error", json!(text)),
        None => remove_field(resource.value_mut(), "error"),
    }
    json_edit::stamp(&mut resource, after.version, after.last_updated);
    let index = index_of(scope, &resource);
    tx.update_subscription(scope.tenant(), &after, &resource.to_json(), &index, None)?;
    let row = scope
        .row(
            Event::SubscriptionUpdated,
            if to == SubscriptionStatus::Error {
                Outcome::Failed
            } else {
                Outcome::Success
            },
            Reason::Permitted,
        )
        .detail("subscription", after.id.as_str())
        .detail("to", to.as_str());
    let row = match problem {
        Some(text) => row.detail("problem", text),
        None => row,
    };
    tx.record(scope.tenant(), row);
    Ok(Some(after))
}

/// Whether a resource that was sent differs from what is kept in nothing but `status` and what only the server says.
fn is_alike_but_for_status(kept: &Resource, sent: &Resource) -> bool {
    let mut sent = sent.clone();
    redact(&mut sent);
    let [kept, sent] = [kept.clone(), sent].map(|resource| {
        let mut value = resource.into_value();
        for name in ["status", "error", "meta"] {
            remove_field(&mut value, name);
        }
        value
    });
    kept == sent
}

fn check_end(scope: &Scope, asked: &AskedFor) -> Result<(), AppError> {
    let is_over = asked.end.is_some_and(|end| end <= scope.now());
    if is_over && asked.status != SubscriptionStatus::Off {
        return Err(AppError::rule(
            "Subscription.end",
            "this instant is in the past; leave `end` out, or set a later one",
        ));
    }
    Ok(())
}

/// Who could never see what it asks to be told of is told so at once, and not by silence.
fn check_focus(scope: &Scope, criteria: &Criteria) -> Result<(), AppError> {
    let kind = criteria.focus;
    scope.demand(kind.as_str(), Interaction::Read)?;
    let (action, object) = match kind {
        Kind::Task => (Action::TaskRead, Object::Task(None)),
        _ => (Action::DocumentRead, Object::Document(None)),
    };
    let standings: [fn(&mut Relation); 7] = [
        |_| {},
        |r| r.creator = true,
        |r| r.requester = true,
        |r| r.owner = true,
        |r| r.recipient = true,
        |r| r.team = true,
        |r| r.through_task = true,
    ];
    let could = scope.rules.policy.looks_at_object(action)
        || standings.into_iter().any(|standing| {
            let mut relation = Relation::default();
            standing(&mut relation);
            scope.allows(action, relation, object).is_ok()
        });
    if could {
        return Ok(());
    }
    Err(scope.denied(action, Event::SubscriptionCreated))
}

fn check_room(tx: &mut dyn Tx, scope: &Scope, settings: &SubscriptionSettings) -> Result<(), AppError> {
    let creator = scope.caller.principal.actor.as_str();
    let (all, own) = tx.count_subscriptions(scope.tenant(), creator)?;
    let most = if own >= settings.most_of_one {
        settings.most_of_one
    } else if all >= settings.most_of_all {
        settings.most_of_all
    } else {
        return Ok(());
    };
    Err(AppError::new(
        Class::Unprocessable,
        Reason::TooLarge,
        format!("there are {most} subscriptions already, as many as may be; end some of them first"),
    ))
}

fn index_of(scope: &Scope, resource: &Resource) -> SearchIndex {
    search_index(resource, &scope.fhir_base())
}

fn stored(subscription: &Subscription, body: Vec<u8>, created: bool) -> Stored {
    Stored {
        kind: Kind::Subscription.as_str(),
        id: subscription.id.to_string(),
        version: subscription.version,
        last_updated: subscription.last_updated,
        body,
        created,
    }
}

fn record(tx: &mut dyn Tx, scope: &Scope, event: Event, subscription: &Subscription) {
    let row = scope
        .row(event, Outcome::Success, Reason::Permitted)
        .detail("subscription", subscription.id.as_str())
        .detail("to", subscription.status.as_str());
    tx.record(scope.tenant(), row);
}
