//! A transaction of somebody else's that stays open: it holds its locks until it is dropped.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// An open transaction. Dropped, it is undone.
pub struct OpenTransaction {
    psql: Child,
}

impl OpenTransaction {
    /// Begins one in a PostgreSQL database and runs a statement in it.
    pub async fn begin(url: &str, statement: &str) -> Self {
        let mut psql = Command::new("psql")
            .args(["--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("psql is installed");
        let mut input = psql.stdin.take().expect("its input");
        let script = format!("BEGIN;\n{statement};\n\\echo it holds\n");
        input.write_all(script.as_bytes()).await.expect("it reads");
        // Kept open: at the end of its input it would end the transaction.
        psql.stdin = Some(input);
        let mut said = BufReader::new(psql.stdout.take().expect("its output")).lines();
        let holds = async {
            while let Some(line) = said.next_line().await.expect("text") {
                if line == "it holds" {
                    return;
                }
            }
            panic!("the statement failed: `{statement}`");
        };
        timeout(Duration::from_secs(10), holds)
            .await
            .expect("nobody else holds it");
        Self { psql }
    }

    /// Commits it.
    pub async fn commit(mut self) {
        if let Some(mut input) = self.psql.stdin.take() {
            input.write_all(b"COMMIT;\n").await.expect("it reads");
        }
        // The end of its input ends it.
        self.psql.wait().await.expect("it ends");
    }
}
