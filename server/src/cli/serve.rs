//! `handoff serve`.

use super::{ConfigFile, Failed, asked_to_end, block_on, start_telemetry};
use crate::config::Config;
use crate::wiring::{Options, start};

/// Serves until somebody asks the process to end.
pub(super) fn run(file: &ConfigFile) -> Result<(), Failed> {
    let config = file.load()?;
    let exporting = start_telemetry(&config.log, config.traces.as_ref())?;
    block_on(async {
        let served = serve(&config).await;
        if let Some(exporting) = exporting {
            exporting.finish().await;
        }
        served
    })
}

async fn serve(config: &Config) -> Result<(), Failed> {
    if config.audit.seal.is_none() {
        tracing::warn!(
            "the audit is not sealed, so that nothing proves it complete; set `audit.key_file` and `audit.origin`"
        );
    }
    let mut running = start(Options::from_config(config)).await?;
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
}
