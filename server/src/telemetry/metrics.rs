//! Counters and histograms of this process, and their Prometheus text.
//! Labels are templates, codes and numbers of a fixed set: never an id, an address or a name.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use handoff_domain::audit::Event;
use handoff_domain::reason::Reason;

use super::clients::Present;

/// Upper bounds of the request histogram, in seconds.
const BOUNDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

#[derive(Default)]
struct Requests {
    /// Per bucket, not summed up; the last is past every bound.
    buckets: [u64; BOUNDS.len() + 1],
    seconds: f64,
    count: u64,
    by_status: BTreeMap<u16, u64>,
}

/// A counter by some labels.
pub(super) struct Labelled<const N: usize>(Mutex<BTreeMap<[&'static str; N], u64>>);

impl<const N: usize> Labelled<N> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    pub(super) fn count(&self, labels: [&'static str; N]) {
        self.add(labels, 1);
    }

    pub(super) fn add(&self, labels: [&'static str; N], more: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(labels).or_default();
        *count = count.saturating_add(more);
    }
}

/// By method and route template.
type ByRoute<T> = BTreeMap<&'static str, BTreeMap<String, T>>;

static REQUESTS: Mutex<ByRoute<Requests>> = Mutex::new(BTreeMap::new());
static REDEMPTIONS: Labelled<2> = Labelled::new();
static GRANTS: Labelled<1> = Labelled::new();
static BREAK_GLASS: Labelled<1> = Labelled::new();
static DATABASE_ERRORS: Labelled<1> = Labelled::new();
static JOB_FAILURES: Labelled<1> = Labelled::new();
static RULES_LOADED: Labelled<1> = Labelled::new();
static RULES_FAILED: AtomicU64 = AtomicU64::new(0);
static RULES_STALE: AtomicBool = AtomicBool::new(false);
static NOTICES: Labelled<2> = Labelled::new();
static NOTICES_WAITING: AtomicU64 = AtomicU64::new(0);
static NOTICES_QUARANTINED: AtomicU64 = AtomicU64::new(0);
static BYTES_SENT: AtomicU64 = AtomicU64::new(0);

/// The methods that get a label of their own; a client can't make up others.
pub fn known_method(method: &str) -> &'static str {
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("OTHER")
}

/// One answered request. `route` is the template (`/fhir/Task/{id}`), never the path itself.
pub fn http_request(route: &str, method: &str, status: u16, took: Duration) {
    let seconds = took.as_secs_f64();
    let mut requests = REQUESTS.lock().unwrap_or_else(PoisonError::into_inner);
    let of_method = requests.entry(known_method(method)).or_default();
    if !of_method.contains_key(route) {
        of_method.insert(route.to_owned(), Requests::default());
    }
    let Some(entry) = of_method.get_mut(route) else {
        return;
    };
    let place = BOUNDS
        .iter()
        .position(|bound| seconds <= *bound)
        .unwrap_or(BOUNDS.len());
    if let Some(bucket) = entry.buckets.get_mut(place) {
        *bucket = bucket.saturating_add(1);
    }
    entry.seconds += seconds;
    entry.count = entry.count.saturating_add(1);
    let answered = entry.by_status.entry(status).or_default();
    *answered = answered.saturating_add(1);
}

/// One committed audit row: what it says of grants, redemptions and bytes is counted.
pub fn audited(event: Event, reason: Reason, bytes: u64) {
    let code = event.as_str();
    if let Some(change) = code.strip_prefix("grant-") {
        GRANTS.count([change]);
    } else if let Some(outcome) = code.strip_prefix("redemption-") {
        REDEMPTIONS.count([outcome, reason.as_str()]);
        BYTES_SENT.fetch_add(bytes, Ordering::Relaxed);
    } else if let Some(what) = code.strip_prefix("notice-") {
        NOTICES.count([what, reason.as_str()]);
    }
}

/// How many notices of sources wait to be applied, and how many are quarantined, in the whole database.
pub fn inbox_depth(waiting: u64, quarantined: u64) {
    NOTICES_WAITING.store(waiting, Ordering::Relaxed);
    NOTICES_QUARANTINED.store(quarantined, Ordering::Relaxed);
}

/// One committed record of emergency access: `success` where it was given, `denied`.
pub fn glass_broken(outcome: &'static str) {
    BREAK_GLASS.count([outcome]);
}

/// One failure of the database: `unavailable`, `full`, `broken`, `conflict`.
pub fn database_error(kind: &'static str) {
    DATABASE_ERRORS.count([kind]);
}

/// One run of a background job that failed.
pub fn job_failure(job: &'static str) {
    JOB_FAILURES.count([job]);
}

/// Rules that were written while the server ran: `loaded` or `refused`.
pub fn rules_loaded(outcome: &'static str) {
    RULES_LOADED.count([outcome]);
}

/// Whether the rules in force are those that are written.
pub fn rules_in_force(they_are: bool) {
    RULES_STALE.store(!they_are, Ordering::Relaxed);
}

/// One decision that was a denial because rules could not be evaluated.
pub fn rules_failed() {
    RULES_FAILED.fetch_add(1, Ordering::Relaxed);
}

/// Everything in the Prometheus text format, version 0.0.4, with how many streams are open and what clients hold.
pub fn render(streams_open: usize, clients: &Present) -> String {
    let mut out = String::with_capacity(8 * 1024);
    // Writing to a String can't fail.
    let _infallible = write_all(&mut out, streams_open)
        .and_then(|()| super::clients::write(&mut out, clients))
        .and_then(|()| super::content::write(&mut out))
        .and_then(|()| super::ledger::write(&mut out))
        .and_then(|()| super::forwarding::write(&mut out))
        .and_then(|()| super::retention::write(&mut out))
        .and_then(|()| super::drift::write(&mut out))
        .and_then(|()| super::scanning::write(&mut out))
        .and_then(|()| super::traces::write(&mut out))
        .and_then(|()| super::process::write(&mut out));
    out
}

pub(super) fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}")?;
    writeln!(out, "# TYPE {name} {kind}")
}

