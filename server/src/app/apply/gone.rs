//! A resource that was deleted at its source: deleted here like by a DELETE of the placer. What follows from one about a person
//! is for an operator to say.

use handoff_domain::audit::About;
use handoff_domain::ids::{DocumentId, TaskId};
use handoff_domain::reason::Reason;
use handoff_domain::source::FeedType;

use super::restraint::relieve;
use super::{Applying, Held, hold, mirrored, mirrored_as, settle, settle_old};
use crate::app::tasks::Expected;
use crate::app::{App, AppError, Class, Cuts, documents, tasks};

/// Applies a notice of a deletion.
pub(super) async fn apply(app: &App, applying: &Applying, kind: FeedType) -> Result<(), AppError> {
    if !matches!(kind, FeedType::Task | FeedType::DocumentReference) {
        return Err(AppError::new(
            Class::Unprocessable,
            Reason::NotSupported,
            "it was deleted at its source, and what it said stands until another resource there says otherwise",
        ));
    }
    let (scope, of) = (app.scope(&applying.caller), applying.clone());
    app.write(&applying.tenant().clone(), move |tx| {
        scope.begin_another();
        let (notice, before) = match hold(tx, &of, &of.notice.version)? {
            Held::Settled => return Ok(((), Cuts::none())),
            Held::Old(notice) => {
                return Ok(((), settle_old(tx, &scope, notice)?));
            }
            Held::Open(notice, before) => (notice, before),
        };
        let ours = mirrored_as(tx, &scope, kind, before.as_ref(), of.reference())?;
        let id = ours
            .as_deref()
            .and_then(|ours| ours.split_once('/'))
            .map(|(_, id)| id);
        let ((), mut cuts) = match (kind, id) {
            (FeedType::Task, Some(id)) => match TaskId::parse(id) {
                Ok(id) => tasks::delete(tx, &scope, &id, Expected::Existing)?,
                Err(_) => ((), Cuts::none()),
            },
            (_, Some(id)) => match DocumentId::parse(id) {
                Ok(id) => documents::delete(tx, &scope, &id, Expected::Existing)?,
                Err(_) => ((), Cuts::none()),
            },
            // What never came is not there.
            (_, None) => ((), Cuts::none()),
        };
        let about = About {
            task: ours.clone().filter(|ours| ours.starts_with("Task/")),
            document: ours.clone().filter(|ours| ours.starts_with("DocumentReference/")),
            ..About::default()
        };
        tx.put_mirror(
            scope.tenant(),
            &mirrored(&notice, before, ours.clone(), Vec::new()),
        )?;
        cuts.extend(relieve(tx, &scope, &notice)?);
        settle(tx, &scope, &of, notice, ours, about)?;
        Ok(((), cuts))
    })
    .await
}
