//! From the file and the environment to a checked configuration, or to every problem of it at once.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;

use handoff_policies::{CompileError, Place};

use super::rules::compile_rules;
use secrecy::{ExposeSecret, SecretString};
use toml::{Table, Value};
use url::{Host, Url};

use super::reader::{Section, closest};
use super::{Admin, Config, ConfigError, Database, Limits, Log, LogFormat, Problem, Server, Timeouts};

/// What every variable of ours begins with.
const ENV_PREFIX: &str = "HANDOFF__";
/// The sections, for those who mistype one.
const SECTIONS: [&str; 17] = [
    "server",
    "admin",
    "database",
    "blobs",
    "issuers",
    "policies",
    "limits",
    "timeouts",
    "clients",
    "sessions",
    "subscriptions",
    "websockets",
    "audit",
    "forwarding",
    "scan",
    "traces",
    "log",
];

/// The configuration of `file`, if one is given, and of the environment, which has the last word.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let text = match file {
        None => String::new(),
        Some(path) => fs::read_to_string(path).map_err(|error| {
            ConfigError(vec![Problem {
                key: "--config".to_owned(),
                text: format!("`{}` can't be read: {error}", path.display()),
                remedy: "name a readable TOML file".to_owned(),
            }])
        })?,
    };
    parse(&text, environment)
}

/// The configuration in `text` and in the environment, which has the last word.
pub fn parse(
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut problems = Vec::new();
    let mut root = text.parse::<Table>().unwrap_or_else(|error| {
        // The parser's own message quotes the line, which may hold a secret.
        let line = error
            .span()
            .and_then(|span| text.get(..span.start))
            .map_or(0, |before| before.matches('\n').count() + 1);
        problems.push(Problem {
            key: "--config".to_owned(),
            text: format!("line {line} is not TOML: {}", error.message()),
            remedy: "correct the line".to_owned(),
        });
        Table::new()
    });
    let mut variables: Vec<(String, String)> = environment
        .into_iter()
        .filter(|(name, _)| name.starts_with(ENV_PREFIX))
        .collect();
    // Lists are filled from the front, so 0 comes before 1.
    variables.sort();
    for (name, value) in variables {
        let path: Vec<String> = name
            .trim_start_matches(ENV_PREFIX)
            .split("__")
            .map(str::to_ascii_lowercase)
            .collect();
        // A name without a section would put a value where a section belongs.
        if path.len() < 2 || !set(&mut root, &path, value) {
            problems.push(Problem {
                key: name,
                text: "names no key".to_owned(),
                remedy: "write it as `HANDOFF__SECTION__KEY`, issuers as `HANDOFF__ISSUERS__0__KEY`"
                    .to_owned(),
            });
        }
    }
    let config = read(&mut root, &mut problems);
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(ConfigError(problems))
    }
}

/// Puts a variable's value where the file would have it.
fn set(table: &mut Table, path: &[String], value: String) -> bool {
    match path {
        [] => false,
        [key] => {
            let fits = !key.is_empty();
            if fits {
                table.insert(key.clone(), Value::String(value));
            }
            fits
        }
        [section, rest @ ..] => {
            let numbered = rest.first().and_then(|first| first.parse::<usize>().ok());
            let fresh = if numbered.is_some() {
                Value::Array(Vec::new())
            } else {
                Value::Table(Table::new())
            };
            match (table.entry(section.clone()).or_insert(fresh), numbered) {
                (Value::Table(inner), None) => set(inner, rest, value),
                (Value::Array(entries), Some(index)) => {
                    if index == entries.len() {
                        entries.push(Value::Table(Table::new()));
                    }
                    match (entries.get_mut(index), rest.get(1..)) {
                        (Some(Value::Table(inner)), Some(rest)) => set(inner, rest, value),
                        _ => false,
                    }
                }
                _ => false,
            }
        }
    }
}

