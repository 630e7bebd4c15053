//! Two thousand clients that download at the pace of a bad line, all at once: what the server holds for them, whether
//! each of them gets what it can take, and what everybody else notices of it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinError, JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use super::{millis, number};
use crate::azurite::GivesWay;
use crate::failure::{Failure, Result};
use crate::http::{Connection, Target};
use crate::load::{Expected, Load, open};
use crate::report::{Budget, Row};
use crate::run::Run;
use crate::stage::{LANE, Stage, id_of};

/// Long enough for nobody to be done while somebody watches.
const SIZE: u64 = 8 * 1024 * 1024;
const DOCUMENTS: usize = 16;
/// Each client reads so much a second: 128 kbit/s.
const PACE: usize = 16 * 1024;
const RECEIVE_BUFFER: usize = 16 * 1024;
/// Downloads that begin at the same time.
const ARRIVING: usize = 32;
/// How long they may take to begin, and to end.
const PATIENCE: Duration = Duration::from_mins(1);
/// Before they count, so that what the kernel buffers is no part of what they get.
const SETTLE: Duration = Duration::from_secs(3);
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
    let gives_way = GivesWay::begin();
    others_for(&stage, &others, Duration::from_secs(1)).await?;
    let mut calm = others_for(&stage, &others, watched).await?;
    let before = stage.server.resident_kib()?;
    let sockets_before = socket_mib()?;

    let crowd = Crowd::gather(&stage.target, fetches).await?;
    sleep(SETTLE.min(watched)).await;
    let from = Instant::now();
    crowd.watch(from, from + watched)?;
    let mut busy = others_for(&stage, &others, watched).await?;
    let during = stage.server.resident_kib()?;
    let sockets = socket_mib()? - sockets_before;
    let received = crowd.disperse().await?;
    let way = match gives_way {
        Some(_) => "the emulator gives way",
        None => "beside the emulator",
    };
    drop(gives_way);
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
        .detail(format!(
            "{} before them; sockets hold {sockets:.0} more",
            before / 1024
        ))
        .with("socket_mib", sockets),
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
        .detail(format!("{calm:.1} to {busy:.1} ms, {way}"))
        .with("calm_p99_ms", calm)
        .with("busy_p99_ms", busy),
    ])
}

/// When what the slow clients get counts, once that is known. They leave at its end.
type Window = OnceLock<(Instant, Instant)>;

/// All of the slow clients, in a thread of their own: two thousand of them would get in the way of those whose time
/// is measured.
struct Crowd {
    window: Arc<Window>,
    /// The bytes that each got within the window.
    received: oneshot::Receiver<Result<Vec<u64>>>,
}

impl Crowd {
    /// Begins every download.
    async fn gather(target: &Target, fetches: Vec<Bytes>) -> Result<Self> {
        let window = Arc::<Window>::default();
        let (tell_begun, begun) = oneshot::channel();
        let (tell_received, received) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (target, clients_window) = (target.clone(), Arc::clone(&window));
        thread::Builder::new()
            .name("slow clients".to_owned())
            .spawn(move || {
                let clients = async {
                    match SlowClients::begin(&target, fetches, &clients_window).await {
                        Ok(clients) => {
                            // Who does not wait for it any more does not need to be told.
                            let _ = tell_begun.send(Ok(()));
                            let _ = tell_received.send(clients.end().await);
                        }
                        Err(failure) => {
                            let _ = tell_begun.send(Err(failure));
                        }
                    }
                };
                LocalSet::new().block_on(&runtime, clients);
            })?;
        begun.await.map_err(|_| Self::lost())??;
        Ok(Self { window, received })
    }

    fn watch(&self, from: Instant, until: Instant) -> Result<()> {
        self.window
            .set((from, until))
            .map_err(|_| Failure::new("the slow clients are watched already"))
    }

    /// Waits until all have left; answers the bytes that each got within the window.
    async fn disperse(self) -> Result<Vec<u64>> {
        timeout(PATIENCE, self.received)
            .await
            .map_err(|_| Failure::new("the slow downloads do not end"))?
            .map_err(|_| Self::lost())?
    }

    fn lost() -> Failure {
        Failure::new("the thread of the slow clients is gone")
    }
}

/// The clients within their thread.
struct SlowClients(JoinSet<Result<u64>>);

impl SlowClients {
    /// A few begin at a time: the emulator of the blob store opens no more than some hundred streams a second, and it
    /// is not to be measured here.
    async fn begin(target: &Target, fetches: Vec<Bytes>, window: &Arc<Window>) -> Result<Self> {
        let mut clients = Self(JoinSet::new());
        let (arriving, arrived) = (Rc::new(Semaphore::new(ARRIVING)), Rc::new(Cell::new(0)));
        let all = fetches.len();
        for fetch in fetches {
            let (target, window) = (target.clone(), Arc::clone(window));
            let (arriving, arrived) = (Rc::clone(&arriving), Rc::clone(&arrived));
            clients.0.spawn_local(async move {
                let arrival = arriving
                    .acquire()
                    .await
                    .map_err(|error| Failure::new(error.to_string()))?;
                let mut connection = Connection::open_small(&target, RECEIVE_BUFFER).await?;
                connection.begin(&fetch, "slow download").await?;
                arrived.set(arrived.get() + 1);
                drop(arrival);
                slow_client(connection, &window).await
            });
        }
        let begun = Instant::now();
        while arrived.get() < all {
            clients.check()?;
            if begun.elapsed() > PATIENCE {
                return Err(Failure::new(format!(
                    "of {all} slow downloads only {} began",
                    arrived.get()
                )));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(clients)
    }

    /// Nobody leaves before the end unless something went wrong.
    fn check(&mut self) -> Result<()> {
        match self.0.try_join_next() {
            Some(ended) => Err(flat(ended)
                .err()
                .unwrap_or_else(|| Failure::new("a slow download was over too early"))),
            None => Ok(()),
        }
    }

    /// Answers what each got, once all have left.
    async fn end(mut self) -> Result<Vec<u64>> {
        let mut received = Vec::new();
        while let Some(ended) = self.0.join_next().await {
            received.push(flat(ended)?);
        }
        Ok(received)
    }
}

fn flat(ended: std::result::Result<Result<u64>, JoinError>) -> Result<u64> {
    ended.map_err(|error| Failure::new(error.to_string()))?
}

/// Reads at its pace until the end of the window; answers what it got within the window.
async fn slow_client(mut connection: Connection, window: &Window) -> Result<u64> {
    let mut got = 0;
    let mut next = Instant::now();
    loop {
        let mut left = PACE;
        while left > 0 {
            // What does not come is noticed by the end of the window at the latest.
            let read = timeout(Duration::from_secs(1), connection.read_body(left)).await;
            let now = Instant::now();
            let counts = window.get().is_some_and(|(from, _)| now >= *from);
            if window.get().is_some_and(|(_, until)| now >= *until) {
                return Ok(got);
            }
            match read {
                Ok(0) => return Err(Failure::new("a slow download broke off")),
                Ok(read) => {
                    left -= read;
                    got += if counts { read as u64 } else { 0 };
                }
                Err(_) => {}
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
}

/// Memory of all TCP sockets of this machine. What a server lets the kernel buffer is no part of its own memory.
fn socket_mib() -> Result<f64> {
    let told = std::fs::read_to_string("/proc/net/sockstat")?;
    let pages: u64 = told
        .lines()
        .find(|line| line.starts_with("TCP:"))
        .and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .ok_or_else(|| Failure::new("the system does not tell the memory of its sockets"))?;
    Ok(number(pages * 4096) / 1024.0 / 1024.0)
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
