//! A Task that came to be or changed at a source: mirrored by the same use cases as a POST or PUT of the placer, so that the
//! table, the rules, the grants and the audit are the same.

use handoff_domain::audit::About;
use handoff_domain::grant::Grant;
use handoff_domain::ids::TaskId;
use handoff_domain::inbox::SourceVersion;
use handoff_domain::ports::{Kind, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::task::TaskStatus;
use handoff_fhir_model::Resource;
use serde_json::Value;

use super::references::{Local, localise};
use super::{Applying, Held, hold, is_as_stored, is_transient, mirrored, settle, settle_old};
use crate::app::tasks::{self, Expected};
use crate::app::{App, AppError, Cuts, Scope, grants};

/// Applies a notice about a Task. Where it is refused although the Task releases nothing at its source any more, neither does
/// it here; of a step that is past already the later one says so.
pub(super) async fn apply(
    app: &App,
    applying: &Applying,
    resource: Resource,
    version: SourceVersion,
) -> Result<(), AppError> {
    let status = resource.value().get("status").and_then(Value::as_str);
    let ended = status.and_then(TaskStatus::parse).is_some_and(|status| {
        status.is_terminal() || matches!(status, TaskStatus::OnHold | TaskStatus::Draft)
    });
    let refused = match mirror(app, applying, resource, version).await {
        Err(refused) if ended && !applying.is_step && !is_transient(&refused) => refused,
        answer => return answer,
    };
    take_back(app, applying).await?;
    Err(refused)
}

/// Revokes what is open of the Task that is the mirror of the one that was told of.
async fn take_back(app: &App, applying: &Applying) -> Result<(), AppError> {
    let scope = app.scope(&applying.caller);
    let (source, theirs) = (
        applying.source.id.clone(),
        applying.notice.matter.reference().unwrap_or_default().to_owned(),
    );
    app.write(&applying.caller.tenant().clone(), move |tx| {
        scope.begin_another();
        let mirror = tx.mirror(scope.tenant(), &source, &theirs)?;
        let ours = mirror.and_then(|mirror| mirror.ours);
        let Some(id) = ours
            .as_deref()
            .and_then(|ours| ours.strip_prefix("Task/"))
            .and_then(|id| TaskId::parse(id).ok())
        else {
            return Ok(((), Cuts::none()));
        };
        let open = |grant: &Grant| grant.state.is_open();
        let (_, cuts) = grants::revoke(tx, &scope, &id, &open, Reason::TaskNotActionable)?;
        Ok(((), cuts))
    })
    .await
}

async fn mirror(
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
        let unchanged = match &ours {
            Some(id) => is_as_stored(tx, &scope, Kind::Task, id.as_str(), &resource)?,
            None => None,
        };
        let (id, version, cuts) = match (&ours, unchanged) {
            (Some(id), Some(version)) => (id.to_string(), version, Cuts::none()),
            (Some(id), None) => {
                let (stored, cuts) = tasks::update(tx, &scope, id, &resource, Expected::Existing)?;
                (stored.id, stored.version, cuts)
            }
            (None, _) => {
                let (stored, cuts) = tasks::create(tx, &scope, &new, &resource)?;
                (stored.id, stored.version, cuts)
            }
        };
        let reference = format!("Task/{id}");
        let about = About {
            task: Some(reference.clone()),
            task_version: Some(version),
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
