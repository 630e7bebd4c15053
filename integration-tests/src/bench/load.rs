//! The two ways to put load on a server: a fixed number of clients, each of which waits for its answer (how much can
//! it do?), and requests at a fixed rate whatever the answers do (how long does one take?). Every answer's status is
//! checked; a wrong one ends the load.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::{JoinSet, spawn_local};

use crate::failure::{Failure, Result};
use crate::http::{Answer, Body, Connection, Target};
use crate::latencies::Latencies;

/// A connection that nobody used for longer may just be closed by the server.
const KEPT: Duration = Duration::from_secs(2);

/// What was measured.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// Answers in the measured time.
    pub answers: usize,
    /// The measured time.
    pub elapsed: Duration,
    /// From the request to its last byte.
    pub whole: Latencies,
    /// From the request to the first byte of the body.
    pub first_byte: Latencies,
}

impl Load {
    /// Answers per second.
    pub fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "far less than 2^52")]
        let answers = self.answers as f64;
        answers / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }

    /// Adds another one of the same kind.
    pub fn merge(&mut self, other: &Self) {
        self.answers += other.answers;
        self.elapsed += other.elapsed;
        self.whole.merge(&other.whole);
        self.first_byte.merge(&other.first_byte);
    }

    fn add(&mut self, since: Instant, answer: &Answer) {
        self.answers += 1;
        self.whole.add(answer.end.saturating_duration_since(since));
        self.first_byte
            .add(answer.first_byte.saturating_duration_since(since));
    }
}

/// What every answer must be.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    /// In words, for the message when it is not.
    pub what: &'static str,
    /// Its status.
    pub status: u16,
}

/// `clients` clients on one connection each, for `lasting` after a time to warm up. `next` gives the request of a
/// client's turn.
pub async fn closed(
    target: &Target,
    clients: usize,
    lasting: Duration,
    expected: Expected,
    next: impl Fn(usize, usize) -> Bytes + 'static,
) -> Result<Load> {
    let next = Rc::new(next);
    let total = Rc::new(RefCell::new(Load::default()));
    let from = Instant::now() + lasting / 5;
    let until = from + lasting;
    let mut all = JoinSet::new();
    for client in 0..clients {
        let (next, total, target) = (Rc::clone(&next), Rc::clone(&total), target.clone());
        all.spawn_local(async move {
            let mut connection = Connection::open(&target).await?;
            for turn in 0.. {
                let request = next(client, turn);
                let since = Instant::now();
                if since >= until {
                    break;
                }
                let answer = connection
                    .exchange(&request, Body::Dropped)
                    .await?
                    .expect(expected.status, expected.what)?;
                if answer.end > from && answer.end <= until {
                    total.borrow_mut().add(since, &answer);
                }
                if !connection.open {
                    connection = Connection::open(&target).await?;
                }
            }
            Ok(())
        });
    }
    joined(&mut all).await?;
    let mut load = total.take();
    load.elapsed = lasting;
    if load.answers == 0 {
        return Err(Failure::new(format!("{}: no answer in time", expected.what)));
    }
    Ok(load)
}

/// `count` requests at `rate` per second, each sent when its time has come. A latency counts from the time at which
/// the request was to be sent, so that a server that stalls is charged for all who would have come meanwhile.
pub async fn open(
    target: &Target,
    rate: u32,
    count: usize,
    expected: Expected,
    request: impl Fn(usize) -> Bytes + 'static,
) -> Result<Load> {
    // The runtime's timer rounds up to the next millisecond. That is this client's delay, not the server's.
    const TIMER: Duration = Duration::from_millis(2);
    let idle: Rc<RefCell<Vec<(Connection, Instant)>>> = Rc::default();
    let total = Rc::new(RefCell::new(Load::default()));
    let begun = Instant::now() + Duration::from_millis(5);
    let mut all = JoinSet::new();
    for number in 0..count {
        let due = begun + Duration::from_secs(1) * u32::try_from(number).unwrap_or(u32::MAX) / rate;
        tokio::time::sleep_until(due.into()).await;
        while let Some(ended) = all.try_join_next() {
            flat(ended)?;
        }
        let woken = Instant::now();
        let since = if woken.saturating_duration_since(due) < TIMER {
            woken
        } else {
            due
        };
        let (bytes, idle, total, target) = (
            request(number),
            Rc::clone(&idle),
            Rc::clone(&total),
            target.clone(),
        );
        all.spawn_local(async move {
            let kept = idle.borrow_mut().pop();
            let mut connection = match kept {
                Some((connection, since)) if since.elapsed() < KEPT => connection,
                _ => Connection::open(&target).await?,
            };
            let answer = connection
                .exchange(&bytes, Body::Dropped)
                .await?
                .expect(expected.status, expected.what)?;
            total.borrow_mut().add(since, &answer);
            if connection.open {
                idle.borrow_mut().push((connection, Instant::now()));
            }
            Ok(())
        });
    }
    joined(&mut all).await?;
    let mut load = total.take();
    load.elapsed = begun.elapsed();
    Ok(load)
}

/// Sends each request once over `clients` connections; answers with their bodies, in order.
pub async fn each(
    target: &Target,
    clients: usize,
    expected: Expected,
    requests: Vec<Bytes>,
) -> Result<Vec<Answer>> {
    let waiting = Rc::new(RefCell::new(requests.into_iter().enumerate()));
    let done: Rc<RefCell<Vec<(usize, Answer)>>> = Rc::default();
    let mut all = JoinSet::new();
    for _ in 0..clients {
        let (waiting, done, target) = (Rc::clone(&waiting), Rc::clone(&done), target.clone());
        all.spawn_local(async move {
            let mut connection = Connection::open(&target).await?;
            loop {
                let next = waiting.borrow_mut().next();
                let Some((number, request)) = next else {
                    return Ok(());
                };
                if !connection.open {
                    connection = Connection::open(&target).await?;
                }
                let answer = connection
                    .exchange(&request, Body::Kept)
                    .await?
                    .expect(expected.status, expected.what)?;
                done.borrow_mut().push((number, answer));
            }
        });
    }
    joined(&mut all).await?;
    let mut done = done.take();
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, answer)| answer).collect())
}

/// Runs `work` beside what goes on, and answers what it came to when that is awaited.
pub fn beside<T: 'static>(work: impl Future<Output = T> + 'static) -> impl Future<Output = Result<T>> {
    let running = spawn_local(work);
    async move { running.await.map_err(|error| Failure::new(error.to_string())) }
}

async fn joined(all: &mut JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = all.join_next().await {
        flat(ended)?;
    }
    Ok(())
}

fn flat(ended: std::result::Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    ended.map_err(|error| Failure::new(error.to_string()))?
}
