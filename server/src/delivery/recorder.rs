//! Writes down what subscribers took and what they are told next: what arrives while one transaction commits goes into the
//! next one together.

use std::collections::HashSet;
use std::time::Duration;

use handoff_domain::ports::Due;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::app::delivered::Taken;
use crate::app::{App, AppError, Class};

/// How many wait to be written at most; who sends more waits.
const WAITING: usize = 1_024;
/// How many are written in one transaction.
const TOGETHER: usize = 256;
/// How long until it is tried again when the database can't be written.
const PAUSE: Duration = Duration::from_millis(500);
/// How often one alone is tried that the database refuses for itself.
const TRIES: u32 = 3;

enum Note {
    Taken(Box<Taken>),
    /// What is tried next; answered whether that was written.
    Tried(Due, i64, oneshot::Sender<bool>),
    /// Answered when everything before it is written.
    Flush(oneshot::Sender<()>),
}

/// Where to bring what was taken.
#[derive(Clone)]
pub(super) struct Recorder(mpsc::Sender<Note>);

impl Recorder {
    /// Starts writing, for as long as anybody holds it.
    pub(super) fn start(app: App) -> Self {
        let (notes, inbox) = mpsc::channel(WAITING);
        let runtime = app.background.clone();
        runtime.spawn(write_down(app, inbox));
        Self(notes)
    }

    /// Notes what was taken; it is written soon.
    pub(super) async fn note(&self, taken: Taken) {
        // The other end ends with the process.
        let _ended = self.0.send(Note::Taken(Box::new(taken))).await;
    }

    /// Writes down that a notification up to event `until` is tried. Answers whether it was written: else somebody else
    /// tries something, or was there before.
    pub(super) async fn tried(&self, which: Due, until: i64) -> bool {
        let (done, written) = oneshot::channel();
        let sent = self.0.send(Note::Tried(which, until, done)).await;
        sent.is_ok() && written.await.unwrap_or(false)
    }

    /// Waits until what was noted before is written.
    pub(super) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.0.send(Note::Flush(done)).await.is_ok() {
            let _ended = written.await;
        }
    }
}

async fn write_down(app: App, mut inbox: mpsc::Receiver<Note>) {
    let mut notes = Vec::with_capacity(TOGETHER);
    while inbox.recv_many(&mut notes, TOGETHER).await > 0 {
        let (mut taken, mut tried) = (Vec::new(), Vec::new());
        let (mut asking, mut waiting) = (Vec::new(), Vec::new());
        for note in notes.drain(..) {
            match note {
                Note::Taken(one) => taken.push(*one),
                Note::Tried(which, until, done) => {
                    tried.push((which.clone(), until));
                    asking.push((which, done));
                }
                Note::Flush(done) => waiting.push(done),
            }
        }
        let written = if taken.is_empty() && tried.is_empty() {
            HashSet::new()
        } else {
            record(&app, taken, tried).await
        };
        // Who waited may have gone.
        for (which, done) in asking {
            let _gone = done.send(written.contains(&which));
        }
        for done in waiting {
            let _gone = done.send(());
        }
    }
}

/// Until it is written: a subscriber would be told again what is not. What the database refuses for itself keeps nothing
/// else from being written.
async fn record(app: &App, taken: Vec<Taken>, tried: Vec<(Due, i64)>) -> HashSet<Due> {
    let several = taken.len().saturating_add(tried.len()) > 1;
    if let Ok(written) = persistently(app, &taken, &tried, several).await {
        return written;
    }
    let mut written = HashSet::new();
    for one in taken {
        told_of(persistently(app, &[one], &[], false).await, &mut written);
    }
    for one in tried {
        told_of(persistently(app, &[], &[one], false).await, &mut written);
    }
    written
}

fn told_of(outcome: Result<HashSet<Due>, AppError>, written: &mut HashSet<Due>) {
    match outcome {
        Ok(more) => written.extend(more),
        Err(error) => {
            let cause = error.cause.as_deref().unwrap_or(error.reason.as_str());
            tracing::error!(cause, "a delivery can't be written down, and may be repeated");
        }
    }
}

/// For as long as the database can't be reached. One that is refused for itself is tried a few times, several are not.
async fn persistently(
    app: &App,
    taken: &[Taken],
    tried: &[(Due, i64)],
    several: bool,
) -> Result<HashSet<Due>, AppError> {
    let (mut told, mut refused) = (false, 0_u32);
    loop {
        let error = match app.record_deliveries(taken.to_vec(), tried.to_vec()).await {
            Ok(written) => return Ok(written.into_iter().collect()),
            Err(error) => error,
        };
        if error.class != Class::Unavailable {
            refused = refused.saturating_add(1);
            if several || refused >= TRIES {
                return Err(error);
            }
        }
        if !told {
            told = true;
            let cause = error.cause.as_deref().unwrap_or(error.reason.as_str());
            tracing::error!(cause, "deliveries can't be written down, and will be tried again");
        }
        sleep(PAUSE).await;
    }
}
