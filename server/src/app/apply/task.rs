//! A Task that came to be or changed at a source: mirrored by the same use cases as a POST or PUT of the placer, so that the
//! table, the rules, the grants and the audit are the same.

use handoff_domain::audit::About;
use handoff_domain::ids::TaskId;
use handoff_domain::inbox::SourceVersion;
use handoff_domain::ports::{Kind, Tx};
use handoff_domain::source::FeedType;
use handoff_fhir_model::Resource;

use super::references::{Local, is_echo, localise};
use super::restraint::while_applying;
use super::{Applying, Held, Here, as_it_is, hold, mirrored, mirrored_as, settle, settle_old};
use crate::app::expiry::settle_one;
use crate::app::tasks::{self, Expected};
use crate::app::{App, AppError, Cuts, Scope};

/// Applies a notice about a Task.
pub(super) async fn apply(
    app: &App,
    applying: &Applying,
    resource: Resource,
    version: SourceVersion,
) -> Result<(), AppError> {
    let scope = app.scope(&applying.caller);
    let new = tasks::new_task_id(&scope)?;
    let applying = applying.clone();
    let tenant = applying.caller.tenant().clone();
    let is_lifted = app
        .write(&tenant, move |tx| {
            scope.begin_another();
            let (notice, before) = match hold(tx, &applying, &version)? {
                Held::Settled => return Ok((false, Cuts::none())),
                Held::Old(notice) => {
                    return Ok((false, settle_old(tx, &scope, notice)?));
                }
                Held::Open(notice, before) => (notice, before),
            };
            let ours = mirrored_as(tx, &scope, FeedType::Task, before.as_ref(), applying.reference())?;
            if (before.is_none() || ours.is_none()) && is_echo(tx, &scope, &applying.source, &resource)? {
                return Ok((false, settle_old(tx, &scope, notice)?));
            }
            let Local { resource, awaits } = localise(tx, &scope, &applying.source, resource.clone())?;
            let ours = ours
                .as_deref()
                .and_then(|ours| ours.strip_prefix("Task/"))
                .map(TaskId::parse);
            let ours = ours.transpose().map_err(|e| AppError::bad(e.to_string()))?;
            let here = match &ours {
                Some(id) => as_it_is(tx, &scope, Kind::Task, id.as_str(), &resource, &version)?,
                None => Here::Differs,
            };
            if before.is_none() && here == Here::Newer {
                return Ok((false, settle_old(tx, &scope, notice)?));
            }
            let reference = format!("Task/{}", ours.as_ref().unwrap_or(&new));
            let going = while_applying(tx, &scope, &applying, &notice, &reference)?;
            let (scope, lifted) = (going.scope.clone(), going.is_lifted);
            let (version, mut cuts) = match (&ours, here) {
                (Some(id), Here::Same(version)) if lifted => (version, settle_one(tx, &scope, id)?.1),
                (Some(_), Here::Same(version)) => (version, Cuts::none()),
                (Some(id), _) => {
                    let (stored, cuts) = tasks::update(tx, &scope, id, &resource, Expected::Existing)?;
                    (stored.version, cuts)
                }
                (None, _) => {
                    let (stored, cuts) = tasks::create(tx, &scope, &new, &resource)?;
                    (stored.version, cuts)
                }
            };
            cuts.extend(going.settle_others(tx)?);
            let about = About {
                task: Some(reference.clone()),
                task_version: Some(version),
                ..About::default()
            };
            let mirror = mirrored(&notice, before, Some(reference.clone()), awaits);
            tx.put_mirror(scope.tenant(), &mirror)?;
            settle(tx, &scope, &applying, notice, Some(reference), about)?;
            Ok((lifted, cuts))
        })
        .await?;
    if is_lifted {
        app.see_change().await;
    }
    Ok(())
}

/// A Task of the placer's own that the source speaks of by our id: it came to us another way.
pub(super) fn adopted(tx: &mut dyn Tx, scope: &Scope, id: Option<&str>) -> Result<Option<String>, AppError> {
    let Some(id) = id.and_then(|id| TaskId::parse(id).ok()) else {
        return Ok(None);
    };
    let found = tx.task(scope.tenant(), &id)?;
    let own = found.filter(|task| !task.deleted && task.created_by == scope.caller.principal.actor);
    Ok(own.map(|task| format!("Task/{}", task.id)))
}
