//! The ways out: to addresses that customers gave, and to those that an operator configures, a scanner among them.

use std::path::Path;
use std::sync::Arc;

use handoff_domain::ports::{BlobStore, Outbound, Scanner};

use super::StartError;
use crate::adapters::TracedOutbound;
use crate::config::{AddressRange, ScannerKind, Sink, Subscriptions, Traces};
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
    Ok(Arc::new(TracedOutbound::new(Arc::new(guarded))))
}

/// The way to a sink of the audit, which an operator gave.
pub(super) fn way_to(sink: &Sink) -> Result<Arc<dyn Outbound>, StartError> {
    of_an_operator(sink.ca_file.as_deref(), sink.proxy.as_deref())
        .map_err(|text| StartError::Outbound(format!("forwarding to `{}`: {text}", sink.name)))
}

/// The way to the collector of traces, which an operator gave.
pub(crate) fn way_to_collector(traces: &Traces) -> Result<Arc<dyn Outbound>, StartError> {
    of_an_operator(traces.ca_file.as_deref(), traces.proxy.as_deref())
        .map_err(|text| StartError::Outbound(format!("traces: {text}")))
}

/// A way to where an operator says, whose certificate these vouch for beside the public ones.
fn of_an_operator(ca_file: Option<&Path>, proxy: Option<&str>) -> Result<Arc<dyn Outbound>, String> {
    let extra_roots = match ca_file {
        Some(path) => vec![std::fs::read(path).map_err(|error| error.to_string())?],
        None => Vec::new(),
    };
    let rules = handoff_outbound::Rules {
        extra_roots,
        proxy: proxy.map(str::to_owned),
        ..handoff_outbound::Rules::of_an_operator()
    };
    let guarded = handoff_outbound::Guarded::new(&rules).map_err(|error| error.to_string())?;
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
