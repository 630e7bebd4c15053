//! What the server tells of itself: log lines and metrics.
//!
//! Never logged, here or by any caller: access tokens, link secrets, keys and passwords, request and response
//! bodies, names and identifiers of patients, document titles. Ids of our own making, reason codes, roles,
//! counts and times are what a line is made of.

pub mod access;
pub mod clients;
pub mod content;
pub mod drift;
pub mod forwarding;
pub mod ledger;
mod lines;
pub mod metrics;
pub mod notifications;
pub mod process;
pub mod retention;
pub mod scanning;
pub mod spans;
pub mod traces;
pub mod websockets;

use std::io::{self, IsTerminal};
use std::sync::Arc;

use handoff_domain::ports::Outbound;
use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Log, LogFormat, Traces};
use lines::{Lines, Members};
use traces::Exporting;

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

/// What our own spans are to the log, whatever is asked for: lines are written within contexts, and what is exported is none of theirs.
const OF_SPANS: [&str; 2] = ["handoff::context=info", "handoff::spans=off"];

/// Whether `text` is a filter: a level, or levels by module.
pub fn is_filter(text: &str) -> bool {
    EnvFilter::builder().parse(text).is_ok()
}

/// The filter that `text` asks for, `info` where it is none, with talkative crates kept quiet.
pub fn filter(text: &str) -> EnvFilter {
    let mut filter = EnvFilter::builder()
        .parse(text)
        .unwrap_or_else(|_| EnvFilter::new("info"));
    for directive in ALWAYS.into_iter().chain(OF_SPANS) {
        if let Ok(directive) = directive.parse() {
            filter = filter.add_directive(directive);
        }
    }
    filter
}

/// Starts writing log lines to standard error, and exporting traces by the way that leads to their collector. Does nothing where
/// something else has started it before.
pub fn start(log: &Log, collector: Option<(&Traces, Arc<dyn Outbound>)>) -> io::Result<Option<Exporting>> {
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Human => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    };
    let (exporting, tracer) = match collector {
        Some((to, outbound)) => {
            let (exporting, tracer) = traces::start(to, outbound)?;
            (Some(exporting), Some(tracer))
        }
        None => (None, None),
    };
    let started = tracing_subscriber::registry()
        .with(lines_of(&log.filter, json, io::stderr))
        .with(tracer.map(traces::layer))
        .try_init();
    if started.is_err() {
        tracing::debug!("log lines are written already");
    }
    Ok(exporting)
}

/// The lines that a filter lets through, as JSON or for people.
fn lines_of<S, W>(filter: &str, json: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = self::filter(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    if json {
        lines
            .with_ansi(false)
            .fmt_fields(Members)
            .event_format(Lines)
            .with_filter(filter)
            .boxed()
    } else {
        lines
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .with_filter(filter)
            .boxed()
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
