//! Puts the server together and runs it: the only place that names concrete adapters.
//! The command line and the tests both start it here, so that tests run what is shipped.

mod background;
mod demo_cast;
mod descriptors;
mod jobs;
mod listen;
mod options;
mod rules;
mod ways;

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use actix_server::Server;
use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::rt::System;
use actix_web::{App as HttpApp, HttpServer};
use handoff_domain::access::{Principal, Role};
use handoff_domain::ids::TenantId;
use handoff_domain::ports::{BlobError, BlobStore, Clock, Entropy, Outbound, Store, StoreError};
use handoff_domain::scan::ScanRule;
use handoff_domain::time::Span;
use handoff_fhir_profiles::terminology;
use handoff_identity::dev_issuer::{DevIssuer, Realm};
use handoff_identity::{IssuerConfig, IssuerConfigError, SignIn, TokenValidator};
use handoff_policies::{CompileError, SourceError};
use handoff_store::{Database, StoreConfig};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::adapters::{MeasuredBlobs, MeasuredStore, OsEntropy, SealedVault, SourcesOverHttp, SystemClock};
use crate::app::caps::Caps;
use crate::app::drift::Reconciling;
use crate::app::ledger::seal::SealKey;
use crate::app::reads::ReadLog;
use crate::app::sessions::SessionTimes;
use crate::app::streams::Streams;
use crate::app::subscriber::Standings;
use crate::app::subscriptions::SubscriptionSettings;
use crate::app::{App, InForce, Settings};
use crate::config::{AddressRange, Scan, Sessions, Sink, Subscriptions, Timeouts, WebSockets};
use crate::delivery::{self, Courier};
use crate::demo::DevIssuers;
use crate::http::HttpState;
use crate::http::attempts::Attempts;
use crate::http::connection::{Connections, http_service, serving};
use crate::http::room::Room;
use crate::http::scopes::caps_of;
use crate::http::traced::traced;
use crate::http::websocket::Sockets;
use crate::telemetry::access;
use crate::{admin, forwarding, http, scanning};

use background::Background;
use demo_cast::{introduce_cast, introduce_feed};
pub use options::{Identity, Options, demo_sink, demo_traces};
pub(crate) use ways::{outbound, way_to_collector};
use ways::{scanner, way_to};

