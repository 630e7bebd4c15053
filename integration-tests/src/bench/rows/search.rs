//! Searching by owner and status: how many a second, and whether more Tasks make it slower. Half of the searches are
//! a specialist's for her own Tasks, a quarter the placer's, who may see all of them because it created them, and a
//! quarter an operator's.
//!
//! What a search takes is of the size of the machine's other hiccups, and those come and go within minutes. So few and many
//! Tasks are in databases of their own, with a server each, and are searched in turn.

use bytes::Bytes;
use serde_json::Value;

use super::{median, millis, on_own_database};
use crate::bulk::{Population, owner};
use crate::failure::{Failure, Result};
use crate::http::once;
use crate::load::{Expected, closed, open};
use crate::report::{Budget, Row};
use crate::run::Run;
use crate::stage::{Stage, with_token};

const CLIENTS: usize = 16;
/// Bytes of the document that all Tasks are about.
const DOCUMENT: u64 = 4 * 1024;
/// Loads of which each has a 99th percentile of its own.
const SLICES: u32 = 5;
/// Searches per second while latencies are compared.
const RATE: u32 = 200;
const FOUND: Expected = Expected {
    what: "search",
    status: 200,
};

pub(super) async fn measure(run: &mut Run) -> Result<Vec<Row>> {
    let (few, many, most) = (run.scale.few, run.scale.many, run.scale.most);
    let stage = run.stage().await?;
    populate(run, &stage, many).await?;
    let owners = run.population.as_ref().map_or(1, |population| population.owners);
    let requests = requests(&stage, owners).await?;
    check_page(&stage, &requests).await?;
    let prepared = requests.clone();
    let mut load = closed(
        &stage.target,
        CLIENTS,
        run.scale.load,
        FOUND,
        move |client, turn| prepared[(turn * CLIENTS + client) * 7 % prepared.len()].clone(),
    )
    .await?;

    populate(run, &stage, most).await?;
    let [early, late] = growth(run, (&stage, &requests), few, owners).await?;
    stage.server.stop().await?;
    let (p50, whole_p99) = (millis(load.whole.p50()), millis(load.whole.p99()));
    Ok(vec![
        Row::new(
            "search",
            format!(
                "search by owner and status, {} Tasks, 16 clients",
                thousands(many)
            ),
            load.rate(),
            "/s",
            Budget::AtLeast(1_000.0),
        )
        .stretch(3_000.0)
        .detail(format!("p50 {p50:.1}, p99 {whole_p99:.1} ms"))
        .with("p50_ms", p50)
        .with("p99_ms", whole_p99),
        Row::new(
            "search-growth",
            format!(
                "the same at {} Tasks, p99 as a multiple of that at {}",
                thousands(most),
                thousands(few)
            ),
            late / early,
            "×",
            Budget::AtMost(1.5),
        )
        .detail(format!("{early:.1} to {late:.1} ms"))
        .with("few_p99_ms", early)
        .with("most_p99_ms", late),
    ])
}

/// Sees to it that there are at least so many Tasks.
pub(super) async fn populate(run: &mut Run, stage: &Stage, size: usize) -> Result<()> {
    if run.population.is_none() {
        // A hundred Tasks each at the least, so that a page of twenty is full from the start.
        let owners = (run.scale.few / 100).max(1);
        run.population = Some(begin(stage, owners).await?);
    }
    let mut population = run
        .population
        .take()
        .ok_or_else(|| Failure::new("no population"))?;
    let grown = population.grow(&run.services()?.database, size).await;
    run.population = Some(population);
    grown
}

/// A population without Tasks yet, about one document.
async fn begin(stage: &Stage, owners: usize) -> Result<Population> {
    let documents = stage.documents(1, DOCUMENT).await?;
    let document = documents.first().ok_or_else(|| Failure::new("no document"))?;
    Population::begin(stage, document, owners).await
}

/// The 99th percentiles in milliseconds among `few` Tasks, and among those of `most`.
async fn growth(run: &Run, most: (&Stage, &[Bytes]), few: usize, owners: usize) -> Result<[f64; 2]> {
    on_own_database(run, "few", async |stores, database| {
        let stage = Stage::set(&run.program, stores).await?;
        begin(&stage, owners).await?.grow(database, few).await?;
        let requests = requests(&stage, owners).await?;
        check_page(&stage, &requests).await?;
        let measured = p99s(run, [(&stage, &requests), most]).await?;
        stage.server.stop().await?;
        Ok(measured)
    })
    .await
}

/// Of each the median of the 99th percentiles of several short loads: a machine that stands still once does so whatever
/// is searched.
async fn p99s(run: &Run, populations: [(&Stage, &[Bytes]); 2]) -> Result<[f64; 2]> {
    let slice = run.scale.load / SLICES;
    let count = usize::try_from(slice.as_millis() * u128::from(RATE) / 1000).unwrap_or(usize::MAX);
    let mut slices = [Vec::new(), Vec::new()];
    for turn in 0..=SLICES {
        for (slices, (stage, requests)) in slices.iter_mut().zip(populations) {
            let requests = requests.to_vec();
            let next = move |n: usize| requests[n * 7 % requests.len()].clone();
            let mut load = open(&stage.target, RATE, count, FOUND, next).await?;
            // The first warms connections and caches.
            if turn > 0 {
                slices.push(millis(load.whole.p99()));
            }
        }
    }
    Ok(slices.map(median))
}

/// Searches of the three callers.
async fn requests(stage: &Stage, owners: usize) -> Result<Vec<Bytes>> {
    let mut requests = Vec::new();
    let callers = [
        stage.sign_in("lane").await?,
        stage.sign_in("ehr").await?,
        stage.sign_in("lane").await?,
        stage.sign_in("operator").await?,
    ];
    for number in 0..owners {
        for status in ["in-progress", "accepted", "ready"] {
            for (caller, token) in callers.iter().enumerate() {
                let owner = owner(if caller % 2 == 0 { 0 } else { number });
                let path = format!("/fhir/Task?owner={owner}&status={status}&_count=20");
                requests.push(with_token(&stage.target, token, "GET", &path, &Value::Null));
            }
        }
    }
    Ok(requests)
}

/// A search that finds nothing would be a fast one.
async fn check_page(stage: &Stage, requests: &[Bytes]) -> Result<()> {
    for request in requests.iter().take(4) {
        let page = once(&stage.target, request)
            .await?
            .expect(200, "search")?
            .json()?;
        let found = page["entry"].as_array().map_or(0, Vec::len);
        if found < 20 {
            return Err(Failure::new(format!(
                "a search found {found} Tasks, and not a page of 20"
            )));
        }
    }
    Ok(())
}

fn thousands(count: usize) -> String {
    match count {
        n if n >= 1_000_000 => format!("{} M", n / 1_000_000),
        n if n >= 1_000 => format!("{} k", n / 1_000),
        n => n.to_string(),
    }
}
