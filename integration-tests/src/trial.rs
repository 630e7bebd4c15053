//! What the commands that put servers into trouble share: on which databases they do, and how they say what they found.

use std::fmt;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::Backend;
use crate::chaos::stand::Stand;

/// How many findings are printed in full.
const PRINTED: usize = 40;

/// What each of them is told.
#[derive(Debug, Clone, Copy, Args)]
pub struct Course {
    /// What everything follows from; a fresh one unless given
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// On which database
    #[arg(long, value_enum, default_value_t = On::Both)]
    on: On,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum On {
    /// PostgreSQL and Azurite.
    Postgres,
    /// SQLite and a directory.
    Sqlite,
    /// One after the other.
    Both,
}

/// One database's turn.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// What everything follows from.
    pub seed: u64,
    /// The stores.
    pub backend: Backend,
}

impl Turn {
    /// The database, as `--on` calls it.
    pub const fn name(&self) -> &'static str {
        match self.backend {
            Backend::Production => "postgres",
            Backend::Embedded => "sqlite",
        }
    }
}

impl Course {
    /// Tries on each database; fails where a try says that something does not hold. The last line names the seed.
    pub async fn run(&self, command: &str, mut holds: impl AsyncFnMut(Turn) -> bool) -> ExitCode {
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
        let backends: &[Backend] = match self.on {
            On::Postgres => &[Backend::Production],
            On::Sqlite => &[Backend::Embedded],
            On::Both => &[Backend::Production, Backend::Embedded],
        };
        let mut failed = false;
        for backend in backends {
            let turn = Turn {
                seed,
                backend: *backend,
            };
            let all_holds = holds(turn).await;
            println!("{}: {}", turn.name(), if all_holds { "passed" } else { "FAILED" });
            failed |= !all_holds;
        }
        if failed {
            println!("{command}: FAILED; again with `--seed {seed}`");
            ExitCode::FAILURE
        } else {
            println!("{command}: passed with seed {seed}");
            ExitCode::SUCCESS
        }
    }
}

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation<R> {
    /// What should.
    pub rule: R,
    /// Where, and how it is instead.
    pub what: String,
}

impl<R: fmt::Debug> fmt::Display for Violation<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// Prints what was found, the first of it in full.
pub fn print_found<R: fmt::Debug>(found: &[Violation<R>]) {
    for violation in found.iter().take(PRINTED) {
        println!("  {violation}");
    }
    if found.len() > PRINTED {
        println!("  … {} in all", found.len());
    }
}

/// Leaves the stores where they are, and says where.
pub fn leave(stand: &mut Stand) {
    stand.keep();
    println!(
        "  left in place: {} and database {}",
        stand.folder().display(),
        stand.name()
    );
}
