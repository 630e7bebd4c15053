//! The server under test: the program, started as somebody would start it, and what the system says of its process.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::failure::{Failure, Result};
use crate::http::{Target, once};

const PATIENCE: Duration = Duration::from_mins(1);

/// Where a server keeps what it stores.
#[derive(Debug, Clone)]
pub struct Stores {
    /// The folder of the embedded stores.
    pub data: PathBuf,
    /// `postgres://…`, instead of SQLite.
    pub database: Option<String>,
    /// `http://…` of a container, instead of a directory.
    pub blob: Option<String>,
}

/// A running `handoff demo`. Dropped, it is killed.
pub struct Server {
    child: Child,
    id: u32,
    /// `http://127.0.0.1:N`.
    pub base: String,
    /// From the start of the process to its being ready.
    pub ready_after: Duration,
}

impl Server {
    /// Starts `program` on `stores` and waits until it is ready; `issuer` is another server's, for a second replica.
    pub async fn start(program: &Path, stores: &Stores, issuer: Option<&str>) -> Result<Self> {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HANDOFF__") {
                command.env_remove(name);
            }
        }
        command
            .args(["demo", "--no-play", "--port", "0", "--data"])
            .arg(&stores.data);
        for (flag, value) in [
            ("--database", stores.database.as_deref()),
            ("--blob", stores.blob.as_deref()),
            ("--issuer", issuer),
        ] {
            if let Some(value) = value {
                command.arg(flag).arg(value);
            }
        }
        let begun = Instant::now();
        let mut child = command
            // Streams that are cut on purpose are no news.
            .env("HANDOFF__LOG__FILTER", "error,actix_http=off")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log()?)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::new(format!("`{}` does not start: {error}", program.display())))?;
        let id = child
            .id()
            .ok_or_else(|| Failure::new("the server ended at once"))?;
        let out = child
            .stdout
            .take()
            .ok_or_else(|| Failure::new("the server has no output"))?;
        let mut lines = BufReader::new(out).lines();
        let (mut base, mut admin) = (None, None);
        let reading = async {
            while let Some(line) = lines.next_line().await? {
                let url = line.split_whitespace().find(|word| word.starts_with("http://"));
                match url {
                    Some(url) if line.contains("FHIR base") => {
                        base = url.strip_suffix("/fhir").map(str::to_owned);
                    }
                    Some(url) if line.contains("admin") => {
                        admin = url.strip_suffix("/health/ready").map(str::to_owned);
                    }
                    _ => {}
                }
                if base.is_some() && admin.is_some() {
                    break;
                }
            }
            Ok::<(), Failure>(())
        };
        timeout(PATIENCE, reading)
            .await
            .map_err(|_| Failure::new("the server did not say where it serves"))??;
        let (Some(base), Some(admin)) = (base, admin) else {
            return Err(Failure::new("the server ended before it served"));
        };
        let admin = Target::parse(&admin)?;
        let asks = admin.request("GET", "/health/ready", &[], b"");
        loop {
            if once(&admin, &asks).await.is_ok_and(|answer| answer.status == 200) {
                break;
            }
            if begun.elapsed() > PATIENCE {
                return Err(Failure::new("the server did not become ready"));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(Self {
            child,
            id,
            base,
            ready_after: begun.elapsed(),
        })
    }

    /// Asks it to end, and waits for that.
    pub async fn stop(mut self) -> Result<()> {
        let asked = Command::new("kill").arg(self.id.to_string()).status().await?;
        if !asked.success() {
            return Err(Failure::new("the server is gone"));
        }
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Failure::new("the server did not end when it was asked to")),
        }
    }

    /// Processor time that it used so far, in user and system.
    pub fn processor_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id))?;
        // The name in brackets may hold spaces; user and system time are the 12th and 13th field after it.
        let ticks: u64 = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest)
            .unwrap_or_default()
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        // The kernel tells these in hundredths of a second on every platform that is served here.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Memory that it holds now, in KiB.
    pub fn resident_kib(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The most memory that it ever held, in KiB.
    pub fn peak_kib(&self) -> Result<u64> {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
            .ok_or_else(|| Failure::new(format!("the system does not tell {name}")))
    }
}

/// Where a server's log goes: to the folder that is searched for secrets after the tests, where there is one.
fn log() -> Result<Stdio> {
    let Ok(folder) = std::env::var("HANDOFF_TEST_LOG_DIR") else {
        return Ok(Stdio::null());
    };
    let path = format!("{folder}/bench-{}.log", std::process::id());
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    Ok(Stdio::from(file))
}
