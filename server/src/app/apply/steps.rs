//! Versions of a Task between the one that is mirrored and the one that came: told later, or never. Whether a move is legal
//! depends on those before it, so they are asked for and applied first where it matters, and nowhere else.

use handoff_domain::ids::{NoticeId, TaskId};
use handoff_domain::inbox::{Age, Matter, Mirror, NoticeState, SourceVersion};
use handoff_domain::ports::{BoxFuture, NoticeSearch, Read, SourceAct, StoreError};
use handoff_domain::reason::Reason;
use handoff_domain::source::Trust;
use handoff_domain::task::TaskStatus;
use handoff_domain::{SourceId, TenantId};
use handoff_fhir_model::{ParseOptions, Resource, bundle, parse};
use serde_json::Value;

use super::ask::{ask, next_of, refused};
use super::restraint::{Doubt, restrain};
use super::{Applying, Done, Pace, is_transient, name_origin, task, version_of};
use crate::app::inbox::{Item, Told};
use crate::app::{App, AppError, Class};

/// How many versions are asked for at once, and how many pages are followed.
const PAGE: usize = 50;
const MOST_PAGES: usize = 20;
/// How much of them is looked at, in bytes.
const MOST: usize = 16 << 20;
/// The most notices of one resource that are looked through for a version.
const LOOKED_THROUGH: u32 = 100;

/// Applies a notice about a Task, after the steps that it skips where it can't stand without them. Until it stands nothing is
/// released by any of them.
pub(super) async fn apply(
    app: &App,
    applying: &Applying,
    resource: Resource,
    version: SourceVersion,
) -> Result<Done, AppError> {
    let as_it_stands = || task::apply(app, applying, resource.clone(), version.clone());
    // What a source with `re-read` said of a version is not believed, and there is no other than the newest to read.
    let can_ask = applying.source.settings.base.is_some() && applying.source.settings.trust == Trust::AsSent;
    if !can_ask || applying.is_step {
        return as_it_stands().await.map(|()| Done::Settled);
    }
    let status = resource.value().get("status").and_then(Value::as_str);
    // A Task goes back to where it was suspended from, which only the step before says. No other step says anything that
    // the next ones hang on: so they are applied at once, above all those that take rights away.
    let suspends = status == Some(TaskStatus::OnHold.as_str()) && skips(app, applying, &version).await?;
    if !suspends {
        match as_it_stands().await {
            Err(error) if error.reason == Reason::IllegalTransition => {}
            settled => return settled.map(|()| Done::Settled),
        }
    }
    if !applying.is_patient {
        return Ok(Done::Later);
    }
    restrain(app, applying, Doubt::Open).await?;
    let caught_up = catch_up(app, applying, &version).await;
    match (as_it_stands().await, caught_up) {
        // It may be legal once the source can be asked.
        (Err(illegal), Err(unasked))
            if illegal.reason == Reason::IllegalTransition && is_transient(&unasked) =>
        {
            Err(unasked)
        }
        (settled, _) => settled.map(|()| Done::Settled),
    }
}

/// Whether versions are missing between what is mirrored and this one, as far as their numbers tell.
async fn skips(app: &App, applying: &Applying, version: &SourceVersion) -> Result<bool, AppError> {
    let number = |of: &SourceVersion| of.version.as_deref().and_then(|text| text.parse::<u64>().ok());
    let Some(number_here) = number(version) else {
        return Ok(false);
    };
    let known = mirrored(app, applying).await?;
    Ok(known
        .and_then(|known| number(&known.version))
        .is_some_and(|held| number_here > held.saturating_add(1)))
}

async fn mirrored(app: &App, applying: &Applying) -> Result<Option<Mirror>, AppError> {
    let (tenant, source) = (applying.tenant().clone(), applying.source.id.clone());
    let reference = applying.reference().to_owned();
    app.read(move |read| Ok(read.mirror(&tenant, &source, &reference)?))
        .await
}

/// Applies what the source has between what is mirrored and `version`, oldest first. Boxed: each step is a notice like this.
fn catch_up<'a>(
    app: &'a App,
    applying: &'a Applying,
    version: &'a SourceVersion,
) -> BoxFuture<'a, Result<(), AppError>> {
    Box::pin(async move {
        let known = mirrored(app, applying).await?;
        if known.is_none() && is_ours(app, applying).await? {
            // It came to us another way, and how far is not known: an old version could move it back.
            return Ok(());
        }
        for item in between(app, applying, known.as_ref(), version).await? {
            if let Some(id) = waiting(app, applying, item).await? {
                // A step that is refused is laid aside by itself.
                super::apply(app, applying.tenant(), &id, Pace::Step).await?;
            }
        }
        Ok(())
    })
}

