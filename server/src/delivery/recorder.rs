//! Writes down what subscribers took: what arrives while one transaction commits goes into the next one together.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::app::App;
use crate::app::deliveries::Taken;

/// How many wait to be written at most; who sends more waits.
const WAITING: usize = 1_024;
/// How many are written in one transaction.
const TOGETHER: usize = 256;
/// How long until it is tried again when the database can't be written.
const PAUSE: Duration = Duration::from_millis(500);

enum Note {
    Taken(Box<Taken>),
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
        let mut taken = Vec::with_capacity(notes.len());
        let mut waiting = Vec::new();
        for note in notes.drain(..) {
            match note {
                Note::Taken(one) => taken.push(*one),
                Note::Flush(done) => waiting.push(done),
            }
        }
        if !taken.is_empty() {
            record(&app, &taken).await;
        }
        for done in waiting {
            // Who waited may have gone.
            let _gone = done.send(());
        }
    }
}

/// Until it is written: a subscriber would be told again what is not.
async fn record(app: &App, taken: &[Taken]) {
    let mut told = false;
    while let Err(error) = app.record_taken(taken.to_vec()).await {
        if !told {
            told = true;
            let cause = error.cause.as_deref().unwrap_or(error.reason.as_str());
            tracing::error!(cause, "deliveries can't be written down, and will be tried again");
        }
        sleep(PAUSE).await;
    }
}
