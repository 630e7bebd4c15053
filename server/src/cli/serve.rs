//! `handoff serve`.

use super::{ConfigFile, Failed, asked_to_end, block_on};
use crate::wiring::{Options, start};

/// Serves until somebody asks the process to end.
pub(super) fn run(file: &ConfigFile) -> Result<(), Failed> {
    let config = file.load()?;
    crate::telemetry::start(&config.log);
    block_on(async {
        if config.audit.seal.is_none() {
            tracing::warn!(
                "the audit is not sealed, so that nothing proves it complete; set `audit.key_file` and `audit.origin`"
            );
        }
        let mut running = start(Options::from_config(&config)).await?;
        tracing::info!(
            listen = running.base_url,
            admin = running.admin_url,
            public = config.server.public_url,
            "serving"
        );
        tokio::select! {
            asked = asked_to_end() => asked?,
            () = running.wait() => return Err(Failed("the server ended by itself".to_owned())),
        }
        tracing::info!("asked to end; requests under way are let end");
        running.stop().await;
        tracing::info!("ended");
        Ok(())
    })
}
