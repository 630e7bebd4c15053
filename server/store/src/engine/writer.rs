//! SQLite's one writer: a thread that takes the units of work that wait, runs each in a savepoint of its own,
//! and makes them durable by one commit. Nobody is answered before that commit.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};

use diesel::connection::TransactionManager;
use handoff_domain::ports::{StoreError, Verdict};
use tokio::sync::oneshot;

use super::{Counters, Done, Ended, Manager, Op, in_savepoint};
use crate::config::StoreConfig;
use crate::dialect::{AnyConnection, Purpose};
use crate::error::refused;

/// The most units of work that one commit makes durable.
const GROUP: usize = 64;

struct Job {
    op: Op,
    answer: oneshot::Sender<Result<Done, StoreError>>,
}

/// The way to the writer. The thread ends when this is dropped.
pub(crate) struct Writer {
    jobs: Sender<Job>,
}

impl Writer {
    /// Starts the thread.
    pub(crate) fn start(config: &StoreConfig, counters: Arc<Counters>) -> Result<Self, StoreError> {
        let connection = AnyConnection::open(config, Purpose::Write)?;
        let (jobs, waiting) = channel();
        let thread = Thread {
            config: config.clone(),
            connection: Some(connection),
            waiting,
            counters,
        };
        std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || thread.run())
            .map_err(|_| StoreError::Unavailable("no thread for the writer".to_owned()))?;
        Ok(Self { jobs })
    }

    /// Runs a unit of work, and waits for the commit that makes it durable.
    pub(crate) async fn run(&self, op: Op) -> Result<Done, StoreError> {
        let (answer, answered) = oneshot::channel();
        let stopped = || StoreError::Unavailable("the writer has stopped".to_owned());
        self.jobs.send(Job { op, answer }).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

type Answers = Vec<(
    oneshot::Sender<Result<Done, StoreError>>,
    Result<Done, StoreError>,
)>;

struct Thread {
    config: StoreConfig,
    connection: Option<AnyConnection>,
    waiting: Receiver<Job>,
    counters: Arc<Counters>,
}

impl Thread {
    fn run(mut self) {
        while let Ok(first) = self.waiting.recv() {
            for (answer, result) in self.group(first) {
                // Who no longer waits has gone away.
                let _gone = answer.send(result);
            }
        }
    }

    fn connection(&mut self) -> Result<&mut AnyConnection, StoreError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => AnyConnection::open(&self.config, Purpose::Write)?,
        };
        Ok(self.connection.insert(connection))
    }

    fn group(&mut self, first: Job) -> Answers {
        let counters = Arc::clone(&self.counters);
        let begun = self
            .connection()
            .and_then(|c| c.begin_outer().map_err(|error| refused(&error)));
        if let Err(error) = begun {
            self.connection = None;
            return vec![(first.answer, Err(error))];
        }
        let mut answers = Answers::new();
        let mut next = Some(first);
        while let Some(mut job) = next {
            let Some(connection) = self.connection.as_mut() else {
                break;
            };
            let Ended { result, intact } = in_savepoint(connection, &mut job.op, &counters);
            if !intact {
                // SQLite undoes everything when it runs out of room in the middle of one unit.
                let cause = result.clone().err().unwrap_or(StoreError::Conflict);
                answers.push((job.answer, result));
                return self.lost(answers, &cause);
            }
            answers.push((job.answer, result));
            next = if answers.len() < GROUP {
                self.waiting.try_recv().ok()
            } else {
                None
            };
        }
        let to_keep = answers.iter().any(|(_, result)| is_to_commit(result));
        let ended = match self.connection.as_mut() {
            Some(connection) if to_keep => Manager::commit_transaction(connection),
            Some(connection) => Manager::rollback_transaction(connection),
            None => Ok(()),
        };
        match ended {
            Ok(()) => {
                if to_keep {
                    counters.commits.fetch_add(1, Ordering::Relaxed);
                }
                answers
            }
            Err(error) => self.lost(answers, &refused(&error)),
        }
    }

    /// Nothing of the group is durable: those that were to be are told why.
    fn lost(&mut self, mut answers: Answers, cause: &StoreError) -> Answers {
        self.connection = None;
        for (_, result) in &mut answers {
            if is_to_commit(result) {
                *result = Err(cause.clone());
            }
        }
        answers
    }
}

fn is_to_commit(result: &Result<Done, StoreError>) -> bool {
    result.as_ref().is_ok_and(|done| done.verdict == Verdict::Commit)
}
