//! What the tests over HTTP share: a real server on a free port, on either pair of real stores, with a clock that
//! tests can turn; and the cast of the demo as clients of it.

pub mod azurite;
pub mod backport;
pub mod browser;
pub mod chaos;
pub mod client;
pub mod collector;
pub mod deliveries;
pub mod figures;
pub mod forwarding;
pub mod issuer;
pub mod ledger;
pub mod mirror;
pub mod open_transaction;
pub mod process;
pub mod provider;
pub mod proxy;
pub mod races;
pub mod scene;
pub mod slow;
pub mod subscriber;
pub mod trial;
pub mod visitor;
pub mod websocket;

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};

use handoff::adapters::SystemClock;
use handoff::wiring::{Identity, Options, Running, start};
use handoff_blobs::BlobConfig;
use handoff_domain::ids::{BinaryId, TenantId};
use handoff_domain::ports::Clock;
use handoff_domain::time::{Span, Timestamp};
use handoff_policies::{SHIPPED_RETENTION, SHIPPED_WORKFLOWS, Source};
use tempfile::TempDir;

pub use client::{Answer, Client};

/// Which stores a server stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// SQLite and a directory.
    Embedded,
    /// PostgreSQL and Azure Blob (Azurite).
    Production,
}

/// The system's clock, moved forward by tests.
#[derive(Debug, Default)]
pub struct TurnableClock(AtomicI64);

impl TurnableClock {
    /// Moves the clock.
    pub fn advance(&self, span: Span) {
        self.0.fetch_add(span.0, Ordering::SeqCst);
    }
}

impl Clock for TurnableClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus(Span(self.0.load(Ordering::SeqCst)))
    }
}

/// A running server with its stores; gone with everything it stored when dropped.
pub struct TestApp {
    /// The server.
    pub server: Running,
    /// Its clock.
    pub clock: Arc<TurnableClock>,
    /// Its stores.
    pub backend: Backend,
    /// What it was started with, to start a second one on the same stores.
    pub options: Options,
    http: reqwest::Client,
    data: Arc<Data>,
}

/// What a server stored, which goes when this is dropped.
pub struct Stores {
    _data: Arc<Data>,
}

/// What is removed at the end.
struct Data {
    folder: TempDir,
    database: Option<String>,
}

impl Drop for Data {
    fn drop(&mut self) {
        if let Some(name) = &self.database {
            psql(&format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"));
        }
    }
}

impl TestApp {
    /// A server as the demo has it, without the play.
    pub async fn start(backend: Backend) -> Self {
        Self::start_with(backend, |_| {}).await
    }

    /// The same with another workflow file.
    pub async fn with_workflows(backend: Backend, text: &str) -> Self {
        Self::start_in(backend, |options, folder| {
            let file = folder.join("workflow.toml");
            std::fs::write(&file, text).expect("a file can be written");
            options.policies.workflow = Some(file);
        })
        .await
    }

    /// The same with the shipped rules as files of its own, which a test may change: `policies` in its folder.
    pub async fn with_own_rules(backend: Backend) -> Self {
        Self::start_in(backend, |options, folder| {
            let policies = folder.join("policies");
            std::fs::create_dir(&policies).expect("a folder can be made");
            for (name, text) in Source::shipped().rules {
                std::fs::write(policies.join(name), text).expect("a file can be written");
            }
            for (name, text) in [
                ("workflow.toml", SHIPPED_WORKFLOWS),
                ("retention.toml", SHIPPED_RETENTION),
            ] {
                std::fs::write(policies.join(name), text).expect("a file can be written");
            }
            options.policies.directory = Some(policies);
        })
        .await
    }

    /// The same with anything changed.
    pub async fn start_with(backend: Backend, change: impl FnOnce(&mut Options)) -> Self {
        Self::start_in(backend, |options, _| change(options)).await
    }

