//! The servers as processes that are killed and started again, each behind proxies of its own to database and content
//! store, with an issuer beside them that lives through everything.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::plan::{Fault, Part};
use super::record::{Crash, Recorder, Trouble, now};
use super::stand::Stand;
use crate::process::{clean, program};
use crate::proxy::{Direction, Proxy};

/// How long a server may take to serve, tries and all.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long one try may take: a part that is silent keeps a server from starting.
const ONE_TRY: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(200);

/// A server in its place: the process changes, the address stays.
pub struct Server {
    /// `http://127.0.0.1:N`.
    pub base: String,
    number: usize,
    database: Option<Proxy>,
    blobs: Option<Proxy>,
    arguments: Vec<String>,
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

/// All of them.
pub struct Fleet {
    /// The issuer of everybody's tokens: `http://127.0.0.1:N`.
    pub issuer: String,
    /// The servers.
    pub servers: Vec<Arc<Server>>,
    _issuer: Child,
}

impl Fleet {
    /// Starts an issuer and so many servers on the same stores, one after the other.
    pub async fn start(stand: &Stand, servers: usize) -> Self {
        Self::start_with(stand, servers, &[]).await
    }

    /// The same with more arguments for each server.
    pub async fn start_with(stand: &Stand, servers: usize, more: &[&str]) -> Self {
        let folder = stand.folder().join("issuer");
        let log = stand.folder().join("issuer.log");
        let data = folder.display().to_string();
        let (child, issuer) = start(&arguments(&["--port", "0", "--data", &data]), &log)
            .await
            .expect("the issuer starts");
        let mut fleet = Self {
            issuer,
            servers: Vec::new(),
            _issuer: child,
        };
        for number in 0..servers {
            let server = Server::start(stand, number, &fleet.issuer, more).await;
            fleet.servers.push(Arc::new(server));
        }
        fleet
    }

    /// Kills all at once, and starts them again when somebody says so.
    pub async fn crash(&self, until: impl Future<Output = ()>, recorder: &Recorder) {
        let until = until.shared();
        let all = self
            .servers
            .iter()
            .map(|server| server.crash(until.clone(), recorder));
        join_all(all).await;
    }
}

impl Server {
    async fn start(stand: &Stand, number: usize, issuer: &str, more: &[&str]) -> Self {
        let (mut database, mut blobs) = (None, None);
        let mut database_url = stand.database_url();
        let mut blob_url = stand.blob_url();
        if let Some((to_database, to_blobs)) = stand.places() {
            let proxy = Proxy::before(&to_database).await;
            database_url = database_url.replace(&to_database, &proxy.address.to_string());
            database = Some(proxy);
            let proxy = Proxy::before(&to_blobs).await;
            blob_url = blob_url.replace(&to_blobs, &proxy.address.to_string());
            blobs = Some(proxy);
        }
        let data = stand.folder().join(format!("server-{number}"));
        let issuer = format!("{issuer}/dev-issuer");
        let log = stand.folder().join(format!("server-{number}.log"));
        let with_port = |port: &str| {
            let data = data.display().to_string();
            let own = [
                "--port",
                port,
                "--data",
                &data,
                "--database",
                &database_url,
                "--blob",
                &blob_url,
                "--issuer",
                &issuer,
            ];
            arguments(&[&own, more].concat())
        };
        let (child, base) = start(&with_port("0"), &log).await.expect("the server starts");
        let port = base.rsplit(':').next().expect("a port").to_owned();
        Self {
            base,
            number,
            database,
            blobs,
            arguments: with_port(&port),
            log,
            child: Mutex::new(Some(child)),
        }
    }

    /// Kills the process as it is, and starts another in its place when somebody says so.
    pub async fn crash(&self, until: impl Future<Output = ()>, recorder: &Recorder) {
        let mut place = self.child.lock().await;
        let at = now();
        if let Some(mut child) = place.take() {
            child.start_kill().expect("it runs");
            let _status = child.wait().await;
        }
        until.await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((child, _)) = start(&self.arguments, &self.log).await {
                *place = Some(child);
                break;
            }
            assert!(
                Instant::now() < deadline,
                "server {} does not come back; see `{}`",
                self.number,
                self.log.display()
            );
            sleep(AGAIN).await;
        }
        recorder.note(|record| {
            record.crashes.push(Crash {
                server: self.number,
                at,
                back: now(),
            });
        });
    }

    /// Puts a part into trouble for a while.
    pub async fn trouble(&self, part: Part, fault: Fault, lasting: Duration, recorder: &Recorder) {
        let proxy = match part {
            Part::Database => &self.database,
            Part::Blobs => &self.blobs,
        };
        let Some(proxy) = proxy else { return };
        let from = now();
        match fault {
            Fault::Cut => proxy.cut(),
            Fault::HalfCloseRequests => proxy.half_close(Direction::Requests),
            Fault::HalfCloseAnswers => proxy.half_close(Direction::Answers),
            Fault::Delay(each) => proxy.delay(each),
            Fault::Stall => proxy.stall(),
            Fault::StallAnswers => proxy.stall_answers(),
            Fault::Refuse => proxy.refuse(),
        }
        sleep(lasting).await;
        proxy.forward();
        recorder.note(|record| {
            record.troubles.push(Trouble {
                server: self.number,
                part,
                fault,
                from,
                until: now(),
            });
        });
    }

    /// Nothing stands in its way any more.
    pub fn calm(&self) {
        for proxy in [&self.database, &self.blobs].into_iter().flatten() {
            proxy.forward();
        }
    }

    /// Ends the process for good.
    pub async fn kill(&self) {
        if let Some(mut child) = self.child.lock().await.take() {
            child.start_kill().expect("it runs");
            let _status = child.wait().await;
        }
    }
}

fn arguments(rest: &[&str]) -> Vec<String> {
    ["demo", "--no-play"]
        .iter()
        .chain(rest)
        .map(ToString::to_string)
        .collect()
}

/// Starts the program and waits until it serves; answers where. `None` where it ended instead, or took too long.
async fn start(arguments: &[String], log: &Path) -> Option<(Child, String)> {
    let log = OpenOptions::new().create(true).append(true).open(log);
    let mut command: Command = clean(&program());
    command
        .args(arguments)
        .env("HANDOFF__LOG__FILTER", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.expect("a log file"));
    let mut child = command.spawn().expect("the program is there");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let serving = async {
        while let Ok(Some(line)) = lines.next_line().await {
            if line.contains("FHIR base") {
                let url = line.split_whitespace().find(|word| word.starts_with("http://"))?;
                return url.strip_suffix("/fhir").map(str::to_owned);
            }
        }
        None
    };
    let base = timeout(ONE_TRY, serving).await.ok()??;
    // Read on, so that it can say what it likes.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Some((child, base))
}
