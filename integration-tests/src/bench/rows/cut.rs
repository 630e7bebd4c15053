//! A Task is cancelled while its document is on the way: how long until nothing of it arrives any more, where the
//! cancel came to the same server process, and where it came to another one.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::{sleep, timeout};

use super::millis;
use crate::failure::{Failure, Result};
use crate::http::{Body, Connection, Target};
use crate::latencies::Latencies;
use crate::load::beside;
use crate::report::{Budget, Row};
use crate::run::Run;
use crate::server::Server;
use crate::stage::{Document, Stage, id_of};

/// Large enough not to be over before the cancel comes.
const SIZE: u64 = 24 * 1024 * 1024;
/// The client reads so much, and waits: about 8 MiB a second.
const PIECE: usize = 16 * 1024;
const PAUSE: Duration = Duration::from_millis(2);
/// What is on its way between the server's last write and a client that reads slowly.
const RECEIVE_BUFFER: usize = 32 * 1024;
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn measure(run: &Run) -> Result<Vec<Row>> {
    let stage = run.stage().await?;
    let issuer = format!("{}/dev-issuer", stage.server.base);
    let replica = Server::start(&run.program, &run.production()?, Some(&issuer)).await?;
    let other = Target::parse(&replica.base)?;
    let documents = stage.documents(1, SIZE).await?;
    let document = documents.first().ok_or_else(|| Failure::new("no document"))?;
    let mut rows = Vec::new();
    for (id, what, target) in [
        (
            "cut-same",
            "revocation → last byte, same replica, p99",
            &stage.target,
        ),
        ("cut-other", "revocation → last byte, other replica, p99", &other),
    ] {
        let mut last_bytes = Latencies::default();
        let mut connection = Connection::open(target).await?;
        for trial in 0..run.scale.cuts {
            let pause = Duration::from_millis(20 + (trial as u64 * 37) % 80);
            last_bytes.add(cut(&stage, document, target, &mut connection, pause).await?);
        }
        let (p50, p99) = (millis(last_bytes.p50()), millis(last_bytes.p99()));
        rows.push(
            Row::new(id, what, p99, "ms", Budget::AtMost(150.0))
                .stretch(50.0)
                .detail(format!("p50 {p50:.1}, {} trials", last_bytes.count()))
                .with("p50_ms", p50)
                .with("longest_ms", millis(last_bytes.longest())),
        );
    }
    replica.stop().await?;
    stage.server.stop().await?;
    Ok(rows)
}

/// From the moment when the cancel is sent to `canceller` until the last byte of the download arrived.
async fn cut(
    stage: &Stage,
    document: &Document,
    canceller: &Target,
    connection: &mut Connection,
    pause: Duration,
) -> Result<Duration> {
    let mut task = stage
        .tasks(1, std::slice::from_ref(document))
        .await?
        .pop()
        .ok_or_else(|| Failure::new("no Task"))?;
    let id = id_of(&task)?;
    let mut download = Connection::open_small(&stage.target, RECEIVE_BUFFER).await?;
    let length = download.begin(&stage.fetch(document, &id), "download").await?;
    let last = Rc::new(Cell::new(Instant::now()));
    let seen = Rc::clone(&last);
    let reading = beside(async move {
        let mut received = 0_u64;
        loop {
            let read = download.read_body(PIECE).await;
            if read == 0 {
                return received;
            }
            received += read as u64;
            seen.set(Instant::now());
            sleep(PAUSE).await;
        }
    });
    sleep(pause).await;
    task["status"] = json!("cancelled");
    let path = format!("/fhir/Task/{id}");
    let request = stage.as_ehr_at(canceller, "PUT", &path, &task);
    let sent = Instant::now();
    connection
        .exchange(&request, Body::Dropped)
        .await?
        .expect(200, "cancel")?;
    let received = timeout(PATIENCE, reading)
        .await
        .map_err(|_| Failure::new("the download goes on after its Task was cancelled"))??;
    if received >= length {
        return Err(Failure::new(
            "the download was over before its Task was cancelled",
        ));
    }
    Ok(last.get().saturating_duration_since(sent))
}
