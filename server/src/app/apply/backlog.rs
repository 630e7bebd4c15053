//! Who applies which notices when: what was just taken in at once, and what waits by source, so that one that does not answer
//! keeps nobody else waiting.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use handoff_domain::ids::{NoticeId, SourceId, TenantId};
use handoff_domain::time::Span;

use super::restraint::{Doubt, restrain};
use super::{Applying, Pace, apply_one, prepare};
use crate::app::{App, AppError};

/// How many notices are looked for at once.
const BATCH: u32 = 200;
/// How long one process works on a source's backlog before another may, unless it goes on.
const TURN: Span = Span::minutes(1);
/// How long it goes on before it looks again who else may.
const SHIFT: Duration = Duration::from_mins(5);
/// How many notices of a source ask it at once, beside its backlog.
const MOST_ASKING: usize = 4;
/// How long who told waits for it to be applied. It is durable, whatever comes of that.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a notice waits before what it tells of is held back.
const OVERDUE: Span = Span::seconds(2);
/// How many of a source that wait too long are held back, and how many are remembered.
const MOST_OVERDUE: u32 = 1_000;
const MOST_REMEMBERED: usize = 20_000;

/// Notices that this process has in hand, and sources whose backlog it works off.
#[derive(Debug, Default)]
pub struct InHand {
    notices: Mutex<HashMap<NoticeId, (TenantId, SourceId)>>,
    backlogs: Mutex<HashSet<(TenantId, SourceId)>>,
    /// Those that wait behind others, and were looked at for that.
    overdue: Mutex<HashSet<NoticeId>>,
}

/// Gives back what was taken in hand.
struct Given<F: FnMut()>(F);

impl<F: FnMut()> Drop for Given<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

pub(super) fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl InHand {
    /// Takes a notice in hand; `None` where it is already, or where it has to ask its source and enough of them do.
    pub(super) fn notice(self: &Arc<Self>, of: &Applying) -> Option<impl Drop + Send + use<>> {
        let id = of.notice.id.clone();
        let whose = (of.tenant().clone(), of.source.id.clone());
        let mut held = lock(&self.notices);
        let of_source = held.values().filter(|other| **other == whose).count();
        let is_busy = of.asks_first() && !of.is_patient && of_source >= MOST_ASKING;
        if is_busy || held.contains_key(&id) {
            return None;
        }
        held.insert(id.clone(), whose);
        let hands = Arc::clone(self);
        Some(Given(move || {
            lock(&hands.notices).remove(&id);
        }))
    }

    /// Takes the backlog of a source in hand; `None` where it is already.
    fn backlog(self: &Arc<Self>, tenant: &TenantId, source: &SourceId) -> Option<impl Drop + Send + use<>> {
        let whose = (tenant.clone(), source.clone());
        if !lock(&self.backlogs).insert(whose.clone()) {
            return None;
        }
        let hands = Arc::clone(self);
        Some(Given(move || {
            lock(&hands.backlogs).remove(&whose);
        }))
    }
}

impl App {
    /// Applies notices that were just taken in, in order, as far as that goes quickly.
    pub async fn apply_soon(&self, tenant: &TenantId, ids: Vec<NoticeId>) {
        let (app, tenant) = (self.clone(), tenant.clone());
        let work = self.to_the_end(async move {
            for id in ids {
                if let Err(error) = apply_one(&app, &tenant, &id, Pace::Soon).await {
                    tracing::error!(notice = %id, cause = ?error.cause, reason = %error.reason, "a notice could not be applied yet");
                }
            }
            Ok(())
        });
        // What takes longer goes on by itself.
        let _later = tokio::time::timeout(PATIENCE, work).await;
    }
}

/// Begins to apply what waits: each source's by itself, so that one that does not answer keeps nobody else waiting.
pub async fn run_once(app: &App) -> Result<(), AppError> {
    let now = app.clock.now();
    let waiting = app.read(move |read| Ok(read.waiting_sources(now)?)).await?;
    for (tenant, source) in waiting {
        if let Err(error) = hold_back_overdue(app, &tenant, &source).await {
            tracing::error!(%source, cause = ?error.cause, reason = %error.reason, "what waits too long is not held back yet");
        }
        if let Some(turn) = app.in_hand.backlog(&tenant, &source) {
            let worker = app.clone();
            drop(app.background.spawn(async move {
                let _turn = turn;
                if let Err(error) = work_off(&worker, &tenant, &source).await {
                    tracing::error!(%source, cause = ?error.cause, reason = %error.reason, "what a source told could not be worked off");
                }
            }));
        }
    }
    Ok(())
}

/// Holds back what notices tell of that wait behind others, say because their source does not answer: whatever is not applied in
/// a moment is not released meanwhile.
async fn hold_back_overdue(app: &App, tenant: &TenantId, source: &SourceId) -> Result<(), AppError> {
    let (of, whose, now) = (tenant.clone(), source.clone(), app.clock.now());
    let waiting = app
        .read(move |read| Ok(read.waiting_notices(&of, &whose, now, MOST_OVERDUE)?))
        .await?;
    for id in waiting {
        if lock(&app.in_hand.overdue).contains(&id) {
            continue;
        }
        // One that fails must not keep the others from being looked at; it is come back to.
        match hold_back(app, tenant, &id).await {
            Ok(true) => {
                let mut known = lock(&app.in_hand.overdue);
                if known.len() >= MOST_REMEMBERED {
                    known.clear();
                }
                known.insert(id);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::error!(notice = %id, cause = ?error.cause, reason = %error.reason, "what a notice tells of is not held back yet");
            }
        }
    }
    Ok(())
}

/// Whether it was time to hold back what a notice tells of, and that is done.
async fn hold_back(app: &App, tenant: &TenantId, id: &NoticeId) -> Result<bool, AppError> {
    let Some(applying) = prepare(app, tenant, id, Pace::Soon).await? else {
        return Ok(false);
    };
    let is_overdue = app.clock.now().since(applying.notice.received_at) >= OVERDUE;
    if is_overdue {
        restrain(app, &applying, Doubt::Open).await?;
    }
    Ok(is_overdue)
}

/// Applies what waits of a source, for a while. One process at a time works on it.
async fn work_off(app: &App, tenant: &TenantId, source: &SourceId) -> Result<(), AppError> {
    let lease = format!("inbox/{tenant}/{source}");
    let begun = Instant::now();
    while begun.elapsed() < SHIFT {
        if !app.store.lease(&lease, &app.settings.process, TURN).await? {
            return Ok(());
        }
        let (of, whose, now) = (tenant.clone(), source.clone(), app.clock.now());
        let waiting = app
            .read(move |read| Ok(read.waiting_notices(&of, &whose, now, BATCH)?))
            .await?;
        if waiting.is_empty() {
            return Ok(());
        }
        for id in waiting {
            // One that fails must not keep the others waiting; it is come back to.
            if let Err(error) = apply_one(app, tenant, &id, Pace::Patient).await {
                tracing::error!(notice = %id, cause = ?error.cause, reason = %error.reason, "a notice could not be applied yet");
            }
        }
    }
    Ok(())
}
