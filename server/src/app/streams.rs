//! The streams that run in this process, so that each can be cut the moment its reason ends, whichever process
//! made the change: at once for our own commits, by the store's feed for those of others.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handoff_domain::ids::{GrantId, RedemptionId, TenantId};
use handoff_domain::reason::Reason;
use handoff_domain::redemption::RedemptionState;
use tokio::sync::watch;
use tokio::time::{Instant, interval, timeout};

use super::{App, AppError};

/// Breaks the transport under a stream, so that not even bytes waiting in buffers are sent.
pub trait Abort: Send + Sync {
    /// Breaks it. Doing so twice is harmless.
    fn abort(&self);
}

/// One running stream.
pub struct Entry {
    tenant: TenantId,
    grant: GrantId,
    redemption: RedemptionId,
    cut: watch::Sender<Option<Reason>>,
    transport: Mutex<Option<Box<dyn Abort>>>,
}

impl Entry {
    /// Tells the stream to stop, and breaks its transport.
    fn cut(&self, reason: Reason) {
        self.cut.send_modify(|present| {
            present.get_or_insert(reason);
        });
        if let Some(transport) = lock(&self.transport).as_ref() {
            transport.abort();
        }
    }

    /// Breaks the transport; the redemption may go on elsewhere.
    fn stop(&self) {
        if let Some(transport) = lock(&self.transport).as_ref() {
            transport.abort();
        }
    }

    /// Why the stream must stop; `None` while it may go on.
    pub fn cut_reason(&self) -> Option<Reason> {
        *self.cut.borrow()
    }