pub(super) fn write_labelled<const N: usize>(
    out: &mut String,
    name: &str,
    help: &str,
    labels: [&str; N],
    counter: &Labelled<N>,
) -> std::fmt::Result {
    head(out, name, "counter", help)?;
    for (values, count) in counter.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let pairs: Vec<String> = labels
            .iter()
            .zip(values)
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        writeln!(out, "{name}{{{}}} {count}", pairs.join(","))?;
    }
    Ok(())
}

fn write_requests(out: &mut String) -> std::fmt::Result {
    let requests = REQUESTS.lock().unwrap_or_else(PoisonError::into_inner);
    let by_route = || {
        requests.iter().flat_map(|(method, routes)| {
            routes
                .iter()
                .map(move |(route, entry)| (format!("route=\"{route}\",method=\"{method}\""), entry))
        })
    };
    let name = "handoff_http_requests_total";
    head(
        out,
        name,
        "counter",
        "Requests answered, by route template, method and status.",
    )?;
    for (labels, entry) in by_route() {
        for (status, count) in &entry.by_status {
            writeln!(out, "{name}{{{labels},status=\"{status}\"}} {count}")?;
        }
    }
    let name = "handoff_http_request_duration_seconds";
    head(
        out,
        name,
        "histogram",
        "Time from a request's head to its answer's head.",
    )?;
    for (labels, entry) in by_route() {
        let mut below = 0u64;
        for (bound, bucket) in BOUNDS.iter().zip(entry.buckets) {
            below = below.saturating_add(bucket);
            writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}")?;
        }
        writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", entry.count)?;
        writeln!(out, "{name}_sum{{{labels}}} {}", entry.seconds)?;
        writeln!(out, "{name}_count{{{labels}}} {}", entry.count)?;
    }
    Ok(())
}

