//! The measurements, one scene a file. A scene prepares what it needs, measures, and answers rows.

pub mod against;
mod cut;
mod downloads;
mod in_process;
mod ledger;
mod read;
mod redemption;
mod search;
mod slow;
mod start;
mod subscribers;
mod writes;

use std::time::Duration;

use crate::arguments::Scene;
use crate::database::Database;
use crate::failure::Result;
use crate::report::Row;
use crate::run::{Run, address};
use crate::server::Stores;

/// Measures one scene.
pub async fn measure(scene: Scene, run: &mut Run) -> Result<Vec<Row>> {
    match scene {
        Scene::Downloads => downloads::measure(run).await,
        Scene::Slow => slow::measure(run).await,
        Scene::Redemption => redemption::measure(run).await,
        Scene::Writes => writes::on_postgres(run).await,
        Scene::Sqlite => writes::on_sqlite(run).await,
        Scene::Ledger => ledger::measure(run).await,
        Scene::Search => search::measure(run).await,
        Scene::Read => read::measure(run).await,
        Scene::Subscribers => subscribers::measure(run).await,
        Scene::Cut => cut::measure(run).await,
        Scene::InProcess => in_process::measure(run).await,
        Scene::Start => start::measure(run).await,
    }
}

/// Measures on a database that is dropped afterwards.
async fn on_own_database<T>(
    run: &Run,
    name: &str,
    measure: impl AsyncFnOnce(&Stores, &Database) -> Result<T>,
) -> Result<T> {
    let name = format!("bench-{name}-{}", std::process::id());
    let database = Database::create(&address("HANDOFF_TEST_POSTGRES_URL")?, &name).await?;
    let stores = Stores {
        database: Some(database.url()),
        ..run.production()?
    };
    let measured = measure(&stores, &database).await;
    database.drop().await?;
    measured
}

/// What a scene is called when it fails as a whole.
pub const fn title(scene: Scene) -> &'static str {
    match scene {
        Scene::Downloads => "proxied download",
        Scene::Slow => "slow downloads",
        Scene::Redemption => "redemption, request to first byte",
        Scene::Writes => "Task create and transition, PostgreSQL",
        Scene::Sqlite => "Task create and transition, SQLite",
        Scene::Ledger => "recording, sealing and verifying the audit",
        Scene::Search => "search by owner and status",
        Scene::Read => "Task read by id",
        Scene::Subscribers => "commit → subscriber",
        Scene::Cut => "revocation → last byte",
        Scene::InProcess => "policy decision and token validation",
        Scene::Start => "cold start and idle memory",
    }
}

/// The same for programs.
pub const fn id(scene: Scene) -> &'static str {
    match scene {
        Scene::Downloads => "downloads",
        Scene::Slow => "slow",
        Scene::Redemption => "redemption",
        Scene::Writes => "writes",
        Scene::Sqlite => "sqlite",
        Scene::Ledger => "ledger",
        Scene::Search => "search",
        Scene::Read => "read",
        Scene::Subscribers => "subscribers",
        Scene::Cut => "cut",
        Scene::InProcess => "in-process",
        Scene::Start => "start",
    }
}

/// In milliseconds.
fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// In microseconds.
fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The middle one.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// A count as a number to reckon with.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a run are far less than 2^52"
)]
const fn number(count: u64) -> f64 {
    count as f64
}
