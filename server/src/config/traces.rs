//! `[traces]`: the collector that traces are sent to, and which of them are. Without it there are none.

use std::path::PathBuf;
use std::time::Duration;

use handoff_outbound::Rules;
use secrecy::{ExposeSecret, SecretString};
use toml::{Table, Value};
use url::Url;

use super::reader::Section;
use super::units::show_duration;
use super::{Problem, way};

/// How long the collector may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_TIMEOUT: Duration = Duration::from_mins(1);
/// How many traces a second callers may ask for.
const ASKED_FOR: u64 = 10;
/// The longest name of a service.
const LONGEST_NAME: usize = 64;

/// `[traces]`
#[derive(Debug, Clone)]
pub struct Traces {
    /// Where the collector takes OTLP over HTTP. Its query may hold a secret.
    pub endpoint: SecretString,
    /// The value of `Authorization`.
    pub authorization: Option<SecretString>,
    /// What we are called there.
    pub service: String,
    /// The share of traces that is kept, from 0 to 1.
    pub sample: f64,
    /// How many traces a second are kept beyond that because callers ask for it.
    pub asked_for: u32,
    /// How long the collector may take to answer.
    pub timeout: Duration,
    /// A PEM file of certificates that vouch for it beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// A proxy on the way to it.
    pub proxy: Option<String>,
}

impl Traces {
    /// All of them, to a collector that listens there.
    pub fn to(endpoint: SecretString) -> Self {
        Self {
            endpoint,
            authorization: None,
            service: "handoff".to_owned(),
            sample: 1.0,
            asked_for: u32::try_from(ASKED_FOR).unwrap_or_default(),
            timeout: TIMEOUT,
            ca_file: None,
            proxy: None,
        }
    }
}

/// What is wrong with where a collector is said to listen, and what to do about it.
pub fn check_collector(endpoint: &str) -> Result<(), (String, &'static str)> {
    if let Err(error) = handoff_outbound::check(endpoint, &Rules::of_an_operator()) {
        return Err((
            error.to_string(),
            "use https and port 443 or one above 1023; plain http is for loopback alone",
        ));
    }
    if Url::parse(endpoint).is_ok_and(|url| url.path() == "/") {
        return Err((
            "names no path".to_owned(),
            "write it whole: a collector takes traces at `/v1/traces`",
        ));
    }
    Ok(())
}

/// Reads `[traces]`; nothing where there is no such section.
pub(super) fn read(root: &mut Table, problems: &mut Vec<Problem>) -> Option<Traces> {
    if !root.contains_key("traces") {
        return None;
    }
    let mut section = Section::take(root, "traces", problems);
    let absent = section.is_absent("endpoint") && section.is_absent("endpoint_file");
    let endpoint = section.secret("endpoint", "endpoint_file");
    match &endpoint {
        Some(endpoint) => {
            if let Err((text, remedy)) = check_collector(endpoint.expose_secret()) {
                section.problem("endpoint", text, remedy);
            }
        }
        None if absent => section.problem(
            "endpoint",
            "is missing",
            "set it to where a collector takes OTLP over HTTP, like `http://127.0.0.1:4318/v1/traces`",
        ),
        None => {}
    }
    let authorization = way::authorization(&mut section);
    let service = section.parsed(
        "service_name",
        "use up to 64 letters, digits, `-`, `_`, `.` and `/`",
        |text| is_name(text).then(|| text.to_owned()),
    );
    let sample = section.share("sample", 1.0);
    let asked_for = section.number("asked_for", ASKED_FOR, 0, 10_000);
    let timeout = way::timeout(&mut section, TIMEOUT, LONGEST_TIMEOUT);
    let ca_file = way::ca_file(&mut section);
    let proxy = way::proxy(&mut section);
    section.finish();
    let defaults = Traces::to(endpoint?);
    Some(Traces {
        authorization,
        service: service.unwrap_or(defaults.service),
        sample,
        asked_for: u32::try_from(asked_for).unwrap_or(defaults.asked_for),
        timeout,
        ca_file,
        proxy,
        ..defaults
    })
}

fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    text.len() <= LONGEST_NAME && text.bytes().all(fits)
}

