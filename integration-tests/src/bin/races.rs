//! The command behind `integration-tests/races`: many races between two servers, and what they took.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use handoff_integration_tests::figures::Figures;
use handoff_integration_tests::races::{Cuts, Pair, cancel_against_download};
use handoff_integration_tests::scene::{document, noise};
use handoff_integration_tests::{Backend, TestApp};

/// Races between two servers on the same stores; exits 1 where one is lost.
#[derive(Debug, Parser)]
#[command(name = "integration-tests/races")]
struct Flags {
    /// How many times a grant is redeemed by many at once
    #[arg(long, value_name = "N", default_value_t = 100)]
    rounds: usize,
    /// How many they are
    #[arg(long, value_name = "N", default_value_t = 64)]
    many: usize,
    /// How many Tasks are cancelled while their document is on its way
    #[arg(long, value_name = "N", default_value_t = 200)]
    trials: usize,
    /// How long it may go on then, for 99 of 100, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 150)]
    budget: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    let pair = Pair::start().await;
    let paper = pair.document(b"%PDF-1.4 one of a kind").await;
    let mut rounds = Figures::default();
    for _ in 0..flags.rounds {
        let began = Instant::now();
        pair.one_of_many_wins(flags.many, &paper).await;
        rounds.note(began.elapsed());
    }
    println!(
        "{} redeem one grant at two servers at once: exactly one is served, {} times of {}; each with its checks, {rounds}",
        flags.many, flags.rounds, flags.rounds
    );

    let here = pair.cancels_against_downloads(flags.trials, true).await;
    let told = pair.cancels_against_downloads(flags.trials, false).await;
    drop(pair);
    let asked = without_news(flags.trials).await;
    let mut held = true;
    for (whence, cuts) in [
        ("the same", &here),
        ("the other", &told),
        ("the other, without LISTEN", &asked),
    ] {
        println!("a cancel at one server ends the download from {whence}");
        println!("  since it was sent, {}", cuts.since_asked);
        println!("  since it was answered, {}", cuts.since_answered);
        held &= cuts.since_asked.percentile(99) <= Duration::from_millis(flags.budget);
    }
    if held {
        println!("races: passed");
        ExitCode::SUCCESS
    } else {
        println!("races: FAILED; p99 is over {} ms", flags.budget);
        ExitCode::FAILURE
    }
}

/// The same between two servers that only ask, in this process.
async fn without_news(trials: usize) -> Cuts {
    let app = TestApp::start_with(Backend::Production, |options| options.store.listen = false).await;
    let replica = app.replica().await;
    let (ehr, lane) = (app.client("ehr").await, app.client("lane").await);
    let document = document(&ehr, &noise(24 * 1024 * 1024)).await;
    let there = lane.at(&replica.server.base_url);
    let mut cuts = Cuts::default();
    for trial in 0..trials {
        cuts.note(cancel_against_download(&ehr, &there, &document, trial).await);
    }
    cuts
}
