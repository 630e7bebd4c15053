//! Bodies of requests on their way in: bounded, timed, and counted while they are in memory.

use std::ops::Deref;
use std::time::{Duration, Instant};

use actix_web::http::header;
use actix_web::{HttpRequest, web};
use bytes::Bytes;
use futures_util::StreamExt;
use handoff_domain::ports::{BlobError, ByteStream};
use handoff_domain::reason::Reason;
use tokio::sync::mpsc;

use super::HttpState;
use super::room::{Taken, no_room_for_body};
use crate::app::{AppError, Class};
use crate::config::Clients;
use crate::telemetry::clients as metrics;

/// Chunks of an upload that wait for the blob store.
const UPLOAD_BACKLOG: usize = 4;

/// A body in memory, counted for as long as this lives.
#[derive(Debug)]
pub struct Body {
    bytes: Vec<u8>,
    taken: Taken,
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A whole body of at most `limit` bytes.
pub async fn read_body(
    state: &HttpState,
    request: &HttpRequest,
    payload: web::Payload,
    limit: usize,
) -> Result<Body, AppError> {
    if stated_length(request).is_some_and(|n| n > limit as u64) {
        return Err(too_large(limit));
    }
    let timeouts = &state.timeouts;
    let mut source = Source::new(payload, timeouts.body_idle, &state.clients);
    let deadline = tokio::time::Instant::now() + timeouts.body_whole;
    let mut body = Body {
        bytes: Vec::new(),
        taken: state.room.body(),
    };
    loop {
        let chunk = tokio::time::timeout_at(deadline, source.next())
            .await
            .unwrap_or(Err(Broken::TooSlow));
        match chunk.map_err(refused)? {
            None => return Ok(body),
            Some(chunk) => {
                if body.len().saturating_add(chunk.len()) > limit {
                    return Err(too_large(limit));
                }
                if !body.taken.more(chunk.len()) {
                    return Err(no_room_for_body());
                }
                body.bytes.extend_from_slice(&chunk);
            }
        }
    }
}

/// A body as a stream that other threads may read: the payload itself stays on the connection's own.
pub fn upload(
    state: &HttpState,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<ByteStream, AppError> {
    let taken = state.room.upload()?;
    let (sender, receiver) = mpsc::channel::<Result<Bytes, BlobError>>(UPLOAD_BACKLOG);
    let stated = stated_length(request);
    let mut source = Source::new(payload, state.timeouts.body_idle, &state.clients);
    actix_web::rt::spawn(async move {
        let mut length: u64 = 0;
        loop {
            let chunk = match source.next().await {
                Ok(Some(chunk)) => chunk,
                // A clean end before the stated length is still a broken upload.
                Ok(None) if stated.is_none_or(|n| n == length) => return,
                Ok(None) => {
                    metrics::body_refused(Broken::Off.as_str());
                    let _ = sender.send(Err(BlobError::SourceFailed)).await;
                    return;
                }
                Err(broken) => {
                    metrics::body_refused(broken.as_str());
                    let _ = sender.send(Err(BlobError::SourceFailed)).await;
                    return;
                }
            };
            length = length.saturating_add(chunk.len() as u64);
            if sender.send(Ok(chunk)).await.is_err() {
                return;
            }
        }
    });
    Ok(Box::pin(futures_util::stream::unfold(
        (receiver, taken),
        |(mut receiver, taken)| async move { receiver.recv().await.map(|item| (item, (receiver, taken))) },
    )))
}

/// `Content-Length`, where it was sent.
pub fn stated_length(request: &HttpRequest) -> Option<u64> {
    request
        .headers()
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Why a body did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// Nothing came for too long.
    Stalled,
    /// It came, too slowly.
    TooSlow,
    /// The client or the network broke it off, or it was malformed.
    Off,
}

impl Broken {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Stalled => "stalled",
            Self::TooSlow => "too-slow",
            Self::Off => "broken-off",
        }
    }
}

fn refused(broken: Broken) -> AppError {
    metrics::body_refused(broken.as_str());
    AppError::bad(match broken {
        Broken::Stalled => "the body stopped coming; send it again without pausing",
        Broken::TooSlow => "the body came too slowly; send it again, faster",
        Broken::Off => "the body broke off before its end; send it again",
    })
}

fn too_large(limit: usize) -> AppError {
    metrics::body_refused("too-large");
    AppError::new(
        Class::TooLarge,
        Reason::TooLarge,
        format!("the body exceeds the limit of {limit} bytes"),
    )
}

/// A payload whose client has to keep it coming. Only the time in which we wait for it counts.
struct Source {
    payload: web::Payload,
    idle: Duration,
    pace: Pace,
}

impl Source {
    fn new(payload: web::Payload, idle: Duration, clients: &Clients) -> Self {
        Self {
            payload,
            idle,
            pace: Pace::new(clients.least_upload_rate, clients.rate_window),
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        let asked = Instant::now();
        let chunk = tokio::time::timeout(self.idle, self.payload.next())
            .await
            .map_err(|_| Broken::Stalled)?;
        match chunk {
            None => Ok(None),
            Some(Err(_)) => Err(Broken::Off),
            Some(Ok(chunk)) if self.pace.keeps(asked.elapsed(), chunk.len()) => Ok(Some(chunk)),
            Some(Ok(_)) => Err(Broken::TooSlow),
        }
    }
}

/// Whether bytes keep coming fast enough, window by window.
struct Pace {
    least: u64,
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    const fn new(rate: u64, window: Duration) -> Self {
        let seconds = window.as_secs();
        Self {
            least: rate.saturating_mul(if seconds == 0 { 1 } else { seconds }),
            window,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    fn keeps(&mut self, waited: Duration, bytes: usize) -> bool {
        self.waited = self.waited.saturating_add(waited);
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.waited < self.window {
            return true;
        }
        let enough = self.bytes >= self.least;
        self.waited = Duration::ZERO;
        self.bytes = 0;
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_judged_by_windows_of_waiting() {
        let mut pace = Pace::new(10, Duration::from_mins(1));
        let five = Duration::from_secs(5);
        assert!((0..120).all(|_| pace.keeps(five, 50)), "ten bytes a second");
        assert!(!(0..12).all(|_| pace.keeps(five, 49)), "fewer");
        let mut pace = Pace::new(10, Duration::from_mins(1));
        assert!((0..100_000).all(|_| pace.keeps(Duration::from_micros(10), 1)));
    }
}
