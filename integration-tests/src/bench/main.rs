//! `handoff-bench`: drives a server over HTTP from a process of its own and prints one row per budget of the design.
//! Started by `integration-tests/bench`, which brings the databases.

mod arguments;
mod azurite;
mod bulk;
mod database;
mod failure;
mod http;
mod latencies;
mod load;
mod report;
mod rows;
mod run;
mod server;
mod stage;
mod two_rows;

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use arguments::Arguments;
use failure::Failure;
use report::{Report, unmistakable};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let measured = runtime
        .map_err(Failure::from)
        .and_then(|runtime| tokio::task::LocalSet::new().block_on(&runtime, measure(&arguments)));
    match measured {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            say(&format!("nothing was measured: {failure}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether everything could be measured.
async fn measure(arguments: &Arguments) -> failure::Result<bool> {
    let begun = Instant::now();
    let mut report = if arguments.smoke {
        Report::unjudged()
    } else {
        Report::default()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    report.fact(
        "machine",
        format!("{cores} cores, shared by load generator, server and database"),
    );
    match &arguments.against {
        Some(url) => rows::against::measure(arguments, url, &mut report).await?,
        None => run::measure(arguments, &mut report).await?,
    }
    report.fact("took", format!("{} s", begun.elapsed().as_secs()));
    let path = match &arguments.json {
        Some(path) => path.clone(),
        None => std::env::temp_dir().join(format!("handoff-bench-{}.json", std::process::id())),
    };
    std::fs::write(&path, format!("{:#}\n", report.json()))?;
    report.fact("figures as JSON", path.display().to_string());
    let mut out = std::io::stdout().lock();
    out.write_all(report.table().as_bytes())?;
    out.flush()?;
    Ok(!report.has_failures())
}

/// Tells how far the run has come.
fn say(what: &str) {
    // Nobody may be listening, which is no reason to stop.
    let _ = writeln!(std::io::stderr(), "bench: {}", unmistakable(what));
}
