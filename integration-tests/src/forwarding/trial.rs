//! The trial: writers at a server without sinks and at one whose sinks are down, in turn, so that what the machine does meanwhile
//! weighs on both alike; then the sinks come up, and everything must arrive.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::arrivals::{Row, batches, judge, sink};
use super::load::Writers;
use crate::chaos::servers::Fleet;
use crate::chaos::stand::{Cell, Stand};
use crate::subscriber::{Reply, Subscriber};
use crate::{Backend, free_address};

/// By how much sinks that are down may slow down what is written, in percent.
pub const BUDGET: f64 = 5.0;
/// How long arrivals may stand still: whoever tries a sink again waits a minute at most, and one that never answered is given up
/// after half a minute.
const STANDSTILL: Duration = Duration::from_mins(3);
const LOOK: Duration = Duration::from_millis(250);
/// How long one of the sinks does not answer: for ever.
const NEVER: Duration = Duration::from_hours(24);

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Changes a second without sinks and with them, of each round.
    pub rounds: Vec<(f64, f64)>,
    /// How many rows there are.
    pub rows: usize,
    /// How long it took until all had arrived.
    pub drained: Duration,
    /// How many batches came to each sink, and how many of them were repeats.
    pub batches: Vec<(&'static str, usize, usize)>,
    /// What does not hold.
    pub found: Vec<String>,
}

impl Outcome {
    /// By how much rounds with sinks were slower than those without, in percent: the median.
    pub fn slow_down(&self) -> f64 {
        self.slow_downs()
            .get(self.rounds.len() / 2)
            .copied()
            .unwrap_or(0.0)
    }

    fn slow_downs(&self) -> Vec<f64> {
        let mut all: Vec<f64> = self
            .rounds
            .iter()
            .map(|(without, with)| (1.0 - with / without) * 100.0)
            .collect();
        all.sort_by(f64::total_cmp);
        all
    }

    /// Whether everything holds.
    pub fn holds(&self) -> bool {
        self.found.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = u32::try_from(self.rounds.len()).unwrap_or(1).max(1);
        let mean = |of: fn(&(f64, f64)) -> f64| self.rounds.iter().map(of).sum::<f64>() / f64::from(rounds);
        let slow_downs = self.slow_downs();
        let at = |part: usize| {
            slow_downs
                .get(slow_downs.len() * part / 4)
                .copied()
                .unwrap_or(0.0)
        };
        writeln!(
            f,
            "  without sinks {:.0} changes/s, with both down {:.0}/s; slow-down {:.1} % (quartiles {:.1} and {:.1}) of {BUDGET} % allowed",
            mean(|round| round.0),
            mean(|round| round.1),
            self.slow_down(),
            at(1),
            at(3),
        )?;
        writeln!(
            f,
            "  {} rows, all arrived {:.1} s after the sinks came up",
            self.rows,
            self.drained.as_secs_f64()
        )?;
        for (name, batches, again) in &self.batches {
            writeln!(
                f,
                "  {name}: {batches} batches taken, {again} attempts before or beside them"
            )?;
        }
        for found in &self.found {
            writeln!(f, "  {found}")?;
        }
        Ok(())
    }
}

/// Runs it on fresh stores, with the sinks down for so many seconds of load, in rounds of such a length.
pub async fn run(backend: Backend, seconds: u64, round: Duration) -> Outcome {
    let (plain, forwarding) = (Stand::prepare(backend), Stand::prepare(backend));
    // One takes connections and answers nothing, at the other's address nobody listens.
    let webhook = Subscriber::start().await;
    webhook.behave(|_| Reply::status(200).after(NEVER));
    let otlp_address = free_address();
    let otlp_base = format!("http://{otlp_address}");
    let without = Fleet::start(&plain, 1).await;
    let more = [
        "--forward",
        &format!("webhook={}/audit", webhook.url),
        "--forward",
        &format!("otlp={otlp_base}/v1/logs"),
    ];
    let with = Fleet::start_with(&forwarding, 1, &more).await;
    let writers = [
        Writers::at(&without.issuer, &without.servers[0].base).await,
        Writers::at(&with.issuer, &with.servers[0].base).await,
    ];
    let mut outcome = Outcome::default();
    let count = seconds.div_ceil(round.as_secs().max(1)).max(2);
    // The first round warms both up, and counts for nothing.
    for number in 0..=count {
        let mut rates = [0.0; 2];
        // Who comes first changes from round to round.
        let first = usize::from(number % 2 == 1);
        for place in [first, 1 - first] {
            rates[place] = writers[place].write(round).await;
        }
        if number > 0 {
            outcome.rounds.push((rates[0], rates[1]));
        }
    }
    if outcome.slow_down() > BUDGET {
        let text = format!("the slow-down is {:.1} %", outcome.slow_down());
        outcome.found.push(text);
    }
    drain(&mut outcome, &forwarding, webhook, otlp_address, &otlp_base).await;
    for server in without.servers.iter().chain(&with.servers) {
        server.kill().await;
    }
    outcome
}

/// Lets the sinks come up, and waits until everything is there.
async fn drain(
    outcome: &mut Outcome,
    stand: &Stand,
    webhook: Subscriber,
    otlp_address: std::net::SocketAddr,
    otlp_base: &str,
) {
    let before = webhook.received().len();
    webhook.behave(|_| Reply::status(200));
    let otlp = Subscriber::start_at(otlp_address).await;
    let truth = rows(stand);
    outcome.rows = truth.len();
    let began = Instant::now();
    let mut last = (Instant::now(), 0);
    let last_row = truth.last().map_or(0, |(_, number)| *number);
    loop {
        let waiting = cursors(stand).iter().any(|done| *done < last_row);
        if !waiting {
            break;
        }
        let came = webhook.received().len() + otlp.received().len();
        if came != last.1 {
            last = (Instant::now(), came);
        }
        if last.0.elapsed() > STANDSTILL {
            outcome.found.push("arrivals stand still".to_owned());
            break;
        }
        sleep(LOOK).await;
    }
    outcome.drained = began.elapsed();
    for (name, received, base) in [
        ("webhook", webhook.received(), webhook.url.as_str()),
        ("otlp", otlp.received(), otlp_base),
    ] {
        let mut all = batches(&sink(name, name, base).kind, &received);
        // What was never answered was not taken, whatever was meant to be said.
        for batch in all.iter_mut().take(if name == "webhook" { before } else { 0 }) {
            batch.taken = false;
        }
        let found = judge(&all, &truth);
        outcome
            .found
            .extend(found.into_iter().map(|found| format!("{name}: {found}")));
        let taken = all.iter().filter(|batch| batch.taken).count();
        outcome.batches.push((name, taken, all.len() - taken));
    }
}

/// The rows of the audit that there are.
fn rows(stand: &Stand) -> Vec<Row> {
    let rows = stand.reader().rows(
        &[Cell::Plain("tenant"), Cell::Plain("sequence")],
        "FROM audit_log ORDER BY sequence",
    );
    let row = |row: &serde_json::Value| Some((row[0].as_str()?.to_owned(), row[1].as_i64()?));
    rows.iter().filter_map(row).collect()
}

/// How far the sinks are, as the server has it.
fn cursors(stand: &Stand) -> Vec<i64> {
    let rows = stand.reader().rows(&[Cell::Plain("done")], "FROM forwarding");
    rows.iter().filter_map(|row| row[0].as_i64()).collect()
}
