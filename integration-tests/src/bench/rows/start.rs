//! How long the server takes to be ready on an empty SQLite database, and what it holds when nobody asks anything.

use std::time::Duration;

use super::{median, millis, number};
use crate::failure::{Failure, Result};
use crate::report::{Budget, Row};
use crate::run::Run;
use crate::server::Server;

/// How long it is left alone before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(2);

pub(super) async fn measure(run: &Run) -> Result<Vec<Row>> {
    let (mut cold, mut again) = (Vec::new(), Vec::new());
    let mut idle = None;
    for turn in 0..run.scale.starts {
        let stores = run.embedded(&format!("start-{turn}"))?;
        let server = Server::start(&run.program, &stores, None).await?;
        cold.push(millis(server.ready_after));
        if turn == 0 {
            tokio::time::sleep(SETTLE).await;
            idle = Some(number(server.resident_kib()?) / 1024.0);
        }
        server.stop().await?;
        let server = Server::start(&run.program, &stores, None).await?;
        again.push(millis(server.ready_after));
        server.stop().await?;
    }
    let idle = idle.ok_or_else(|| Failure::new("nothing was started"))?;
    let again = median(again);
    Ok(vec![
        Row::new(
            "cold-start",
            "cold start to ready, SQLite",
            median(cold),
            "ms",
            Budget::AtMost(300.0),
        )
        .detail(format!("{again:.0} where the tables exist"))
        .with("restart_ms", again),
        Row::new(
            "idle-memory",
            "idle memory, SQLite",
            idle,
            "MiB",
            Budget::AtMost(60.0),
        ),
    ])
}