/// Whether the source speaks of a Task by our id.
async fn is_ours(app: &App, applying: &Applying) -> Result<bool, AppError> {
    let id = applying.reference().strip_prefix("Task/").map(TaskId::parse);
    let Some(Ok(id)) = id else { return Ok(false) };
    let tenant = applying.tenant().clone();
    app.read(move |read| Ok(read.task(&tenant, &id)?.is_some())).await
}

/// The versions at the source after what is mirrored and before this one, oldest first.
async fn between(
    app: &App,
    applying: &Applying,
    known: Option<&Mirror>,
    version: &SourceVersion,
) -> Result<Vec<Item>, AppError> {
    let source = applying.source.as_ref();
    let mut path = format!("{}/_history?_count={PAGE}", applying.reference());
    let mut steps = Vec::new();
    let mut size: usize = 0;
    for _ in 0..MOST_PAGES {
        let answer = ask(app, source, SourceAct::Get, &path).await?;
        size = size.saturating_add(answer.body.len());
        if size > MOST {
            let text = "the Task's history at its source is too long to be read; bring it to where it is there, and dismiss this";
            return Err(AppError::new(Class::Unprocessable, Reason::TooLarge, text));
        }
        if answer.status != 200 {
            tracing::warn!(source = %source.id, status = answer.status, "a source does not answer a Task's history");
            return Err(refused(answer.status));
        }
        let page = parse(&answer.body, &ParseOptions::expecting("Bundle")).map_err(AppError::invalid)?;
        let next = next_of(source, page.value())?;
        let mut reached = false;
        for entry in bundle(page).map_err(AppError::invalid)?.entries {
            let Some(mut resource) = entry.resource else {
                continue;
            };
            let step = version_of(resource.value());
            name_origin(source.settings.base.as_deref(), &mut resource);
            // Newest first: behind what is mirrored there is nothing new.
            reached |= known.is_some_and(|known| step.against(&known.version) != Age::Newer);
            if !reached && step.against(version) == Age::Older {
                steps.push(Item {
                    numbered: None,
                    matter: Matter::Resource(applying.reference().to_owned()),
                    version: step,
                    body: resource.to_json(),
                    gone: false,
                });
            }
        }
        match next {
            Some(next) if !reached => path = next,
            _ => break,
        }
    }
    steps.reverse();
    Ok(steps)
}

/// The notice of this version that waits, taken in now where there is none; `None` where it was refused already.
async fn waiting(app: &App, applying: &Applying, item: Item) -> Result<Option<NoticeId>, AppError> {
    let (tenant, source) = (applying.tenant().clone(), applying.source.id.clone());
    let version = item.version.clone();
    let reference = applying.reference().to_owned();
    let open = app
        .read(move |read| Ok(unsettled(read, &tenant, &source, &reference, &version)?))
        .await?;
    match open {
        Some((id, NoticeState::Waiting { .. })) => Ok(Some(id)),
        Some(_) => Ok(None),
        None => {
            let told = Told {
                items: vec![item],
                ..Told::default()
            };
            let taken = app
                .take_in(&applying.caller, applying.source.id.clone(), told)
                .await?;
            Ok(taken.into_iter().next())
        }
    }
}

/// A notice of this version of a resource that is not settled.
pub(super) fn unsettled<R: Read + ?Sized>(
    read: &mut R,
    tenant: &TenantId,
    source: &SourceId,
    reference: &str,
    version: &SourceVersion,
) -> Result<Option<(NoticeId, NoticeState)>, StoreError> {
    for state in ["waiting", "quarantined"] {
        let search = NoticeSearch {
            state,
            source: Some(source.clone()),
            about: Some(reference.to_owned()),
            limit: LOOKED_THROUGH,
            ..NoticeSearch::default()
        };
        let found = read.notices(tenant, &search)?;
        let same = found
            .into_iter()
            .find(|notice| notice.version.against(version) == Age::Same);
        if let Some(notice) = same {
            return Ok(Some((notice.id, notice.state)));
        }
    }
    Ok(None)
}
