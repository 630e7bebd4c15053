//! A subscriber's web socket: says things, and hears what it is told until the socket ends.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// How long a test waits for a word.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A message.
    Text(String),
    /// The end, with its code and reason.
    Closed(u16, String),
    /// The connection ended without a word.
    Ended,
}

/// A web socket.
pub struct WebSocket(WebSocketStream<TcpStream>);

impl WebSocket {
    /// Opens `url` with these headers.
    ///
    /// # Errors
    ///
    /// The status of the answer, where the socket was refused.
    pub async fn open(url: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let mut request = url.into_client_request().expect("a request");
        for (name, value) in headers {
            let name: tokio_tungstenite::tungstenite::http::HeaderName = name.parse().expect("a name");
            request
                .headers_mut()
                .append(name, value.parse().expect("a value"));
        }
        let rest = url.strip_prefix("ws://").expect("a plain web socket");
        let place = rest.split('/').next().expect("a place");
        let address: SocketAddr = place.parse().expect("an address");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // So that one that reads nothing is noticed soon.
        socket.set_recv_buffer_size(16 * 1024).expect("a small buffer");
        socket.connect(&address.into()).expect("the server listens");
        socket.set_nonblocking(true).expect("a non-blocking socket");
        let stream = TcpStream::from_std(socket.into()).expect("a stream");
        match client_async(request, stream).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("the socket is not opened: {error}"),
        }
    }

    /// Says something.
    pub async fn say(&mut self, text: impl Into<String>) {
        self.send(Message::text(text.into())).await;
    }

    /// Sends any message; that the server has ended it is for hearing.
    pub async fn send(&mut self, message: Message) {
        let _ended = self.0.send(message).await;
    }

    /// Hears the next word.
    pub async fn hear(&mut self) -> Heard {
        loop {
            let word = timeout(PATIENCE, self.0.next()).await.expect("a word in time");
            match word {
                Some(Ok(Message::Text(text))) => return Heard::Text(text.to_string()),
                Some(Ok(Message::Close(Some(frame)))) => {
                    // Reading on answers it.
                    let _rest = timeout(PATIENCE, self.0.next()).await;
                    return Heard::Closed(frame.code.into(), frame.reason.to_string());
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(other)) => panic!("heard {other:?}"),
                Some(Err(_)) | None => return Heard::Ended,
            }
        }
    }

    /// Hears a text.
    pub async fn text(&mut self) -> String {
        match self.hear().await {
            Heard::Text(text) => text,
            other => panic!("heard {other:?} instead of a text"),
        }
    }

    /// Hears a notification.
    pub async fn bundle(&mut self) -> Notice {
        let text = self.text().await;
        Notice(serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}")))
    }

    /// Hears everything to the end; answers how it ended.
    pub async fn end(&mut self) -> (u16, String) {
        loop {
            match self.hear().await {
                Heard::Text(_) => {}
                Heard::Closed(code, why) => return (code, why),
                Heard::Ended => panic!("it ended without a word"),
            }
        }
    }

    /// Reads to the end of the connection without as much as answering a ping; answers the code and reason of the last
    /// frame, which closes it.
    pub async fn deaf(&mut self) -> (u16, String) {
        let mut bytes = Vec::new();
        let read = self.0.get_mut().read_to_end(&mut bytes);
        let _reset = timeout(PATIENCE, read).await.expect("an end in time");
        let at = bytes
            .iter()
            .rposition(|byte| *byte == 0x88)
            .expect("a close frame");
        let frame = &bytes[at + 2..];
        let (code, why) = frame.split_at(2);
        (
            u16::from_be_bytes([code[0], code[1]]),
            String::from_utf8(why.to_vec()).expect("text"),
        )
    }
}

/// A notification Bundle.
#[derive(Debug, Clone)]
pub struct Notice(pub Value);

impl Notice {
    fn parameters(&self) -> Vec<Value> {
        let list = self
            .0
            .pointer("/entry/0/resource/parameter")
            .and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    }

    fn value(&self, name: &str) -> Option<String> {
        let all = self.parameters();
        let one = all.iter().find(|one| one["name"] == name)?;
        let (_, value) = one
            .as_object()?
            .iter()
            .find(|(key, _)| key.starts_with("value"))?;
        value
            .as_str()
            .or_else(|| value["reference"].as_str())
            .map(str::to_owned)
    }

    /// `handshake`, `heartbeat`, `event-notification`.
    pub fn kind(&self) -> String {
        self.value("type").expect("a type")
    }

    /// The status of the subscription.
    pub fn status(&self) -> String {
        self.value("status").expect("a status")
    }

    /// How many events there were.
    pub fn count(&self) -> String {
        self.value("events-since-subscription-start").expect("a count")
    }

    /// The subscription's id.
    pub fn subscription(&self) -> String {
        let reference = self.value("subscription").expect("a subscription");
        reference.rsplit('/').next().expect("an id").to_owned()
    }

    /// The numbers of the events that are told.
    pub fn numbers(&self) -> Vec<i64> {
        self.parameters()
            .iter()
            .filter(|one| one["name"] == "notification-event")
            .filter_map(|event| {
                let parts = event["part"].as_array()?;
                let number = parts.iter().find(|part| part["name"] == "event-number")?;
                number["valueString"].as_str()?.parse().ok()
            })
            .collect()
    }
}
