//! Creating Tasks and moving them, sixteen clients at a time. Each Task has a document, so that creating it binds a
//! grant, and each move suspends that grant or binds it again. The bare transactions that they are held against are measured in
//! turn with them: what a machine can do differs from minute to minute.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::millis;
use crate::failure::Result;
use crate::load::{Expected, Load, closed};
use crate::report::{Budget, Row};
use crate::run::Run;
use crate::stage::{CREATED, Document, LANE, Stage, id_of, task};
use crate::two_rows::{self, TwoRows};

const CLIENTS: usize = 16;
/// Tasks that each client moves in turn.
const TASKS_EACH: usize = 8;
/// Documents that the Tasks are about: other Tasks are about other documents, as a rule.
const DOCUMENTS: usize = 256;
const SIZE: u64 = 4 * 1024;

pub(super) async fn on_postgres(run: &mut Run) -> Result<Vec<Row>> {
    let database = &run.services()?.database;
    two_rows::prepare(database).await?;
    let stage = run.stage().await?;
    let mut bare = 0.0;
    let (create, transition) = both(run, &stage, async |lasting| {
        bare += two_rows::by_driver(database, lasting).await? / f64::from(run.scale.rounds);
        Ok(())
    })
    .await?;
    stage.server.stop().await?;
    let by_pgbench = two_rows::by_pgbench(database, run.scale.load).await.ok();
    run.reference = Some(TwoRows {
        per_second: bare,
        by_pgbench,
    });
    let ratio = |id, what, load: &Load| {
        Row::new(id, what, load.rate() / bare * 100.0, "%", Budget::AtLeast(25.0))
            .detail(format!("of {bare:.0}/s"))
            .with("bare_per_second", bare)
    };
    Ok(vec![
        rate(
            "create-postgres",
            "Task create, PostgreSQL, 16 clients",
            &create,
            700.0,
            1_500.0,
        ),
        ratio(
            "create-postgres-ratio",
            "Task create, PostgreSQL, of the rate of a bare two-row transaction",
            &create,
        ),
        rate(
            "transition-postgres",
            "Task transition, PostgreSQL, 16 clients",
            &transition,
            500.0,
            1_200.0,
        ),
        ratio(
            "transition-postgres-ratio",
            "Task transition, PostgreSQL, of the rate of a bare two-row transaction",
            &transition,
        ),
    ])
}

pub(super) async fn on_sqlite(run: &Run) -> Result<Vec<Row>> {
    let stage = Stage::set(&run.program, &run.embedded("writes")?).await?;
    let (create, transition) = both(run, &stage, async |_| Ok(())).await?;
    stage.server.stop().await?;
    Ok(vec![
        rate(
            "create-sqlite",
            "Task create, SQLite, 16 clients",
            &create,
            1_200.0,
            2_500.0,
        ),
        rate(
            "transition-sqlite",
            "Task transition, SQLite, 16 clients",
            &transition,
            1_000.0,
            2_500.0,
        ),
    ])
}

fn rate(id: &'static str, what: &str, load: &Load, least: f64, stretch: f64) -> Row {
    let mut whole = load.whole.clone();
    let (p50, p99) = (millis(whole.p50()), millis(whole.p99()));
    Row::new(id, what, load.rate(), "/s", Budget::AtLeast(least))
        .stretch(stretch)
        .detail(format!("p50 {p50:.1}, p99 {p99:.1} ms"))
        .with("p50_ms", p50)
        .with("p99_ms", p99)
}

/// Creating and moving, in turn with `between`, which is given how long it may last.
async fn both(
    run: &Run,
    stage: &Stage,
    mut between: impl AsyncFnMut(Duration) -> Result<()>,
) -> Result<(Load, Load)> {
    let documents = stage.documents(DOCUMENTS, SIZE).await?;
    let creates: Vec<Bytes> = documents
        .iter()
        .map(|document| stage.as_ehr("POST", "/fhir/Task", &task("accepted", document, LANE)))
        .collect();
    let (mut create, mut transition) = (Load::default(), Load::default());
    let lasting = run.scale.load / run.scale.rounds;
    for _ in 0..run.scale.rounds {
        between(lasting).await?;
        let creates = creates.clone();
        let next =
            move |client: usize, turn: usize| creates[(turn * CLIENTS + client) % creates.len()].clone();
        create.merge(&closed(&stage.target, CLIENTS, lasting, CREATED, next).await?);
        transition.merge(&moves(stage, &documents, lasting).await?);
    }
    Ok((create, transition))
}

/// Moves Tasks that nobody has moved before.
async fn moves(stage: &Stage, documents: &[Document], lasting: Duration) -> Result<Load> {
    let mut moves = Vec::new();
    for mut task in stage.tasks(CLIENTS * TASKS_EACH, documents).await? {
        let path = format!("/fhir/Task/{}", id_of(&task)?);
        moves.push(["in-progress", "on-hold"].map(|status| {
            task["status"] = json!(status);
            stage.as_lane("PUT", &path, &task)
        }));
    }
    let expected = Expected {
        what: "transition",
        status: 200,
    };
    let next = move |client: usize, turn: usize| {
        let task = client * TASKS_EACH + turn % TASKS_EACH;
        moves[task][turn / TASKS_EACH % 2].clone()
    };
    closed(&stage.target, CLIENTS, lasting, expected, next).await
}
