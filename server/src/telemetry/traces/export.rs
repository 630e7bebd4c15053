//! Spans on their way to a collector: some at a time, tried a few times, and given up then. A trace is worth less than what it would
//! cost to keep it for a collector that is away for long.

use std::sync::Arc;
use std::time::Duration;

use handoff_domain::ports::{Outbound, OutboundMethod, OutboundRequest, SendError};
use opentelemetry_sdk::trace::SpanData;
use secrecy::ExposeSecret as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::{measured, messages};
use crate::config::Traces;
use crate::otlp::{ANSWER_LIMIT, CONTENT_TYPE};

/// How many are sent at once.
const TOGETHER: usize = 512;
/// How long the first of them waits for others.
const GATHERED_FOR: Duration = Duration::from_secs(1);
/// How often a batch is tried, and the pauses between.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Sends what comes.
pub(super) struct Exporter {
    traces: Traces,
    outbound: Arc<dyn Outbound>,
    inbox: mpsc::Receiver<SpanData>,
    /// Until when what is left may be sent, once the process ends.
    stopping: watch::Receiver<Option<Instant>>,
    /// Whether it was told that the collector takes nothing.
    failing: bool,
}

/// What became of an attempt.
enum Sent {
    /// The collector has them, but for so many.
    Taken { refused: u64 },
    /// It may take them another time, after so long at least.
    NotNow(&'static str, Option<Duration>),
    /// It won't.
    Never(String),
}

impl Exporter {
    pub(super) fn new(
        traces: &Traces,
        outbound: Arc<dyn Outbound>,
        inbox: mpsc::Receiver<SpanData>,
        stopping: watch::Receiver<Option<Instant>>,
    ) -> Self {
        Self {
            traces: traces.clone(),
            outbound,
            inbox,
            stopping,
            failing: false,
        }
    }

    /// Until the process ends, and nothing is left.
    pub(super) async fn run(mut self) {
        while let Some(spans) = self.gather().await {
            self.deliver(&spans).await;
        }
    }

    /// The next ones, as soon as there are enough of them or the first has waited long enough; `None` in the end.
    async fn gather(&mut self) -> Option<Vec<SpanData>> {
        let mut stopping = self.stopping.clone();
        let mut spans = Vec::with_capacity(TOGETHER);
        let first = tokio::select! {
            biased;
            first = self.inbox.recv() => first,
            () = stopped(&mut stopping) => self.inbox.try_recv().ok(),
        };
        spans.push(first?);
        let enough = Instant::now() + GATHERED_FOR;
        while spans.len() < TOGETHER {
            let next = tokio::select! {
                biased;
                next = self.inbox.recv() => next,
                () = sleep_until(enough) => None,
                () = stopped(&mut stopping) => self.inbox.try_recv().ok(),
            };
            match next {
                Some(span) => spans.push(span),
                None => break,
            }
        }
        Some(spans)
    }

    async fn deliver(&mut self, spans: &[SpanData]) {
        let body = messages::request(&self.traces.service, spans);
        let mut pause = PAUSE;
        let mut problem = "not-in-time".to_owned();
        for attempt in 1..=TRIES {
            let mut stopping = self.stopping.clone();
            // No longer than the process still lives.
            let ends = async { sleep_until(stopped_until(&mut stopping).await).await };
            let sent = tokio::select! {
                sent = self.send(&body) => Some(sent),
                () = ends => None,
            };
            let wanted = match sent {
                None => break,
                Some(Sent::Taken { refused }) => {
                    self.note_taken(spans.len(), refused);
                    return;
                }
                Some(Sent::Never(why)) => {
                    problem = why;
                    break;
                }
                Some(Sent::NotNow(why, wanted)) => {
                    why.clone_into(&mut problem);
                    wanted
                }
            };
            self.note_failing(&problem);
            let ends = self.stopping.borrow().is_some();
            if attempt == TRIES || ends {
                break;
            }
            let wait = wanted.unwrap_or(pause).clamp(PAUSE, LONGEST_PAUSE);
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
            let mut stopping = self.stopping.clone();
            tokio::select! {
                () = sleep_until(Instant::now() + wait) => {}
                // One last time.
                () = stopped(&mut stopping) => {}
            }
        }
        self.note_failing(&problem);
        measured::dropped("not-taken", spans.len() as u64);
    }

    async fn send(&self, body: &[u8]) -> Sent {
        let mut headers = vec![("Content-Type".to_owned(), CONTENT_TYPE.to_owned())];
        if let Some(value) = &self.traces.authorization {
            headers.push(("Authorization".to_owned(), value.expose_secret().to_owned()));
        }
        let request = OutboundRequest {
            method: OutboundMethod::Post,
            url: self.traces.endpoint.expose_secret().to_owned(),
            headers,
            body: body.to_vec(),
            timeout: self.traces.timeout,
            answer_limit: ANSWER_LIMIT,
        };
        match self.outbound.send(request).await {
            Ok(answer) if (200..300).contains(&answer.status) => Sent::Taken {
                refused: messages::refused(&answer.body),
            },
            // Those that OTLP 1.5 says to try again.
            Ok(answer) if matches!(answer.status, 429 | 502..=504) => {
                Sent::NotNow("busy", answer.retry_after)
            }
            Ok(answer) => Sent::Never(format!("status-{}", answer.status)),
            Err(SendError::Redirected { status }) => Sent::Never(format!("status-{status}")),
            Err(error) => Sent::NotNow(error.as_str(), None),
        }
    }

    fn note_taken(&mut self, spans: usize, refused: u64) {
        let taken = (spans as u64).saturating_sub(refused);
        measured::exported(taken);
        if refused > 0 {
            measured::dropped("refused", refused);
        }
        if self.failing {
            self.failing = false;
            tracing::info!("traces are taken by their collector again");
        }
    }

    fn note_failing(&mut self, problem: &str) {
        if !self.failing {
            self.failing = true;
            tracing::warn!(
                problem,
                "traces are not taken by their collector; those that it does not take soon are dropped"
            );
        }
    }
}

/// Waits until the process ends.
async fn stopped(stopping: &mut watch::Receiver<Option<Instant>>) {
    stopped_until(stopping).await;
}

/// Waits until the process ends; answers until when there is time.
async fn stopped_until(stopping: &mut watch::Receiver<Option<Instant>>) -> Instant {
    // Where nobody can say so any more, it does.
    let known = stopping.wait_for(Option::is_some).await;
    known.ok().and_then(|end| *end).unwrap_or_else(Instant::now)
}
