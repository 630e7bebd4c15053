//! `[[forwarding]]`: the sinks that the audit is forwarded to, and what each is given to believe us.

use std::path::PathBuf;
use std::time::Duration;

use handoff_domain::forwarding::{SinkName, Start};
use handoff_outbound::Rules;
use handoff_outbound::signing::SigningSecret;
use secrecy::{ExposeSecret, SecretString};
use toml::{Table, Value};
use url::Url;

use super::reader::Section;
use super::units::show_duration;
use super::{Problem, way};

/// The most sinks: each holds a batch in memory, and is a label of metrics.
const MOST: usize = 8;
/// How long a sink may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);
const LONGEST_TIMEOUT: Duration = Duration::from_mins(2);

/// What a sink is sent.
#[derive(Debug, Clone)]
pub enum Kind {
    /// AuditEvent resources, one a line, signed as Standard Webhooks has it, by each of these.
    Webhook(Vec<SigningSecret>),
    /// OpenTelemetry log records, as OTLP over HTTP has it.
    Otlp,
}

impl Kind {
    /// The word in the file.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Otlp => "otlp",
        }
    }
}

/// One of `[[forwarding]]`.
#[derive(Debug, Clone)]
pub struct Sink {
    /// What its course is remembered under.
    pub name: SinkName,
    /// What it is sent.
    pub kind: Kind,
    /// Where to. Its query may hold a secret.
    pub url: SecretString,
    /// The value of `Authorization`.
    pub authorization: Option<SecretString>,
    /// With what it begins.
    pub start: Start,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// A PEM file of certificates that vouch for it beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// A proxy on the way to it.
    pub proxy: Option<String>,
}

/// Reads every `[[forwarding]]`.
pub(super) fn read(root: &mut Table, problems: &mut Vec<Problem>) -> Vec<Sink> {
    let mut complain = |key: String, text: String, remedy: &str| {
        problems.push(Problem {
            key,
            text,
            remedy: remedy.to_owned(),
        });
    };
    let remedy = "write each sink under its own `[[forwarding]]`";
    let entries = match root.remove("forwarding") {
        None => return Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(_) => {
            complain(
                "forwarding".to_owned(),
                "is not a list of sections".to_owned(),
                remedy,
            );
            return Vec::new();
        }
    };
    if entries.len() > MOST {
        let text = format!("there are {}, and at most {MOST} are served", entries.len());
        complain(
            "forwarding".to_owned(),
            text,
            "let one sink hand on to the others",
        );
    }
    let mut sinks: Vec<Sink> = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let path = format!("forwarding.{index}");
        let Value::Table(table) = entry else {
            problems.push(Problem {
                key: path,
                text: "is a value".to_owned(),
                remedy: remedy.to_owned(),
            });
            continue;
        };
        let mut section = Section::of(&path, table, problems);
        let sink = one(&mut section);
        if let Some(sink) = &sink
            && sinks.iter().any(|other| other.name == sink.name)
        {
            section.problem(
                "name",
                format!("`{}` is there twice", sink.name),
                "give each a name of its own: how far it is stands under that",
            );
        }
        section.finish();
        sinks.extend(sink);
    }
    sinks
}

fn one(section: &mut Section<'_>) -> Option<Sink> {
    let unnamed = section.is_absent("name");
    let remedy = "use 1 to 32 of lower-case letters, digits and `-`, a letter first";
    let name = section.parsed("name", remedy, |text| SinkName::parse(text).ok());
    if unnamed {
        section.problem("name", "is missing", remedy);
    }
    let kind = kind(section);
    let url = url(section, kind.as_ref());
    let authorization = way::authorization(section);
    let start = section.parsed("from", "set it to `beginning` or `now`", Start::parse);
    let timeout = way::timeout(section, TIMEOUT, LONGEST_TIMEOUT);
    let ca_file = way::ca_file(section);
    let proxy = way::proxy(section);
    Some(Sink {
        name: name?,
        kind: kind?,
        url: url?,
        authorization,
        start: start.unwrap_or_default(),
        timeout,
        ca_file,
        proxy,
    })
}

/// What the sink is, with the secrets that go with it.
fn kind(section: &mut Section<'_>) -> Option<Kind> {
    let absent = section.is_absent("kind");
    let kind = section.text("kind");
    let mut secrets = Vec::new();
    for (key, file) in [
        ("secret", "secret_file"),
        ("previous_secret", "previous_secret_file"),
    ] {
        let missing = section.is_absent(key) && section.is_absent(file);
        let Some(text) = section.secret(key, file) else {
            if missing && key == "secret" && kind.as_deref() == Some("webhook") {
                section.problem(
                    "secret_file",
                    "is missing",
                    "name a file with `whsec_` and the base64 of 24 to 64 random bytes; the receiver is given the same",
                );
            }
            continue;
        };
        match SigningSecret::parse(text.expose_secret()) {
            Ok(secret) => secrets.push(secret),
            Err(error) => section.problem(
                key,
                error.to_string(),
                "make one with `echo whsec_$(openssl rand -base64 32)`",
            ),
        }
    }
    match kind.as_deref() {
        Some("webhook") => Some(Kind::Webhook(secrets)),
        Some("otlp") => {
            if !secrets.is_empty() {
                section.problem(
                    "secret",
                    "signs webhooks, and OTLP has no signature",
                    "use `authorization_file` instead",
                );
            }
            Some(Kind::Otlp)
        }
        Some(other) => {
            section.problem(
                "kind",
                format!("`{other}` is no kind of sink"),
                "set it to `webhook` or `otlp`",
            );
            None
        }
        None => {
            if absent {
                section.problem("kind", "is missing", "set it to `webhook` or `otlp`");
            }
            None
        }
    }
}

fn url(section: &mut Section<'_>, kind: Option<&Kind>) -> Option<SecretString> {
    let absent = section.is_absent("url") && section.is_absent("url_file");
    let Some(url) = section.secret("url", "url_file") else {
        if absent {
            section.problem("url", "is missing", "set it to where the sink listens");
        }
        return None;
    };
    // The text itself may hold a secret.
    if let Err(error) = handoff_outbound::check(url.expose_secret(), &Rules::of_an_operator()) {
        section.problem(
            "url",
            error.to_string(),
            "use https and port 443 or one above 1023; plain http is for loopback alone",
        );
    } else if matches!(kind, Some(Kind::Otlp))
        && Url::parse(url.expose_secret()).is_ok_and(|url| url.path() == "/")
    {
        section.problem(
            "url",
            "names no path",
            "write it whole: a collector takes logs at `/v1/logs`",
        );
    }
    Some(url)
}

pub(super) fn show(sink: &Sink) -> Vec<(&'static str, Value)> {
    let text = |value: &dyn ToString| Value::String(value.to_string());
    let mut entries = vec![
        ("name", text(&sink.name)),
        ("kind", text(&sink.kind.as_str())),
        ("url", text(&super::redact_url(sink.url.expose_secret()))),
        ("from", text(&sink.start.as_str())),
        ("timeout", text(&show_duration(sink.timeout))),
    ];
    if let Kind::Webhook(secrets) = &sink.kind {
        let names = ["secret", "previous_secret"];
        entries.extend(
            names
                .iter()
                .zip(secrets)
                .map(|(name, _)| (*name, text(&"(hidden)"))),
        );
    }
    if sink.authorization.is_some() {
        entries.push(("authorization", text(&"(hidden)")));
    }
    entries.extend(way::show(sink.ca_file.as_ref(), sink.proxy.as_ref()));
    entries
}
