//! Who may hear a Subscription over a connection: whoever comes with a binding token, which its creator asked for just
//! before, or the creator itself. Of others' Subscriptions it is not told that there are any.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use handoff_domain::audit::{AuditRow, Context, Event, Outcome};
use handoff_domain::binding::{Binding, LASTS};
use handoff_domain::document::Sha256 as Digest;
use handoff_domain::ids::{SubscriptionId, TenantId};
use handoff_domain::ports::{self, Attention, Due, Kind, Read};
use handoff_domain::reason::Reason;
use handoff_domain::scopes::Interaction;
use handoff_domain::subscription::{Route, Subscription, SubscriptionStatus};
use handoff_domain::time::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::caps::Reach;
use super::deliveries::Next;
use super::subscriptions::visible;
use super::{App, AppError, Caller, Class, Cuts, Scope};

/// The most Subscriptions of one token.
pub const MOST_OF_A_TOKEN: usize = 100;

/// A token, told once.
#[derive(Debug)]
pub struct BindingToken {
    /// The token.
    pub token: SecretString,
    /// From when it is good no more.
    pub expires_at: Timestamp,
    /// What may be heard with it.
    pub subscriptions: Vec<SubscriptionId>,
}

/// A Subscription as it was bound to a connection.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The Subscription.
    pub subscription: Subscription,
    /// The events counted by then: what comes after is told.
    pub events: i64,
}

impl App {
    /// A token by which a connection hears these Subscriptions of the caller; all of them, or none.
    pub async fn binding_token(
        &self,
        caller: &Caller,
        ids: Vec<SubscriptionId>,
    ) -> Result<BindingToken, AppError> {
        let mut subscriptions = Vec::with_capacity(ids.len().min(MOST_OF_A_TOKEN));
        for id in ids {
            if !subscriptions.contains(&id) {
                subscriptions.push(id);
            }
            if subscriptions.len() > MOST_OF_A_TOKEN {
                return Err(AppError::bad(format!(
                    "one token is for at most {MOST_OF_A_TOKEN} subscriptions; ask for several tokens"
                )));
            }
        }
        let scope = self.scope(caller);
        let reach = self
            .demand(&scope, Kind::Subscription.as_str(), Interaction::Read)
            .await?;
        let mut secret = [0_u8; 32];
        self.entropy.fill(&mut secret);
        let token = SecretString::from(URL_SAFE_NO_PAD.encode(secret));
        let digest = digest_of(token.expose_secret());
        let binding = Binding {
            creator: caller.principal.actor.clone(),
            subscriptions,
            expires_at: scope.now().plus(LASTS),
        };
        let kept = binding.clone();
        self.write(caller.tenant(), move |tx| {
            for id in &kept.subscriptions {
                bindable(tx, &scope, &reach, id)?;
            }
            tx.keep_binding(scope.tenant(), &digest, &kept)?;
            Ok(((), Cuts::none()))
        })
        .await?;
        Ok(BindingToken {
            token,
            expires_at: binding.expires_at,
            subscriptions: binding.subscriptions,
        })
    }

    /// Uses up a token. Answers what is bound by it: those of its Subscriptions that can still be heard.
    pub async fn bind_by_token(&self, context: &Context, token: &str) -> Result<Vec<Bound>, AppError> {
        let (app, context) = (self.clone(), context.clone());
        let digest = digest_of(token);
        let of = context.tenant.clone();
        let tenant = of.clone();
        let found = self
            .write(&of, move |tx| {
                let now = app.clock.now();
                let Some(binding) = tx.take_binding(&tenant, &digest)? else {
                    return Ok((None, Cuts::none()));
                };
                if !binding.is_good(now) {
                    return Ok((None, Cuts::none()));
                }
                let mut bound = Vec::new();
                for id in &binding.subscriptions {
                    let Some(found) = tx.subscription(&tenant, id)? else {
                        continue;
                    };
                    let subscription = &found.subscription;
                    let still =
                        can_be_heard(subscription).is_ok() && subscription.created_by == binding.creator;
                    if !still || app.listener(&tenant, subscription, None)?.is_err() {
                        continue;
                    }
                    tx.record(&tenant, row(&context, now, subscription));
                    bound.push(Bound {
                        events: found.events,
                        subscription: found.subscription,
                    });
                }
                Ok((Some(bound), Cuts::none()))
            })
            .await?;
        let bound = found.ok_or_else(|| {
            AppError::new(
                Class::Unauthenticated,
                Reason::TokenInvalid,
                "the binding token is unknown, was used, or is too old; ask for a fresh one",
            )
        })?;
        if bound.is_empty() {
            return Err(AppError::new(
                Class::NotFound,
                Reason::NotFound,
                "none of the token's subscriptions can be heard any more",
            ));
        }
        self.made_active(&of, bound).await
    }

