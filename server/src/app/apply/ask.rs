//! Asking a source: for one resource as it stands there now, and for everything that changed since it was last asked. What
//! changed is taken in like notices, so that nothing is lost where this process dies in between.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use handoff_domain::inbox::{Age, FeedSubscription, Matter, NoticeState, SourceVersion};
use handoff_domain::ports::{SourceAct, SourceAnswer, SourceError, SourceRequest};
use handoff_domain::reason::Reason;
use handoff_domain::source::{FeedType, Source};
use handoff_domain::time::{Span, Timestamp};
use handoff_fhir_model::{ParseOptions, bundle, parse};
use serde_json::Value;

use super::steps::unsettled;
use super::{Applying, Held, hold, name_origin, settle, version_of};
use crate::app::inbox::{Item, Told};
use crate::app::{App, AppError, Class, Cuts};

/// The most bytes of an answer.
const ANSWER_LIMIT: usize = 16 << 20;
/// How many resources are asked for at once, and how many pages are followed.
const PAGE: usize = 100;
const MOST_PAGES: usize = 10_000;
/// Clocks differ, and what was committed late may bear an earlier instant: so far back it is asked for again.
const OVERLAP: Span = Span::minutes(5);

/// How long a process may ask before another begins anew.
const IN_HAND: Span = Span::minutes(5);

/// A resource of a source as it stands there now.
pub(super) async fn read(app: &App, source: &Source, reference: &str) -> Result<Vec<u8>, AppError> {
    let answer = ask(app, source, SourceAct::Get, reference).await?;
    match answer.status {
        200 => Ok(answer.body),
        404 | 410 => Err(AppError::new(
            Class::NotFound,
            Reason::NotFound,
            "the source does not have it, or does not show it to us",
        )),
        status => Err(refused(status)),
    }
}

