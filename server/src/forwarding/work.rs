//! Who forwards to which sink, and when: one process at a time, by a lease for each sink, one batch after the other. A batch is fixed in
//! the database before its first byte is sent, so that whoever tries it again, after whatever happened, sends the same under the same
//! name. What fails is tried for ever.

use std::sync::Arc;
use std::time::Duration;

use handoff_domain::forwarding::{Cursor, pause_after};
use handoff_domain::ports::Outbound;
use handoff_domain::reason::Reason;
use handoff_domain::time::Span;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::batch::Body;
use super::sender::{Failure, Sender, Sent};
use crate::app::{App, AppError, Class};
use crate::config::Sink;
use crate::telemetry::forwarding as metrics;

/// How long a lease lasts, and how often it is renewed.
const TERM: Span = Span::seconds(15);
const RENEWED_EVERY: Duration = Duration::from_secs(5);
/// Who could not renew for so long has lost it, whatever its own clock says.
const TRUSTED_FOR: Duration = Duration::from_secs(10);
/// How often it is asked for while another process has it.
const ASKED_EVERY: Duration = Duration::from_secs(2);
/// How often it is looked whether there is something new.
const LOOKED_EVERY: Duration = Duration::from_secs(1);
/// What all sinks of the process know of how far rows are settled is good for so long.
const KNOWN_FOR: Duration = Duration::from_millis(500);
/// The pause after the database could not be asked.
const PAUSE: Duration = Duration::from_secs(1);
/// Whoever finds nothing but trouble so often lets another process try, for a little longer than a lease lasts.
const TROUBLE_ENOUGH: u32 = 5;
const LET_GO_FOR: Duration = Duration::from_secs(20);
/// How long a sink may take to answer when the process ends.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The tasks that forward, in this process.
pub struct Forwarding {
    tasks: Vec<JoinHandle<()>>,
    stopping: watch::Sender<bool>,
}

