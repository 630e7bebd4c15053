//! A subscriber behind a proxy that loses, delays, repeats and refuses some of what passes. It writes down all that it
//! reads whole, and whether it has that: also where nobody is told so.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::arrivals::Arrival;
use crate::chaos::record::now;

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is taken.
    Taken,
    /// The connection is cut before anything of it was read.
    LostBefore,
    /// It is taken, and the connection cut without an answer: its server can't know.
    LostAfter,
    /// It is taken after a while.
    Late(Duration),
    /// It is taken twice.
    Twice,
    /// It is refused with this status, and a wish to come again after so many seconds.
    Refused(u16, u8),
    /// It is read, and never answered.
    Hung,
}

/// How a subscriber treats what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// A third meets one of the faults.
    Troubled,
    /// Everything is refused but handshakes.
    Failing,
    /// Everything is left unanswered but handshakes.
    Hanging,
}

impl Manner {
    fn fate(self, choice: &mut fastrand::Rng) -> Fate {
        match self {
            Self::Failing => Fate::Refused(500, 0),
            Self::Hanging => Fate::Hung,
            Self::Troubled if choice.u8(..3) > 0 => Fate::Taken,
            Self::Troubled => match choice.u8(..6) {
                0 => Fate::LostBefore,
                1 => Fate::LostAfter,
                2 => Fate::Late(Duration::from_millis(choice.u64(20..400))),
                3 => Fate::Twice,
                4 => Fate::Refused(500, 0),
                // Rarely a whole second: the run has an end.
                _ => Fate::Refused(503, u8::from(choice.u8(..8) == 0)),
            },
        }
    }
}

#[derive(Default)]
struct Log {
    secret: String,
    arrivals: Vec<Arrival>,
    attempts: usize,
    is_over: bool,
}

/// The endpoint. It listens until it is dropped.
pub struct Endpoint {
    /// `http://127.0.0.1:PORT/hook`.
    pub url: String,
    log: Arc<Mutex<Log>>,
    listening: JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Endpoint {
    /// Listens.
    pub async fn start(manner: Manner, choice: fastrand::Rng) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let log: Arc<Mutex<Log>> = Arc::default();
        let (kept, choice) = (Arc::clone(&log), Arc::new(Mutex::new(choice)));
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, manner, Arc::clone(&kept), Arc::clone(&choice)));
            }
        });
        Self {
            url: format!("http://{address}/hook"),
            log,
            listening,
        }
    }

    /// From here on signatures are looked at.
    pub fn knows(&self, secret: &str) {
        secret.clone_into(&mut locked(&self.log).secret);
    }

    /// Everything that was read whole, and how many requests there were in all.
    pub fn so_far(&self) -> (Vec<Arrival>, usize) {
        let log = locked(&self.log);
        (log.arrivals.clone(), log.attempts)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn converse(
    mut stream: TcpStream,
    manner: Manner,
    log: Arc<Mutex<Log>>,
    choice: Arc<Mutex<fastrand::Rng>>,
) {
    let mut buffer = Vec::new();
    loop {
        // Something of the next request is there: from here on it can be lost.
        if buffer.is_empty() && stream.readable().await.is_err() {
            return;
        }
        let told_before = locked(&log).is_over;
        let fate = if told_before {
            manner.fate(&mut locked(&choice))
        } else {
            Fate::Taken
        };
        if fate == Fate::LostBefore {
            // A connection that the other side has closed is none that was cut.
            if matches!(stream.try_read(&mut [0; 1]), Ok(1..)) {
                locked(&log).attempts += 1;
            }
            return;
        }
        let Some((headers, body)) = Box::pin(read_request(&mut stream, &mut buffer)).await else {
            return;
        };
        if let Fate::Late(after) = fate {
            sleep(after).await;
        }
        let had = !matches!(fate, Fate::Refused(..) | Fate::Hung);
        {
            let mut log = locked(&log);
            log.attempts += 1;
            let arrival = Arrival::of(&headers, &body, &log.secret, had, now());
            if arrival.told.is_empty() {
                log.is_over = true;
            } else {
                log.arrivals.push(arrival.clone());
                if fate == Fate::Twice {
                    log.arrivals.push(arrival);
                }
            }
        }
        let answer = match fate {
            Fate::LostAfter => return,
            Fate::Hung => {
                // Until the other side has had enough.
                let _gone = stream.read(&mut [0; 1]).await;
                return;
            }
            Fate::Refused(status, seconds) => {
                format!("HTTP/1.1 {status} No\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n")
            }
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

pub(crate) type Headers = Vec<(String, String)>;

/// The next request of a connection: its headers, names in lower case, and its body; `None` at the connection's end.
pub(crate) async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(Headers, Vec<u8>)> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(head) = request.parse(buffer).ok()? {
            let headers: Headers = request
                .headers
                .iter()
                .map(|one| {
                    let value = String::from_utf8_lossy(one.value).into_owned();
                    (one.name.to_ascii_lowercase(), value)
                })
                .collect();
            let length: usize = headers
                .iter()
                .find(|(name, _)| name == "content-length")
                .and_then(|(_, text)| text.parse().ok())
                .unwrap_or(0);
            while buffer.len() < head + length {
                read_more(stream, buffer).await?;
            }
            let body = buffer[head..head + length].to_vec();
            buffer.drain(..head + length);
            return Some((headers, body));
        }
        read_more(stream, buffer).await?;
    }
}

async fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut piece = vec![0_u8; 16 * 1024];
    let count = stream.read(&mut piece).await.ok()?;
    buffer.extend_from_slice(&piece[..count]);
    (count > 0).then_some(())
}