/// The content of a Binary at a source, in base64, with its type.
pub(super) async fn content(app: &App, source: &Source, path: &str) -> Result<(String, String), AppError> {
    let answer = ask(app, source, SourceAct::Get, path).await?;
    if answer.status != 200 {
        return Err(refused(answer.status));
    }
    let given = answer.content_type.unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_owned();
    if !matches!(
        essence.as_str(),
        "application/fhir+json" | "application/json+fhir"
    ) {
        let kind = if essence.is_empty() {
            "application/octet-stream".to_owned()
        } else {
            essence
        };
        return Ok((kind, STANDARD.encode(answer.body)));
    }
    let binary = parse(&answer.body, &ParseOptions::expecting("Binary")).map_err(AppError::invalid)?;
    let text = |name| {
        binary
            .value()
            .get(name)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    Ok((
        text("contentType").unwrap_or_default(),
        text("data").unwrap_or_default(),
    ))
}

/// Asks a source; what is behind the failure decides whether it is tried again.
pub(in crate::app) async fn ask(
    app: &App,
    source: &Source,
    act: SourceAct,
    path: &str,
) -> Result<SourceAnswer, AppError> {
    let request = SourceRequest {
        act,
        path: path.to_owned(),
        answer_limit: ANSWER_LIMIT,
    };
    let answer = app
        .sources
        .ask(source, request)
        .await
        .map_err(|error| match &error {
            SourceError::NoBase => super::unreadable(),
            SourceError::Path => AppError::new(
                Class::Unprocessable,
                Reason::NotSupported,
                "what is named is not the source's own",
            ),
            SourceError::TooLarge => AppError::new(
                Class::Unprocessable,
                Reason::TooLarge,
                "the source's answer is too large",
            ),
            SourceError::Credentials(_) | SourceError::Unreachable(_) => AppError::new(
                Class::Unavailable,
                Reason::StorageUnavailable,
                "the source can't be asked now; it is tried again",
            )
            .because(error.to_string()),
        })?;
    // What a source does not implement (501) it won't another time either.
    if (answer.status >= 500 && answer.status != 501) || answer.status == 429 || answer.status == 408 {
        return Err(AppError::new(
            Class::Unavailable,
            Reason::StorageUnavailable,
            "the source does not answer now; it is tried again",
        )
        .because(format!("status {}", answer.status)));
    }
    Ok(answer)
}

pub(super) fn refused(status: u16) -> AppError {
    AppError::new(
        Class::Unprocessable,
        Reason::PolicyDenied,
        format!("the source refuses to show it (status {status}); check what our client may read there"),
    )
}

/// Asks a source for everything that changed since it was last asked, and takes that in.
pub(super) async fn changes(app: &App, applying: &Applying) -> Result<(), AppError> {
    let source = applying.source.as_ref();
    let tenant = applying.caller.tenant().clone();
    begin(app, applying).await?;
    let began = app.clock.now();
    let since = source.feed.asked_to.unwrap_or(source.added_at);
    let (of, name) = (tenant.clone(), source.id.clone());
    let before: Vec<FeedSubscription> = app
        .read(move |read| Ok(read.feed_subscriptions(&of, &name)?))
        .await?;
    let mut answered = false;
    for kind in &source.settings.types {
        answered |= changed(app, applying, *kind, since).await?;
    }
    if !answered {
        return Err(AppError::new(
            Class::Unprocessable,
            Reason::NotSupported,
            "the source answers for none of the types that it may speak of; look at its base, our credentials there and `--type`",
        ));
    }
    let scope = app.scope(&applying.caller);
    let of = applying.clone();
    app.write(&tenant, move |tx| {
        let Held::Open(notice, _) = hold(tx, &of, &SourceVersion::default())? else {
            return Ok(((), Cuts::none()));
        };
        if let Some(mut source) = tx.lock_source(scope.tenant(), &of.source.id)? {
            let until = began.plus(Span(-OVERLAP.0));
            source.feed.asked_to = Some(source.feed.asked_to.map_or(until, |known| known.max(until)));
            tx.update_source(scope.tenant(), &source)?;
        }
        // What was missing when we began is among what was asked for; what is missing since then is not.
        for mut known in tx.feed_subscriptions(scope.tenant(), &of.source.id)? {
            let asked = before.iter().find(|one| one.reference == known.reference);
            // One that began anew meanwhile counts other events.
            let asked = asked.filter(|one| one.last_event <= known.last_event);
            if let Some(asked) = asked.filter(|_| !known.missing.is_empty()) {
                known.healed(asked.last_event);
                tx.put_feed_subscription(scope.tenant(), &known)?;
            }
        }
        settle(
            tx,
            &scope,
            &of,
            notice,
            None,
            handoff_domain::audit::About::default(),
        )?;
        Ok(((), Cuts::none()))
    })
    .await
}

/// Writes down that it was begun: whatever the source tells from now on is asked for again. Should this process die, it is
/// begun again after a while.
async fn begin(app: &App, applying: &Applying) -> Result<(), AppError> {
    let (scope, id) = (app.scope(&applying.caller), applying.notice.id.clone());
    app.write(applying.caller.tenant(), move |tx| {
        if let Some(mut notice) = tx.lock_notice(scope.tenant(), &id)?
            && matches!(notice.state, NoticeState::Waiting { .. })
        {
            notice.tries = notice.tries.saturating_add(1);
            let due = scope.now().plus(IN_HAND);
            tx.update_notice(scope.tenant(), &notice.become_state(NoticeState::Waiting { due }))?;
        }
        Ok(((), Cuts::none()))
    })
    .await
}

/// Takes in what changed of one type; answers whether the source has it.
async fn changed(app: &App, applying: &Applying, kind: FeedType, since: Timestamp) -> Result<bool, AppError> {
    let source = applying.source.as_ref();
    let mut path = format!(
        "{}?_lastUpdated=gt{}&_sort=_lastUpdated&_count={PAGE}",
        kind.as_str(),
        since.to_instant()
    );
    for _ in 0..MOST_PAGES {
        let answer = ask(app, source, SourceAct::Get, &path).await?;
        match answer.status {
            200 => {}
            401 => return Err(refused(401)),
            // A type that the source does not have, or that our client may not read there, is not asked for.
            400..=499 | 501 => {
                tracing::warn!(
                    source = %source.id,
                    kind = kind.as_str(),
                    status = answer.status,
                    "a source does not answer what changed"
                );
                return Ok(false);
            }
            status => return Err(refused(status)),
        }
        let page = parse(&answer.body, &ParseOptions::expecting("Bundle")).map_err(AppError::invalid)?;
        let next = next_of(source, page.value())?;
        let found = bundle(page).map_err(AppError::invalid)?.entries.into_iter();
        let items: Vec<Item> = found
            .filter_map(|entry| entry.resource)
            .filter(|resource| resource.type_name() == kind.as_str())
            .filter_map(|mut resource| {
                name_origin(source.settings.base.as_deref(), &mut resource);
                Some(Item {
                    numbered: None,
                    matter: Matter::Resource(format!("{}/{}", kind.as_str(), resource.id()?)),
                    version: version_of(resource.value()),
                    body: resource.to_json(),
                    gone: false,
                })
            })
            .collect();
        let items = unknown(app, applying, items).await?;
        if !items.is_empty() {
            let told = Told {
                items,
                ..Told::default()
            };
            app.take_in(&applying.caller, source.id.clone(), told).await?;
        }
        match next {
            Some(next) => path = next,
            None => return Ok(true),
        }
    }
    Err(AppError::new(
        Class::Unprocessable,
        Reason::TooLarge,
        "the source's answer has no end",
    ))
}

/// Those that are not here in this version already, applied or refused: what was taken in before this was begun anew need not
/// be again.
async fn unknown(app: &App, applying: &Applying, items: Vec<Item>) -> Result<Vec<Item>, AppError> {
    let (tenant, source) = (applying.caller.tenant().clone(), applying.source.id.clone());
    app.read(move |read| {
        let mut fresh = Vec::with_capacity(items.len());
        for item in items {
            let known = match item.matter.reference() {
                Some(reference) => read.mirror(&tenant, &source, reference)?,
                None => None,
            };
            let age = known.map(|known| item.version.against(&known.version));
            let open = match item.matter.reference() {
                Some(reference) => unsettled(read, &tenant, &source, reference, &item.version)?,
                None => None,
            };
            if !matches!(age, Some(Age::Same | Age::Older)) && open.is_none() {
                fresh.push(item);
            }
        }
        Ok(fresh)
    })
    .await
}

/// Where the next page is, below the source's base. A link to anywhere else is not followed, and what lies behind it is
/// missing.
pub(super) fn next_of(source: &Source, page: &Value) -> Result<Option<String>, AppError> {
    let links = page.get("link").and_then(Value::as_array);
    let next = links
        .into_iter()
        .flatten()
        .find(|link| link.get("relation").and_then(Value::as_str) == Some("next"));
    let Some(next) = next else {
        return Ok(None);
    };
    let base = source.settings.base.as_deref().unwrap_or_default();
    next.get("url")
        .and_then(Value::as_str)
        .and_then(|url| url.strip_prefix(base))
        .and_then(|rest| {
            rest.strip_prefix('/')
                .or_else(|| rest.starts_with('?').then_some(rest))
        })
        .map(|rest| Some(rest.to_owned()))
        .ok_or_else(|| {
            AppError::new(
                Class::Unprocessable,
                Reason::NotSupported,
                "the source's next page is not below its base, so it is not asked for: have the source name its pages by the \
                 base that it is configured with here",
            )
        })
}
