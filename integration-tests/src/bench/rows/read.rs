//! Reading Tasks by id, sixty-four clients at a time, each with a token of its own.

use serde_json::Value;

use super::millis;
use crate::failure::Result;
use crate::load::{Expected, closed};
use crate::report::{Budget, Row};
use crate::run::Run;
use crate::stage::with_token;

const CLIENTS: usize = 64;
const TASKS: usize = 10_000;

pub(super) async fn measure(run: &mut Run) -> Result<Vec<Row>> {
    let stage = run.stage().await?;
    super::search::populate(run, &stage, run.scale.many.min(TASKS)).await?;
    let statement = format!("SELECT id FROM tasks WHERE NOT deleted ORDER BY id LIMIT {TASKS};");
    let ids = run.services()?.database.sql(&statement).await?;
    let mut tokens = Vec::new();
    for _ in 0..CLIENTS {
        tokens.push(stage.sign_in("lane").await?);
    }
    // Each client has its own share of the Tasks, in an order that is not that of the table.
    let mut requests = vec![Vec::new(); CLIENTS];
    for (number, id) in ids.lines().enumerate() {
        let client = number % CLIENTS;
        let path = format!("/fhir/Task/{id}");
        requests[client].push(with_token(
            &stage.target,
            &tokens[client],
            "GET",
            &path,
            &Value::Null,
        ));
    }
    let expected = Expected {
        what: "Task read",
        status: 200,
    };
    let mut load = closed(
        &stage.target,
        CLIENTS,
        run.scale.reads,
        expected,
        move |client, turn| {
            let own = &requests[client];
            own[turn * 7 % own.len()].clone()
        },
    )
    .await?;
    stage.server.stop().await?;
    let (p50, p99) = (millis(load.whole.p50()), millis(load.whole.p99()));
    Ok(vec![
        Row::new(
            "read",
            "Task read by id, 64 clients",
            load.rate(),
            "/s",
            Budget::AtLeast(10_000.0),
        )
        .stretch(20_000.0)
        .detail(format!("p50 {p50:.1}, p99 {p99:.1} ms"))
        .with("p50_ms", p50)
        .with("p99_ms", p99),
    ])
}