pub(super) fn show(traces: &Traces) -> Vec<(&'static str, Value)> {
    let text = |value: &dyn ToString| Value::String(value.to_string());
    let mut entries = vec![
        (
            "endpoint",
            text(&super::redact_url(traces.endpoint.expose_secret())),
        ),
        ("service_name", text(&traces.service)),
        ("sample", Value::Float(traces.sample)),
        ("asked_for", Value::Integer(traces.asked_for.into())),
        ("timeout", text(&show_duration(traces.timeout))),
    ];
    if traces.authorization.is_some() {
        entries.push(("authorization", text(&"(hidden)")));
    }
    entries.extend(way::show(traces.ca_file.as_ref(), traces.proxy.as_ref()));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        [traces]
        endpoint = "http://127.0.0.1:4318/v1/traces?key=s3cret"
        authorization = "Bearer s3cret"
        service_name = "clinic/handoff"
        sample = 0.25
        asked_for = 3
        timeout = "5 s"
        proxy = "http://user:s3cret@proxy.example:3128"
    "#;

    fn parsed(text: &str) -> (Option<Traces>, String) {
        let mut root = text.parse::<Table>().unwrap();
        let mut problems = Vec::new();
        let traces = read(&mut root, &mut problems);
        let told: Vec<String> = problems.iter().map(Problem::to_string).collect();
        (traces, told.join("\n"))
    }

    #[test]
    fn traces_are_off_unless_there_is_a_section() {
        let (traces, problems) = parsed("");
        assert!(traces.is_none() && problems.is_empty(), "{problems}");
    }

    #[test]
    fn what_is_set_is_read_and_shown_without_secrets() {
        let (traces, problems) = parsed(GOOD);
        assert_eq!(problems, "");
        let traces = traces.unwrap();
        assert_eq!((traces.service.as_str(), traces.asked_for), ("clinic/handoff", 3));
        assert!((traces.sample - 0.25).abs() < f64::EPSILON);
        assert_eq!(traces.timeout, Duration::from_secs(5));
        let shown = Value::Table(
            show(&traces)
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect(),
        );
        let shown = shown.to_string();
        assert!(
            shown.contains("sample = 0.25") && shown.contains("127.0.0.1:4318"),
            "{shown}"
        );
        assert!(!shown.contains("s3cret"), "{shown}");
        let (least, problems) = parsed("[traces]\nendpoint = \"https://collector.example/v1/traces\"");
        let least = least.unwrap();
        assert_eq!(problems, "");
        assert_eq!((least.service.as_str(), least.asked_for), ("handoff", 10));
        assert!(least.sample >= 1.0);
    }

    #[test]
    fn each_problem_is_named() {
        let absent = tempfile::NamedTempFile::new()
            .unwrap()
            .path()
            .display()
            .to_string();
        let ca = format!("ca_file = \"{absent}\"\n        sample = 0.25");
        for (from, to, told) in [
            (
                "endpoint = \"http://127.0.0.1:4318/v1/traces?key=s3cret\"",
                "",
                "`traces.endpoint`: is missing",
            ),
            (
                "http://127.0.0.1:4318",
                "http://collector.example:4318",
                "`traces.endpoint`",
            ),
            (
                "http://127.0.0.1:4318",
                "ftp://127.0.0.1:4318",
                "`traces.endpoint`",
            ),
            (
                "http://127.0.0.1:4318",
                "http://127.0.0.1:22",
                "`traces.endpoint`",
            ),
            (
                "4318/v1/traces?key=s3cret",
                "4318",
                "`traces.endpoint`: names no path",
            ),
            ("Bearer s3cret", "Bearer s3\\u0007cret", "`traces.authorization`"),
            ("clinic/handoff", "clinic & handoff", "`traces.service_name`"),
            (
                "sample = 0.25",
                "sample = 1.5",
                "`traces.sample`: `1.5` does not fit",
            ),
            (
                "sample = 0.25",
                "sample = -1",
                "`traces.sample`: `-1` does not fit",
            ),
            (
                "sample = 0.25",
                "sample = \"half\"",
                "`traces.sample`: `half` does not fit",
            ),
            ("asked_for = 3", "asked_for = -3", "`traces.asked_for`"),
            ("\"5 s\"", "\"2 min\"", "`traces.timeout`: is longer"),
            ("sample = 0.25", &ca, "`traces.ca_file`: can't be read"),
            ("http://user:s3cret@proxy.example:3128", "proxy", "`traces.proxy`"),
            ("sample =", "samples =", "did you mean `sample`?"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let (_, problems) = parsed(&GOOD.replace(from, to));
            assert!(problems.contains(told), "{told} is not in:\n{problems}");
            assert!(!problems.contains("s3cret"), "{problems}");
        }
        let (_, problems) = parsed("traces = true");
        assert!(problems.contains("`traces`: is a value"), "{problems}");
    }
}
