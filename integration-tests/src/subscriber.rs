//! A subscriber's endpoint: a real HTTP server that writes down everything it is sent, and answers as it is told to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The longest request that is read.
const LONGEST: usize = 64 * 1024 * 1024;

/// One request.
#[derive(Debug, Clone)]
pub struct Received {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers, names in lower case, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// When it was read whole.
    pub at: Instant,
    /// What was answered; `None` where the connection was cut instead.
    pub answered: Option<u16>,
}

impl Received {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The value of a parameter of the status that the notification begins with: a text whatever its type.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let body = self.json();
        let list = body.pointer("/entry/0/resource/parameter")?.as_array()?;
        value_of(list.iter().find(|one| one["name"] == name)?)
    }

    /// What kind of notification it is: `handshake`, `event-notification`; `None` for base R4.
    pub fn kind(&self) -> Option<String> {
        self.parameter("type")
    }

    /// The events that the notification tells: number, and focus where it is told.
    pub fn events(&self) -> Vec<(i64, Option<String>)> {
        let body = self.json();
        let list = body
            .pointer("/entry/0/resource/parameter")
            .and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter(|one| one["name"] == "notification-event")
            .map(|event| {
                let parts = event["part"].as_array().cloned().unwrap_or_default();
                let part = |name: &str| parts.iter().find(|one| one["name"] == name).and_then(value_of);
                let number = part("event-number").and_then(|text| text.parse().ok());
                (number.unwrap_or(-1), part("focus"))
            })
            .collect()
    }
}

fn value_of(parameter: &Value) -> Option<String> {
    let (_, value) = parameter
        .as_object()?
        .iter()
        .find(|(name, _)| name.starts_with("value"))?;
    Some(match value {
        Value::String(text) => text.clone(),
        Value::Object(_) => value["reference"].as_str()?.to_owned(),
        other => other.to_string(),
    })
}

/// What to do about a request.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// The status; 0 cuts the connection without an answer.
    pub status: u16,
    /// Headers, as they are written.
    pub headers: Vec<(String, String)>,
    /// How long to wait before.
    pub after: Duration,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// This status, at once.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// Nothing: the connection is cut.
    pub fn cut() -> Self {
        Self::default()
    }

    /// The same after a while.
    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    /// The same with a body.
    pub fn body(self, body: Vec<u8>) -> Self {
        Self { body, ..self }
    }

    /// The same with a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

type Behaviour = dyn Fn(&Received) -> Reply + Send + Sync;

/// The endpoint. It listens until it is dropped.
pub struct Subscriber {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
    behaviour: Arc<Mutex<Arc<Behaviour>>>,
    listening: JoinHandle<()>,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Subscriber {
    /// One that answers 200 to everything.
    pub async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    /// The same at an address where nobody listened before.
    pub async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let kind: Arc<Behaviour> = Arc::new(|_| Reply::status(200));
        let behaviour = Arc::new(Mutex::new(kind));
        let (log, how) = (Arc::clone(&received), Arc::clone(&behaviour));
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&log), Arc::clone(&how)));
            }
        });
        Self {
            url: format!("http://{address}"),
            received,
            behaviour,
            listening,
        }
    }

    /// Answers like this from here on.
    pub fn behave(&self, how: impl Fn(&Received) -> Reply + Send + Sync + 'static) {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(how);
    }

    /// Everything that came so far.
    pub fn received(&self) -> Vec<Received> {
        self.received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What came so far of one kind: `handshake`, `heartbeat`, `event-notification`.
    pub fn of_kind(&self, kind: &str) -> Vec<Received> {
        self.received()
            .into_iter()
            .filter(|one| one.kind().as_deref() == Some(kind))
            .collect()
    }

    /// Waits until `enough` holds of everything that came; answers that. Panics after `patience`.
    pub async fn until(&self, patience: Duration, enough: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let began = Instant::now();
        loop {
            let all = self.received();
            if enough(&all) {
                return all;
            }
            assert!(
                began.elapsed() < patience,
                "not received within {patience:?}; there are {}: {:?}",
                all.len(),
                all.iter()
                    .rev()
                    .take(10)
                    .map(|one| (&one.method, &one.path, one.kind(), one.events(), one.answered))
                    .collect::<Vec<_>>()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn converse(
    mut stream: TcpStream,
    received: Arc<Mutex<Vec<Received>>>,
    behaviour: Arc<Mutex<Arc<Behaviour>>>,
) {
    let mut buffer = Vec::new();
    while let Some(mut request) = Box::pin(read_request(&mut stream, &mut buffer)).await {
        let how = Arc::clone(&behaviour.lock().unwrap_or_else(PoisonError::into_inner));
        let reply = how(&request);
        request.answered = (reply.status > 0).then_some(reply.status);
        received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request);
        tokio::time::sleep(reply.after).await;
        if reply.status == 0 {
            return;
        }
        let mut head = format!(
            "HTTP/1.1 {} Answer\r\nContent-Length: {}\r\n",
            reply.status,
            reply.body.len()
        );
        for (name, value) in &reply.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        let answer = [head.as_bytes(), reply.body.as_slice()].concat();
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// The next request of a connection; `None` at its end.
async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Received> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(head) = request.parse(buffer).ok()? {
            let method = request.method?.to_owned();
            let path = request.path?.to_owned();
            let headers: Vec<(String, String)> = request
                .headers
                .iter()
                .map(|one| {
                    let value = String::from_utf8_lossy(one.value).into_owned();
                    (one.name.to_ascii_lowercase(), value)
                })
                .collect();
            let by_name: HashMap<&str, &str> = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let length: usize = by_name
                .get("content-length")
                .and_then(|text| text.parse().ok())
                .unwrap_or(0);
            let whole = head + length;
            while buffer.len() < whole {
                read_more(stream, buffer).await?;
            }
            let body = buffer[head..whole].to_vec();
            buffer.drain(..whole);
            return Some(Received {
                method,
                path,
                headers,
                body,
                at: Instant::now(),
                answered: None,
            });
        }
        read_more(stream, buffer).await?;
    }
}

async fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    if buffer.len() > LONGEST {
        return None;
    }
    let mut piece = vec![0_u8; 16 * 1024];
    let count = stream.read(&mut piece).await.ok()?;
    buffer.extend_from_slice(&piece[..count]);
    (count > 0).then_some(())
}
