//! What the audit costs: recording and sealing as a share of the rate at which Tasks are written, and verifying a large ledger by the
//! command line. The three rates are measured in turn: everything; nobody seals; and nothing is recorded either.

use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use handoff_integration_tests::ledger::pem;
use handoff_integration_tests::process::CONFIG;
use tokio::process::Command;

use super::on_own_database;
use crate::database::Database;
use crate::failure::{Failure, Result};
use crate::load::{Load, closed};
use crate::report::{Budget, Row};
use crate::run::Run;
use crate::stage::{CREATED, LANE, Stage, task};

const CLIENTS: usize = 16;
const DOCUMENTS: usize = 256;
const SIZE: u64 = 4 * 1024;
/// The longest that sealing a large ledger may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// The demo's key is one of equal bytes.
const DEMO_SEED: u8 = b'd';
const DEMO_LOG: &str = "demo.handoff.example/audit";

/// Somebody else has the lease on sealing.
const HOLD: &str = "INSERT INTO leases (name, process, until) VALUES ('seal', 'bench', 9000000000000000) \
    ON CONFLICT (name) DO UPDATE SET process = 'bench', until = 9000000000000000;";
const LET_GO: &str = "DELETE FROM leases WHERE name = 'seal' AND process = 'bench';";
/// The rows of the audit are dropped on their way in.
const DROP: &str = "CREATE FUNCTION bench_drop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
    CREATE TRIGGER bench_drop BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION bench_drop();";
const KEEP: &str = "DROP TRIGGER bench_drop ON audit_log; DROP FUNCTION bench_drop();";

pub(super) async fn measure(run: &mut Run) -> Result<Vec<Row>> {
    on_own_database(run, "ledger", async |stores, database| {
        let stage = Stage::set(&run.program, stores).await?;
        let (mut whole, mut unsealed, mut unrecorded) = (Load::default(), Load::default(), Load::default());
        let documents = stage.documents(DOCUMENTS, SIZE).await?;
        let creates: Vec<Bytes> = documents
            .iter()
            .map(|document| stage.as_ehr("POST", "/fhir/Task", &task("accepted", document, LANE)))
            .collect();
        let lasting = run.scale.load / run.scale.rounds;
        let load = async || {
            let creates = creates.clone();
            let next =
                move |client: usize, turn: usize| creates[(turn * CLIENTS + client) % creates.len()].clone();
            closed(&stage.target, CLIENTS, lasting, CREATED, next).await
        };
        load().await?;
        for _ in 0..run.scale.rounds {
            sealed(database).await?;
            whole.merge(&load().await?);
            database.sql(HOLD).await?;
            unsealed.merge(&load().await?);
            database.sql(DROP).await?;
            unrecorded.merge(&load().await?);
            database.sql(KEEP).await?;
            database.sql(LET_GO).await?;
        }
        let cost = |with: &Load, without: &Load| (1.0 - with.rate() / without.rate()) * 100.0;
        let share = |id, what, cost, most| Row::new(id, what, cost, "%", Budget::AtMost(most));
        let (sealing, recording) = (cost(&whole, &unsealed), cost(&unsealed, &unrecorded));
        let rates = format!(
            "{:.0}/s, unsealed {:.0}/s, unrecorded {:.0}/s",
            whole.rate(),
            unsealed.rate(),
            unrecorded.rate()
        );
        let rows = fill(database, run.scale.ledger).await?;
        let begun = Instant::now();
        sealed(database).await?;
        let sealed_in = begun.elapsed().as_secs_f64();
        stage.server.stop().await?;
        let (took, said) = verify(run, database).await?;
        Ok(vec![
            share(
                "audit-recording",
                "recording, of the rate of Task create, PostgreSQL, 16 clients",
                recording,
                25.0,
            )
            .detail(rates.clone()),
            share("audit-sealing", "sealing, of the same", sealing, 10.0).detail(rates),
            Row::new(
                "audit-verify",
                "`handoff audit verify`, from the database",
                took.as_secs_f64() * 1e6 / super::number(rows),
                "s/M rows",
                Budget::AtMost(60.0),
            )
            .detail(format!(
                "{rows} rows in {:.1} s, sealed in {sealed_in:.1} s; {said}",
                took.as_secs_f64()
            )),
        ])
    })
    .await
}

/// Waits until every row is sealed.
async fn sealed(database: &Database) -> Result<()> {
    let begun = Instant::now();
    let behind = "SELECT (SELECT coalesce(max(sequence), 0) FROM audit_log WHERE tenant = 'default') \
                  - (SELECT coalesce(max(sequence), 0) FROM ledger_leaves WHERE tenant = 'default');";
    while database.sql(behind).await?.trim() != "0" {
        if begun.elapsed() > PATIENCE {
            return Err(Failure::new("the audit is not sealed"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Adds rows like those that are there until there are so many; answers how many there are.
async fn fill(database: &Database, rows: u64) -> Result<u64> {
    let told = database
        .sql(&format!(
            "INSERT INTO audit_log (tenant, recorded, event, outcome, correlation, actor, patient, task, document, \"binary\", \
             grant_id, redemption, entry) SELECT a.tenant, a.recorded, a.event, a.outcome, a.correlation, a.actor, a.patient, a.task, \
             a.document, a.\"binary\", a.grant_id, a.redemption, a.entry FROM (SELECT * FROM audit_log WHERE tenant = 'default' \
             ORDER BY sequence LIMIT 1000) a, generate_series(1, 1 + ({rows} - (SELECT count(*) FROM audit_log)) / 1000); \
             ANALYZE audit_log; SELECT count(*) FROM audit_log WHERE tenant = 'default';"
        ))
        .await?;
    let count = told
        .split_whitespace()
        .last()
        .and_then(|count| count.parse().ok());
    count.ok_or_else(|| Failure::new("the audit can't be counted"))
}

/// How long the command line takes, and what it says.
async fn verify(run: &Run, database: &Database) -> Result<(Duration, String)> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), CONFIG)?;
    let begun = Instant::now();
    let output = Command::new(&run.program)
        .args(["audit", "verify", "--config"])
        .arg(file.path())
        .env("HANDOFF__DATABASE__URL", database.url())
        .env("HANDOFF__AUDIT__KEY", pem(DEMO_SEED))
        .env("HANDOFF__AUDIT__ORIGIN", DEMO_LOG)
        .stdin(Stdio::null())
        .output()
        .await?;
    let took = begun.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    let first = said.lines().next().unwrap_or_default().to_owned();
    if output.status.success() {
        let short = first.split(';').next().unwrap_or_default();
        return Ok((took, short.to_owned()));
    }
    Err(Failure::new(format!(
        "the ledger is not as it was sealed: {first}"
    )))
}