    /// Binds a Subscription of the caller.
    pub async fn bind_as(&self, caller: &Caller, id: SubscriptionId) -> Result<Bound, AppError> {
        let scope = self.scope(caller);
        let reach = self
            .demand(&scope, Kind::Subscription.as_str(), Interaction::Read)
            .await?;
        let app = self.clone();
        let bound = self
            .write(caller.tenant(), move |tx| {
                let found = bindable(tx, &scope, &reach, &id)?;
                if let Err(reason) = app.listener(scope.tenant(), &found.subscription, None)? {
                    return Err(AppError::forbidden(reason));
                }
                let row = row(&scope.caller.context, scope.now(), &found.subscription);
                tx.record(scope.tenant(), row);
                let bound = Bound {
                    events: found.events,
                    subscription: found.subscription,
                };
                Ok((bound, Cuts::none()))
            })
            .await?;
        let bound = self.made_active(caller.tenant(), vec![bound]).await?;
        bound.into_iter().next().ok_or_else(AppError::not_found)
    }

    /// Those of them that were asked for just before become active now, and not when somebody comes by.
    async fn made_active(&self, tenant: &TenantId, mut all: Vec<Bound>) -> Result<Vec<Bound>, AppError> {
        for bound in &mut all {
            if bound.subscription.status != SubscriptionStatus::Requested {
                continue;
            }
            let which = Due {
                tenant: tenant.clone(),
                id: bound.subscription.id.clone(),
            };
            // Who came by meanwhile has done it; either way it is read again.
            while let Next::Again = self.next_notice(&which, None).await? {}
            let now = self
                .read(move |read| Ok(read.subscription(&which.tenant, &which.id)?))
                .await?;
            if let Some(now) = now {
                bound.subscription = now.subscription;
            }
        }
        Ok(all)
    }
}

/// Forgets tokens that nobody used in their time.
pub async fn forget_old(app: &App) -> Result<(), AppError> {
    let now = app.clock.now();
    ports::write(app.store.as_ref(), move |tx| {
        tx.forget_bindings(now)?;
        Ok::<_, AppError>(())
    })
    .await
}

/// What is stored of a token.
fn digest_of(token: &str) -> Digest {
    Digest(Sha256::digest(token.as_bytes()).into())
}

/// A Subscription of the caller that a connection can hear; to others there is none.
fn bindable(
    read: &mut dyn Read,
    scope: &Scope,
    reach: &Reach,
    id: &SubscriptionId,
) -> Result<Attention, AppError> {
    let found = visible(read, scope, id).map_err(|error| match error.class {
        Class::Gone => AppError::not_found(),
        _ => error,
    })?;
    let own = found.subscription.created_by == scope.caller.principal.actor;
    if !own || !reach.covers_present(read, scope, Kind::Subscription, id.as_str())? {
        return Err(AppError::not_found());
    }
    can_be_heard(&found.subscription)?;
    Ok(found)
}

/// Whether it is for connections at all, and runs.
fn can_be_heard(subscription: &Subscription) -> Result<(), AppError> {
    if subscription.deleted {
        return Err(AppError::not_found());
    }
    if subscription.channel.route != Route::WebSocket {
        return Err(AppError::rule(
            "Subscription.channel.type",
            "only subscriptions with the channel `websocket` can be bound to a web socket",
        ));
    }
    match subscription.status {
        SubscriptionStatus::Requested | SubscriptionStatus::Active => Ok(()),
        SubscriptionStatus::Error | SubscriptionStatus::Off => Err(AppError::rule(
            "Subscription.status",
            "the subscription does not run; ask for it again with status `requested`",
        )),
    }
}

/// As whom, also where only a token came.
fn row(context: &Context, now: Timestamp, subscription: &Subscription) -> AuditRow {
    let context = context.clone().with_principal(&subscription.subscriber);
    let row = context.row(Event::SubscriptionBound, Outcome::Success, Reason::Permitted);
    AuditRow { recorded: now, ..row }.detail("subscription", subscription.id.as_str())
}
