//! The command behind `integration-tests/mirror`: a server that mirrors another by notifications that meet trouble.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use handoff_integration_tests::Backend;
use handoff_integration_tests::mirror::report::Report;
use handoff_integration_tests::mirror::{Settings, run};

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
    /// What everything follows from; a fresh one unless given
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// On which database
    #[arg(long, value_enum, default_value_t = On::Both)]
    on: On,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum On {
    /// Both servers on PostgreSQL and Azurite.
    Postgres,
    /// Both servers on SQLite and directories.
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
        println!("mirror: FAILED; again with `--seed {seed}`");
        ExitCode::FAILURE
    } else {
        println!("mirror: passed with seed {seed}");
        ExitCode::SUCCESS
    }
}

async fn holds(flags: &Flags, seed: u64, backend: Backend) -> bool {
    let name = match backend {
        Backend::Production => "postgres",
        Backend::Embedded => "sqlite",
    };
    println!(
        "{name}: {} changes of {} Tasks, seed {seed}",
        flags.changes, flags.tasks
    );
    let mut outcome = run(Settings {
        seed,
        changes: flags.changes,
        tasks: usize::from(flags.tasks),
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
        for side in [&mut outcome.pair.source, &mut outcome.pair.mirror] {
            side.stand.keep();
            println!(
                "  left in place: {} and database {}",
                side.stand.folder().display(),
                side.stand.name()
            );
        }
    }
    println!("{name}: {}", if holds { "passed" } else { "FAILED" });
    holds
}
