//! `handoff migrate`.

use handoff_store::StoreConfig;
use secrecy::ExposeSecret;

use super::{ConfigFile, Failed, say};

/// Applies what is missing, and says what that was.
pub(super) fn run(file: &ConfigFile) -> Result<(), Failed> {
    let config = file.load()?;
    crate::telemetry::start(&config.log, None)?;
    let store = StoreConfig::new(config.database.url.expose_secret());
    let missing = handoff_store::pending(&store)?;
    if missing.is_empty() {
        return say("the database is up to date");
    }
    handoff_store::migrate(&store)?;
    for name in &missing {
        say(&format!("applied {name}"))?;
    }
    Ok(())
}
