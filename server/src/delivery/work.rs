//! Who delivers what: events are given to subscriptions by one process at a time, and each process delivers to the shards
//! of subscriptions that it holds a lease on. One subscription is served by one task, which ends when there is nothing left.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handoff_domain::ports::Due;
use handoff_domain::subscription::{SHARDS, shard_of};
use handoff_domain::time::Span;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument as _;

use super::courier::Courier;
use super::recorder::Recorder;
use super::traced::traced;
use crate::app::deliveries::{Next, Sending};
use crate::app::fan_out::{self, Counting};
use crate::app::{App, AppError};
use crate::telemetry::{notifications as metrics, spans};

/// How long a lease lasts, and how often it is renewed.
const TERM: Span = Span::seconds(6);
const RENEWED_EVERY: Duration = Duration::from_secs(2);
/// Who could not renew for so long has lost it, whatever its own clock says.
const TRUSTED_FOR: Duration = Duration::from_secs(4);
/// How often the outbox is looked at for what other processes wrote: while there is such, and at other times.
const OTHERS_SOON: Duration = Duration::from_millis(20);
const OTHERS_LATELY: Duration = Duration::from_secs(10);
/// How often the subscriptions of one's shards are gone through without news, and with it no more often than that.
const SCANNED_EVERY: Duration = Duration::from_millis(500);
const SCANNED_AT_MOST: Duration = Duration::from_millis(40);
/// How many are found at once.
const SCAN: u32 = 2_000;
/// How many notifications are on their way at once, at most.
const SENDING: usize = 2_000;
/// How many of them to subscribers that failed last: those that answer wait for none that does not.
const SENDING_AGAIN: usize = 1_000;
/// How many subscriptions look into the database at once.
const LOOKING: usize = 8;
/// How long a notification that is under way may take when the process ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Who is to be tried again so soon is waited for; others are found when their time has come.
const WAITED_FOR: Span = Span::seconds(2);
/// The pause after the database could not be asked.
const PAUSE: Duration = Duration::from_millis(500);

/// What delivers, in this process.
pub struct Deliveries {
    app: App,
    courier: Courier,
    recorder: Recorder,
    /// The subscriptions that are being served, and whether there was news of them meanwhile.
    served: Mutex<HashMap<Due, bool>>,
    held: Mutex<Held>,
    sending: Semaphore,
    sending_again: Semaphore,
    looking: Semaphore,
    /// Whether the process ends.
    stopping: watch::Sender<bool>,
}

/// The shards that this process holds.
#[derive(Default)]
struct Held {
    shards: [bool; SHARDS as usize],
    since: Option<Instant>,
}

impl Deliveries {
    fn holds(&self, due: &Due) -> bool {
        if *self.stopping.borrow() {
            return false;
        }
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let trusted = held.since.is_some_and(|at| at.elapsed() < TRUSTED_FOR);
        let shard = usize::from(shard_of(&due.tenant, &due.id));
        trusted && held.shards.get(shard).copied().unwrap_or(false)
    }

