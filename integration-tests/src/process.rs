//! The server as a program: started with its command line, read by its output, ended by signals.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command as Plain, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

/// A configuration for the command line; the database comes from its environment.
pub const CONFIG: &str = r#"
[server]
public_url = "https://handoff.example"
[blobs]
url = "file:///var/lib/handoff/blobs"
[[issuers]]
issuer = "https://login.example/default"
audience = ["https://handoff.example/fhir"]
[[issuers]]
issuer = "https://login.example/b"
tenant = "b"
audience = ["https://handoff.example/t/b/fhir"]
"#;

/// How long the program may take to say what it is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// The program, as `cargo build` leaves it beside the tests and the other programs.
pub fn program() -> PathBuf {
    let ours = std::env::current_exe().expect("our own path");
    let folder = ours.parent().expect("a target directory");
    // Tests lie in a folder of their own below it.
    let folder = if folder.ends_with("deps") {
        folder.parent().expect("a target directory")
    } else {
        folder
    };
    let path = folder.join("handoff");
    assert!(
        path.is_file(),
        "`{}` is not there: run `cargo build -p handoff` first",
        path.display()
    );
    path
}

/// How a program ended, and all that it said.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs the program to its end.
pub async fn run(arguments: &[&str]) -> Ended {
    run_with(arguments, &[]).await
}

/// The same with these variables.
pub async fn run_with(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = clean(&program());
    command
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    let output = timeout(PATIENCE, command.output())
        .await
        .expect("it ends in time")
        .expect("it runs");
    keep_log(&output.stderr);
    Ended {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Without our own configuration's variables, should somebody have set some; with a log worth searching.
pub(crate) fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HANDOFF__") {
            command.env_remove(name);
        }
    }
    command.env("HANDOFF__LOG__FILTER", "debug").kill_on_drop(true);
    command
}

/// Appends to the logs that are searched for secrets afterwards.
fn keep_log(bytes: &[u8]) {
    if let Some(mut file) = log_file() {
        std::io::Write::write_all(&mut file, bytes).expect("a log is written");
    }
}

fn log_file() -> Option<File> {
    let folder = std::env::var("HANDOFF_TEST_LOG_DIR").ok()?;
    let path = format!("{folder}/program-{}.log", std::process::id());
    Some(
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("a log file"),
    )
}

/// A program that runs. Dropped, it is killed.
pub struct Program {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Option<Lines<BufReader<ChildStderr>>>,
    /// The lines of standard output that were read so far.
    pub said: Vec<String>,
}

impl Program {
    /// Starts `handoff` with these arguments; its standard error goes to the log.
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = clean(&program());
        command.args(arguments);
        Self::spawn(command, false)
    }

    /// Starts `handoff serve` and waits until it serves; answers the public and the admin address.
    pub async fn serve(config: &Path) -> (Self, String, String) {
        let mut command = clean(&program());
        command
            .args(["serve", "--config"])
            .arg(config)
            .env("HANDOFF__LOG__FORMAT", "json");
        let mut program = Self::spawn(command, true);
        let (public, admin) = program.serving().await;
        (program, public, admin)
    }

    /// Starts a shell script whose `$@` is `handoff` with these arguments.
    pub fn start_by_script(script: &str, arguments: &[&str]) -> Self {
        let mut command = clean(Path::new("bash"));
        command
            .args(["-c", script, "bash"])
            .arg(program())
            .args(arguments);
        Self::spawn(command, false)
    }

    fn spawn(mut command: Command, read_log: bool) -> Self {
        let log = match (read_log, log_file()) {
            (true, _) => Stdio::piped(),
            (false, Some(file)) => Stdio::from(file),
            (false, None) => Stdio::inherit(),
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("its output")).lines();
        let err = child.stderr.take().map(|err| BufReader::new(err).lines());
        Self {
            child,
            out,
            err,
            said: Vec::new(),
        }
    }

    /// Reads on until a line of standard output holds `text`, and answers the line.
    pub async fn line_with(&mut self, text: &str) -> String {
        if let Some(line) = self.said.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        let reading = async {
            while let Some(line) = self.out.next_line().await.expect("text") {
                self.said.push(line.clone());
                if line.contains(text) {
                    return Some(line);
                }
            }
            None
        };
        let found = timeout(PATIENCE, reading).await;
        let Ok(Some(line)) = found else {
            panic!("`{text}` was not said: {:#?}", self.said)
        };
        line
    }

    /// Where a demo serves, from what it prints: the public and the admin address.
    pub async fn addresses(&mut self) -> (String, String) {
        let public = url_in(&self.line_with("FHIR base").await);
        let admin = url_in(&self.line_with("admin  ").await);
        (
            public.trim_end_matches("/fhir").to_owned(),
            admin.trim_end_matches("/health/ready").to_owned(),
        )
    }

    /// Where `serve` serves, from its log, which goes on to the other logs.
    async fn serving(&mut self) -> (String, String) {
        let mut lines = self.err.take().expect("its log");
        let mut seen = Vec::new();
        let reading = async {
            while let Some(line) = lines.next_line().await.expect("text") {
                keep_log(format!("{line}\n").as_bytes());
                seen.push(line.clone());
                let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else {
                    continue;
                };
                if let (Some("serving"), Some(public), Some(admin)) = (
                    event["message"].as_str(),
                    event["listen"].as_str(),
                    event["admin"].as_str(),
                ) {
                    return Some((public.to_owned(), admin.to_owned()));
                }
            }
            None
        };
        let found = timeout(PATIENCE, reading).await;
        let Ok(Some(addresses)) = found else {
            panic!("it does not serve: {seen:#?}")
        };
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                keep_log(format!("{line}\n").as_bytes());
            }
        });
        addresses
    }

    /// Sends a signal: `TERM`, `KILL`.
    pub fn signal(&self, name: &str) {
        let status = Plain::new("kill")
            .args(["-s", name, &self.id().to_string()])
            .status();
        assert!(status.expect("`kill` is installed").success(), "it runs");
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Memory that the process holds, in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("a size");
        let kib: u64 = line
            .split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("a number");
        kib * 1024
    }

    /// Processor time that the process has spent, in hundredths of a second.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).expect("it runs");
        // Behind the name, which is in parentheses: state, and from the twelfth on user and system time in ticks.
        let fields = stat.rsplit(')').next().expect("fields").split_whitespace();
        let ticks: u64 = fields
            .skip(11)
            .take(2)
            .map(|n| n.parse::<u64>().expect("a number"))
            .sum();
        Duration::from_millis(ticks * 10)
    }

    /// Waits for its end: the exit code, `None` where a signal ended it.
    pub async fn ended(&mut self) -> Option<i32> {
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .expect("it ends in time");
        status.expect("it ended").code()
    }
}

/// The first URL in a line.
fn url_in(line: &str) -> String {
    let found = line.split_whitespace().find(|word| word.starts_with("http://"));
    found
        .unwrap_or_else(|| panic!("no address in `{line}`"))
        .to_owned()
}