/// Why the server did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address can't be listened on.
    #[error("can't listen on `{address}`: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// The database does not answer.
    #[error("the database can't be opened: {0}")]
    Store(#[from] StoreError),
    /// The database is of an older version.
    #[error("the database is not up to date, migrations missing: {0}; run `handoff migrate` first")]
    Migrations(usize),
    /// The content store does not answer, or is not private.
    #[error("the content store can't be used: {0}")]
    Blobs(#[from] BlobError),
    /// The rules can't be read.
    #[error("the rules can't be read: {0}")]
    RulesUnread(#[from] SourceError),
    /// The rules are not well written.
    #[error("the rules can't be used:\n{0}")]
    Rules(#[from] CompileError),
    /// What operators have blocked can't be read.
    #[error("the standing blocks can't be read: {0}")]
    Blocks(String),
    /// The demo's source can't be stored.
    #[error("the demo's source can't be stored: {0}")]
    Sources(String),
    /// The audit can't be written.
    #[error("the audit can't be written: {0}")]
    Audit(String),
    /// The issuers can't be used.
    #[error("the issuers can't be used: {0}")]
    Issuers(#[from] IssuerConfigError),
    /// The way to other servers can't be opened.
    #[error("the way to other servers can't be opened: {0}")]
    Outbound(String),
    /// The development issuer can't be made.
    #[error("the development issuer can't be made: {0}")]
    DevIssuer(String),
    /// A thread or a runtime could not be started.
    #[error("the server's threads can't be started: {0}")]
    Threads(String),
}

/// A server that runs. Dropping it stops it without waiting; [`Running::stop`] lets requests end first.
pub struct Running {
    /// Where it is reached: `http://127.0.0.1:8080`, whatever the public URL says.
    pub base_url: String,
    /// Where health and metrics are.
    pub admin_url: String,
    /// What its requests work with.
    pub app: App,
    servers: [ServerHandle; 2],
    ended: Option<oneshot::Receiver<io::Result<()>>>,
}

impl Running {
    /// Lets requests under way end, within the time set for it, and stops.
    pub async fn stop(&mut self) {
        for server in &self.servers {
            server.stop(true).await;
        }
        self.wait().await;
    }

    /// Waits until the server has ended for whatever reason.
    pub async fn wait(&mut self) {
        if let Some(ended) = self.ended.take()
            && let Ok(Err(error)) = ended.await
        {
            tracing::error!(%error, "the server ended with an error");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for server in &self.servers {
            // The order is given at once; only its completion would have to be waited for.
            drop(server.stop(false));
        }
    }
}

/// Starts a server, which answers from when this returns.
pub async fn start(options: Options) -> Result<Running, StartError> {
    let clock: Arc<dyn Clock> = options.clock.clone().unwrap_or_else(|| Arc::new(SystemClock));
    let entropy: Arc<dyn Entropy> = options
        .entropy
        .clone()
        .unwrap_or_else(|| Arc::new(OsEntropy::new()));
    let (rules, digest) = rules::read(&options.policies)?;
    let store = open_store(&options.store, options.migrate).await?;
    let blobs: Arc<dyn BlobStore> = Arc::new(MeasuredBlobs::new(handoff_blobs::open(&options.blobs).await?));
    blobs.ready().await?;

    let clients = descriptors::fit(options.clients, descriptors::raise(), options.store.pool_size);
    let (listener, address) = listen(options.listen)?;
    let (admin_listener, admin_address) = listen(options.admin_listen)?;
    let base_url = format!("http://{address}");
    let public_base = options.public_url.clone().unwrap_or_else(|| base_url.clone());

    let (issuers, dev) = issuers(&options.identity, &base_url, address, &clock, &entropy)?;
    let issuers: Vec<IssuerConfig> = issuers
        .into_iter()
        .map(|issuer| IssuerConfig { role_words, ..issuer })
        .collect();
    let tenants: BTreeSet<TenantId> = issuers.iter().map(|issuer| issuer.tenant.clone()).collect();
    let settings = Arc::new(Settings {
        public_base,
        process: entropy.fresh_id(),
        max_binary: options.limits.max_binary,
        max_inline: options.limits.max_inline,
        max_entries: options.limits.max_entries,
        max_resource: options.limits.max_resource,
        sessions: session_times(&options.sessions),
        subscriptions: subscription_settings(&options.subscriptions),
        scan: options.scan.as_ref().map(|scan| ScanRule {
            max_age: span(scan.max_age),
        }),
    });
    let validator = {
        let settings = Arc::clone(&settings);
        let caps = move |principal: &Principal| caps_of(principal, &settings.fhir_base(&principal.tenant));
        Arc::new(TokenValidator::deriving(
            issuers,
            &options.issuer_http,
            Arc::clone(&clock),
            caps,
        )?)
    };
    if let Some(dev) = &dev {
        for issuer in dev.all() {
            validator.preload(issuer.issuer(), &issuer.discovery(), &issuer.jwks());
        }
    }
    if matches!(options.identity, Identity::Demo { .. }) {
        introduce_cast(store.as_ref(), clock.now()).await?;
        introduce_feed(store.as_ref(), clock.now())
            .await
            .map_err(|error| StartError::Sources(jobs::explain(&error)))?;
    }

    let background = Background::start().map_err(|error| StartError::Threads(error.to_string()))?;
    let standings = standings(&validator, &settings);
    let outbound = outbound(&options.subscriptions)?;
    let sinks = options
        .forwarding
        .iter()
        .map(|sink| Ok((sink.clone(), way_to(sink)?)))
        .collect::<Result<Vec<_>, StartError>>()?;
    let vault = SealedVault::new(&options.subscriptions.vault_keys(), Arc::clone(&entropy));
    let app = App {
        reads: ReadLog::start(Arc::clone(&store), background.handle(), options.audit_reads),
        store,
        background: background.handle().clone(),
        blobs,
        in_hand: Arc::default(),
        came: Arc::default(),
        sources: Arc::new(SourcesOverHttp::new(
            Arc::clone(&outbound),
            Arc::clone(&clock),
            Arc::clone(&entropy),
        )),
        clock,
        rules: Arc::new(InForce::new(rules)),
        streams: Arc::new(Streams::default()),
        standing: Arc::default(),
        standings,
        outbound: Arc::clone(&outbound),
        vault: Arc::new(vault),
        ear: Arc::default(),
        settings,
        entropy,
    };
    let mut rules = rules::Watch::of(options.policies, digest, tenants.clone());
    rules
        .record_start(&app)
        .await
        .map_err(|error| StartError::Audit(jobs::explain(&error)))?;
    app.look_at_blocks()
        .await
        .map_err(|error| StartError::Blocks(jobs::explain(&error)))?;
    // Before the first stream, so that no other process takes it for an orphan's.
    app.store.heartbeat(&app.settings.process).await?;

    let trusted_proxies: Arc<[AddressRange]> = options.trusted_proxies.into();
    // Each keeps a connection for as long as it likes; others need some too.
    let websockets = WebSockets {
        max: options.websockets.max.min((clients.max_connections / 2).max(1)),
        ..options.websockets
    };
    let connections = Connections::new(&clients, &options.timeouts, Arc::clone(&trusted_proxies));
    let parts = Parts {
        state: HttpState {
            app: app.clone(),
            validator,
            tenants: Arc::new(tenants),
            sockets: Arc::new(Sockets::new(websockets, Arc::clone(&trusted_proxies))),
            trusted_proxies,
            cors_origins: options.cors_origins.into(),
            limits: options.limits,
            timeouts: options.timeouts,
            clients,
            room: Arc::new(Room::new(&clients)),
            attempts: Arc::new(Attempts::new(&clients)),
            seen: Arc::default(),
            refusals: Arc::default(),
            senders: Arc::default(),
        },
        background,
        dev,
        rules,
        seal: options.seal,
        sinks,
        scan: options.scan,
        reconciling: options.reconciling,
        workers: options.workers.max(1),
        timeouts: options.timeouts,
        connections: Arc::new(connections),
        listener,
        admin_listener,
    };
    let (servers, ended) = run(parts).await?;
    Ok(Running {
        base_url,
        admin_url: format!("http://{admin_address}"),
        app,
        servers,
        ended: Some(ended),
    })
}

async fn open_store(config: &StoreConfig, migrate: bool) -> Result<Arc<dyn Store>, StartError> {
    let of_migrations = config.clone();
    let migrated = tokio::task::spawn_blocking(move || {
        if migrate {
            handoff_store::migrate(&of_migrations)?;
            return Ok(());
        }
        match handoff_store::pending(&of_migrations)?.len() {
            0 => Ok(()),
            missing => Err(StartError::Migrations(missing)),
        }
    });
    migrated
        .await
        .map_err(|error| StartError::Threads(error.to_string()))??;
    let database = match config.database() {
        Database::Postgres => "postgresql",
        Database::Sqlite(_) => "sqlite",
    };
    let store = handoff_store::open(config).await?;
    Ok(Arc::new(MeasuredStore::new(store, database)))
}

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |cause| StartError::Listen { address, cause };
    let listener = listen::bind(address).map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// Whose tokens are accepted, and the development issuers that we serve ourselves.
fn issuers(
    identity: &Identity,
    base_url: &str,
    address: SocketAddr,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> Result<(Vec<IssuerConfig>, Option<DevIssuers>), StartError> {
    let issuer_of = match identity {
        Identity::Issuers(issuers) => return Ok((issuers.clone(), None)),
        Identity::Demo { issuer_of } => issuer_of,
    };
    let base = issuer_of.as_deref().unwrap_or(base_url);
    let mut accepted = Vec::new();
    for realm in Realm::ALL {
        let tenant =
            TenantId::parse(realm.tenant()).map_err(|error| StartError::DevIssuer(error.to_string()))?;
        accepted.push(IssuerConfig {
            sign_in: Some(SignIn {
                client_id: "handoff-pages".to_owned(),
                client_secret: None,
                scopes: vec!["fhirUser".to_owned()],
                label: "Sign in".to_owned(),
            }),
            ..DevIssuer::issuer_config(base, realm, tenant)
        });
    }
    let dev = match issuer_of {
        Some(_) => None,
        None => Some(
            DevIssuers::new(base_url, address.port(), clock, entropy)
                .map_err(|error| StartError::DevIssuer(error.to_string()))?,
        ),
    };
    Ok((accepted, dev))
}

fn span(of: Duration) -> Span {
    Span(i64::try_from(of.as_micros()).unwrap_or(i64::MAX))
}

fn subscription_settings(subscriptions: &Subscriptions) -> SubscriptionSettings {
    SubscriptionSettings {
        give_up_after: span(subscriptions.give_up_after),
        keep: span(subscriptions.keep),
        most_of_one: subscriptions.most_of_one,
        most_of_all: subscriptions.most,
    }
}

/// What says of subscribers, whose tokens are not at hand, what they may still do.
fn standings(validator: &Arc<TokenValidator<Caps>>, settings: &Arc<Settings>) -> Standings {
    let (validator, settings) = (Arc::clone(validator), Arc::clone(settings));
    Standings::new(
        move |principal| caps_of(principal, &settings.fhir_base(&principal.tenant)),
        move |tenant, issuer| validator.issuers_of(tenant).any(|known| known == issuer),
    )
}

fn session_times(sessions: &Sessions) -> SessionTimes {
    SessionTimes {
        idle: span(sessions.idle),
        absolute: span(sessions.absolute),
    }
}

/// The role that a word of another system means, by the ConceptMap that ships.
fn role_words(word: &str) -> Option<Role> {
    terminology::canonical_role(word).and_then(Role::parse)
}

/// What the server's own thread needs.
struct Parts {
    state: HttpState,
    background: Background,
    dev: Option<DevIssuers>,
    rules: rules::Watch,
    seal: Option<SealKey>,
    sinks: Vec<(Sink, Arc<dyn Outbound>)>,
    scan: Option<Scan>,
    reconciling: Reconciling,
    workers: usize,
    timeouts: Timeouts,
    connections: Arc<Connections>,
    listener: TcpListener,
    admin_listener: TcpListener,
}

type Ended = oneshot::Receiver<io::Result<()>>;

/// Connections to the listener for operators, whose descriptors are among those that clients leave free.
const ADMIN_CONNECTIONS: usize = 64;

/// Runs both listeners and the jobs on a thread of their own, so that the caller may have any runtime.
async fn run(parts: Parts) -> Result<([ServerHandle; 2], Ended), StartError> {
    let (started, when_started) = oneshot::channel();
    let (ended, when_ended) = oneshot::channel();
    thread::Builder::new()
        .name("handoff-server".to_owned())
        .spawn(move || {
            let outcome = System::new().block_on(serve(parts, started));
            // Nobody listens when the server was dropped.
            let _nobody = ended.send(outcome);
        })
        .map_err(|error| StartError::Threads(error.to_string()))?;
    let servers = when_started
        .await
        .map_err(|_| StartError::Threads("the thread ended at once".to_owned()))?;
    Ok((servers, when_ended))
}

async fn serve(parts: Parts, started: oneshot::Sender<[ServerHandle; 2]>) -> io::Result<()> {
    let Parts {
        state,
        background,
        dev,
        rules,
        seal,
        sinks,
        scan,
        reconciling,
        workers,
        timeouts,
        connections,
        listener,
        admin_listener,
    } = parts;
    let app = state.app.clone();
    let tenants = Arc::clone(&state.tenants);
    let shown = admin::Shown {
        app: app.clone(),
        connections: Arc::clone(&connections),
        room: Arc::clone(&state.room),
    };
    let builder = Server::build();
    let graceful = builder.graceful_shutdown_signal();
    let goodbye = {
        let (sockets, graceful) = (Arc::clone(&state.sockets), graceful.clone());
        async move {
            graceful.notified().await;
            sockets.stop();
        }
    };
    let accepted = Arc::clone(&connections);
    let public = builder
        .workers(workers)
        // Ours is the limit; past it connections are told so and closed instead of waiting unseen.
        .max_concurrent_connections(connections.most().saturating_add(1))
        .shutdown_timeout(timeouts.shutdown.as_secs())
        .disable_signals()
        .listen("public", listener, move || {
            let (state, dev) = (state.clone(), dev.clone());
            let app = HttpApp::new()
                .wrap(from_fn(access::observe))
                .wrap(from_fn(traced))
                .wrap(from_fn(serving))
                .configure(|config| {
                    if let Some(dev) = dev {
                        dev.configure(config);
                    }
                })
                .configure(|config| http::configure(config, state));
            http_service(app, &accepted, &timeouts, graceful.clone())
        })?
        .run();

    let admin = HttpServer::new(move || {
        let shown = shown.clone();
        HttpApp::new().configure(|config| admin::configure(config, shown))
    })
    .workers(1)
    .max_connections(ADMIN_CONNECTIONS)
    .client_request_timeout(timeouts.request_header)
    .shutdown_timeout(1)
    .disable_signals()
    .listen(admin_listener)?
    .run();

    let named: Vec<Sink> = sinks.iter().map(|(sink, _)| sink.clone()).collect();
    let mut jobs = jobs::start(&app, &tenants, seal, &named, reconciling);
    let forwarding = forwarding::start(&app, sinks);
    let scanning = scan.zip(app.settings.scan).map(|(scan, rule)| {
        let scanner = scanner(&scan.kind, &app.blobs);
        scanning::start(&app, scanner, rule, scan.at_once)
    });
    let courier = Courier {
        outbound: Arc::clone(&app.outbound),
        clock: Arc::clone(&app.clock),
        settings: Arc::clone(&app.settings),
    };
    let (deliveries, more) = delivery::start(&app, courier);
    jobs.extend(more);
    jobs.push(actix_web::rt::spawn(goodbye));
    jobs.push(actix_web::rt::spawn(connections.watch()));
    jobs.push(actix_web::rt::spawn(rules.follow(app)));
    // The caller may have gone; then its end of the servers is dropped, which stops them.
    if let Err([public, admin]) = started.send([public.handle(), admin.handle()]) {
        drop((public.stop(false), admin.stop(false)));
    }
    let outcome = tokio::try_join!(public, admin);
    for job in jobs {
        job.abort();
    }
    // Before leases are given back.
    forwarding.stop().await;
    if let Some(scanning) = scanning {
        scanning.stop().await;
    }
    deliveries.stop().await;
    drop(deliveries);
    background.settle().await;
    outcome.map(|_| ())
}

#[cfg(test)]
mod tests;
