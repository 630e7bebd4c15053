//! Two servers, of which one mirrors the other by its notifications, of which a third meet trouble. Tasks are changed at the
//! source at random; some changes are illegal at the mirror. Afterwards both sides must agree, and the quarantine hold exactly
//! the illegal ones. Everything that is decided beforehand follows from one seed.

pub mod check;
pub mod moving;
pub mod pair;
pub mod report;
pub mod snapshot;
pub mod trouble;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use handoff_domain::task::TaskStatus;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::chaos::plan::choices;
use crate::chaos::stand::Cell;
use crate::{Backend, Client};
use check::{Expected, Seen};
use moving::{Board, Lot, Piece};
use pair::{Pair, SOURCE};
use trouble::Fate;

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// What everything follows from.
    pub seed: u64,
    /// How many changes are made at the source, at the least.
    pub changes: usize,
    /// Of how many Tasks.
    pub tasks: usize,
    /// On which stores both servers are.
    pub backend: Backend,
}

/// Both sides at one moment, with what they are held to.
pub struct Moment {
    /// What it is called.
    pub name: &'static str,
    /// Both sides.
    pub seen: Seen,
    /// What is known beforehand.
    pub expected: Expected,
    /// Whether all was delivered and applied by then.
    pub is_quiet: bool,
    /// How long that took.
    pub took: Duration,
}

/// What came of it.
pub struct Outcome {
    /// After the first changes; after those that are illegal at the mirror; after the causes were gone.
    pub moments: Vec<Moment>,
    /// How many changes were made.
    pub changes: usize,
    /// What the notifications met.
    pub fates: BTreeMap<Fate, usize>,
    /// How many notices the mirror has, by state.
    pub notices: BTreeMap<String, usize>,
    /// Both servers.
    pub pair: Pair,
}

const WRITERS: usize = 4;
/// How long nothing may move before it counts as a standstill: longer than a source's heartbeat takes to be missed.
const STANDSTILL: Duration = Duration::from_mins(3);
const LOOK: Duration = Duration::from_millis(200);

/// Runs it to the end.
pub async fn run(settings: Settings) -> Outcome {
    let seed = settings.seed;
    let pair = Pair::start(settings.backend, choices(seed, "trouble", 0)).await;
    pair.trouble.begin();
    let ehr = pair.source.client("ehr").await;
    let board = Arc::new(Board::set(ehr, settings.tasks, choices(seed, "tasks", 0)).await);
    write(&board, settings.changes * 9 / 10, seed, 0).await;
    let ended_there: Vec<&Piece> = of(&board, Lot::EndedThere);
    for piece in &ended_there {
        board.bring_to_work(piece).await;
    }
    let mut expected = Expected::default();
    let mut moments = vec![come_to_rest("at first", &pair, &board, &expected).await];

    let lane = pair.mirror.client("lane").await;
    for piece in &ended_there {
        end_there(&lane, piece, &board).await;
        expected
            .moved_there
            .insert(piece.id.clone(), TaskStatus::Completed.as_str().to_owned());
    }
    pair.trouble.begin();
    let writing = write(&board, settings.changes, seed, 1);
    let illegal = async {
        let mut made = Vec::new();
        for piece in &ended_there {
            for to in [TaskStatus::OnHold, TaskStatus::InProgress] {
                made.push((piece.id.clone(), board.change(piece, to, None).await));
            }
        }
        made
    };
    let (made, ()) = tokio::join!(illegal, writing);
    expected.illegal.extend(made);
    for piece in of(&board, Lot::Narrowed) {
        board.bring_to_work(piece).await;
        let version = board.change(piece, TaskStatus::Failed, None).await;
        expected.illegal.insert((piece.id.clone(), version));
    }
    moments.push(come_to_rest("with illegal ones", &pair, &board, &expected).await);

    pair.widen();
    pair.trouble.begin();
    for piece in &ended_there {
        board.change(piece, TaskStatus::EnteredInError, None).await;
    }
    retry(&pair, &of(&board, Lot::Narrowed)).await;
    // What was refused is old once something that is legal came after it.
    expected.illegal.clear();
    let after = come_to_rest("once the causes are gone", &pair, &board, &expected).await;
    moments.push(after);
    let notices = notices(&pair);
    for side in [&pair.source, &pair.mirror] {
        for server in &side.fleet.servers {
            server.kill().await;
        }
    }
    Outcome {
        moments,
        changes: board.changes.load(Ordering::Relaxed),
        fates: pair.trouble.fates(),
        notices,
        pair,
    }
}