fn write_all(out: &mut String, streams_open: usize) -> std::fmt::Result {
    write_requests(out)?;
    write_labelled(
        out,
        "handoff_redemptions_total",
        "Redemptions decided and ended, by outcome and reason code.",
        ["outcome", "reason"],
        &REDEMPTIONS,
    )?;
    write_labelled(
        out,
        "handoff_grants_total",
        "Changes of grants.",
        ["change"],
        &GRANTS,
    )?;
    write_labelled(
        out,
        "handoff_break_glass_total",
        "Emergency access asked for, by whether it was given.",
        ["outcome"],
        &BREAK_GLASS,
    )?;
    write_labelled(
        out,
        "handoff_database_errors_total",
        "Failures of the database, by kind.",
        ["kind"],
        &DATABASE_ERRORS,
    )?;
    write_labelled(
        out,
        "handoff_job_failures_total",
        "Runs of background jobs that failed.",
        ["job"],
        &JOB_FAILURES,
    )?;
    write_labelled(
        out,
        "handoff_rules_loads_total",
        "Changes of the rules while the server ran, by what became of them.",
        ["outcome"],
        &RULES_LOADED,
    )?;
    write_labelled(
        out,
        "handoff_notices_total",
        "What sources told: taken in and applied, by reason code.",
        ["event", "reason"],
        &NOTICES,
    )?;
    let name = "handoff_notices";
    head(
        out,
        name,
        "gauge",
        "Notices of sources in the database, by state.",
    )?;
    for (state, count) in [
        ("waiting", &NOTICES_WAITING),
        ("quarantined", &NOTICES_QUARANTINED),
    ] {
        writeln!(
            out,
            "{name}{{state=\"{state}\"}} {}",
            count.load(Ordering::Relaxed)
        )?;
    }
    let name = "handoff_rules_stale";
    head(
        out,
        name,
        "gauge",
        "1 while other rules are written than are in force, since they can't be used.",
    )?;
    writeln!(out, "{name} {}", u8::from(RULES_STALE.load(Ordering::Relaxed)))?;
    let name = "handoff_rules_failures_total";
    head(
        out,
        name,
        "counter",
        "Decisions that were denials because rules could not be evaluated.",
    )?;
    writeln!(out, "{name} {}", RULES_FAILED.load(Ordering::Relaxed))?;
    let name = "handoff_content_bytes_sent_total";
    head(
        out,
        name,
        "counter",
        "Bytes of content that were sent, as the audit has them.",
    )?;
    writeln!(out, "{name} {}", BYTES_SENT.load(Ordering::Relaxed))?;
    let name = "handoff_streams_open";
    head(out, name, "gauge", "Streams of content under way.")?;
    writeln!(out, "{name} {streams_open}")?;
    super::notifications::write(out)?;
    super::websockets::write(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_told() {
        http_request("/test/{id}", "GET", 200, Duration::from_millis(3));
        http_request("/test/{id}", "BREW", 418, Duration::from_mins(1));
        audited(Event::RedemptionCompleted, Reason::Permitted, 7);
        audited(Event::GrantSuspended, Reason::TaskOnHold, 0);
        audited(Event::TaskCreated, Reason::Permitted, 0);
        let text = render(1, &Present::default());
        for line in [
            "handoff_http_requests_total{route=\"/test/{id}\",method=\"GET\",status=\"200\"} 1",
            "handoff_http_requests_total{route=\"/test/{id}\",method=\"OTHER\",status=\"418\"} 1",
            "handoff_http_request_duration_seconds_bucket{route=\"/test/{id}\",method=\"GET\",le=\"0.0025\"} 0",
            "handoff_http_request_duration_seconds_bucket{route=\"/test/{id}\",method=\"GET\",le=\"0.005\"} 1",
            "handoff_http_request_duration_seconds_bucket{route=\"/test/{id}\",method=\"OTHER\",le=\"+Inf\"} 1",
            "handoff_redemptions_total{outcome=\"completed\",reason=\"permitted\"} 1",
            "handoff_grants_total{change=\"suspended\"} 1",
            "handoff_content_bytes_sent_total 7",
            "handoff_streams_open 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
