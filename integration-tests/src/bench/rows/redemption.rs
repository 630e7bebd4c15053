//! From a redemption's request to the first byte of content, a hundred per second, beside the blob store's own time.

use super::millis;
use crate::failure::Result;
use crate::load::{Expected, open};
use crate::report::{Budget, Row};
use crate::run::Run;

const RATE: u32 = 100;
/// A letter with a page or two of scans.
const SIZE: u64 = 256 * 1024;
const DOCUMENTS: usize = 64;

pub(super) async fn measure(run: &Run) -> Result<Vec<Row>> {
    let count = run.scale.redemptions;
    let stage = run.stage().await?;
    let services = run.services()?;
    let documents = stage.documents(DOCUMENTS.min(count), SIZE).await?;
    let keys = services
        .database
        .sql(&format!(
            "SELECT blob_key FROM binaries WHERE size = {SIZE} ORDER BY created DESC LIMIT {};",
            documents.len()
        ))
        .await?;
    let direct: Vec<_> = keys.lines().map(|key| services.container.fetch(key)).collect();
    // Some more than are measured, to warm connections and caches.
    let warm = count / 10;
    let tasks = stage.task_ids(count + warm, &documents).await?;
    let mut fetches: Vec<_> = tasks
        .iter()
        .zip(documents.iter().cycle())
        .map(|(task, document)| stage.fetch(document, task))
        .collect();
    let measured = fetches.split_off(warm);
    let expected = Expected {
        what: "redemption",
        status: 200,
    };
    open(&stage.target, RATE, warm, expected, move |n| fetches[n].clone()).await?;
    let blob = Expected {
        what: "fetch from the blob store",
        status: 200,
    };
    let mut theirs = open(&services.container.target, RATE, count, blob, move |n| {
        direct[n % direct.len()].clone()
    })
    .await?;
    let mut ours = open(&stage.target, RATE, count, expected, move |n| measured[n].clone()).await?;
    stage.server.stop().await?;
    let row = |id, what, ours: std::time::Duration, theirs: std::time::Duration, most, stretch| {
        Row::new(
            id,
            what,
            millis(ours) - millis(theirs),
            "ms",
            Budget::AtMost(most),
        )
        .stretch(stretch)
        .detail(format!("{:.1} less {:.1}", millis(ours), millis(theirs)))
        .with("whole_ms", millis(ours))
        .with("blob_ms", millis(theirs))
    };
    Ok(vec![
        row(
            "redemption-p50",
            "redemption to first byte at 100/s over the blob store's own, p50",
            ours.first_byte.p50(),
            theirs.first_byte.p50(),
            8.0,
            4.0,
        ),
        row(
            "redemption-p99",
            "redemption to first byte at 100/s over the blob store's own, p99",
            ours.first_byte.p99(),
            theirs.first_byte.p99(),
            40.0,
            20.0,
        ),
    ])
}
