//! The command behind `integration-tests/mirror`: a server that mirrors another by notifications that meet trouble.

use std::process::ExitCode;

use clap::Parser;
use handoff_integration_tests::mirror::report::Report;
use handoff_integration_tests::mirror::{Settings, run};
use handoff_integration_tests::trial::{Course, Turn, leave, print_found};

/// A mirror that must agree with its source although notifications are lost; exits 1 where something does not hold afterwards.
#[derive(Debug, Parser)]
#[command(name = "integration-tests/mirror")]
struct Flags {
    /// How many changes are made at the source, on each database
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    changes: usize,
    /// How many Tasks there are
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(8..))]
    tasks: u16,
    #[command(flatten)]
    course: Course,
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    flags
        .course
        .run("mirror", async |turn| holds(&flags, turn).await)
        .await
}

async fn holds(flags: &Flags, turn: Turn) -> bool {
    println!(
        "{}: {} changes of {} Tasks, seed {}",
        turn.name(),
        flags.changes,
        flags.tasks,
        turn.seed
    );
    let mut outcome = run(Settings {
        seed: turn.seed,
        changes: flags.changes,
        tasks: usize::from(flags.tasks),
        backend: turn.backend,
    })
    .await;
    let report = Report::of(&outcome);
    print!("{report}");
    print_found(&report.found);
    let holds = report.found.is_empty();
    if !holds {
        for side in [&mut outcome.pair.source, &mut outcome.pair.mirror] {
            leave(&mut side.stand);
        }
    }
    holds
}
