//! From the commit of a Task's move to the subscribers who hear of it, a hundred a second and five of them each; and what
//! the others notice when one of the five does not answer.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use handoff::adapters::SystemClock;
use handoff_domain::ports::Clock;
use handoff_domain::time::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;

use super::{median, millis, on_own_database};
use crate::database::Database;
use crate::failure::{Failure, Result};
use crate::latencies::Latencies;
use crate::load::{Expected, each, open};
use crate::report::{Budget, Row};
use crate::run::Run;
use crate::server::Stores;
use crate::stage::{CREATED, LANE, Stage, id_of, task, with_token};

const RATE: u32 = 100;
/// How many subscriptions match each event; each has a subscriber of its own.
const MATCHING: usize = 5;
/// The one of them that hangs.
const HANGS: usize = MATCHING - 1;
/// How long an answer is waited for, in seconds: short enough that the one that hangs is given up and tried again in a turn.
const TIMEOUT: u64 = 3;
const HANDS: usize = 16;
/// How many events are measured at once, with every subscriber well, and as many with the one that hangs.
const TURN: usize = 600;
const SIZE: u64 = 64 * 1024;
const PATIENCE: Duration = Duration::from_mins(1);
const SYSTEM: &str = "urn:handoff:bench";
const BACKPORT: &str = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition";
const TOPIC: &str = "https://handoff.example/fhir/SubscriptionTopic/task-status-changed";

pub(super) async fn measure(run: &Run) -> Result<Vec<Row>> {
    // Subscriptions that stayed would weigh on everything that is measured later.
    on_own_database(run, "subscribers", async |stores, database| {
        on(run, stores, database).await
    })
    .await
}

async fn on(run: &Run, stores: &Stores, database: &Database) -> Result<Vec<Row>> {
    let stage = Stage::set(&run.program, stores).await?;
    let sink = Sink::listen().await?;
    let groups = run.scale.subscriptions / MATCHING;
    subscribe(&stage, &sink, groups, database).await?;
    let mut moves = Moves::prepare(&stage, groups).await?;
    // That they came to be is told too.
    sink.heard_of(groups, MATCHING).await?;
    // Some more than are measured, to warm connections and caches.
    let turns = (run.scale.events / TURN).max(1);
    let (warming, count) = (run.scale.events / 5, run.scale.events / turns);
    moves.go(&stage, warming).await?;
    sink.heard_of(warming, MATCHING).await?;
    let (mut well, mut troubled) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        sink.forget();
        moves.go(&stage, count).await?;
        sink.heard_of(count, MATCHING).await?;
        well.push(sink.forget());
        // From here on one in five hangs: first each of them for once, as a subscriber begins to.
        sink.hangs(true);
        moves.go(&stage, groups).await?;
        sink.heard_of(groups, HANGS).await?;
        sink.forget();
        moves.go(&stage, count).await?;
        sink.heard_of(count, HANGS).await?;
        troubled.push(sink.forget());
        // What it owes is tried again, and comes.
        sink.hangs(false);
        sink.heard_of(groups + count, 1).await?;
    }
    stage.server.stop().await?;
    Ok(rows(&mut well, &mut troubled))
}

/// Of what is compared, the median of the turns' 99th percentiles: a machine that stands still once does so whoever hangs.
fn rows(well: &mut [Delays], troubled: &mut [Delays]) -> Vec<Row> {
    let mut all = Latencies::default();
    for round in &*well {
        all.merge(&round.all);
    }
    let detail = format!("{} deliveries, since the event's own instant", all.count());
    let p99s = |rounds: &mut [Delays]| {
        rounds
            .iter_mut()
            .map(|round| millis(round.others.p99()))
            .collect()
    };
    let (each_before, each_after): (Vec<f64>, Vec<f64>) = (p99s(well), p99s(troubled));
    let (before, after) = (median(each_before.clone()), median(each_after.clone()));
    let change = (after / before.max(f64::EPSILON) - 1.0) * 100.0;
    vec![
        Row::new(
            "subscribers-p50",
            "commit → subscriber at 100/s, 5 of 1,000 subscriptions, p50",
            millis(all.p50()),
            "ms",
            Budget::AtMost(20.0),
        )
        .detail(detail.clone())
        .with("longest_ms", millis(all.longest())),
        Row::new(
            "subscribers-p99",
            "commit → subscriber at 100/s, 5 of 1,000 subscriptions, p99",
            millis(all.p99()),
            "ms",
            Budget::AtMost(100.0),
        )
        .detail(detail),
        Row::new(
            "subscribers-hang",
            "the same while one of the 5 hangs, change of the others' p99",
            change,
            "%",
            Budget::AtMost(10.0),
        )
        .detail(format!(
            "from {before:.1} ms to {after:.1} ms, in turns: {}",
            in_turns(&each_before, &each_after)
        ))
        .with("before_ms", before)
        .with("after_ms", after),
    ]
}

