//! The streams that run in this process, so that each can be stopped the moment its reason ends. Knows no database:
//! it is told by who commits a cut here, and by the watch over what others committed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use handoff_domain::ids::{GrantId, RedemptionId, TenantId};
use handoff_domain::reason::Reason;
use handoff_domain::standing::{Standing, StreamFacts};
use tokio::sync::watch;

use super::blocks::Gathering;

/// Breaks the transport under a stream, so that not even bytes waiting in buffers are sent.
pub trait Abort: Send + Sync {
    /// Breaks it. Doing so twice is harmless.
    fn abort(&self);
}

/// Why a stream must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Halt {
    /// The right to it has ended.
    Cut(Reason),
    /// It goes on elsewhere, or its client reads no more. Its redemption may be resumed.
    LetGo,
}

/// A moment in the life of this process: a stream was announced before it or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// One running stream.
pub struct Entry {
    tenant: TenantId,
    facts: StreamFacts,
    grant: GrantId,
    redemption: RedemptionId,
    announced: Moment,
    /// Which stream of its redemption, once the transaction that allows it is committed.
    number: OnceLock<u32>,
    halt: watch::Sender<Option<Halt>>,
    transport: Mutex<Option<Box<dyn Abort>>>,
}

impl Entry {
    /// The tenant.
    pub const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The redemption.
    pub const fn redemption(&self) -> &RedemptionId {
        &self.redemption
    }

    /// Says that the transaction which allows it is committed, as the redemption's stream of this number.
    pub fn allow(&self, number: u32) {
        // Said once, by the ticket.
        let _said_before = self.number.set(number);
    }

    /// Which stream of its redemption; `None` before its commit.
    pub fn number(&self) -> Option<u32> {
        self.number.get().copied()
    }

    /// Tells the stream to stop, for good, and breaks its transport.
    pub fn cut(&self, reason: Reason) {
        self.stop(Halt::Cut(reason));
    }

    /// Tells the stream to stop, and breaks its transport; the redemption may go on elsewhere.
    pub fn let_go(&self) {
        self.stop(Halt::LetGo);
    }

    fn stop(&self, halt: Halt) {
        self.halt.send_if_modified(|present| {
            let says_more = match present {
                None => true,
                Some(Halt::LetGo) => halt != Halt::LetGo,
                Some(Halt::Cut(_)) => false,
            };
            if says_more {
                *present = Some(halt);
            }
            says_more
        });
        if let Some(transport) = lock(&self.transport).as_ref() {
            transport.abort();
        }
    }

    /// Why the stream must stop; `None` while it may go on.
    pub fn halted(&self) -> Option<Halt> {
        *self.halt.borrow()
    }

    /// Why it was cut, where it was.
    pub fn cut_reason(&self) -> Option<Reason> {
        match self.halted() {
            Some(Halt::Cut(reason)) => Some(reason),
            Some(Halt::LetGo) | None => None,
        }
    }

    /// Whether what the stream carries, or its client, is blocked.
    pub fn is_blocked(&self, standing: &Standing) -> bool {
        standing.on_stream(&self.facts).is_some()
    }

    /// Cuts the stream where what it carries, or its client, is blocked.
    pub fn cut_if_blocked(&self, standing: Option<&Standing>) {
        if let Some(reason) = standing.and_then(|standing| standing.on_stream(&self.facts)) {
            self.cut(reason);
        }
    }

