//! A download over a plain socket with a small receive buffer: read eagerly, slowly or broken off, every byte
//! compared on arrival, the moment of a reset noted even while nothing is read.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::content::Content;
use super::record::{Stream, now};

/// What the kernel is told to buffer; it doubles the number. What was in there when a stream was cut is still read.
const RECEIVE_BUFFER: u32 = 16 * 1024;
/// How long a connection may take, an answer to begin, and a whole download.
const CONNECT: Duration = Duration::from_secs(2);
const HEAD: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_mins(2);
/// Reads closer together than this are written down as one.
const CLOSE: i64 = 1000;

/// How a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as it comes.
    Eager,
    /// A piece now and then.
    Slow {
        /// Bytes read at once.
        piece: usize,
        /// The pause after each.
        pause: Duration,
    },
    /// It goes away after this many bytes.
    Leaving {
        /// Bytes.
        after: u64,
    },
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// `http://127.0.0.1:N`.
    pub base: &'a str,
    /// Access token.
    pub token: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// To go on at a byte, under a validator.
    pub resume: Option<(u64, &'a str)>,
    /// How it reads.
    pub pace: Pace,
}

/// Downloads. What is known of it beforehand comes in as a stream, which is filled in; answers the `ETag` too.
pub async fn download(wanted: &Wanted<'_>, mut stream: Stream) -> (Stream, Option<String>) {
    stream.began = now();
    let etag = attempt(wanted, &mut stream).await;
    stream.ended = now();
    (stream, etag)
}

async fn attempt(wanted: &Wanted<'_>, stream: &mut Stream) -> Option<String> {
    let deadline = Instant::now() + WHOLE;
    let mut socket = timeout(CONNECT, connect(wanted.base)).await.ok()??;
    let request = request(wanted, &stream.correlation);
    socket.write_all(request.as_bytes()).await.ok()?;
    let (head, body) = timeout(HEAD, read_head(&mut socket)).await.ok()??;
    let head = Head::parse(&head)?;
    stream.announced = head
        .value("content-length")
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    if !matches!(head.status, 200 | 206) {
        stream.status = head.status;
        let body = timeout_at(deadline, read_refusal(&mut socket, body, stream.announced)).await;
        stream.reason = body.ok().and_then(|body| reason_of(&body));
        return None;
    }
    stream.from = head
        .value("content-range")
        .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok())
        .unwrap_or(0);
    stream.redemption = head.value("content-location").and_then(redemption_of);
    stream.status = head.status;
    let etag = head.value("etag").map(str::to_owned);
    let mut reading = Reading {
        content: stream.content,
        stream,
    };
    if !body.is_empty() {
        reading.take(&body);
    }
    // Out of time, it is what has come so far.
    let _late = timeout_at(deadline, reading.rest(&mut socket, wanted.pace)).await;
    etag
}

/// The id of the redemption whose content lies at a URL.
pub fn redemption_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("/redemptions/")?;
    rest.strip_suffix("/content").map(str::to_owned)
}

async fn connect(base: &str) -> Option<TcpStream> {
    let address: SocketAddr = base.strip_prefix("http://")?.parse().ok()?;
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER).ok()?;
    socket.connect(address).await.ok()
}

fn request(wanted: &Wanted<'_>, correlation: &str) -> String {
    let resume = wanted.resume.map_or_else(String::new, |(from, etag)| {
        format!("range: bytes={from}-\r\nif-range: {etag}\r\n")
    });
    format!(
        "GET {} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\nx-correlation-id: {correlation}\r\n\
         accept: */*\r\n{resume}connection: close\r\n\r\n",
        wanted.path,
        wanted.base.trim_start_matches("http://"),
        wanted.token,
    )
}

/// The head as text, and what came of the body with it.
async fn read_head(socket: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut received = Vec::new();
    let mut chunk = [0u8; 8192];
    loop {
        if let Some(end) = received.windows(4).position(|w| w == b"\r\n\r\n") {
            let body = received.split_off(end + 4);
            return Some((String::from_utf8(received).ok()?, body));
        }
        let read @ 1.. = socket.read(&mut chunk).await.ok()? else {
            return None;
        };
        received.extend_from_slice(&chunk[..read]);
    }
}

async fn read_refusal(socket: &mut TcpStream, mut body: Vec<u8>, length: u64) -> Vec<u8> {
    let mut chunk = [0u8; 4096];
    while (body.len() as u64) < length {
        match socket.read(&mut chunk).await {
            Ok(read @ 1..) => body.extend_from_slice(&chunk[..read]),
            _ => break,
        }
    }
    body
}

/// The reason code of a refusal, in either form.
pub fn reason_of(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let coded = body["issue"][0]["details"]["coding"][0]["code"].as_str();
    coded.or_else(|| body["reason"].as_str()).map(str::to_owned)
}

struct Head<'a> {
    status: u16,
    lines: Vec<(String, &'a str)>,
}

impl<'a> Head<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut lines = text.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let lines = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
            .collect();
        Some(Self { status, lines })
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.lines
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| *value)
    }
}

struct Reading<'a> {
    content: Content,
    stream: &'a mut Stream,
}

impl Reading<'_> {
    /// Writes down what was read just now.
    fn take(&mut self, bytes: &[u8]) {
        let at = now();
        let before = self.stream.received();
        let place = self.stream.from.saturating_add(before);
        self.stream.is_wrong |= !self.content.is_at(place, bytes);
        let all = before + bytes.len() as u64;
        let reads = &mut self.stream.reads;
        match reads.as_slice() {
            [.., (earlier, _), (last, _)] if last - earlier < CLOSE && at - last < CLOSE => {
                reads.pop();
                reads.push((at, all));
            }
            _ => reads.push((at, all)),
        }
    }

    async fn rest(&mut self, socket: &mut TcpStream, pace: Pace) {
        let piece = match pace {
            Pace::Slow { piece, .. } => piece,
            Pace::Eager | Pace::Leaving { .. } => 64 * 1024,
        };
        let mut buffer = vec![0u8; piece];
        while self.stream.received() < self.stream.announced {
            match pace {
                Pace::Leaving { after } if self.stream.received() >= after => return,
                Pace::Slow { pause, .. } if self.stream.reset.is_none() => {
                    tokio::select! {
                        () = sleep(pause) => {}
                        _ = socket.ready(Interest::ERROR) => self.note_reset(),
                    }
                }
                _ => {}
            }
            match socket.read(&mut buffer).await {
                Ok(read @ 1..) => self.take(&buffer[..read]),
                Ok(_) => return,
                Err(_) => {
                    self.note_reset();
                    return;
                }
            }
        }
    }

    fn note_reset(&mut self) {
        self.stream.reset.get_or_insert_with(now);
    }
}