    /// The same with anything changed, and files in its folder.
    pub async fn start_in(backend: Backend, change: impl FnOnce(&mut Options, &Path)) -> Self {
        log_to_file();
        let folder = TempDir::new().expect("a temporary folder");
        let name = unique();
        let (database_url, database, blobs) = match backend {
            Backend::Embedded => {
                let blobs = BlobConfig::Directory {
                    path: folder.path().join("blobs"),
                };
                std::fs::create_dir_all(folder.path().join("blobs")).expect("a folder for blobs");
                (
                    folder.path().join("handoff.db").display().to_string(),
                    None,
                    blobs,
                )
            }
            Backend::Production => {
                psql(&format!("CREATE DATABASE \"{name}\""));
                let server = needed("HANDOFF_TEST_POSTGRES_URL");
                let (base, _) = server.rsplit_once('/').expect("a database in the URL");
                let account = needed("HANDOFF_TEST_AZURITE_URL");
                let blobs = BlobConfig::parse(&format!("{account}/{name}")).expect("an Azurite URL");
                (format!("{base}/{name}"), Some(name.clone()), blobs)
            }
        };
        let clock = Arc::new(TurnableClock::default());
        let mut options = Options::demo(database_url, blobs);
        options.clock = Some(Arc::clone(&clock) as Arc<dyn Clock>);
        options.store.pool_size = 8;
        change(&mut options, folder.path());
        let server = start(options.clone())
            .await
            .unwrap_or_else(|e| panic!("the server did not start: {e}"));
        Self {
            server,
            clock,
            backend,
            options,
            http: http_client(),
            data: Arc::new(Data { folder, database }),
        }
    }

    /// Stops the server; what it stored stays.
    pub async fn halt(&mut self) {
        self.server.stop().await;
    }

    /// Stops the server and lets go of what it held; what it stored stays until the answer is dropped.
    pub async fn end(mut self) -> Stores {
        self.server.stop().await;
        Stores { _data: self.data }
    }

    /// Another server on the stores of one that was stopped.
    pub async fn start_again(stopped: &Self) -> Self {
        let options = stopped.options.clone();
        let server = start(options.clone())
            .await
            .unwrap_or_else(|e| panic!("the server did not start again: {e}"));
        Self {
            server,
            clock: Arc::clone(&stopped.clock),
            backend: stopped.backend,
            options,
            http: http_client(),
            data: Arc::clone(&stopped.data),
        }
    }

    /// A second server on the same stores, with the first one's issuer.
    pub async fn replica(&self) -> Self {
        self.replica_with(|_| {}).await
    }

    /// The same with anything changed.
    pub async fn replica_with(&self, change: impl FnOnce(&mut Options)) -> Self {
        let mut options = self.options.clone();
        options.identity = Identity::Demo {
            issuer_of: Some(self.server.base_url.clone()),
        };
        options.migrate = false;
        change(&mut options);
        let server = start(options.clone())
            .await
            .unwrap_or_else(|e| panic!("the replica did not start: {e}"));
        Self {
            server,
            clock: Arc::clone(&self.clock),
            backend: self.backend,
            options,
            http: http_client(),
            data: Arc::clone(&self.data),
        }
    }

    /// A member of the demo's cast as a client, with a fresh token of its full scope.
    pub async fn client(&self, name: &str) -> Client {
        Client::sign_in(&self.http, &self.issuer_base(), &self.server.base_url, name).await
    }

    /// A client whose token has these scopes, and this patient where one is given.
    pub async fn scoped(&self, name: &str, scope: &str, patient: Option<&str>) -> Client {
        let patient = patient.map(|id| ("patient", id));
        let asked: Vec<_> = std::iter::once(("scope", scope)).chain(patient).collect();
        let base = &self.server.base_url;
        Client::sign_in_for(&self.http, &self.issuer_base(), base, name, &asked).await
    }

    /// A client without credentials.
    pub fn stranger(&self) -> Client {
        Client::anonymous(&self.http, &self.server.base_url)
    }

    fn issuer_base(&self) -> String {
        match &self.options.identity {
            Identity::Demo {
                issuer_of: Some(other),
            } => other.clone(),
            _ => self.server.base_url.clone(),
        }
    }

    /// The folder with the embedded stores' files.
    pub fn folder(&self) -> PathBuf {
        self.data.folder.path().to_path_buf()
    }

    /// Replaces stored content behind the server's back: another object stands under the same key afterwards.
    pub async fn replace_content(&self, binary: &str, content: &'static [u8]) {
        let id = BinaryId::parse(binary).expect("an id");
        let tenant = TenantId::default_tenant();
        let app = &self.server.app;
        let found = app
            .read(move |read| Ok(read.binary(&tenant, &id)?))
            .await
            .expect("the database answers");
        let pin = found.expect("the Binary").pin;
        app.blobs.delete(&pin).await.expect("the object goes");
        let forged = futures_util::stream::iter([Ok(bytes::Bytes::from_static(content))]);
        app.blobs
            .put(&pin.key, "application/pdf", Box::pin(forged), 1024)
            .await
            .expect("another comes");
    }

