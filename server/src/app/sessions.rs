//! Sessions of people who signed in with a browser: begun, found again, ended. What a session says of its person is for
//! the edge to read; here it is kept, and each beginning and end is recorded.

use handoff_domain::audit::{AuditRow, Context, Event, Outcome};
use handoff_domain::ids::TenantId;
use handoff_domain::ports;
use handoff_domain::reason::Reason;
use handoff_domain::session::{Session, Sessions};
use handoff_domain::time::Span;

use super::{App, AppError};

/// How long sessions last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionTimes {
    /// How long one may be left alone.
    pub idle: Span,
    /// How long one lasts, however busy.
    pub absolute: Span,
}

impl App {
    /// Begins a session. The one that the browser had before (`instead_of`) ends.
    pub async fn begin_session(
        &self,
        context: &Context,
        session: Session,
        instead_of: Option<String>,
    ) -> Result<(), AppError> {
        let row = login(context, "signed-in");
        let tenant = context.tenant.clone();
        ports::write(self.store.as_ref(), move |tx| {
            if let Some(old) = &instead_of {
                tx.end_sessions(&tenant, &Sessions::One(old.clone()))?;
            }
            tx.insert_session(&tenant, &session)?;
            tx.record(&tenant, row.clone());
            Ok::<_, AppError>(())
        })
        .await
    }

    /// A session that may be used now; that it was is written down, now and then.
    pub async fn use_session(&self, tenant: &TenantId, id: String) -> Result<Option<Session>, AppError> {
        let (of, wanted) = (tenant.clone(), id.clone());
        let found = self.read(move |read| Ok(read.session(&of, &wanted)?)).await?;
        let now = self.clock.now();
        let Some(session) = found.filter(|s| s.is_live(self.settings.sessions.idle, now)) else {
            return Ok(None);
        };
        if session.is_to_touch(now) {
            let tenant = tenant.clone();
            ports::write(self.store.as_ref(), move |tx| {
                Ok::<_, AppError>(tx.touch_session(&tenant, &id, now)?)
            })
            .await?;
        }
        Ok(Some(session))
    }

    /// Ends sessions; answers how many. Where there were none, nothing is recorded.
    pub async fn end_sessions(
        &self,
        context: &Context,
        which: Sessions,
        act: &'static str,
    ) -> Result<usize, AppError> {
        let row = login(context, act);
        let tenant = context.tenant.clone();
        ports::write(self.store.as_ref(), move |tx| {
            let count = tx.end_sessions(&tenant, &which)?;
            if count > 0 {
                tx.record(&tenant, row.clone().detail("sessions", count.to_string()));
            }
            Ok::<_, AppError>(count)
        })
        .await
    }
}

/// Forgets sessions that are over.
pub async fn forget_old(app: &App) -> Result<(), AppError> {
    let now = app.clock.now();
    let idle_since = now.plus(Span(app.settings.sessions.idle.0.saturating_neg()));
    ports::write(app.store.as_ref(), move |tx| {
        tx.forget_sessions(now, idle_since)?;
        Ok::<_, AppError>(())
    })
    .await
}

fn login(context: &Context, act: &str) -> AuditRow {
    context
        .row(Event::Login, Outcome::Success, Reason::Permitted)
        .detail("act", act)
}
