//! The command line: `serve`, `demo`, `migrate`, `config`, `policy`, `revoke`, `sources`, `audit`. Exit code 0 is done, 1 failed, 2 a wrong command line.
//! Knows how to speak to people; what it starts is put together elsewhere.

mod audit;
mod config;
mod demo;
mod migrate;
mod policy;
mod revoke;
mod serve;
mod sources;

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, Log, Traces, load};
use crate::telemetry;
use crate::telemetry::traces::Exporting;
use crate::wiring::way_to_collector;

/// A failure that is told to the person at the command line, and ends it with 1.
pub(crate) struct Failed(String);

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

#[derive(Debug, Parser)]
#[command(
    name = "handoff",
    version,
    about = "A FHIR R4 workflow server that releases clinical documents only while their Task is actionable",
    after_help = "Example: handoff demo --once",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve with a configuration
    #[command(after_help = "Example: handoff serve --config /etc/handoff/handoff.toml")]
    Serve(ConfigFile),
    /// Play one referral on an embedded database with a development issuer, then keep serving on loopback
    #[command(
        after_help = "Examples:\n  handoff demo\n  handoff demo --once\n  handoff demo --port 0 --no-play --data /tmp/handoff"
    )]
    Demo(demo::DemoFlags),
    /// Bring the database up to date
    #[command(
        after_help = "Examples:\n  handoff migrate --config /etc/handoff/handoff.toml\n  handoff migrate --check --config /etc/handoff/handoff.toml"
    )]
    Migrate(migrate::MigrateFlags),
    /// Look at a configuration without serving
    #[command(
        subcommand,
        after_help = "Example: handoff config check --config /etc/handoff/handoff.toml"
    )]
    Config(ConfigCommand),
    /// Look at the rules: who may do what
    #[command(
        subcommand,
        after_help = "Example: handoff policy explain --action binary-fetch --role fulfiller"
    )]
    Policy(policy::PolicyCommand),
    /// Stop releases in an emergency, until the block is lifted
    #[command(
        after_help = "Examples:\n  handoff revoke --config handoff.toml --actor Practitioner/7 --reason \"badge stolen\"\n  handoff revoke --config handoff.toml --all-tenants --all --reason \"incident 4711\"\n  handoff revoke --config handoff.toml --list\n  handoff revoke --config handoff.toml --lift 018f2c"
    )]
    Revoke(revoke::RevokeFlags),
    /// Say which other servers may send notifications
    #[command(
        subcommand,
        after_help = "Example: handoff sources add ehr --config handoff.toml --acts-as Organization/clinic --mint-secret"
    )]
    Sources(sources::SourcesCommand),
    /// Export, verify and prove the audit
    #[command(
        subcommand,
        after_help = "Example: handoff audit verify --config handoff.toml --checkpoint kept.txt"
    )]
    Audit(audit::AuditCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Name every problem of the configuration, or say that there is none
    #[command(after_help = "Example: handoff config check --config /etc/handoff/handoff.toml")]
    Check(ConfigFile),
    /// Print the configuration in force, without secrets
    #[command(
        after_help = "Example: HANDOFF__SERVER__LISTEN=0.0.0.0:80 handoff config show --config handoff.toml"
    )]
    Show(ConfigFile),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The TOML file; each key also as `HANDOFF__SECTION__KEY` in the environment, which has the last word
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    /// Whether there is a file.
    const fn is_named(&self) -> bool {
        self.config.is_some()
    }

    fn load(&self) -> Result<Config, Failed> {
        // A variable that is not text can't be one of ours.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        load(self.config.as_deref(), environment).map_err(|error| {
            let many = if error.0.len() == 1 { "problem" } else { "problems" };
            Failed(format!(
                "the configuration has {} {many}:\n{error}",
                error.0.len()
            ))
        })
    }
}

/// Runs the command line `arguments`, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with 0. A closed pipe leaves nobody to tell.
            let _nobody = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::from(2), ExitCode::from);
        }
    };
    let done = match cli.command {
        Command::Serve(file) => serve::run(&file),
        Command::Demo(flags) => demo::run(&flags),
        Command::Migrate(flags) => migrate::run(&flags),
        Command::Config(ConfigCommand::Check(file)) => config::check(&file),
        Command::Config(ConfigCommand::Show(file)) => config::show(&file),
        Command::Policy(command) => policy::run(&command),
        Command::Revoke(flags) => revoke::run(&flags),
        Command::Sources(command) => sources::run(&command),
        Command::Audit(command) => audit::run(&command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed(text)) => {
            let _nobody = writeln!(io::stderr(), "handoff: {text}");
            ExitCode::from(1)
        }
    }
}

/// Says something on standard output.
fn say(text: &str) -> Result<(), Failed> {
    let mut out = io::stdout();
    writeln!(out, "{text}")?;
    out.flush().map_err(Failed::from)
}

/// Starts writing log lines, and exporting traces where a collector is given.
fn start_telemetry(log: &Log, traces: Option<&Traces>) -> Result<Option<Exporting>, Failed> {
    let traces = match traces {
        Some(traces) => Some((traces, way_to_collector(traces)?)),
        None => None,
    };
    telemetry::start(log, traces).map_err(Failed::from)
}

/// Runs `work` on a runtime of its own.
fn block_on<T>(work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(work)
}

/// Waits until somebody asks the process to end.
async fn asked_to_end() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
