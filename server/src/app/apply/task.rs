//! A Task that came to be or changed at a source: mirrored by the same use cases as a POST or PUT of the placer, so that the
//! table, the rules, the grants and the audit are the same.

use handoff_domain::audit::About;
use handoff_domain::ids::TaskId;
use handoff_domain::inbox::SourceVersion;
use handoff_domain::ports::Tx;
use handoff_fhir_model::Resource;

use super::references::{Local, localise};
use super::{Applying, Held, hold, mirrored, settle, settle_old};
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
    app.write(&tenant, move |tx| {
        scope.begin_another();
        let (notice, before) = match hold(tx, &applying, &version)? {
            Held::Settled => return Ok(((), Cuts::none())),
            Held::Old(notice) => {
                settle_old(tx, &scope, notice)?;
                return Ok(((), Cuts::none()));
            }
            Held::Open(notice, before) => (notice, before),
        };
        let Local { resource, awaits } = localise(tx, &scope, &applying.source, resource.clone())?;
        let known = before.as_ref().and_then(|mirror| mirror.ours.clone());
        let ours = match known.or(adopted(tx, &scope, resource.id())?) {
            Some(ours) => ours.strip_prefix("Task/").and_then(|id| TaskId::parse(id).ok()),
            None => None,
        };
        let (stored, cuts) = match &ours {
            Some(id) => tasks::update(tx, &scope, id, &resource, Expected::Existing)?,
            None => tasks::create(tx, &scope, &new, &resource)?,
        };
        let reference = format!("Task/{}", stored.id);
        let about = About {
            task: Some(reference.clone()),
            task_version: Some(stored.version),
            ..About::default()
        };
        let mirror = mirrored(&notice, before, Some(reference.clone()), awaits);
        tx.put_mirror(&tenant_of(&scope), &mirror)?;
        settle(tx, &scope, notice, Some(reference), about)?;
        Ok(((), cuts))
    })
    .await
}

fn tenant_of(scope: &Scope) -> handoff_domain::TenantId {
    scope.tenant().clone()
}

/// A Task of the placer's own that the source speaks of by our id: it came to us another way.
fn adopted(tx: &mut dyn Tx, scope: &Scope, id: Option<&str>) -> Result<Option<String>, AppError> {
    let Some(id) = id.and_then(|id| TaskId::parse(id).ok()) else {
        return Ok(None);
    };
    let found = tx.task(scope.tenant(), &id)?;
    let own = found.filter(|task| !task.deleted && task.created_by == scope.caller.principal.actor);
    Ok(own.map(|task| format!("Task/{}", task.id)))
}
