//! One large document through the server and, by the same client, directly from the blob store, in turns.

use std::time::Instant;

use bytes::Bytes;

use super::{median, number};
use crate::failure::{Failure, Result};
use crate::http::{Body, Connection, Target};
use crate::report::{Budget, Row};
use crate::run::Run;

const MIB: f64 = 1024.0 * 1024.0;

pub(super) async fn measure(run: &Run) -> Result<Vec<Row>> {
    let (size, pairs) = (run.scale.download, run.scale.downloads);
    let stage = run.stage().await?;
    let services = run.services()?;
    let documents = stage.documents(1, size).await?;
    let document = documents.first().ok_or_else(|| Failure::new("no document"))?;
    let key = services
        .database
        .sql(&format!(
            "SELECT blob_key FROM binaries WHERE id = '{}';",
            document.binary
        ))
        .await?;
    let direct = services.container.fetch(&key);
    // One more than is measured, to warm both ways.
    let tasks = stage.task_ids(pairs + 1, &documents).await?;
    let mut ratios = Vec::new();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut used = std::time::Duration::ZERO;
    for (turn, task) in tasks.iter().enumerate() {
        let theirs_first = turn % 2 == 0;
        let mut direct_rate = 0.0;
        if theirs_first {
            direct_rate = rate(&services.container.target, &direct, size).await?;
        }
        let before = stage.server.processor_time()?;
        let our_rate = rate(&stage.target, &stage.fetch(document, task), size).await?;
        let spent = stage.server.processor_time()?.saturating_sub(before);
        if !theirs_first {
            direct_rate = rate(&services.container.target, &direct, size).await?;
        }
        if turn > 0 {
            used += spent;
            ratios.push(our_rate / direct_rate);
            ours.push(our_rate);
            theirs.push(direct_rate);
        }
    }
    let gib = number(size) * number(pairs as u64) / (MIB * 1024.0);
    stage.server.stop().await?;
    let ratio = median(ratios) * 100.0;
    let (ours, theirs) = (median(ours), median(theirs));
    Ok(vec![
        Row::new(
            "download-ratio",
            "proxied download, of what the client gets from Azurite",
            ratio,
            "%",
            Budget::AtLeast(80.0),
        )
        .stretch(90.0)
        .detail(format!("{ours:.0} of {theirs:.0} MiB/s"))
        .with("mib_per_second", ours)
        .with("direct_mib_per_second", theirs)
        .with("bytes", size),
        Row::new(
            "download-cpu",
            "proxied download, processor time of our process per GiB",
            used.as_secs_f64() / gib,
            "s",
            Budget::AtMost(1.0),
        ),
    ])
}

/// MiB per second of one whole answer.
async fn rate(target: &Target, request: &Bytes, size: u64) -> Result<f64> {
    let mut connection = Connection::open(target).await?;
    let since = Instant::now();
    let answer = connection
        .exchange(request, Body::Dropped)
        .await?
        .expect(200, "download")?;
    if answer.length != size {
        return Err(Failure::new(format!(
            "{} bytes came instead of {size}",
            answer.length
        )));
    }
    Ok(number(size) / MIB / answer.end.saturating_duration_since(since).as_secs_f64())
}