fn of(board: &Board, lot: Lot) -> Vec<&Piece> {
    board.pieces.iter().filter(|piece| piece.lot == lot).collect()
}

async fn write(board: &Board, until: usize, seed: u64, round: usize) {
    join_all((0..WRITERS).map(|number| {
        let choice = choices(seed, "writer", round * WRITERS + number);
        board.write(until, (number, WRITERS), choice)
    }))
    .await;
}

/// Lane completes a mirrored Task at the mirror, while it goes on at the source.
async fn end_there(lane: &Client, piece: &Piece, board: &Board) {
    let number = board.pieces.iter().position(|one| one.id == piece.id);
    let path = format!("/fhir/Task?identifier=task-{}", number.expect("one of them"));
    let found = lane.get(&path).await.expect(200).json();
    let mut task: Value = found["entry"][0]["resource"].clone();
    task["status"] = json!(TaskStatus::Completed.as_str());
    let id = task["id"].as_str().expect("a mirror").to_owned();
    lane.put(&format!("/fhir/Task/{id}"), &task).await.expect(200);
}

/// An operator has what is quarantined of these Tasks tried again, until it is applied.
async fn retry(pair: &Pair, pieces: &[&Piece]) {
    let operator = pair.mirror.client("operator").await;
    let deadline = Instant::now() + STANDSTILL;
    loop {
        let listed = operator
            .get(&format!("/admin/quarantine?source={SOURCE}"))
            .await
            .expect(200)
            .json();
        let held: Vec<&Value> = listed["quarantine"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|one| {
                let about = one["about"].as_str().unwrap_or_default();
                pieces.iter().any(|piece| about == format!("Task/{}", piece.id))
            })
            .collect();
        if held.is_empty() || Instant::now() > deadline {
            return;
        }
        for one in held {
            let id = one["id"].as_str().expect("an id");
            let path = format!("/admin/quarantine/{id}/retry");
            // 409 where it was applied meanwhile.
            operator
                .post_plain(&path, &json!({}))
                .await
                .expect_one_of(&[200, 409]);
        }
        // The mirror looks at its workflow a few times a second.
        sleep(LOOK).await;
    }
}

/// Waits until the source has told everything in spite of the trouble; then ends that, and waits until everything is
/// applied, or nothing moves any more.
async fn come_to_rest(name: &'static str, pair: &Pair, board: &Board, expected: &Expected) -> Moment {
    let began = Instant::now();
    let told = until_quiet(pair, false).await;
    pair.trouble.end().await;
    board.last_word().await;
    let is_quiet = told && until_quiet(pair, true).await;
    Moment {
        name,
        seen: snapshot::take(pair).await,
        expected: expected.clone(),
        is_quiet,
        took: began.elapsed(),
    }
}

fn notices(pair: &Pair) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for row in pair
        .mirror
        .stand
        .reader()
        .rows(&[Cell::Plain("state")], "FROM notices")
    {
        let state = row[0].as_str().unwrap_or_default().to_owned();
        *counted.entry(state).or_default() += 1;
    }
    counted
}

/// Waits until the source has told all, and the mirror has applied all where that is asked for too. Answers whether it came
/// to that before everything stood still.
async fn until_quiet(pair: &Pair, applied: bool) -> bool {
    let mut last = (Instant::now(), None);
    loop {
        let pending = pair
            .source
            .stand
            .reader()
            .rows(&[Cell::Plain("sequence")], "FROM outbox WHERE pending");
        let counts = snapshot::counts(&pair.source.stand);
        let (feeds, waiting) = snapshot::feeds(pair);
        let delivered = counts.iter().all(|(_, counted, delivered)| counted == delivered);
        let complete = feeds
            .iter()
            .all(|feed| feed.told == feed.counted && feed.missing == "[]");
        if pending.is_empty() && delivered && (!applied || (complete && waiting == 0)) {
            return true;
        }
        let state = Some((counts, feeds, waiting));
        if state != last.1 {
            last = (Instant::now(), state);
        }
        if last.0.elapsed() > STANDSTILL {
            return false;
        }
        sleep(LOOK).await;
    }
}