    /// Completes when the right to the stream has ended. One that is let go of ends with its transport.
    pub async fn until_cut(&self) -> Reason {
        let mut changes = self.halt.subscribe();
        loop {
            if let Some(Halt::Cut(reason)) = *changes.borrow_and_update() {
                return reason;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Says what carries the stream.
    pub fn carried_by(&self, transport: Box<dyn Abort>) {
        let mut carrier = lock(&self.transport);
        // Looked at with the place for it in hand, so that who stops the stream meanwhile finds one or the other.
        if self.halted().is_some() {
            transport.abort();
        }
        *carrier = Some(transport);
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

#[derive(Default)]
struct Entries {
    by_redemption: HashMap<RedemptionId, Arc<Entry>>,
    announced: u64,
    doubted: VecDeque<RedemptionId>,
}

/// How many redemptions are remembered of which it is not known whether they came to be.
const MOST_DOUBTED: usize = 10_000;

/// All streams of this process.
#[derive(Default)]
pub struct Streams {
    entries: Mutex<Entries>,
    /// Places for those that gather several blocks at once.
    pub gathering: Gathering,
}

impl Streams {
    /// Announces a stream. Must happen before the transaction that allows it commits, so that no cut is missed.
    /// It is forgotten with the last of what this answers: where the transaction fails, at once.
    pub fn announce(
        self: &Arc<Self>,
        tenant: &TenantId,
        facts: StreamFacts,
        grant: &GrantId,
        redemption: &RedemptionId,
    ) -> Announced {
        let mut entries = lock(&self.entries);
        entries.announced = entries.announced.saturating_add(1);
        let entry = Arc::new(Entry {
            tenant: tenant.clone(),
            facts,
            grant: grant.clone(),
            redemption: redemption.clone(),
            announced: Moment(entries.announced),
            number: OnceLock::new(),
            halt: watch::Sender::new(None),
            transport: Mutex::new(None),
        });
        let earlier = entries
            .by_redemption
            .insert(redemption.clone(), Arc::clone(&entry));
        drop(entries);
        // One that this process had lost from sight must not run on beside the new one, where no cut finds it.
        if let Some(earlier) = earlier {
            earlier.let_go();
        }
        Announced {
            streams: Arc::clone(self),
            entry,
        }
    }

    /// Now: after every stream that was announced so far, and before all others.
    pub fn now(&self) -> Moment {
        Moment(lock(&self.entries).announced)
    }

    fn forget(&self, entry: &Arc<Entry>) {
        entry.release();
        let entries = &mut lock(&self.entries).by_redemption;
        if entries
            .get(&entry.redemption)
            .is_some_and(|present| Arc::ptr_eq(present, entry))
        {
            entries.remove(&entry.redemption);
        }
    }

    /// Cuts the streams of a grant that were announced before `moment`. Later ones began after the cut was made
    /// good again, however late its news is told.
    pub fn cut_grant(&self, tenant: &TenantId, grant: &GrantId, reason: Reason, moment: Moment) {
        for entry in self.all() {
            if entry.grant == *grant && entry.tenant == *tenant && entry.announced <= moment {
                entry.cut(reason);
            }
        }
    }

    /// Ends a stream whose client has come back on another connection.
    pub fn supersede(&self, redemption: &RedemptionId) {
        let entry = lock(&self.entries).by_redemption.get(redemption).cloned();
        if let Some(entry) = entry {
            entry.let_go();
        }
    }

    /// Remembers a redemption that may have come to be although the answer to its commit did not come: nothing of it was
    /// sent.
    pub fn doubt(&self, redemption: RedemptionId) {
        let doubted = &mut lock(&self.entries).doubted;
        if doubted.len() >= MOST_DOUBTED {
            doubted.pop_front();
        }
        doubted.push_back(redemption);
    }

    /// Whether nothing was sent of this redemption, because nobody here learned that it came to be.
    pub fn is_doubted(&self, redemption: &RedemptionId) -> bool {
        lock(&self.entries).doubted.contains(redemption)
    }

    /// Whether a stream of this redemption is announced here.
    pub fn runs(&self, redemption: &RedemptionId) -> bool {
        lock(&self.entries).by_redemption.contains_key(redemption)
    }

    /// How many run.
    pub fn count(&self) -> usize {
        lock(&self.entries).by_redemption.len()
    }

    /// All of them, at this moment.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        lock(&self.entries).by_redemption.values().cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