impl Forwarding {
    /// Ends: what is under way gets a moment. Whoever comes next repeats what was not answered.
    pub async fn stop(self) {
        self.stopping.send_replace(true);
        let deadline = Instant::now() + LAST_ANSWERS.saturating_mul(2);
        for mut task in self.tasks {
            if timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

/// Starts forwarding to each of these by the way that leads there, for as long as the process lives.
pub fn start(app: &App, sinks: Vec<(Sink, Arc<dyn Outbound>)>) -> Forwarding {
    let stopping = watch::Sender::new(false);
    let settled = Arc::new(Settled::default());
    let tasks = sinks.into_iter().map(|(sink, outbound)| {
        let forwarder = Forwarder {
            lease: format!("forward-{}", sink.name),
            app: app.clone(),
            sender: Sender {
                outbound,
                clock: Arc::clone(&app.clock),
                sink,
            },
            settled: Arc::clone(&settled),
            stopping: stopping.subscribe(),
            held: None,
            cursor: None,
            looked_up_to: i64::MIN,
            parcel: None,
            failures: 0,
            next_try: None,
            troubles: 0,
            refuses: false,
        };
        app.background.spawn(forwarder.run())
    });
    Forwarding {
        tasks: tasks.collect(),
        stopping,
    }
}

/// How far rows are settled, asked for by whoever needs to know and known to all sinks of the process. It only grows.
#[derive(Default)]
struct Settled(Mutex<Option<(Instant, i64)>>);

impl Settled {
    /// As of now, or as of some time ago where that is beyond `above` already. `None` where nobody can say at the moment.
    async fn beyond(&self, above: i64, app: &App) -> Result<Option<i64>, AppError> {
        let mut known = self.0.lock().await;
        if let Some((at, settled)) = *known
            && (settled > above || settled == above && at.elapsed() < KNOWN_FOR)
        {
            return Ok(Some(settled));
        }
        let settled = app.settled_audit().await?;
        if let Some(settled) = settled {
            *known = Some((Instant::now(), settled));
        }
        Ok(settled)
    }
}

/// What is sent, until it is written down that it was taken.
struct Parcel {
    /// The cursor that has it fixed.
    fixed: Cursor,
    /// What it is called.
    id: String,
    body: Body,
    /// Whether the sink took it.
    taken: bool,
}

/// What to do after a step.
enum Next {
    AtOnce,
    In(Duration),
}

struct Forwarder {
    app: App,
    sender: Sender,
    lease: String,
    settled: Arc<Settled>,
    stopping: watch::Receiver<bool>,
    /// Since when the lease is known to be ours.
    held: Option<Instant>,
    /// How far the sink is, while the lease is ours.
    cursor: Option<Cursor>,
    /// Up to where there was nothing to send.
    looked_up_to: i64,
    parcel: Option<Parcel>,
    /// How often in a row the sink did not take what it was sent.
    failures: u32,
    next_try: Option<Instant>,
    /// How often in a row it could not be found out what to send.
    troubles: u32,
    /// Whether it was told that the sink refuses single rows.
    refuses: bool,
}

impl Forwarder {
    async fn run(mut self) {
        while !*self.stopping.borrow() {
            if let Next::In(pause) = self.step().await {
                let mut stopping = self.stopping.clone();
                tokio::select! {
                    () = sleep(pause) => {}
                    () = stopped(&mut stopping) => return,
                }
            }
        }
    }

    async fn step(&mut self) -> Next {
        if !self.holds_lease().await {
            self.forget();
            return Next::In(ASKED_EVERY);
        }
        if let Some(at) = self.next_try {
            let now = Instant::now();
            if now < at {
                // The lease is renewed meanwhile.
                return Next::In(at.duration_since(now).min(RENEWED_EVERY));
            }
            self.next_try = None;
        }
        match self.forward().await {
            Ok(next) => {
                if self.troubles > 0 {
                    self.troubles = 0;
                    tracing::info!(sink = %self.sender.sink.name, "what is to be forwarded can be read again");
                }
                next
            }
            Err(error) => self.in_trouble(&error),
        }
    }

    /// What is known here is known no more: another process may go on.
    fn forget(&mut self) {
        self.cursor = None;
        self.parcel = None;
        self.looked_up_to = i64::MIN;
        self.next_try = None;
    }

    /// Takes or renews the lease where that is due; answers whether it is ours.
    async fn holds_lease(&mut self) -> bool {
        if self.held.is_some_and(|at| at.elapsed() < RENEWED_EVERY) {
            return true;
        }
        let asked = Instant::now();
        let process = &self.app.settings.process;
        match self.app.store.lease(&self.lease, process, TERM).await {
            Ok(true) => self.held = Some(asked),
            Ok(false) => self.held = None,
            Err(_) => self.held = self.held.filter(|at| at.elapsed() < TRUSTED_FOR),
        }
        self.held.is_some()
    }

    /// One batch, from what is to be sent to having it written down that it was taken.
    async fn forward(&mut self) -> Result<Next, AppError> {
        if self.parcel.is_none() {
            match self.prepare().await? {
                Some(parcel) => self.parcel = Some(parcel),
                None => return Ok(Next::In(LOOKED_EVERY)),
            }
        }
        let Some(mut parcel) = self.parcel.take() else {
            return Ok(Next::AtOnce);
        };
        if !parcel.taken {
            // Of what is in no row any more there is nothing to send.
            let sent = if parcel.body.rows == 0 {
                Some(Sent::Taken { refused: 0 })
            } else {
                self.send(&parcel).await
            };
            match sent {
                None => {
                    self.forget();
                    return Ok(Next::AtOnce);
                }
                Some(Sent::Failed(failure)) => {
                    self.note_failure(&failure);
                    self.parcel = Some(parcel);
                    return Ok(Next::AtOnce);
                }
                Some(Sent::Taken { refused }) => {
                    self.note_taken(&parcel, refused);
                    parcel.taken = true;
                }
            }
        }
        let Some(after) = parcel.fixed.taken() else {
            return Ok(Next::AtOnce);
        };
        match self.app.move_cursor(&parcel.fixed, &after).await {
            Ok(true) => self.cursor = Some(after),
            // Another process was there.
            Ok(false) => self.forget(),
            Err(error) => {
                // Taken once is enough, if that can be written down in time.
                self.parcel = Some(parcel);
                return Err(error);
            }
        }
        Ok(Next::AtOnce)
    }

    /// What is to be sent next: what was fixed before, or else the first rows that were not taken, which it fixes.
    async fn prepare(&mut self) -> Result<Option<Parcel>, AppError> {
        let sink = &self.sender.sink;
        let cursor = match &self.cursor {
            Some(cursor) => cursor.clone(),
            None => match self.app.forwarding_cursor(&sink.name, sink.start).await? {
                Some(cursor) => self.cursor.insert(cursor).clone(),
                None => return Ok(None),
            },
        };
        let (fixed, body) = if let Some(until) = cursor.sending {
            let rows = self.app.rows_of_batch(cursor.done, until).await?;
            (cursor, Body::of_all(&sink.kind, &rows))
        } else {
            let after = cursor.done.max(self.looked_up_to);
            let Some(settled) = self.settled.beyond(after, &self.app).await? else {
                return Err(trouble(
                    "a transaction that writes to the audit is open for long".to_owned(),
                ));
            };
            if settled < cursor.done {
                // Whatever comes now is recorded below what was taken, and nobody comes back to it.
                return Err(trouble(format!(
                    "rows up to {} were forwarded, and numbers go on from {settled}",
                    cursor.done
                )));
            }
            if settled <= after {
                return Ok(None);
            }
            let rows = self.app.rows_to_forward(after, settled).await?;
            let body = Body::of_first(&sink.kind, &rows);
            let last = body.rows.checked_sub(1).and_then(|place| rows.get(place));
            let Some(fixed) = last.and_then(|row| cursor.fixed(row.recorded.sequence)) else {
                self.looked_up_to = settled;
                return Ok(None);
            };
            if !self.app.move_cursor(&cursor, &fixed).await? {
                self.forget();
                return Ok(None);
            }
            self.cursor = Some(fixed.clone());
            (fixed, body)
        };
        Ok(fixed.batch_id().map(|id| Parcel {
            fixed,
            id,
            body,
            taken: false,
        }))
    }

    /// Sends, and keeps the lease meanwhile. `None` where it was lost, or the process ends before there is an answer.
    async fn send(&mut self, parcel: &Parcel) -> Option<Sent> {
        let mut stopping = self.stopping.clone();
        let ends = async move {
            stopped(&mut stopping).await;
            sleep(LAST_ANSWERS).await;
        };
        tokio::pin!(ends);
        let sender = &self.sender;
        let sending = sender.send(&parcel.id, &parcel.body.bytes);
        tokio::pin!(sending);
        let process = &self.app.settings.process;
        loop {
            let held = self.held?;
            tokio::select! {
                sent = &mut sending => return Some(sent),
                () = &mut ends => return None,
                () = sleep_until(held + RENEWED_EVERY) => {
                    let asked = Instant::now();
                    match self.app.store.lease(&self.lease, process, TERM).await {
                        Ok(true) => self.held = Some(asked),
                        Err(_) if held.elapsed() < TRUSTED_FOR => sleep(PAUSE).await,
                        Ok(false) | Err(_) => self.held = None,
                    }
                }
            }
        }
    }

    fn note_failure(&mut self, failure: &Failure) {
        let sink = &self.sender.sink.name;
        metrics::attempt(sink, failure.result);
        if self.failures == 0 {
            tracing::warn!(%sink, problem = failure.problem, "the audit is not taken by its sink; it waits, and is sent again");
        }
        self.failures = self.failures.saturating_add(1);
        let mut chance = [0_u8; 1];
        self.app.entropy.fill(&mut chance);
        let [chance] = chance;
        let pause = pause_after(self.failures, failure.retry_after, chance);
        let pause = Duration::from_micros(u64::try_from(pause.0).unwrap_or(0));
        self.next_try = Some(Instant::now() + pause);
    }

    fn note_taken(&mut self, parcel: &Parcel, refused: u64) {
        let sink = &self.sender.sink.name;
        if parcel.body.rows > 0 {
            metrics::attempt(sink, "taken");
            metrics::rows_taken(sink, parcel.body.rows, refused);
        }
        if self.failures > 0 {
            self.failures = 0;
            tracing::info!(%sink, "the audit is taken by its sink again");
        }
        if refused > 0 && !self.refuses {
            tracing::warn!(%sink, refused, "a sink took rows of the audit and refused some of them; they are not sent again");
        }
        self.refuses = refused > 0;
    }

    fn in_trouble(&mut self, error: &AppError) -> Next {
        if self.troubles == 0 {
            let cause = error.cause.as_deref().unwrap_or(error.reason.as_str());
            tracing::error!(sink = %self.sender.sink.name, cause, "the audit is not forwarded, and will be tried again");
        }
        metrics::attempt(&self.sender.sink.name, "not-read");
        self.troubles = self.troubles.saturating_add(1);
        if self.troubles.is_multiple_of(TROUBLE_ENOUGH) {
            // A newer version may be able to read what this one can't.
            self.held = None;
            self.forget();
            return Next::In(LET_GO_FOR);
        }
        Next::In(PAUSE)
    }
}

fn trouble(cause: String) -> AppError {
    let text = "the audit can't be forwarded";
    AppError::new(Class::Internal, Reason::StorageUnavailable, text).because(cause)
}

/// Waits until the process ends.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // Where nobody can say so any more, it does.
    drop(stopping.wait_for(|stops| *stops).await);
}
