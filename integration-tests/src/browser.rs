//! Scenarios with clients that others wrote: scripts in `browser/` that drive Chromium, and in `clients/` that use a library,
//! and say what they saw. What they should have seen is for the test to say.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long a scenario may take; it ends itself well before.
const LIMIT: Duration = Duration::from_mins(3);

/// Its standard error, in its scratch folder.
const COMPLAINTS: &str = "complaints";

/// A scenario that has started. It ends when this is dropped, with its browser, and leaves nothing behind.
pub struct Scenario {
    name: String,
    process: Child,
    orders: Option<ChildStdin>,
    said: Lines<BufReader<ChildStdout>>,
    // The browser's home, and what the scenario complained of. After the process, which must end first.
    scratch: TempDir,
}

impl Scenario {
    /// Starts `browser/{name}.mjs`.
    pub fn start(name: &str) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let parts = [
            Path::new("/usr/bin/chromium"),
            &here.join("node_modules/playwright-core"),
            &here.join("node_modules/fhirclient"),
        ];
        Self::run(name, &here.join(format!("browser/{name}.mjs")), &parts)
    }

    /// Starts `clients/{name}.mjs`, named like the library that it uses.
    pub fn client(name: &str) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let library = here.join("node_modules").join(name);
        Self::run(name, &here.join(format!("clients/{name}.mjs")), &[&library])
    }

    fn run(name: &str, script: &Path, parts: &[&Path]) -> Self {
        for part in parts {
            assert!(
                part.exists(),
                "`{}` is not installed: run integration-tests/run",
                part.display()
            );
        }
        let scratch = TempDir::new().expect("a temporary folder");
        let complaints = std::fs::File::create(scratch.path().join(COMPLAINTS)).expect("a file");
        let mut process = Command::new("node")
            .arg(script)
            .env("HOME", scratch.path())
            .env("TMPDIR", scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .kill_on_drop(true)
            .spawn()
            .expect("node is installed");
        Self {
            name: name.to_owned(),
            orders: process.stdin.take(),
            said: BufReader::new(process.stdout.take().expect("a pipe")).lines(),
            process,
            scratch,
        }
    }

    /// The next thing that it says.
    pub async fn said(&mut self) -> Value {
        let line = tokio::time::timeout(LIMIT, self.said.next_line()).await;
        match line {
            Ok(Ok(Some(line))) => serde_json::from_str(&line).expect("JSON"),
            other => self.failed(&format!("says nothing: {other:?}")),
        }
    }

    /// Plays it, told this, and answers what it saw. Fails the test when the scenario or the browser complains.
    pub async fn play(mut self, told: &Value) -> Value {
        let told = told.to_string();
        let mut orders = self.orders.take().expect("a pipe");
        // One that has failed already no longer listens, and has said why.
        let _gone = orders.write_all(told.as_bytes()).await;
        drop(orders);
        let playing = async {
            let mut seen = None;
            while let Some(line) = self.said.next_line().await.expect("text") {
                seen = Some(line);
            }
            (self.process.wait().await.expect("it ends"), seen)
        };
        match tokio::time::timeout(LIMIT, playing).await {
            Ok((status, Some(seen))) if status.success() => serde_json::from_str(&seen).expect("JSON"),
            Ok((status, _)) => self.failed(&status.to_string()),
            Err(_) => self.failed("takes too long"),
        }
    }

    fn failed(&self, how: &str) -> ! {
        let why = std::fs::read_to_string(self.scratch.path().join(COMPLAINTS)).unwrap_or_default();
        panic!("the scenario `{}` failed: {how}\n{why}", self.name);
    }
}
