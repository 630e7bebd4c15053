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
            let mut row = row.clone();
            if let Some(old) = &instead_of {
                let ended = tx.end_sessions(&tenant, &Sessions::One(old.clone()))?;
                row = row.detail("ended-before", ended.to_string());
            }
            tx.insert_session(&tenant, &session)?;
            tx.record(&tenant, row);
            Ok::<_, AppError>(())
        })
        .await
    }

    /// A session that may be used now.
    pub async fn session(&self, tenant: &TenantId, id: String) -> Result<Option<Session>, AppError> {
        let of = tenant.clone();
        let found = self.read(move |read| Ok(read.session(&of, &id)?)).await?;
        let now = self.clock.now();
        Ok(found.filter(|s| s.is_live(self.settings.sessions.idle, now)))
    }

    /// Writes down, now and then, that a session was used.
    pub async fn touch_session(&self, tenant: &TenantId, session: &Session) -> Result<(), AppError> {
        let now = self.clock.now();
        if !session.is_to_touch(self.settings.sessions.idle, now) {
            return Ok(());
        }
        let (tenant, id) = (tenant.clone(), session.id.clone());
        ports::write(self.store.as_ref(), move |tx| {
            Ok::<_, AppError>(tx.touch_session(&tenant, &id, now)?)
        })
        .await
    }

    /// Ends sessions; answers how many. Where there were none, nothing is recorded.
    pub async fn end_sessions(
        &self,
        context: &Context,
        which: Sessions,
        act: &'static str,
    ) -> Result<usize, AppError> {
        let mut row = login(context, act);
        if let Sessions::Of { issuer, subject, sid } = &which {
            let named = [
                ("issuer", Some(issuer)),
                ("subject", subject.as_ref()),
                ("sid", sid.as_ref()),
            ];
            for (name, value) in named {
                if let Some(value) = value {
                    row = row.detail(name, value.as_str());
                }
            }
        }
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