fn in_turns(before: &[f64], after: &[f64]) -> String {
    let turns = before.iter().zip(after);
    let turns: Vec<String> = turns
        .map(|(well, troubled)| format!("{well:.1} {troubled:.1}"))
        .collect();
    turns.join(", ")
}

/// Subscribes `MATCHING` times to each group of Tasks, and waits until all are active.
async fn subscribe(stage: &Stage, sink: &Sink, groups: usize, database: &Database) -> Result<()> {
    let token = stage.sign_in("interface").await?;
    let mut requests = Vec::new();
    for group in 0..groups {
        for url in &sink.urls {
            let body = json!({
                "resourceType": "Subscription",
                "status": "requested",
                "reason": "to be measured",
                "criteria": TOPIC,
                "_criteria": {"extension": [{
                    "url": format!("{BACKPORT}/backport-filter-criteria"),
                    "valueString": format!("Task?identifier={SYSTEM}|{group}"),
                }]},
                "channel": {
                    "extension": [{"url": format!("{BACKPORT}/backport-timeout"), "valueUnsignedInt": TIMEOUT}],
                    "type": "rest-hook",
                    "endpoint": format!("{url}/{group}"),
                    "payload": "application/fhir+json",
                    "_payload": {"extension": [
                        {"url": format!("{BACKPORT}/backport-payload-content"), "valueCode": "full-resource"},
                    ]},
                },
            });
            requests.push(with_token(
                &stage.target,
                &token,
                "POST",
                "/fhir/Subscription",
                &body,
            ));
        }
    }
    let all = requests.len();
    each(&stage.target, HANDS, CREATED, requests).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let active = database
            .sql("SELECT count(*) FROM subscriptions WHERE status = 'active';")
            .await?;
        if active.trim() == all.to_string() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Failure::new(format!(
                "{} of {all} subscriptions became active",
                active.trim()
            )));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// The Tasks, one a group, and their moves.
struct Moves {
    tasks: Vec<(String, Value)>,
    made: usize,
}

impl Moves {
    async fn prepare(stage: &Stage, groups: usize) -> Result<Self> {
        let documents = stage.documents(1, SIZE).await?;
        let document = documents.first().ok_or_else(|| Failure::new("no document"))?;
        let requests = (0..groups).map(|group| {
            let mut body = task("accepted", document, LANE);
            body["identifier"] = json!([{"system": SYSTEM, "value": group.to_string()}]);
            stage.as_ehr("POST", "/fhir/Task", &body)
        });
        let made = each(&stage.target, HANDS, CREATED, requests.collect()).await?;
        let tasks = made.iter().map(|answer| {
            let body = answer.json()?;
            Ok((id_of(&body)?, body))
        });
        Ok(Self {
            tasks: tasks.collect::<Result<_>>()?,
            made: 0,
        })
    }

    /// Moves `count` times, one Task after the other.
    async fn go(&mut self, stage: &Stage, count: usize) -> Result<()> {
        let from = self.made;
        self.made += count;
        let requests: Vec<_> = (from..self.made)
            .map(|number| {
                let (id, body) = &self.tasks[number % self.tasks.len()];
                let mut body = body.clone();
                let rounds = number / self.tasks.len();
                body["status"] = json!(["in-progress", "on-hold"][rounds % 2]);
                stage.as_lane("PUT", &format!("/fhir/Task/{id}"), &body)
            })
            .collect();
        let expected = Expected {
            what: "a move",
            status: 200,
        };
        open(&stage.target, RATE, count, expected, move |n| requests[n].clone()).await?;
        Ok(())
    }
}

