//! What a server is started with, from a configuration, from the demo's flags or from a test.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use handoff_blobs::BlobConfig;
use handoff_domain::forwarding::{SinkName, Start};
use handoff_domain::ports::{Clock, Entropy};
use handoff_identity::{HttpSettings, IssuerConfig};
use handoff_outbound::Rules;
use handoff_outbound::signing::SigningSecret;
use handoff_policies::Place;
use handoff_store::StoreConfig;
use secrecy::ExposeSecret;
use url::Url;

use crate::app::drift::Reconciling;
use crate::app::ledger::seal::SealKey;
use crate::app::reads::Recorded;
use crate::config::{
    AddressRange, Clients, Config, Limits, Scan, Sessions, Sink, SinkKind, Subscriptions, Timeouts, Traces,
    WebSockets, check_collector, is_loopback,
};

/// The key of every demo: replicas of one share it, and what is secret there is a toy.
const DEMO_KEY: &str = "ZGVtbyBkZW1vIGRlbW8gZGVtbyBkZW1vIGRlbW8gZGU=";
/// What the logs of every demo are called.
const DEMO_LOG: &str = "demo.handoff.example/audit";

/// The seal of every demo, for the same reason: an Ed25519 key of 32 equal bytes, in PKCS#8.
fn demo_seal() -> Option<SealKey> {
    const BEFORE_THE_KEY: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    let der = [BEFORE_THE_KEY.as_slice(), [b'd'; 32].as_slice()].concat();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(der)
    );
    SealKey::new(pem.into(), DEMO_LOG.to_owned(), Vec::new()).ok()
}

/// A sink of a demo, by its kind and where it listens: `otlp=http://127.0.0.1:4318/v1/logs`. It is called like its kind; a webhook
/// is signed with the key of every demo.
pub fn demo_sink(text: &str) -> Result<Sink, String> {
    let (kind, url) = text
        .split_once('=')
        .ok_or_else(|| "is a kind and a URL, like `webhook=http://127.0.0.1:9999/`".to_owned())?;
    let kind = match kind {
        "webhook" => {
            let secret = SigningSecret::parse(&format!("whsec_{DEMO_KEY}"));
            SinkKind::Webhook(vec![secret.map_err(|error| error.to_string())?])
        }
        "otlp" => SinkKind::Otlp,
        _ => return Err("has to begin with `webhook=` or `otlp=`".to_owned()),
    };
    if !Url::parse(url).is_ok_and(|url| is_loopback(&url)) {
        return Err("must be on loopback: the demo is for this machine alone".to_owned());
    }
    handoff_outbound::check(url, &Rules::of_an_operator()).map_err(|error| error.to_string())?;
    Ok(Sink {
        name: SinkName::parse(kind.as_str()).map_err(|error| error.to_string())?,
        kind,
        url: url.into(),
        authorization: None,
        start: Start::default(),
        timeout: Duration::from_secs(30),
        ca_file: None,
        proxy: None,
    })
}

/// Where a demo's traces go, by where a collector listens: `http://127.0.0.1:4318/v1/traces`.
pub fn demo_traces(text: &str) -> Result<Traces, String> {
    if !Url::parse(text).is_ok_and(|url| is_loopback(&url)) {
        return Err("must be on loopback: the demo is for this machine alone".to_owned());
    }
    check_collector(text).map_err(|(error, remedy)| format!("{error}; {remedy}"))?;
    Ok(Traces::to(text.into()))
}

/// Whose tokens are accepted.
#[derive(Debug, Clone)]
pub enum Identity {
    /// Those of configured issuers.
    Issuers(Vec<IssuerConfig>),
    /// Those of a development issuer, and the demo's cast is known from the start.
    Demo {
        /// The base URL of the demo whose issuer it is; our own, served by us, where `None`.
        issuer_of: Option<String>,
    },
}

/// Everything that a server is started with.
#[derive(Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where to serve health and metrics; port 0 takes a free one.
    pub admin_listen: SocketAddr,
    /// The base URL that links are made of; `http://` and the address listened on where `None`.
    pub public_url: Option<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<AddressRange>,
    /// Other origins whose browser apps may call the API.
    pub cors_origins: Vec<String>,
    /// Threads that answer requests.
    pub workers: usize,
    /// The database.
    pub store: StoreConfig,
    /// Whether to apply missing migrations instead of refusing to start.
    pub migrate: bool,
    /// The content store.
    pub blobs: BlobConfig,
    /// When it is held against the records.
    pub reconciling: Reconciling,
    /// Whose tokens are accepted.
    pub identity: Identity,
    /// How issuers are asked.
    pub issuer_http: HttpSettings,
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
    /// What the audit is sealed with.
    pub seal: Option<SealKey>,
    /// Which of the reads that were allowed the audit holds.
    pub audit_reads: Recorded,
    /// Where the audit is forwarded to.
    pub forwarding: Vec<Sink>,
    /// Who scans content before it is released.
    pub scan: Option<Scan>,
    /// The clock; the system's where `None`.
    pub clock: Option<Arc<dyn Clock>>,
    /// The source of ids and secrets; the system's where `None`.
    pub entropy: Option<Arc<dyn Entropy>>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("admin_listen", &self.admin_listen)
            .field("public_url", &self.public_url)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// A demo on free loopback ports: the database at `database` is brought up to date, the development issuer
    /// is served, the shipped rules apply.
    pub fn demo(database: impl Into<String>, blobs: BlobConfig) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: loopback,
            admin_listen: loopback,
            public_url: None,
            trusted_proxies: Vec::new(),
            cors_origins: Vec::new(),
            workers: 2,
            store: StoreConfig::new(database),
            migrate: true,
            blobs,
            reconciling: Reconciling::default(),
            identity: Identity::Demo { issuer_of: None },
            issuer_http: HttpSettings::default(),
            policies: Place::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            clients: Clients::default(),
            sessions: Sessions::default(),
            subscriptions: Subscriptions {
                keys: vec![DEMO_KEY.into()],
                plain_loopback: true,
                ..Subscriptions::default()
            },
            websockets: WebSockets::default(),
            seal: demo_seal(),
            audit_reads: Recorded::default(),
            forwarding: Vec::new(),
            scan: None,
            clock: None,
            entropy: None,
        }
    }

    /// What `config` says. Migrations are left to `handoff migrate`.
    pub fn from_config(config: &Config) -> Self {
        let mut store = StoreConfig::new(config.database.url.expose_secret());
        store.pool_size = config.database.pool;
        store.listen = config.database.listen;
        Self {
            listen: config.server.listen,
            admin_listen: config.admin.listen,
            public_url: Some(config.server.public_url.clone()),
            trusted_proxies: config.server.trusted_proxies.clone(),
            cors_origins: config.server.cors_origins.clone(),
            workers: config.server.workers,
            store,
            migrate: false,
            blobs: config.blobs.config.clone(),
            reconciling: config.blobs.reconciling,
            identity: Identity::Issuers(config.issuers.clone()),
            issuer_http: HttpSettings::default(),
            policies: config.policies.clone(),
            limits: config.limits,
            timeouts: config.timeouts,
            clients: config.clients,
            sessions: config.sessions,
            subscriptions: config.subscriptions.clone(),
            websockets: config.websockets,
            seal: config.audit.seal.clone(),
            audit_reads: config.audit.reads,
            forwarding: config.forwarding.clone(),
            scan: config.scan.clone(),
            clock: None,
            entropy: None,
        }
    }
}
