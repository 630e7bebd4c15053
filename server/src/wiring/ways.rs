//! The ways out: to addresses that customers gave, and to those that an operator configures, a scanner among them.

use std::sync::Arc;

use handoff_domain::ports::{BlobStore, Outbound, Scanner};

use super::StartError;
use crate::config::{AddressRange, ScannerKind, Sink, Subscriptions};
use crate::scanning::{Clamd, Defender};

/// The way to addresses that customers gave.
pub(crate) fn outbound(subscriptions: &Subscriptions) -> Result<Arc<dyn Outbound>, StartError> {
    let extra_roots = match &subscriptions.ca_file {
        Some(path) => vec![std::fs::read(path).map_err(|error| StartError::Outbound(error.to_string()))?],
        None => Vec::new(),
    };
    let rules = handoff_outbound::Rules {
        allowed: subscriptions
            .allowed_networks
            .iter()
            .map(AddressRange::parts)
            .collect(),
        plain_loopback: subscriptions.plain_loopback,
        extra_roots,
        proxy: subscriptions.proxy.clone(),
    };
    let guarded =
        handoff_outbound::Guarded::new(&rules).map_err(|error| StartError::Outbound(error.to_string()))?;
    Ok(Arc::new(guarded))
}

/// The way to a sink of the audit, which an operator gave.
pub(super) fn way_to(sink: &Sink) -> Result<Arc<dyn Outbound>, StartError> {
    let failed = |text: String| StartError::Outbound(format!("forwarding to `{}`: {text}", sink.name));
    let extra_roots = match &sink.ca_file {
        Some(path) => vec![std::fs::read(path).map_err(|error| failed(error.to_string()))?],
        None => Vec::new(),
    };
    let rules = handoff_outbound::Rules {
        extra_roots,
        proxy: sink.proxy.clone(),
        ..handoff_outbound::Rules::of_an_operator()
    };
    let guarded = handoff_outbound::Guarded::new(&rules).map_err(|error| failed(error.to_string()))?;
    Ok(Arc::new(guarded))
}

/// The scanner that an operator configured.
pub(super) fn scanner(kind: &ScannerKind, blobs: &Arc<dyn BlobStore>) -> Arc<dyn Scanner> {
    match kind.clone() {
        ScannerKind::ClamAv {
            address,
            connect_timeout,
            timeout,
            max_size,
        } => Arc::new(Clamd {
            address,
            connect_timeout,
            timeout,
            max_size,
        }),
        ScannerKind::AzureDefender { result_tag } => Arc::new(Defender {
            blobs: Arc::clone(blobs),
            tag: result_tag,
        }),
    }
}
