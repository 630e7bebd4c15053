//! Subscriptions under fire: writers move Tasks on servers that are killed, subscribers stand behind proxies that drop,
//! delay, repeat and refuse a third of what is sent to them; afterwards what each was told is held against the history of
//! every Task. Everything that is decided beforehand follows from one seed.

pub mod arrivals;
pub mod check;
pub mod endpoint;
pub mod moving;
pub mod report;
pub mod subscribing;
pub mod truth;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Backend;
use crate::chaos::plan::choices;
use crate::chaos::record::Recorder;
use crate::chaos::servers::Fleet;
use crate::chaos::stand::{Cell, Stand};
use moving::Board;
use subscribing::{Kind, Listening, subscribe};
use truth::{Store, Truth};

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// What everything follows from.
    pub seed: u64,
    /// How often a Task is moved from one status to another, in all.
    pub moves: usize,
    /// How many Tasks there are.
    pub tasks: usize,
    /// How many move them at once.
    pub writers: usize,
    /// How often every server is killed meanwhile.
    pub kills: usize,
    /// On which stores: two servers on PostgreSQL and Azurite, or one on SQLite and a directory.
    pub backend: Backend,
}

/// What came of it.
pub struct Outcome {
    /// What the history of every Task says.
    pub truth: Truth,
    /// What the store holds.
    pub store: Store,
    /// The subscribers, with what each was sent.
    pub subscribers: Vec<Listening>,
    /// Whether everything was delivered in time.
    pub came_to_rest: bool,
    /// How long the writers took, and how long deliveries went on after them.
    pub took: (Duration, Duration),
    /// How many servers were killed.
    pub killed: usize,
    /// The stores, as the servers left them.
    pub stand: Stand,
}

/// What both servers are called: a notification names it, whichever of them sends it.
const PUBLIC: &str = "http://handoff.test";
/// How long a killed server stays away.
const AWAY: (u64, u64) = (100, 2_500);
/// How long deliveries may go on without any being written down.
const STANDSTILL: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(250);

/// Runs it to the end, and reads what is left.
pub async fn run(settings: Settings) -> Outcome {
    let stand = Stand::prepare(settings.backend);
    let servers = match settings.backend {
        Backend::Embedded => 1,
        Backend::Production => 2,
    };
    let fleet = Fleet::start_with(&stand, servers, &["--public-url", PUBLIC]).await;
    let recorder = Recorder::default();
    let bases: Vec<String> = fleet.servers.iter().map(|server| server.base.clone()).collect();
    let mut subscribers = Vec::new();
    for (number, kind) in Kind::ALL.into_iter().enumerate() {
        let choice = choices(settings.seed, "subscriber", number);
        subscribers.push(subscribe(&fleet.issuer, &bases[0], kind, choice).await);
    }
    let began = Instant::now();
    let board = Arc::new(Board::set(&fleet.issuer, bases, settings.tasks, settings.seed).await);
    let writers: Vec<_> = (0..settings.writers)
        .map(|number| {
            let choice = choices(settings.seed, "writer", number);
            tokio::spawn(moving::move_tasks(Arc::clone(&board), settings.moves, choice))
        })
        .collect();
    let killed = kill_meanwhile(&settings, &fleet, &board, &recorder).await;
    for writer in writers {
        writer.await.expect("a writer comes to its end");
    }
    let moved = began.elapsed();
    let began = Instant::now();
    let came_to_rest = come_to_rest(&stand, &subscribers).await;
    let took = (moved, began.elapsed());
    let truth = board.history().await;
    let store = Store::read(&stand);
    for server in &fleet.servers {
        server.kill().await;
    }
    Outcome {
        truth,
        store,
        subscribers,
        came_to_rest,
        took,
        killed,
        stand,
    }
}

/// Kills every server so often, one at a time and every other time all at once, at moments that lie evenly among the moves.
async fn kill_meanwhile(settings: &Settings, fleet: &Fleet, board: &Board, recorder: &Recorder) -> usize {
    let mut choice = choices(settings.seed, "kills", 0);
    let rounds = settings.kills;
    let mut killed = 0;
    for round in 0..rounds {
        for (number, server) in fleet.servers.iter().enumerate() {
            let away = Duration::from_millis(choice.u64(AWAY.0..=AWAY.1));
            let at_once = round % 2 == 1;
            let place = if at_once { 0 } else { number };
            let parts = rounds * fleet.servers.len() + 1;
            let part = round * fleet.servers.len() + place + 1;
            let due = settings.moves * part / parts;
            while board.moves.load(Ordering::Relaxed) < due {
                sleep(Duration::from_millis(5)).await;
            }
            if at_once {
                fleet.crash(sleep(away), recorder).await;
                killed += fleet.servers.len();
                break;
            }
            server.crash(sleep(away), recorder).await;
            killed += 1;
        }
    }
    killed
}

/// Waits until all that is to be delivered is, or nothing moves any more. Answers whether it is.
async fn come_to_rest(stand: &Stand, subscribers: &[Listening]) -> bool {
    let mut last = (Instant::now(), 0);
    loop {
        let mut reader = stand.reader();
        let pending = !reader
            .rows(&[Cell::Plain("sequence")], "FROM outbox WHERE pending")
            .is_empty();
        let rows = reader.rows(
            &[
                Cell::Plain("n.subscription"),
                Cell::Plain("n.events"),
                Cell::Plain("c.delivered"),
            ],
            "FROM subscription_counts n JOIN subscription_courses c \
             ON c.tenant = n.tenant AND c.subscription = n.subscription",
        );
        drop(reader);
        let (mut open, mut delivered) = (pending, 0);
        for row in rows {
            let answers = subscribers
                .iter()
                .any(|one| row[0] == one.subscription.as_str() && one.kind.answers());
            let (counted, done) = (row[1].as_i64().unwrap_or(0), row[2].as_i64().unwrap_or(0));
            if answers {
                open |= done < counted;
                delivered += done;
            }
        }
        if !open {
            return true;
        }
        if delivered != last.1 {
            last = (Instant::now(), delivered);
        }
        if last.0.elapsed() > STANDSTILL {
            return false;
        }
        sleep(LOOK).await;
    }
}