fn read(root: &mut Table, problems: &mut Vec<Problem>) -> Config {
    if root.remove("demo").is_some() {
        problems.push(Problem {
            key: "demo".to_owned(),
            text: "demo features are not for serving".to_owned(),
            remedy: "remove the section; `handoff demo` brings its own settings".to_owned(),
        });
    }
    let server = read_server(root, problems);
    let limits = read_limits(root, problems);
    // In the order in which problems are told.
    let admin = read_admin(root, problems, server.listen);
    let database = read_database(root, problems, server.replicas);
    let blobs = super::blobs::read(root, problems);
    let config = Config {
        admin,
        database,
        issuers: super::issuers::read(root, problems, server.replicas),
        policies: read_policies(root, problems),
        timeouts: read_timeouts(root, problems),
        clients: super::clients::read(root, problems, limits.max_bundle.max(limits.max_body)),
        limits,
        sessions: super::sessions::read(root, problems),
        subscriptions: super::subscriptions::read(root, problems),
        websockets: super::websockets::read(root, problems),
        audit: super::audit::read(root, problems),
        forwarding: super::forwarding::read(root, problems),
        scan: super::scan::read(root, problems, &blobs.config),
        traces: super::traces::read(root, problems),
        blobs,
        log: read_log(root, problems),
        server,
    };
    for name in root.keys() {
        problems.push(Problem {
            key: name.clone(),
            text: "is not a section of ours".to_owned(),
            remedy: match closest(name, &SECTIONS) {
                Some(known) => format!("remove it, or did you mean `[{known}]`?"),
                None => format!("remove it; known are {}", SECTIONS.join(", ")),
            },
        });
    }
    config
}

/// An address to listen on.
fn listen(section: &mut Section<'_>, default: SocketAddr) -> SocketAddr {
    section
        .parsed(
            "listen",
            "set it to an address and a port like `0.0.0.0:8080`",
            |text| text.parse().ok(),
        )
        .unwrap_or(default)
}

fn read_server(root: &mut Table, problems: &mut Vec<Problem>) -> Server {
    let mut section = Section::take(root, "server", problems);
    let listen = listen(&mut section, SocketAddr::from(([127, 0, 0, 1], 8080)));
    let absent = section.is_absent("public_url");
    let public_url = section.text("public_url");
    match &public_url {
        None if absent => section.problem(
            "public_url",
            "is missing",
            "set it to the base URL under which people reach this server, like `https://handoff.example.org`",
        ),
        None => {}
        Some(text) => check_public_url(&mut section, text),
    }
    let trusted_proxies = section
        .texts("trusted_proxies")
        .unwrap_or_default()
        .iter()
        .filter_map(|text| {
            let range = text.parse().ok();
            if range.is_none() {
                section.problem(
                    "trusted_proxies",
                    format!("`{text}` is no address range"),
                    "write addresses or ranges like `10.0.0.0/8`",
                );
            }
            range
        })
        .collect();
    let cors_origins = section.texts("cors_origins").unwrap_or_default();
    for origin in &cors_origins {
        // As browsers write it: nothing but scheme, host and port.
        let written = Url::parse(origin)
            .ok()
            .filter(is_safe_base)
            .map(|url| url.origin().ascii_serialization());
        if written.as_ref() != Some(origin) {
            section.problem(
                "cors_origins",
                format!("`{origin}` is no origin that may call"),
                "write it like `https://app.example.org`; plain http is for loopback alone",
            );
        }
    }
    let cores = thread::available_parallelism().map_or(2, |n| n.get().max(2) as u64);
    let workers = section.number("workers", cores, 1, 256);
    let replicas = section.number("replicas", 1, 1, 1000);
    section.finish();
    Server {
        listen,
        public_url: public_url.unwrap_or_default().trim_end_matches('/').to_owned(),
        trusted_proxies,
        cors_origins,
        workers: usize::try_from(workers).unwrap_or(2),
        replicas: u32::try_from(replicas).unwrap_or(1),
    }
}

fn check_public_url(section: &mut Section<'_>, text: &str) {
    let remedy = "set it to a base URL like `https://handoff.example.org`";
    match Url::parse(text) {
        Ok(url) if url.has_host() && matches!(url.scheme(), "http" | "https") => {
            if !is_safe_base(&url) {
                let text = format!("`{text}` sends links and tokens in the clear");
                section.problem("public_url", text, "use https; plain http is for loopback alone");
            }
            if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
                section.problem("public_url", "has a query, a fragment or a user", remedy);
            }
        }
        _ => section.problem("public_url", format!("`{text}` is not an http URL"), remedy),
    }
}

/// Whether what goes to `url` can't be read on the way: https, or plain http that never leaves this machine.
pub(super) fn is_safe_base(url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => is_loopback(url),
        _ => false,
    }
}

/// Whether `url` names this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        // A URL of a scheme that is not special has a name where it has an address.
        Some(Host::Domain(name)) => {
            name == "localhost" || name.parse().is_ok_and(|a: std::net::IpAddr| a.is_loopback())
        }
        None => false,
    }
}

fn read_admin(root: &mut Table, problems: &mut Vec<Problem>, public: SocketAddr) -> Admin {
    let mut section = Section::take(root, "admin", problems);
    let listen = listen(&mut section, SocketAddr::from(([127, 0, 0, 1], 9090)));
    if listen == public && listen.port() != 0 {
        section.problem(
            "listen",
            "is the public listener's address too",
            "give it a port of its own",
        );
    }
    section.finish();
    Admin { listen }
}