    fn shards(&self) -> Vec<u8> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.since.is_none_or(|at| at.elapsed() >= TRUSTED_FOR) {
            return Vec::new();
        }
        (0..SHARDS)
            .filter(|shard| held.shards.get(usize::from(*shard)).copied().unwrap_or(false))
            .collect()
    }

    /// Serves a subscription, unless that is being done.
    fn serve(self: &Arc<Self>, due: Due) {
        {
            let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(news) = served.get_mut(&due) {
                *news = true;
                return;
            }
            served.insert(due.clone(), false);
        }
        let this = Arc::clone(self);
        self.app.background.spawn(async move {
            loop {
                let went_well = this.deliver(&due).await;
                this.recorder.flush().await;
                let mut served = this.served.lock().unwrap_or_else(PoisonError::into_inner);
                // News came while it was written down that there is nothing left.
                match served.get_mut(&due) {
                    Some(news) if *news && went_well => *news = false,
                    _ => {
                        served.remove(&due);
                        return;
                    }
                }
            }
        });
    }

    /// Sends what there is for a subscription, one after the other. Answers whether nothing went wrong.
    async fn deliver(&self, due: &Due) -> bool {
        let mut cursor = None;
        while self.holds(due) {
            let next = {
                let Ok(_place) = self.looking.acquire().await else {
                    return false;
                };
                self.app.next_notice(due, cursor).await
            };
            let notice = match next {
                Ok(Next::Nothing) => return true,
                Ok(Next::Again) => continue,
                Ok(Next::Send(notice)) => notice,
                Err(error) => {
                    told_of("what is to be delivered can't be read", &error);
                    sleep(PAUSE).await;
                    return false;
                }
            };
            if notice.is_to_be_fixed() && !self.recorder.tried(due.clone(), notice.range.1).await {
                continue;
            }
            let sent = {
                let places = if notice.course.attempts > 0 {
                    &self.sending_again
                } else {
                    &self.sending
                };
                let Ok(_place) = places.acquire().await else {
                    return false;
                };
                if !self.holds(due) {
                    // Lost while it waited: it is another's to send.
                    return true;
                }
                tokio::select! {
                    sent = traced(&self.courier, &notice) => sent,
                    // Whoever comes after us repeats it as it is.
                    () = self.stopped(LAST_ANSWERS) => return true,
                }
            };
            let written = match (sent, notice.sending) {
                (Ok(()), Sending::Handshake) => self.app.handshake_taken(&notice).await,
                (Ok(()), _) => match self.app.taken(&notice) {
                    Ok(taken) => {
                        if let Some(told) = notice.told.last() {
                            metrics::notification_delay(self.app.clock.now().since(told.event.at));
                        }
                        cursor = Some(notice.range.1);
                        let plain = taken.is_plain();
                        self.recorder.note(taken).await;
                        if !plain {
                            // The next look has to see that what was tried is over.
                            self.recorder.flush().await;
                        } else if notice.range.1 >= notice.counted {
                            // Whatever was counted since is news, for which there is another look.
                            return true;
                        }
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
                (Err(failure), _) => {
                    // What was taken before is written first: it is the failure of what comes after.
                    self.recorder.flush().await;
                    match self.app.notice_failed(&notice, &failure).await {
                        Ok(next_try) => {
                            let pause = next_try.map(|at| at.since(self.app.clock.now()));
                            let Some(pause) = pause.filter(|pause| pause.0 <= WAITED_FOR.0) else {
                                return false;
                            };
                            cursor = None;
                            let pause = u64::try_from(pause.0).unwrap_or(0).saturating_add(1_000);
                            tokio::select! {
                                () = sleep(Duration::from_micros(pause)) => continue,
                                () = self.stopped(Duration::ZERO) => return true,
                            }
                        }
                        Err(error) => {
                            told_of("a failed delivery can't be written down", &error);
                            sleep(PAUSE).await;
                            return false;
                        }
                    }
                }
            };
            if let Err(error) = written {
                told_of("a delivery can't be written down", &error);
                sleep(PAUSE).await;
                return false;
            }
        }
        true
    }

    /// Waits until the process ends, and so long after that.
    async fn stopped(&self, after: Duration) {
        let mut stopping = self.stopping.subscribe();
        // The other end lives as long as we do.
        drop(stopping.wait_for(|stops| *stops).await);
        sleep(after).await;
    }

    /// Ends: what is under way gets a moment, and what was taken is written down. Then others may go on at once. The jobs that
    /// were started must have been ended before.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        let deadline = Instant::now() + LAST_ANSWERS.saturating_mul(2);
        while Instant::now() < deadline {
            let idle = self
                .served
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_empty();
            if idle {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
        let left = self.app.store.leave(&self.app.settings.process);
        if let Ok(Err(error)) = timeout(LAST_ANSWERS, left).await {
            tracing::warn!(cause = %error, "leases could not be given back; they end by themselves");
        }
    }

    /// Gives events to subscriptions, for as long as the process lives, whenever it is this one's turn.
    async fn give_events(self: Arc<Self>) {
        let counting: Arc<Mutex<Counting>> = Arc::default();
        let mut ours_until = None;
        let mut asked = None;
        let mut others = None;
        loop {
            let patience = match others {
                Some(at) if Instant::now().duration_since(at) < OTHERS_LATELY => OTHERS_SOON,
                _ => Duration::from_millis(100),
            };
            let news = timeout(patience, self.app.store.await_outbox())
                .await
                .unwrap_or(false);
            let now = Instant::now();
            if asked.is_none_or(|at: Instant| now.duration_since(at) >= RENEWED_EVERY) {
                asked = Some(now);
                let process = &self.app.settings.process;
                let ours = self.app.store.lease("fan-out", process, TERM).await;
                ours_until = matches!(ours, Ok(true)).then(|| now + TRUSTED_FOR);
            }
            if ours_until.is_none_or(|until| until <= now) {
                continue;
            }
            if !news {
                let found = self.app.read(|read| Ok(read.has_pending()?)).await;
                if !matches!(found, Ok(true)) {
                    continue;
                }
                others = Some(now);
            }
            while let Some(until) = ours_until
                && Instant::now() < until
            {
                let given = fan_out::run_once(&self.app, &counting);
                match given.instrument(spans::job("fan-out")).await {
                    Ok(done) => {
                        self.app.ear.ring(&done.concerned);
                        for due in done.concerned {
                            if self.holds(&due) {
                                self.serve(due);
                            }
                        }
                        metrics::events_given(done.events);
                        if !done.more {
                            break;
                        }
                    }
                    Err(error) => {
                        told_of("events can't be given to subscriptions", &error);
                        sleep(PAUSE).await;
                        break;
                    }
                }
            }
        }
    }

    /// Keeps the leases on this process's share of the shards.
    async fn keep_shards(self: Arc<Self>) {
        loop {
            let began = Instant::now();
            let taken = self
                .app
                .store
                .lease_shards(&self.app.settings.process, TERM)
                .await;
            if let Ok(shards) = taken {
                let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                held.shards = [false; SHARDS as usize];
                for shard in shards {
                    if let Some(place) = held.shards.get_mut(usize::from(shard)) {
                        *place = true;
                    }
                }
                held.since = Some(began);
            }
            sleep(RENEWED_EVERY).await;
        }
    }

    /// Looks for what nobody here has served yet: events that others gave away, retries, heartbeats, handshakes.
    async fn scan(self: Arc<Self>) {
        let mut scanned: Option<Instant> = None;
        loop {
            // Comes back after a short time without news too.
            let news = self.app.store.await_events().await;
            if news {
                self.app.ear.hear();
            }
            let shards = self.shards();
            let due = scanned.is_none_or(|at| at.elapsed() >= SCANNED_EVERY);
            if shards.is_empty() || !(due || news) {
                continue;
            }
            scanned = Some(Instant::now());
            let now = self.app.clock.now();
            let mut after: Option<Due> = None;
            loop {
                let (shards, behind) = (shards.clone(), after.take());
                let found = self
                    .app
                    .read(move |read| Ok(read.due_subscriptions(&shards, now, behind.as_ref(), SCAN)?))
                    .await
                    .unwrap_or_default();
                let full = found.len() >= SCAN as usize;
                after = found.last().cloned();
                for one in found {
                    self.serve(one);
                }
                if !full {
                    break;
                }
            }
            sleep(SCANNED_AT_MOST).await;
        }
    }
}

/// Starts delivering, for as long as the process lives.
pub fn start(app: &App, courier: Courier) -> (Arc<Deliveries>, Vec<JoinHandle<()>>) {
    let this = Arc::new(Deliveries {
        app: app.clone(),
        courier,
        recorder: Recorder::start(app.clone()),
        served: Mutex::default(),
        held: Mutex::default(),
        sending: Semaphore::new(SENDING),
        sending_again: Semaphore::new(SENDING_AGAIN),
        looking: Semaphore::new(LOOKING),
        stopping: watch::Sender::new(false),
    });
    let runtime = &app.background;
    let jobs = vec![
        runtime.spawn(Arc::clone(&this).keep_shards()),
        runtime.spawn(Arc::clone(&this).give_events()),
        runtime.spawn(Arc::clone(&this).scan()),
    ];
    (this, jobs)
}

fn told_of(what: &'static str, error: &AppError) {
    let cause = error.cause.as_deref().unwrap_or(error.reason.as_str());
    tracing::error!(cause, "{what}, and will be tried again");
}
