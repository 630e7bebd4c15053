//! The command behind `integration-tests/forwarding`: what sinks of the audit that are down cost, and whether anything is lost.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use handoff_integration_tests::forwarding::trial::run;
use handoff_integration_tests::trial::Course;

/// How long a round lasts.
const ROUND: Duration = Duration::from_secs(10);

/// Writers at servers with and without sinks of the audit that are down; exits 1 where something does not hold afterwards.
#[derive(Debug, Parser)]
#[command(name = "integration-tests/forwarding")]
struct Flags {
    /// For how many seconds of load the sinks are down
    #[arg(long, value_name = "N", default_value_t = 600)]
    seconds: u64,
    #[command(flatten)]
    course: Course,
}

#[tokio::main]
async fn main() -> ExitCode {
    let flags = Flags::parse();
    flags
        .course
        .run("forwarding", async |turn| {
            println!("{}: both sinks down for {} s of load", turn.name(), flags.seconds);
            let outcome = run(turn.backend, flags.seconds, ROUND).await;
            print!("{outcome}");
            outcome.holds()
        })
        .await
}
