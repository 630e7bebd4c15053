//! One attempt at one batch. A sink took it when it says so; of what else it says only how long it wants to be left alone, and how
//! many records it refuses, are of interest.

use std::sync::Arc;

use handoff_domain::ports::{Clock, Outbound, OutboundMethod, OutboundRequest, SendError};
use handoff_domain::time::Span;
use secrecy::ExposeSecret as _;

use super::{otlp, webhook};
use crate::config::{Sink, SinkKind};

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    /// The sink has it, but for so many records that it will not have.
    Taken { refused: u64 },
    /// It has not, as far as we know.
    Failed(Failure),
}

/// Why a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// What was wrong, in a word for the log: `status-503`, `timed-out`.
    pub(super) problem: String,
    /// The same for a metric, of which there are only so many.
    pub(super) result: &'static str,
    /// How long the sink asked us to wait.
    pub(super) retry_after: Option<Span>,
}

/// Sends to one sink.
pub(super) struct Sender {
    /// The way there.
    pub(super) outbound: Arc<dyn Outbound>,
    /// What signatures are dated by.
    pub(super) clock: Arc<dyn Clock>,
    /// The sink.
    pub(super) sink: Sink,
}

impl Sender {
    /// Sends a batch under the name that it has at each attempt.
    pub(super) async fn send(&self, id: &str, body: &[u8]) -> Sent {
        match self.outbound.send(self.request(id, body)).await {
            Ok(answer) if (200..300).contains(&answer.status) => Sent::Taken {
                refused: match self.sink.kind {
                    SinkKind::Otlp => otlp::refused(&answer.body),
                    SinkKind::Webhook(_) => 0,
                },
            },
            Ok(answer) => Sent::Failed(Failure {
                retry_after: answer
                    .retry_after
                    .map(|wait| Span(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX))),
                ..of_status(answer.status)
            }),
            Err(SendError::Redirected { status }) => Sent::Failed(of_status(status)),
            Err(error) => Sent::Failed(Failure {
                problem: error.as_str().to_owned(),
                result: error.as_str(),
                retry_after: None,
            }),
        }
    }

    fn request(&self, id: &str, body: &[u8]) -> OutboundRequest {
        let (content_type, signed, answer_limit) = match &self.sink.kind {
            SinkKind::Webhook(secrets) => {
                let now = self.clock.now().0.div_euclid(1_000_000);
                (webhook::CONTENT_TYPE, webhook::signed(secrets, id, now, body), 0)
            }
            SinkKind::Otlp => (otlp::CONTENT_TYPE, Vec::new(), otlp::ANSWER_LIMIT),
        };
        let mut headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        if let Some(value) = &self.sink.authorization {
            headers.push(("Authorization".to_owned(), value.expose_secret().to_owned()));
        }
        headers.extend(signed);
        OutboundRequest {
            method: OutboundMethod::Post,
            url: self.sink.url.expose_secret().to_owned(),
            headers,
            body: body.to_vec(),
            timeout: self.sink.timeout,
            answer_limit,
        }
    }
}

fn of_status(status: u16) -> Failure {
    Failure {
        problem: format!("status-{status}"),
        result: match status {
            429 => "status-429",
            300..=399 => "status-3xx",
            400..=499 => "status-4xx",
            _ => "status-5xx",
        },
        retry_after: None,
    }
}
