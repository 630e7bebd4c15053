//! The command behind `integration-tests/deliveries`: subscriptions on servers that are killed, behind proxies that lose,
//! delay, repeat and refuse.

use std::process::ExitCode;

use clap::Parser;
use handoff_integration_tests::deliveries::report::Report;
use handoff_integration_tests::deliveries::{Settings, run};
use handoff_integration_tests::trial::{Course, Turn, leave, print_found};

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
    #[command(flatten)]
    course: Course,
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    flags
        .course
        .run("deliveries", async |turn| holds(&flags, turn).await)
        .await
}

async fn holds(flags: &Flags, turn: Turn) -> bool {
    println!(
        "{}: {} moves of {} Tasks by {} writers, every server killed {} times, seed {}",
        turn.name(),
        flags.moves,
        flags.tasks,
        flags.writers,
        flags.kills,
        turn.seed
    );
    let mut outcome = run(Settings {
        seed: turn.seed,
        moves: flags.moves,
        tasks: flags.tasks,
        writers: flags.writers,
        kills: flags.kills,
        backend: turn.backend,
    })
    .await;
    let report = Report::of(&outcome);
    print!("{report}");
    print_found(&report.found);
    let holds = report.found.is_empty();
    if !holds {
        leave(&mut outcome.stand);
    }
    holds
}