    /// A metric by its name, with its labels where it has some, as `/metrics` shows it; 0 where nothing was counted.
    /// Counters are those of the whole test process.
    pub async fn metric(&self, name: &str) -> f64 {
        metric(&self.http, &self.server.admin_url, name).await
    }

    /// The name of the database and container of the production stores.
    pub fn database(&self) -> Option<&str> {
        self.data.database.as_deref()
    }
}

/// Whether a table that a reviewer reads is the committed one. Else it is written down at `target` (the caller's
/// `CARGO_TARGET_TMPDIR`) under its name, to be read beside the committed one and copied over it.
#[track_caller]
pub fn assert_committed(target: &str, name: &str, table: &str, committed: &str) {
    if table != committed {
        let path = Path::new(target).join(name);
        std::fs::write(&path, table).expect("a file can be written");
        panic!(
            "the table has changed; compare the committed one with {}",
            path.display()
        );
    }
}

/// A metric of the server whose admin listener this is.
pub async fn metric(http: &reqwest::Client, admin: &str, name: &str) -> f64 {
    let told = http
        .get(format!("{admin}/metrics"))
        .send()
        .await
        .expect("metrics");
    let text = told.text().await.expect("text");
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().expect("a number"))
}

/// An HTTP client that follows no redirect and keeps no secret from the test.
pub fn http_client() -> reqwest::Client {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .expect("an HTTP client")
}

/// A variable that `integration-tests/run` sets. A missing service is a failure, never a skip.
pub fn needed(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("`{name}` is not set: run integration-tests/run"))
}

/// Runs one statement on the PostgreSQL server of the tests.
pub fn psql(statement: &str) -> String {
    psql_in(&needed("HANDOFF_TEST_POSTGRES_URL"), statement)
}

/// Runs one statement in one database.
pub fn psql_in(url: &str, statement: &str) -> String {
    let output = Command::new("psql")
        .args([
            "--no-psqlrc",
            "-qAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
            url,
        ])
        .output()
        .expect("psql is installed");
    assert!(
        output.status.success(),
        "psql: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let at = SystemClock.now().0;
    format!(
        "t{at:x}-{:x}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::SeqCst)
    )
}

/// The servers' logs go to the folder that is searched for secrets afterwards.
fn log_to_file() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(folder) = std::env::var("HANDOFF_TEST_LOG_DIR") else {
            return;
        };
        let file = File::create(format!("{folder}/http-{}.log", std::process::id())).expect("a log file");
        let filter = "info,handoff=debug,handoff_store=debug,handoff_blobs=debug,handoff_identity=debug";
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
            .with_writer(Mutex::new(file))
            .finish();
        // Set once for the process; another test binary's would be an error of the harness.
        tracing_subscriber::util::SubscriberInitExt::try_init(subscriber).expect("one subscriber");
    });
}

/// A loopback address that nobody listens on yet. Its port is none that the system gives to whoever asks for any, a connection on
/// its way out included: one of those is soon another's. Each is given once in a process, and processes begin at different places.
pub fn free_address() -> SocketAddr {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(127);
    (0..COUNT)
        .map(|_| begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % COUNT + FIRST)
        .filter_map(|port| TcpListener::bind(("127.0.0.1", u16::try_from(port).ok()?)).ok())
        .find_map(|listener| listener.local_addr().ok())
        .expect("a free port")
}

/// Waits until `condition` holds, or fails after ten seconds.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while tokio::time::Instant::now() < deadline {
        if condition().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("did not happen within ten seconds: {what}");
}

/// Runs each test on both pairs of stores.
#[macro_export]
macro_rules! on_both {
    ($($(#[$meta:meta])* async fn $name:ident($backend:ident) $body:block)+) => {$(
        $(#[$meta])*
        mod $name {
            use super::*;

            async fn run($backend: $crate::Backend) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                run($crate::Backend::Embedded).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn production() {
                run($crate::Backend::Production).await;
            }
        }
    )+};
}
