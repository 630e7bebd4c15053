//! A PostgreSQL database of this run's own, dropped in the end.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use url::Url;

use crate::failure::{Failure, Result};

/// A database.
pub struct Database {
    server: Url,
    name: String,
}

impl Database {
    /// Creates a database on the server at `url`.
    pub async fn create(url: &str, name: &str) -> Result<Self> {
        let server = Url::parse(url).map_err(|_| Failure::new("the URL of PostgreSQL is none"))?;
        let database = Self {
            server,
            name: name.to_owned(),
        };
        database
            .run_at(
                &database.server,
                "psql",
                &[],
                &format!("CREATE DATABASE \"{name}\";"),
            )
            .await?;
        Ok(database)
    }

    /// Its URL. It holds a password.
    pub fn url(&self) -> String {
        self.own().to_string()
    }

    /// Drops it.
    pub async fn drop(self) -> Result<()> {
        let statement = format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE);", self.name);
        self.run_at(&self.server, "psql", &[], &statement)
            .await
            .map(|_| ())
    }

    /// Runs statements; answers what they print.
    pub async fn sql(&self, statements: &str) -> Result<String> {
        self.run("psql", &[], statements).await
    }

    /// Version and durability of the server, for the record.
    pub async fn settings(&self) -> Result<String> {
        let told = self
            .sql(
                "SELECT 'PostgreSQL ' || split_part(current_setting('server_version'), ' ', 1) || ', fsync ' || \
                 current_setting('fsync') || ', synchronous_commit ' || current_setting('synchronous_commit');",
            )
            .await?;
        if told.contains("fsync off") || told.contains("synchronous_commit off") {
            return Err(Failure::new("PostgreSQL does not make commits durable"));
        }
        Ok(told)
    }

    /// Runs a program of PostgreSQL's on this database, with its input; answers what it prints.
    pub async fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        self.run_at(&self.own(), program, arguments, input).await
    }

    fn own(&self) -> Url {
        let mut url = self.server.clone();
        url.set_path(&self.name);
        url
    }

    /// What is secret in the URL goes by the environment.
    async fn run_at(&self, url: &Url, program: &str, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(program);
        if program == "psql" {
            command.args(["--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1"]);
        }
        let decoded = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8_lossy()
                .into_owned()
        };
        command
            .args(arguments)
            .env("PGHOST", url.host_str().unwrap_or("127.0.0.1"))
            .env("PGPORT", url.port().unwrap_or(5432).to_string())
            .env("PGUSER", decoded(url.username()))
            .env("PGPASSWORD", decoded(url.password().unwrap_or_default()))
            .env("PGDATABASE", url.path().trim_start_matches('/'))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|error| Failure::new(format!("`{program}` does not start: {error}")))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
            return Err(Failure::new(format!("{program}: {}", told.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}
