//! What an operator may set: one TOML file, every key of it also as `HANDOFF__SECTION__KEY`.
//! Knows what is safe to serve with; opens nothing but the files that hold secrets.

mod address;
mod audit;
mod blobs;
mod clients;
mod forwarding;
mod issuers;
mod load;
mod reader;
mod rules;
mod scan;
mod sessions;
mod show;
mod subscriptions;
#[cfg(test)]
mod tests;
mod traces;
mod units;
mod way;
mod websockets;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use handoff_identity::IssuerConfig;
use handoff_policies::Place;
use secrecy::SecretString;
use thiserror::Error;

pub use address::AddressRange;
pub use audit::Audit;
pub use blobs::Blobs;
pub use clients::Clients;
pub use forwarding::{Kind as SinkKind, Sink};
pub use load::{is_loopback, load, parse};
pub use rules::compile_rules;
pub use scan::{Address as ScannerAddress, Kind as ScannerKind, Scan};
pub use sessions::Sessions;
pub use show::redact_url;
pub use subscriptions::Subscriptions;
pub use traces::{Traces, check_collector};
pub use websockets::WebSockets;

/// Something wrong with one key, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key as it stands in the file: `database.url`.
    pub key: String,
    /// What is wrong with it, without the value of a secret.
    pub text: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}; {}", self.key, self.text, self.remedy)
    }
}

/// Why there is no configuration: every problem of it at once.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", list(.0))]
pub struct ConfigError(pub Vec<Problem>);

fn list(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(Problem::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Everything that is set, checked and fit to serve with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The public listener.
    pub server: Server,
    /// The listener for operators' machines.
    pub admin: Admin,
    /// Where rows are kept.
    pub database: Database,
    /// Where content is kept.
    pub blobs: Blobs,
    /// Whose access tokens are accepted.
    pub issuers: Vec<IssuerConfig>,
    /// Where the rules are written.
    pub policies: Place,
    /// The largest of everything.
    pub limits: Limits,
    /// How long anybody may take.
    pub timeouts: Timeouts,
    /// What clients may hold at once.
    pub clients: Clients,
    /// How long people stay signed in.
    pub sessions: Sessions,
    /// The way out to subscribers.
    pub subscriptions: Subscriptions,
    /// How many web sockets there may be.
    pub websockets: WebSockets,
    /// What the audit holds, and what it is sealed with.
    pub audit: Audit,
    /// Where the audit is forwarded to.
    pub forwarding: Vec<Sink>,
    /// Who scans content for malware before it is released; nobody where `None`.
    pub scan: Option<Scan>,
    /// Where traces are sent to; there are none where `None`.
    pub traces: Option<Traces>,
    /// How logs are written.
    pub log: Log,
}

/// `[server]`
#[derive(Debug, Clone)]
pub struct Server {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The base URL that links are made of, without a trailing slash.
    pub public_url: String,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<AddressRange>,
    /// Other origins whose browser apps may call the API.
    pub cors_origins: Vec<String>,
    /// Threads that answer requests.
    pub workers: usize,
    /// How many such processes share the database.
    pub replicas: u32,
}

/// `[admin]`
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where health and metrics are served. Not for the public.
    pub listen: SocketAddr,
}

/// `[database]`
#[derive(Debug, Clone)]
pub struct Database {
    /// `sqlite:PATH` or `postgres://…`. Holds a password.
    pub url: SecretString,
    /// The most connections to it that requests use. PostgreSQL: two more watch over streams, and one listens.
    pub pool: u32,
    /// Whether to keep a connection that listens for what other replicas cut; without, it is asked for.
    pub listen: bool,
}

/// `[limits]`: past each the answer is 413.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a raw Binary.
    pub max_binary: u64,
    /// Bytes of inline `data`, decoded; also of a Binary in its wrapped form.
    pub max_inline: u64,
    /// Bytes of a Bundle.
    pub max_bundle: usize,
    /// Entries of a Bundle.
    pub max_entries: usize,
    /// Bytes of a resource without its inline `data`.
    pub max_resource: usize,
    /// Bytes of any other body.
    pub max_body: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_binary: 5 << 30,
            max_inline: 10 << 20,
            max_bundle: 32 << 20,
            max_entries: 500,
            max_resource: 2 << 20,
            max_body: 16 << 20,
        }
    }
}

/// `[timeouts]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a request to the end of its head.
    pub request_header: Duration,
    /// Between two pieces of a body, either way.
    pub body_idle: Duration,
    /// For a whole body of those that are kept in memory.
    pub body_whole: Duration,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// How long a client may take to close its side.
    pub disconnect: Duration,
    /// How long requests under way may take once the server was asked to stop.
    pub shutdown: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request_header: Duration::from_secs(5),
            body_idle: Duration::from_secs(30),
            body_whole: Duration::from_mins(5),
            keep_alive: Duration::from_secs(75),
            disconnect: Duration::from_secs(5),
            shutdown: Duration::from_secs(20),
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// What is written: `info`, or a filter like `info,handoff_store=debug`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Auto,
            filter: "info".to_owned(),
        }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people on a terminal, as JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The word in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Human => "human",
            Self::Json => "json",
        }
    }
}
