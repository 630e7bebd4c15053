//! Servers under fire: many clients at once on two processes and one database, processes killed at any moment,
//! connections to database and content store cut, slowed and half closed; and afterwards the clients' record held
//! against the store. Everything that is decided beforehand follows from one seed.

mod aftermath;
pub mod check;
pub mod content;
pub mod download;
pub mod fetching;
pub mod granting;
pub mod moving;
pub mod placing;
pub mod plan;
pub mod record;
pub mod report;
pub mod servers;
pub mod snapshot;
pub mod stand;
pub mod world;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::Backend;
use aftermath::{come_to_rest, look_at_what_is_left};
use plan::{Act, Plan, choices};
use record::{Record, Recorder};
use servers::Fleet;
use snapshot::Snapshot;
use stand::Stand;
use world::World;

/// What is run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// What everything follows from.
    pub seed: u64,
    /// How long clients go on.
    pub lasting: Duration,
    /// How many processes are killed meanwhile. All are killed once more at the end.
    pub kills: u32,
    /// On which stores: two servers on PostgreSQL and Azurite, or one on SQLite and a directory.
    pub backend: Backend,
}

/// What came of it.
pub struct Outcome {
    /// What the clients saw.
    pub record: Record,
    /// What the store holds.
    pub store: Snapshot,
    /// The stores, as the servers left them.
    pub stand: Stand,
}

/// How long the clients may take to stop.
const STOPPING: Duration = Duration::from_mins(3);

/// How many of each kind of client there are.
const PLACERS: usize = 3;
const MOVERS: usize = 6;
const GRANTERS: usize = 3;
const FETCHERS: usize = 8;
const EDITORS: usize = 1;

/// Runs clients against servers that are killed, to the end, and reads what is left.
pub async fn run(settings: Settings) -> Outcome {
    let stand = Stand::prepare(settings.backend);
    let servers = match settings.backend {
        Backend::Embedded => 1,
        Backend::Production => 2,
    };
    let fleet = Arc::new(Fleet::start(&stand, servers).await);
    let recorder = Arc::new(Recorder::default());
    let bases = fleet.servers.iter().map(|s| s.base.clone()).collect();
    let world = World::enter(&fleet.issuer, bases, settings.seed, Arc::clone(&recorder)).await;
    let world = Arc::new(world);
    let clients = clients(&world);
    let plan = Plan::new(
        settings.seed,
        settings.lasting,
        settings.kills,
        servers,
        stand.places().is_some(),
    );
    storm(&plan, settings.lasting, &fleet, &recorder).await;
    for server in &fleet.servers {
        server.calm();
    }
    // Once more while everybody is at it, so that something is left open by all; and nobody comes after that.
    let everybody_stops = async {
        world.end();
        for client in clients {
            timeout(STOPPING, client)
                .await
                .expect("every client comes to an end")
                .expect("no client fails");
        }
    };
    fleet.crash(everybody_stops, &recorder).await;
    come_to_rest(&stand).await;
    look_at_what_is_left(&world, &stand).await;
    come_to_rest(&stand).await;
    let store = Snapshot::take(&stand).await;
    for server in &fleet.servers {
        server.kill().await;
    }
    Outcome {
        record: recorder.so_far(),
        store,
        stand,
    }
}

fn clients(world: &Arc<World>) -> Vec<JoinHandle<()>> {
    let mut all = Vec::new();
    let choices = |who, number| choices(world.seed, who, number);
    for n in 0..PLACERS {
        all.push(tokio::spawn(placing::place_tasks(
            Arc::clone(world),
            choices("placer", n),
        )));
    }
    for n in 0..EDITORS {
        all.push(tokio::spawn(placing::change_documents(
            Arc::clone(world),
            choices("editor", n),
        )));
    }
    for n in 0..MOVERS {
        all.push(tokio::spawn(moving::move_tasks(
            Arc::clone(world),
            choices("mover", n),
        )));
    }
    for n in 0..GRANTERS {
        all.push(tokio::spawn(granting::ask_for_grants(
            Arc::clone(world),
            choices("granter", n),
        )));
    }
    for n in 0..FETCHERS {
        all.push(tokio::spawn(fetching::fetch_documents(
            Arc::clone(world),
            choices("fetcher", n),
        )));
    }
    all
}

/// Carries the plan out, and waits until it is over and as long as the clients are to go on.
async fn storm(plan: &Plan, lasting: Duration, fleet: &Arc<Fleet>, recorder: &Arc<Recorder>) {
    let began = Instant::now();
    let mut under_way = Vec::new();
    for event in plan.events.clone() {
        sleep_until(began + event.at).await;
        let (server, recorder) = (Arc::clone(&fleet.servers[event.server]), Arc::clone(recorder));
        under_way.push(tokio::spawn(async move {
            match event.act {
                Act::Kill { down } => server.crash(sleep(down), &recorder).await,
                Act::Trouble { part, fault, lasting } => {
                    server.trouble(part, fault, lasting, &recorder).await;
                }
            }
        }));
    }
    sleep(lasting.saturating_sub(began.elapsed())).await;
    for event in under_way {
        event.await.expect("what was planned is done");
    }
}
