//! What sources told and could not be applied: operators see it, have it tried again, or give it up. The listing names
//! resources by id and nothing else of them.

use handoff_domain::audit::{AuditRow, Outcome};
use handoff_domain::ids::{NoticeId, SourceId};
use handoff_domain::inbox::{Notice, NoticeState};
use handoff_domain::ports::NoticeSearch;
use handoff_domain::reason::Reason;

use super::apply::{Pace, apply_one, relieve};
use super::standing::{administers, may_administer};
use super::{App, AppError, Caller, Class, Cuts, Scope};

/// The most of a listing.
pub const PAGE: u32 = 100;

impl App {
    /// What is quarantined, newest first, before `before`.
    pub async fn quarantined(
        &self,
        caller: &Caller,
        source: Option<SourceId>,
        before: Option<NoticeId>,
    ) -> Result<Vec<Notice>, AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            may_administer(&scope)?;
            let search = NoticeSearch {
                state: "quarantined",
                source: source.clone(),
                before: before.clone(),
                limit: PAGE,
                ..NoticeSearch::default()
            };
            Ok((tx.notices(scope.tenant(), &search)?, Cuts::none()))
        })
        .await
    }

    /// One notice that is, or was, quarantined.
    pub async fn quarantined_one(&self, caller: &Caller, id: NoticeId) -> Result<Notice, AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            may_administer(&scope)?;
            let notice = tx.notice(scope.tenant(), &id)?.ok_or_else(AppError::not_found)?;
            Ok((notice, Cuts::none()))
        })
        .await
    }

    /// Has a quarantined notice applied now; answers what became of it.
    pub async fn retry_notice(&self, caller: &Caller, id: NoticeId) -> Result<Notice, AppError> {
        let (scope, of) = (self.scope(caller), id.clone());
        self.write(caller.tenant(), move |tx| {
            may_administer(&scope)?;
            let notice = tx
                .lock_notice(scope.tenant(), &of)?
                .ok_or_else(AppError::not_found)?;
            check_quarantined(&notice)?;
            let row = about_notice(&scope, &notice, "notice-retried");
            let due = scope.now();
            tx.update_notice(scope.tenant(), &notice.become_state(NoticeState::Waiting { due }))?;
            tx.record(scope.tenant(), row);
            Ok(((), Cuts::none()))
        })
        .await?;
        let (app, tenant, of) = (self.clone(), caller.tenant().clone(), id.clone());
        self.to_the_end(async move { apply_one(&app, &tenant, &of, Pace::Patient).await })
            .await?;
        self.quarantined_one(caller, id).await
    }

    /// Gives a quarantined notice up: it is not applied, and what was sent is erased. Doing so again is no error.
    pub async fn dismiss_notice(&self, caller: &Caller, id: NoticeId) -> Result<(), AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            may_administer(&scope)?;
            let notice = tx
                .lock_notice(scope.tenant(), &id)?
                .ok_or_else(AppError::not_found)?;
            if matches!(notice.state, NoticeState::Dismissed { .. }) {
                return Ok(((), Cuts::none()));
            }
            check_quarantined(&notice)?;
            let row = about_notice(&scope, &notice, "notice-dismissed");
            let at = scope.now();
            let cuts = relieve(tx, &scope, &notice)?;
            tx.update_notice(
                scope.tenant(),
                &notice.become_state(NoticeState::Dismissed { at }),
            )?;
            tx.record(scope.tenant(), row);
            Ok(((), cuts))
        })
        .await?;
        // Nothing may be held back because of it any more.
        self.see_change().await;
        Ok(())
    }
}

fn check_quarantined(notice: &Notice) -> Result<(), AppError> {
    match notice.state {
        NoticeState::Quarantined { .. } => Ok(()),
        _ => Err(AppError::new(
            Class::Conflict,
            Reason::Invalid,
            format!(
                "it is not quarantined: it is `{}`; read it again",
                notice.state.as_str()
            ),
        )),
    }
}

fn about_notice(scope: &Scope, notice: &Notice, act: &str) -> AuditRow {
    let row = AuditRow {
        outcome: Outcome::Success,
        ..administers(scope)
    };
    let row = row
        .detail("act", act)
        .detail("notice", notice.id.as_str())
        .detail("source", notice.source.as_str());
    match notice.matter.reference() {
        Some(reference) => row.detail("about", reference),
        None => row,
    }
}
