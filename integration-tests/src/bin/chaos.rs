//! The command behind `integration-tests/chaos`: runs clients against servers that are killed, and judges.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use handoff_integration_tests::Backend;
use handoff_integration_tests::chaos::check::{Limits, check};
use handoff_integration_tests::chaos::report::Report;
use handoff_integration_tests::chaos::{Settings, run};

/// Clients against servers that are killed; exits 1 where something does not hold afterwards.
#[derive(Debug, Parser)]
#[command(name = "integration-tests/chaos")]
struct Flags {
    /// How long clients go on, on each database
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// How many processes are killed meanwhile, on each database
    #[arg(long, value_name = "N", default_value_t = 6)]
    kills: u32,
    /// What everything follows from; a fresh one unless given
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// On which database
    #[arg(long, value_enum, default_value_t = On::Both)]
    on: On,
    /// How long after an answered revocation bytes may still come, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    budget: i64,
    /// Leave the stores where they are even where nothing was found
    #[arg(long)]
    keep: bool,
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
        println!("chaos: FAILED; again with `--seed {seed}`");
        ExitCode::FAILURE
    } else {
        println!("chaos: passed with seed {seed}");
        ExitCode::SUCCESS
    }
}

async fn holds(flags: &Flags, seed: u64, backend: Backend) -> bool {
    let name = match backend {
        Backend::Production => "postgres",
        Backend::Embedded => "sqlite",
    };
    println!("{name}: {} s, {} kills, seed {seed}", flags.seconds, flags.kills);
    let mut outcome = run(Settings {
        seed,
        lasting: Duration::from_secs(flags.seconds),
        kills: flags.kills,
        backend,
    })
    .await;
    let limits = Limits {
        cut: flags.budget * 1000,
        ..Limits::default()
    };
    let findings = check(&outcome.record, &outcome.store, &limits);
    let report = Report {
        outcome: &outcome,
        findings: &findings,
    };
    print!("{report}");
    for violation in findings.violations.iter().take(PRINTED) {
        println!("  {violation}");
    }
    if findings.violations.len() > PRINTED {
        println!("  … {} in all", findings.violations.len());
    }
    let holds = findings.violations.is_empty();
    if !holds || flags.keep {
        let record = outcome.stand.folder().join("record.txt");
        std::fs::write(&record, format!("{:#?}", outcome.record)).expect("the record is written");
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
