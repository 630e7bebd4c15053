//! The command behind `integration-tests/chaos`: runs clients against servers that are killed, and judges.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use handoff_integration_tests::chaos::check::{Limits, check};
use handoff_integration_tests::chaos::report::Report;
use handoff_integration_tests::chaos::{Settings, run};
use handoff_integration_tests::trial::{Course, Turn, leave, print_found};

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
    #[command(flatten)]
    course: Course,
    /// How long after an answered revocation bytes may still come, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    budget: i64,
    /// Leave the stores where they are even where nothing was found
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    flags
        .course
        .run("chaos", async |turn| holds(&flags, turn).await)
        .await
}

async fn holds(flags: &Flags, turn: Turn) -> bool {
    println!(
        "{}: {} s, {} kills, seed {}",
        turn.name(),
        flags.seconds,
        flags.kills,
        turn.seed
    );
    let mut outcome = run(Settings {
        seed: turn.seed,
        lasting: Duration::from_secs(flags.seconds),
        kills: flags.kills,
        backend: turn.backend,
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
    print_found(&findings.violations);
    let holds = findings.violations.is_empty();
    if !holds || flags.keep {
        let record = outcome.stand.folder().join("record.txt");
        std::fs::write(&record, format!("{:#?}", outcome.record)).expect("the record is written");
        leave(&mut outcome.stand);
    }
    holds
}
