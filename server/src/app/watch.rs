//! Keeps the streams of this process in step with the store, for cuts that other processes commit and for rights that
//! ended without anybody telling. What must stop is read from the redemptions themselves, where it stands until the
//! end of the stream is recorded: news only says when to look, and what was missed once is found the next time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use handoff_domain::ids::RedemptionId;
use handoff_domain::ports::{self, Held};
use handoff_domain::reason::Reason;
use handoff_domain::redemption::RedemptionState;
use tokio::time::{Instant, timeout};

use super::streams::Entry;
use super::{App, AppError};

/// How often every stream is compared with the store, grants and all.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// How often what is blocked is looked at without any news.
const BLOCKS_EVERY: Duration = Duration::from_secs(1);
/// Who has not looked for so long may have been taken for dead meanwhile, and compares everything.
const LONG_AWAY: Duration = Duration::from_secs(3);
/// How long one look may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Streams end when their right to run could not be confirmed for this long.
const DOUBT_LIMIT: Duration = Duration::from_secs(20);

/// Stops the streams that may not go on, for as long as the process lives.
pub async fn follow_cuts(app: App) {
    let mut watch = Watch {
        confirmed: Instant::now(),
        compared: Instant::now(),
        blocks: Instant::now(),
    };
    loop {
        // Comes back after a short time without news too.
        let news = app.store.await_cut().await;
        watch.look_at_blocks(&app, news).await;
        watch.look(&app).await;
    }
}

struct Watch {
    /// When it was last known that what runs may run.
    confirmed: Instant,
    /// When everything that runs was last compared.
    compared: Instant,
    /// When it was last known what is blocked.
    blocks: Instant,
}

impl Watch {
    /// Sees what is blocked where there is news, streams that run, or some time has passed. A failure is seen by
    /// [`Self::look`], which asks the same store.
    async fn look_at_blocks(&mut self, app: &App, news: bool) {
        let now = Instant::now();
        let due = now.duration_since(self.blocks) >= BLOCKS_EVERY;
        if (news || due || app.streams.count() > 0)
            && let Ok(Ok(())) = timeout(ANSWER_LIMIT, app.look_at_blocks()).await
        {
            self.blocks = now;
        }
    }

    async fn look(&mut self, app: &App) {
        let now = Instant::now();
        // Those whose transaction is not committed yet are not in the store: no answer could be about them.
        let mut running = app.streams.all();
        running.retain(|entry| entry.number().is_some());
        if running.is_empty() {
            (self.confirmed, self.compared) = (now, now);
            return;
        }
        let all = now.duration_since(self.compared) >= COMPARE_EVERY
            || now.duration_since(self.confirmed) >= LONG_AWAY;
        match timeout(ANSWER_LIMIT, listed(app, all)).await {
            Ok(Ok(held)) => {
                stop(&running, held, all);
                self.confirmed = now;
                if all {
                    self.compared = now;
                }
            }
            _ if self.confirmed.elapsed() > DOUBT_LIMIT => {
                tracing::error!(streams = running.len(), "ending streams that can't be confirmed");
                // No right has ended, as far as is known: who comes back is asked about it again.
                for entry in running {
                    entry.let_go();
                }
            }
            _ => {}
        }
    }
}

/// What the store holds of our streams: of all, or of those that may not go on.
async fn listed(app: &App, all: bool) -> Result<Vec<Held>, AppError> {
    let (process, now) = (app.settings.process.clone(), app.clock.now());
    ports::watch(app.store.as_ref(), move |read| {
        Ok(if all {
            read.held_by(&process, now)?
        } else {
            read.halted_at(&process)?
        })
    })
    .await
}

/// Stops those of the streams that the store holds otherwise than as running here. Where everything is listed, that
/// includes those which it does not hold at all.
fn stop(running: &[Arc<Entry>], held: Vec<Held>, all: bool) {
    let held: HashMap<RedemptionId, Held> = held
        .into_iter()
        .map(|one| (one.redemption.id.clone(), one))
        .collect();
    for entry in running {
        let found = held
            .get(entry.redemption())
            .filter(|one| one.redemption.tenant == *entry.tenant() && Some(one.stream) == entry.number());
        match found {
            Some(Held {
                state: RedemptionState::Streaming,
                grant_ended: None,
                ..
            }) => {}
            Some(Held {
                state: RedemptionState::Streaming,
                grant_ended: Some(reason),
                ..
            }) => entry.cut(*reason),
            Some(Held {
                state: RedemptionState::CutOff,
                cut_reason,
                ..
            }) => {
                entry.cut(cut_reason.unwrap_or(Reason::Revoked));
            }
            Some(_) => entry.let_go(),
            None if all => entry.let_go(),
            None => {}
        }
    }
}
