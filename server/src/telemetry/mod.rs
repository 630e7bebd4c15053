//! What the server tells of itself: log lines and metrics.
//!
//! Never logged, here or by any caller: access tokens, link secrets, keys and passwords, request and response
//! bodies, names and identifiers of patients, document titles. Ids of our own making, reason codes, roles,
//! counts and times are what a line is made of.

pub mod access;
pub mod clients;
pub mod drift;
pub mod forwarding;
pub mod ledger;
pub mod metrics;
pub mod notifications;
pub mod process;
pub mod retention;
pub mod scanning;
pub mod websockets;

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat};

/// What other crates say at most, whatever is asked for: below this some of them print what passes through
/// them, headers and query strings with secrets in them, or as much as anybody likes.
const ALWAYS: [&str; 10] = [
    "hyper=warn",
    "hyper_util=warn",
    "reqwest=warn",
    "rustls=warn",
    "azure_core=warn",
    "azure_identity=warn",
    "azure_storage=warn",
    // A line for each client that sends what is no request; `telemetry::clients` counts them.
    "actix_http=off",
    "actix_server=warn",
    "h2=warn",
];

/// Whether `text` is a filter: a level, or levels by module.
pub fn is_filter(text: &str) -> bool {
    EnvFilter::builder().parse(text).is_ok()
}

/// The filter that `text` asks for, `info` where it is none, with talkative crates kept quiet.
pub fn filter(text: &str) -> EnvFilter {
    let mut filter = EnvFilter::builder()
        .parse(text)
        .unwrap_or_else(|_| EnvFilter::new("info"));
    for directive in ALWAYS {
        if let Ok(directive) = directive.parse() {
            filter = filter.add_directive(directive);
        }
    }
    filter
}

/// Starts writing log lines to standard error. Does nothing where something else has started it before.
pub fn start(log: &Log) {
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Human => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(filter(&log.filter));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let started = if json {
        registry
            .with(
                lines
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(false),
            )
            .try_init()
    } else {
        registry
            .with(lines.with_ansi(io::stderr().is_terminal()).with_target(false))
            .try_init()
    };
    if started.is_err() {
        tracing::debug!("log lines are written already");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_levels_by_module() {
        assert!(is_filter("info"));
        assert!(is_filter("info,handoff_store=debug"));
        assert!(!is_filter("handoff_store=loudly"));
    }

    #[test]
    fn crates_that_print_what_passes_through_them_stay_quiet() {
        let shown = filter("trace").to_string();
        assert!(
            shown.contains("azure_core=warn") && shown.contains("hyper=warn"),
            "{shown}"
        );
    }
}
