//! Two thousand clients that download at the pace of a bad line, all at once: what the server holds for them, whether
//! each of them gets what it can take, and what everybody else notices of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::{millis, number};
use crate::failure::{Failure, Result};
use crate::http::{Connection, Target};
use crate::load::{Expected, Load, beside, open};
use crate::report::{Budget, Row};
use crate::run::Run;
use crate::stage::{LANE, Stage, id_of};

/// Long enough for nobody to be done while somebody watches.
const SIZE: u64 = 8 * 1024 * 1024;
const DOCUMENTS: usize = 16;
/// Each client reads so much a second: 128 kbit/s.
const PACE: usize = 16 * 1024;
const RECEIVE_BUFFER: usize = 16 * 1024;
/// New downloads per second while they begin.
const ARRIVALS: u32 = 400;
/// Before they count, so that what the kernel buffers is no part of what they get.
const SETTLE: Duration = Duration::from_secs(5);
/// Requests per second of everybody else.
const OTHERS: u32 = 200;
/// Tasks among which everybody else chooses.
const TASKS: usize = 200;

pub(super) async fn measure(run: &Run) -> Result<Vec<Row>> {
    let (clients, watched) = (run.scale.slow, run.scale.slow_for);
    // A fresh process, so that its memory is that of this load alone.
    let stage = run.stage().await?;
    let documents = stage.documents(DOCUMENTS, SIZE).await?;
    let mut fetches = Vec::new();
    for (task, document) in stage
        .task_ids(clients, &documents)
        .await?
        .iter()
        .zip(documents.iter().cycle())
    {
        fetches.push(stage.fetch(document, task));
    }
    let others = others(&stage, run).await?;
    others_for(&stage, &others, Duration::from_secs(1)).await?;
    let mut calm = others_for(&stage, &others, watched).await?;
    let before = stage.server.resident_kib()?;

    let settle = SETTLE.min(watched);
    let arriving = Duration::from_secs(1) * u32::try_from(clients).unwrap_or(u32::MAX) / ARRIVALS;
    let from = Instant::now() + arriving + settle;
    let until = from + watched;
    let crowd = beside(crowd(stage.target.clone(), fetches, from, until));
    sleep_until(from.into()).await;
    let mut busy = others_for(&stage, &others, watched).await?;
    let during = stage.server.resident_kib()?;
    let patience = watched + Duration::from_mins(1);
    let received = timeout(patience, crowd)
        .await
        .map_err(|_| Failure::new("the slow downloads do not end"))???;
    let peak = stage.server.peak_kib()?;
    stage.server.stop().await?;

    let asked = watched.as_secs_f64() * number(PACE as u64);
    let least = received.iter().min().copied().unwrap_or_default();
    let starved = received.iter().filter(|got| number(**got) < asked / 2.0).count();
    let (calm, busy) = (millis(calm.whole.p99()), millis(busy.whole.p99()));
    Ok(vec![
        Row::new(
            "stream-memory",
            format!("memory per stream, {clients} slow downloads"),
            number(during.saturating_sub(before)) / number(clients as u64),
            "KiB",
            Budget::AtMost(256.0),
        ),
        Row::new(
            "slow-memory",
            format!("{clients} slow downloads, peak memory"),
            number(peak) / 1024.0,
            "MiB",
            Budget::AtMost(400.0),
        )
        .detail(format!("{} before them", before / 1024)),
        Row::new(
            "slow-starved",
            format!("{clients} slow downloads, starved ones"),
            number(starved as u64),
            "",
            Budget::AtMost(0.0),
        )
        .detail(format!(
            "the slowest got {:.0} % of its pace",
            number(least) / asked * 100.0
        )),
        Row::new(
            "slow-others",
            format!("p99 of normal requests beside {clients} slow downloads, as a multiple"),
            busy / calm,
            "×",
            Budget::AtMost(2.0),
        )
        .detail(format!("{calm:.1} to {busy:.1} ms"))
        .with("calm_p99_ms", calm)
        .with("busy_p99_ms", busy),
    ])
}

/// All of the slow clients; answers the bytes that each got between `from` and `until`.
async fn crowd(target: Target, fetches: Vec<Bytes>, from: Instant, until: Instant) -> Result<Vec<u64>> {
    let received: Rc<RefCell<Vec<u64>>> = Rc::default();
    let mut all = JoinSet::new();
    let begun = Instant::now();
    for (number, fetch) in (0_u32..).zip(fetches) {
        sleep_until((begun + Duration::from_secs(1) * number / ARRIVALS).into()).await;
        let (target, received) = (target.clone(), Rc::clone(&received));
        all.spawn_local(async move {
            let got = slow_client(&target, &fetch, from, until).await?;
            received.borrow_mut().push(got);
            Ok::<(), Failure>(())
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.map_err(|error| Failure::new(error.to_string()))??;
    }
    Ok(received.take())
}

async fn slow_client(target: &Target, fetch: &[u8], from: Instant, until: Instant) -> Result<u64> {
    let mut connection = Connection::open_small(target, RECEIVE_BUFFER).await?;
    connection.begin(fetch, "slow download").await?;
    let mut got = 0;
    let mut next = Instant::now();
    while next < until {
        let mut left = PACE;
        while left > 0 {
            let Ok(read) = timeout(
                until.saturating_duration_since(Instant::now()),
                connection.read_body(left),
            )
            .await
            else {
                return Ok(got);
            };
            if read == 0 {
                return Err(Failure::new("a slow download broke off"));
            }
            left -= read;
            if Instant::now() >= from {
                got += read as u64;
            }
        }
        next += Duration::from_secs(1);
        let now = Instant::now();
        if next > now {
            sleep(next - now).await;
        } else {
            // It does not catch up by reading faster than its line.
            next = now;
        }
    }
    Ok(got)
}

/// What everybody else asks: mostly reads, some searches, some updates that change a note.
async fn others(stage: &Stage, run: &Run) -> Result<Vec<Bytes>> {
    let document = stage.documents(1, 4 * 1024).await?;
    let tasks = stage.tasks(TASKS.min(run.scale.slow), &document).await?;
    let mut requests = Vec::new();
    for (turn, stored) in tasks.iter().cycle().take(TASKS * 10).enumerate() {
        let path = format!("/fhir/Task/{}", id_of(stored)?);
        requests.push(match turn % 10 {
            3 | 7 => stage.as_lane(
                "GET",
                &format!("/fhir/Task?owner={LANE}&status=accepted&_count=20"),
                &Value::Null,
            ),
            9 => {
                let mut changed = stored.clone();
                changed["note"] = json!([{"text": format!("called the patient, attempt {turn}")}]);
                stage.as_lane("PUT", &path, &changed)
            }
            _ => stage.as_lane("GET", &path, &Value::Null),
        });
    }
    Ok(requests)
}

async fn others_for(stage: &Stage, requests: &[Bytes], lasting: Duration) -> Result<Load> {
    let requests = requests.to_vec();
    let count = usize::try_from(lasting.as_millis()).unwrap_or(0) * OTHERS as usize / 1000;
    let expected = Expected {
        what: "a normal request",
        status: 200,
    };
    open(&stage.target, OTHERS, count, expected, move |n| {
        requests[n % requests.len()].clone()
    })
    .await
}