fn read_database(root: &mut Table, problems: &mut Vec<Problem>, replicas: u32) -> Database {
    let mut section = Section::take(root, "database", problems);
    let remedy = "set it to `sqlite:///var/lib/handoff/handoff.db` or `postgres://USER:PASSWORD@HOST/NAME`";
    let absent = section.is_absent("url") && section.is_absent("url_file");
    let url = section.secret("url", "url_file");
    match url.as_ref().map(ExposeSecret::expose_secret) {
        None if absent => section.problem("url", "is missing", remedy),
        None => {}
        Some(url) if url.starts_with("sqlite:") && replicas > 1 => {
            let text = format!("SQLite serves one process, and `server.replicas` is {replicas}");
            section.problem("url", text, "use PostgreSQL, or one replica");
        }
        Some(url) if url.starts_with("sqlite:") => {}
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {}
        Some(_) => section.problem("url", "is of no database that is known here", remedy),
    }
    let pool = section.number("pool", 16, 1, 500);
    let listen = section.flag("listen", true);
    section.finish();
    Database {
        url: url.unwrap_or_else(|| SecretString::from("")),
        pool: u32::try_from(pool).unwrap_or(16),
        listen,
    }
}

fn read_policies(root: &mut Table, problems: &mut Vec<Problem>) -> Place {
    let mut section = Section::take(root, "policies", problems);
    let place = Place {
        directory: section.text("directory").map(PathBuf::from),
        workflow: section.text("workflow").map(PathBuf::from),
        retention: section.text("retention").map(PathBuf::from),
    };
    if place.may_change() {
        let key = match &place {
            Place {
                directory: Some(_), ..
            } => "directory",
            Place {
                workflow: Some(_), ..
            } => "workflow",
            Place { .. } => "retention",
        };
        match place.read().map(|source| compile_rules(&source)) {
            Err(error) => {
                let remedy = "name what can be read, written as `policies/README.md` describes it";
                section.problem(key, error.to_string(), remedy);
            }
            Ok(Err(CompileError(found))) => {
                for problem in found {
                    section.problem(
                        key,
                        problem.to_string(),
                        "mend it, as `policies/README.md` describes it",
                    );
                }
            }
            Ok(Ok(_)) => {}
        }
    }
    section.finish();
    place
}

fn read_limits(root: &mut Table, problems: &mut Vec<Problem>) -> Limits {
    let defaults = Limits::default();
    let mut section = Section::take(root, "limits", problems);
    let mut small =
        |key, default: usize| usize::try_from(section.size(key, default as u64)).unwrap_or(default);
    let max_bundle = small("max_bundle", defaults.max_bundle);
    let max_resource = small("max_resource", defaults.max_resource);
    let max_body = small("max_body", defaults.max_body);
    let max_entries = section.number("max_entries", defaults.max_entries as u64, 1, 100_000);
    let limits = Limits {
        max_binary: section.size("max_binary", defaults.max_binary),
        max_inline: section.size("max_inline", defaults.max_inline),
        max_bundle,
        max_entries: usize::try_from(max_entries).unwrap_or(defaults.max_entries),
        max_resource,
        max_body,
    };
    section.finish();
    limits
}

fn read_timeouts(root: &mut Table, problems: &mut Vec<Problem>) -> Timeouts {
    let defaults = Timeouts::default();
    let mut section = Section::take(root, "timeouts", problems);
    let timeouts = Timeouts {
        request_header: section.duration("request_header", defaults.request_header),
        body_idle: section.duration("body_idle", defaults.body_idle),
        body_whole: section.duration("body_whole", defaults.body_whole),
        keep_alive: section.duration("keep_alive", defaults.keep_alive),
        disconnect: section.duration("disconnect", defaults.disconnect),
        shutdown: section.duration("shutdown", defaults.shutdown),
    };
    section.finish();
    timeouts
}

fn read_log(root: &mut Table, problems: &mut Vec<Problem>) -> Log {
    let mut section = Section::take(root, "log", problems);
    let format = section
        .parsed("format", "set it to `auto`, `human` or `json`", |text| {
            [LogFormat::Auto, LogFormat::Human, LogFormat::Json]
                .into_iter()
                .find(|f| f.as_str() == text)
        })
        .unwrap_or_default();
    let filter = section
        .parsed(
            "filter",
            "set it to a level like `info`, or `info,handoff_store=debug`",
            |text| crate::telemetry::is_filter(text).then(|| text.to_owned()),
        )
        .unwrap_or(Log::default().filter);
    section.finish();
    Log { format, filter }
}