/// How long deliveries took: all of them, and those to subscribers that never hang.
#[derive(Default)]
struct Delays {
    all: Latencies,
    others: Latencies,
}

#[derive(Default)]
struct Heard {
    delays: Delays,
    events: usize,
}

/// The subscribers.
struct Sink {
    urls: Vec<String>,
    heard: Rc<RefCell<Heard>>,
    hangs: watch::Sender<bool>,
    listening: Vec<JoinHandle<()>>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        for one in &self.listening {
            one.abort();
        }
    }
}

impl Sink {
    async fn listen() -> Result<Self> {
        let mut sink = Self {
            urls: Vec::new(),
            heard: Rc::default(),
            hangs: watch::Sender::new(false),
            listening: Vec::new(),
        };
        for number in 0..MATCHING {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            sink.urls.push(format!("http://{}", listener.local_addr()?));
            let heard = Rc::clone(&sink.heard);
            let hangs = sink.hangs.subscribe();
            sink.listening.push(spawn_local(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    spawn_local(hear(stream, number, Rc::clone(&heard), hangs.clone()));
                }
            }));
        }
        Ok(sink)
    }

    /// What was measured so far; from here on it begins anew.
    fn forget(&self) -> Delays {
        std::mem::take(&mut self.heard.borrow_mut().delays)
    }

    /// Whether one of them hangs. What hung is closed without an answer once it does no longer.
    fn hangs(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    /// Waits until so many subscribers have heard of so many events each; counts from the start again.
    async fn heard_of(&self, events: usize, subscribers: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let all = events * subscribers;
        loop {
            let heard = self.heard.borrow().events;
            if heard >= all {
                self.heard.borrow_mut().events -= all;
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("{heard} of {all} deliveries came")));
            }
            sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn hear(
    mut stream: TcpStream,
    number: usize,
    heard: Rc<RefCell<Heard>>,
    mut hangs: watch::Receiver<bool>,
) {
    // Nobody is told of a connection that broke: what did not come is counted at the end.
    let _broken = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    while let Some(body) = read_body(&mut stream, &mut buffer).await {
        let now = SystemClock.now();
        if let Some(at) = instant_in(&body) {
            if number == HANGS && *hangs.borrow() {
                // Until the server has had enough.
                tokio::select! {
                    _gone = stream.read_u8() => {}
                    _well = hangs.wait_for(|hangs| !hangs) => {}
                }
                return;
            }
            let delay = Duration::from_micros(u64::try_from(now.since(at).0).unwrap_or(0));
            let mut heard = heard.borrow_mut();
            heard.events += 1;
            heard.delays.all.add(delay);
            if number != HANGS {
                heard.delays.others.add(delay);
            }
        }
        if stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await
            .is_err()
        {
            return;
        }
    }
}

/// When the event of a notification came to be; nothing in a handshake.
fn instant_in(body: &[u8]) -> Option<Timestamp> {
    let body = std::str::from_utf8(body).ok()?;
    let (_, rest) = body.split_once("\"valueInstant\":\"")?;
    let (text, _) = rest.split_once('"')?;
    Timestamp::parse_instant(text)
}

/// The body of the next request; nothing at the end of the connection.
async fn read_body(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let whole = match request.parse(buffer).ok()? {
            httparse::Status::Complete(head) => {
                let length = request
                    .headers
                    .iter()
                    .find(|header| header.name.eq_ignore_ascii_case("content-length"))
                    .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
                    .unwrap_or(0);
                Some((head, head + length)).filter(|(_, end)| buffer.len() >= *end)
            }
            httparse::Status::Partial => None,
        };
        if let Some((head, end)) = whole {
            let body = buffer[head..end].to_vec();
            buffer.drain(..end);
            return Some(body);
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