    /// Completes when the stream must stop.
    pub async fn until_cut(&self) -> Reason {
        let mut changes = self.cut.subscribe();
        loop {
            if let Some(reason) = *changes.borrow_and_update() {
                return reason;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Says what carries the stream.
    pub fn carried_by(&self, transport: Box<dyn Abort>) {
        if self.cut_reason().is_some() {
            transport.abort();
        }
        *lock(&self.transport) = Some(transport);
    }

    /// Says that the connection asked for more. Its own watch sees that.
    pub const fn touch(&self) {}

    /// Lets go of what carries the stream: the connection may serve another request now.
    pub fn release(&self) {
        *lock(&self.transport) = None;
    }
}

/// An announced stream; dropping this forgets it.
pub struct Announced {
    streams: Arc<Streams>,
    entry: Arc<Entry>,
}

impl Announced {
    /// The stream.
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.streams.forget(&self.entry);
    }
}

/// All streams of this process.
#[derive(Default)]
pub struct Streams {
    entries: Mutex<HashMap<RedemptionId, Arc<Entry>>>,
}

impl Streams {
    /// Announces a stream. Must happen before the transaction that allows it commits, so that no cut is missed.
    /// It is forgotten with the last of what this answers: where the transaction fails, at once.
    pub fn announce(
        self: &Arc<Self>,
        tenant: &TenantId,
        grant: &GrantId,
        redemption: &RedemptionId,
    ) -> Announced {
        let entry = Arc::new(Entry {
            tenant: tenant.clone(),
            grant: grant.clone(),
            redemption: redemption.clone(),
            cut: watch::Sender::new(None),
            transport: Mutex::new(None),
        });
        let earlier = lock(&self.entries).insert(redemption.clone(), Arc::clone(&entry));
        // One that this process had lost from sight must not run on beside the new one, where no cut finds it.
        if let Some(earlier) = earlier {
            earlier.stop();
        }
        Announced {
            streams: Arc::clone(self),
            entry,
        }
    }

    fn forget(&self, entry: &Arc<Entry>) {
        entry.release();
        let mut entries = lock(&self.entries);
        if entries
            .get(&entry.redemption)
            .is_some_and(|present| Arc::ptr_eq(present, entry))
        {
            entries.remove(&entry.redemption);
        }
    }

    /// Cuts the streams of a grant.
    pub fn cut_grant(&self, tenant: &TenantId, grant: &GrantId, reason: Reason) {
        for entry in self.of_grant(tenant, grant) {
            entry.cut(reason);
        }
    }

    /// Ends a stream whose client has come back on another connection.
    pub fn supersede(&self, redemption: &RedemptionId) {
        let entry = lock(&self.entries).get(redemption).cloned();
        if let Some(entry) = entry {
            entry.stop();
        }
    }

    /// Whether a stream of this redemption is announced here.
    pub fn runs(&self, redemption: &RedemptionId) -> bool {
        lock(&self.entries).contains_key(redemption)
    }

    /// How many run.
    pub fn count(&self) -> usize {
        lock(&self.entries).len()
    }

    fn of_grant(&self, tenant: &TenantId, grant: &GrantId) -> Vec<Arc<Entry>> {
        lock(&self.entries)
            .values()
            .filter(|e| e.grant == *grant && e.tenant == *tenant)
            .cloned()
            .collect()
    }

    fn all(&self) -> Vec<Arc<Entry>> {
        lock(&self.entries).values().cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a cut in the feed may stay invisible behind ones with higher numbers.
const FEED_OVERLAP: Duration = Duration::from_secs(5);
/// How often every stream is checked against the store, whatever the feed says.
const RECHECK_EVERY: Duration = Duration::from_secs(15);
/// How long one look into the feed may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Streams end when their right to run could not be confirmed for this long.
const DOUBT_LIMIT: Duration = Duration::from_secs(20);
/// Rows of the feed read at once.
const FEED_PAGE: u32 = 1000;

/// Follows the cuts that other processes commit, for as long as the process lives.
pub async fn follow_cuts(app: App) {
    let mut feed = Feed::default();
    let mut recheck = interval(RECHECK_EVERY);
    let mut confirmed = Instant::now();
    loop {
        let answer = tokio::select! {
            () = app.store.await_cut() => timeout(ANSWER_LIMIT, feed.follow(&app)).await,
            _ = recheck.tick() => timeout(ANSWER_LIMIT, recheck_all(&app)).await,
        };
        match answer {
            Ok(Ok(())) => confirmed = Instant::now(),
            _ if confirmed.elapsed() > DOUBT_LIMIT => {
                let entries = app.streams.all();
                if !entries.is_empty() {
                    tracing::error!(streams = entries.len(), "cutting streams that can't be confirmed");
                }
                for entry in entries {
                    entry.cut(Reason::StorageUnavailable);
                }
            }
            _ => {}
        }
    }
}

/// Where we are in the feed of cuts.
#[derive(Default)]
struct Feed {
    /// Everything up to here was seen and is old enough that nothing below can still appear.
    settled: i64,
    recent: VecDeque<(i64, Instant)>,
}

impl Feed {
    async fn follow(&mut self, app: &App) -> Result<(), AppError> {
        while self
            .recent
            .front()
            .is_some_and(|(_, seen)| seen.elapsed() > FEED_OVERLAP)
        {
            if let Some((sequence, _)) = self.recent.pop_front() {
                self.settled = self.settled.max(sequence);
            }
        }
        loop {
            let after = self.settled;
            let cuts = app.read(move |read| Ok(read.cuts(after, FEED_PAGE)?)).await?;
            let full = cuts.len() >= FEED_PAGE as usize;
            for cut in cuts {
                if self.recent.iter().any(|(sequence, _)| *sequence == cut.sequence) {
                    continue;
                }
                // Before it counts as seen: a failure here must meet the same cut again.
                for entry in app.streams.of_grant(&cut.tenant, &cut.grant) {
                    confirm(app, &entry).await?;
                }
                self.recent.push_back((cut.sequence, Instant::now()));
                if full {
                    self.settled = self.settled.max(cut.sequence);
                }
            }
            if !full {
                return Ok(());
            }
            let settled = self.settled;
            self.recent.retain(|(sequence, _)| *sequence > settled);
        }
    }
}

async fn recheck_all(app: &App) -> Result<(), AppError> {
    for entry in app.streams.all() {
        confirm(app, &entry).await?;
    }
    Ok(())
}

/// Stops a stream that the store does not hold as running here: it was cut, or taken for abandoned.
async fn confirm(app: &App, entry: &Arc<Entry>) -> Result<(), AppError> {
    let (tenant, id) = (entry.tenant.clone(), entry.redemption.clone());
    let found = app.read(move |read| Ok(read.redemption(&tenant, &id)?)).await?;
    // Announced before its commit, a stream may not be in the store yet.
    let Some(redemption) = found else { return Ok(()) };
    match redemption.state {
        RedemptionState::CutOff => entry.cut(redemption.cut_reason.unwrap_or(Reason::Revoked)),
        RedemptionState::Streaming if redemption.process.as_ref() != Some(&app.settings.process) => {
            entry.stop();
        }
        RedemptionState::Interrupted | RedemptionState::Completed | RedemptionState::IntegrityFailed => {
            entry.stop();
        }
        RedemptionState::Streaming | RedemptionState::Authorized => {}
    }
    Ok(())
}
