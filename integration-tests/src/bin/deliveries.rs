//! The command behind `integration-tests/deliveries`: subscriptions on servers that are killed, behind proxies that lose,
//! delay, repeat and refuse.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use handoff_integration_tests::Backend;
use handoff_integration_tests::deliveries::report::Report;
use handoff_integration_tests::deliveries::{Settings, run};

/// Subscribers that must have every event although servers die; exits 1 where something does not hold afterwards.
#[derive(Debug, Parser)]
#[command(name = "integration-tests/deliveries")]
struct Flags {
    /// How often a Task is moved, in all, on each database
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    moves: usize,
    /// How many Tasks there are
    #[arg(long, value_name = "N", default_value_t = 200)]
    tasks: usize,
    /// How many move them at once
    #[arg(long, value_name = "N", default_value_t = 16)]
    writers: usize,
    /// How often every server is killed
    #[arg(long, value_name = "N", default_value_t = 2)]
    kills: usize,
    /// What everything follows from; a fresh one unless given
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// On which database
    #[arg(long, value_enum, default_value_t = On::Both)]
    on: On,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum On {
    /// Two servers on PostgreSQL and Azurite.
    Postgres,
    /// One server on SQLite and a directory.
    Sqlite,
    /// One after the other.
    Both,
}

/// How many findings are printed in full.
const PRINTED: usize = 40;

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    let seed = flags.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let backends: &[Backend] = match flags.on {
        On::Postgres => &[Backend::Production],
        On::Sqlite => &[Backend::Embedded],
        On::Both => &[Backend::Production, Backend::Embedded],
    };
    let mut failed = false;
    for backend in backends {
        failed |= !holds(&flags, seed, *backend).await;
    }
    if failed {
        println!("deliveries: FAILED; again with `--seed {seed}`");
        ExitCode::FAILURE
    } else {
        println!("deliveries: passed with seed {seed}");
        ExitCode::SUCCESS
    }
}

async fn holds(flags: &Flags, seed: u64, backend: Backend) -> bool {
    let name = match backend {
        Backend::Production => "postgres",
        Backend::Embedded => "sqlite",
    };
    println!(
        "{name}: {} moves of {} Tasks by {} writers, every server killed {} times, seed {seed}",
        flags.moves, flags.tasks, flags.writers, flags.kills
    );
    let mut outcome = run(Settings {
        seed,
        moves: flags.moves,
        tasks: flags.tasks,
        writers: flags.writers,
        kills: flags.kills,
        backend,
    })
    .await;
    let report = Report::of(&outcome);
    print!("{report}");
    for violation in report.found.iter().take(PRINTED) {
        println!("  {violation}");
    }
    if report.found.len() > PRINTED {
        println!("  … {} in all", report.found.len());
    }
    let holds = report.found.is_empty();
    if !holds {
        outcome.stand.keep();
        println!(
            "  left in place: {} and database {}",
            outcome.stand.folder().display(),
            outcome.stand.name()
        );
    }
    println!("{name}: {}", if holds { "passed" } else { "FAILED" });
    holds
}
