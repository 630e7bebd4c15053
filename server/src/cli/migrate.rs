//! `handoff migrate`.

use clap::Args;
use handoff_store::StoreConfig;
use secrecy::ExposeSecret;

use super::{ConfigFile, Failed, say};

#[derive(Debug, Args)]
pub(super) struct MigrateFlags {
    /// Only say what is missing, and end with 1 where something is
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Applies what is missing, or only looks for it, and says what that was.
pub(super) fn run(flags: &MigrateFlags) -> Result<(), Failed> {
    let config = flags.file.load()?;
    crate::telemetry::start(&config.log, None)?;
    let store = StoreConfig::new(config.database.url.expose_secret());
    let missing = handoff_store::pending(&store)?;
    if missing.is_empty() {
        return say("the database is up to date");
    }
    if flags.check {
        for name in &missing {
            say(&format!("missing {name}"))?;
        }
        let text = "the database is not up to date: run `handoff migrate` with the same configuration";
        return Err(Failed(text.to_owned()));
    }
    handoff_store::migrate(&store)?;
    for name in &missing {
        say(&format!("applied {name}"))?;
    }
    Ok(())
}
