//! An HTTP/1.1 client that costs next to nothing: prepared requests over kept connections, answers counted and not
//! parsed. It shares two cores with what it measures. Knows no FHIR.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Instant;

use bytes::Bytes;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::failure::{Failure, Result};

/// Room for what one read brings.
const BUFFER: usize = 256 * 1024;
/// The most of an answer's body that is shown when it was not the expected one.
const SHOWN: usize = 400;

/// A server, by its base URL: `http://127.0.0.1:8080/fhir`.
#[derive(Debug, Clone)]
pub struct Target {
    address: SocketAddr,
    host: String,
    path: String,
    headers: String,
}

impl Target {
    /// The server at `url`, over plain HTTP.
    pub fn parse(url: &str) -> Result<Self> {
        let rest = url
            .strip_prefix("http://")
            .ok_or_else(|| Failure::new(format!("`{url}` is not a plain http URL")))?;
        let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let with_port = if host.contains(':') {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let address = with_port
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| Failure::new(format!("`{host}` has no address")))?;
        Ok(Self {
            address,
            host: host.to_owned(),
            path: path.trim_end_matches('/').to_owned(),
            headers: String::new(),
        })
    }

    /// The same with headers (`K: V`) that go with every request.
    #[must_use]
    pub fn with_headers(mut self, headers: &[String]) -> Self {
        for header in headers {
            self.headers.push_str(header);
            self.headers.push_str("\r\n");
        }
        self
    }

    /// A request to a path below the base, ready to be sent as often as needed.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Bytes {
        let mut bytes = self.head(method, path, headers, body.len() as u64).into_bytes();
        bytes.extend_from_slice(body);
        Bytes::from(bytes)
    }

    /// The head of a request with a body of `length` bytes.
    pub fn head(&self, method: &str, path: &str, headers: &[(&str, &str)], length: u64) -> String {
        let mut head = format!(
            "{method} {}{path} HTTP/1.1\r\nhost: {}\r\n{}",
            self.path, self.host, self.headers
        );
        for (name, value) in headers {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        if !matches!(method, "GET" | "HEAD" | "DELETE") {
            head.push_str("content-length: ");
            head.push_str(&length.to_string());
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        head
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Bytes of body.
    pub length: u64,
    /// When the first byte of the body was there; where there is none, the whole head.
    pub first_byte: Instant,
    /// When all of it was there.
    pub end: Instant,
    /// The body, where it was to be kept or the status is none of success.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer of which only the head is there.
    const fn headed(status: u16, at: Instant) -> Self {
        Self {
            status,
            length: 0,
            first_byte: at,
            end: at,
            body: Vec::new(),
        }
    }

    /// The answer, if its status is this one.
    pub fn expect(self, status: u16, what: &str) -> Result<Self> {
        if self.status == status {
            return Ok(self);
        }
        let shown = self.body.get(..SHOWN.min(self.body.len())).unwrap_or_default();
        Err(Failure::new(format!(
            "{what}: status {} instead of {status}: {}",
            self.status,
            String::from_utf8_lossy(shown).replace(['\n', '\r'], " ")
        )))
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).map_err(|error| Failure::new(format!("not JSON: {error}")))
    }

    /// `id` of the resource in the body.
    pub fn id(&self) -> Result<String> {
        self.json()?
            .get("id")
            .and_then(Value::as_str)
            .map(str::to_owned)
            .ok_or_else(|| Failure::new("an answer without an id"))
    }
}

/// What is done with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Counted.
    Dropped,
    /// Kept.
    Kept,
}

enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// A connection that is kept.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    /// Whether the server keeps it too.
    pub open: bool,
}

impl Connection {
    /// Connects.
    pub async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream, BUFFER))
    }

    /// Connects with a small receive buffer, for a client that reads slowly.
    pub async fn open_small(target: &Target, receive_buffer: usize) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(target.address), Type::STREAM, None)?;
        socket.set_recv_buffer_size(receive_buffer)?;
        socket.set_nonblocking(true)?;
        let stream = tokio::net::TcpSocket::from_std_stream(socket.into())
            .connect(target.address)
            .await?;
        Ok(Self::over(stream, receive_buffer))
    }

    fn over(stream: TcpStream, room: usize) -> Self {
        Self {
            stream,
            buffer: vec![0; room],
            filled: 0,
            open: true,
        }
    }

    /// Sends a request and reads the whole answer.
    pub async fn exchange(&mut self, request: &[u8], body: Body) -> Result<Answer> {
        self.stream.write_all(request).await?;
        self.answer(body).await
    }

    /// Sends a head, then `length` bytes that repeat `block`, and reads the whole answer.
    pub async fn upload(&mut self, head: &str, block: &[u8], length: u64) -> Result<Answer> {
        self.stream.write_all(head.as_bytes()).await?;
        let mut left = length;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            self.stream
                .write_all(block.get(..part).unwrap_or_default())
                .await?;
            left -= part as u64;
        }
        self.answer(Body::Kept).await
    }

    /// Sends a request and reads the head of an answer that must be 200; the length that it states. The body is left
    /// to [`Self::read_body`].
    pub async fn begin(&mut self, request: &[u8], what: &str) -> Result<u64> {
        self.stream.write_all(request).await?;
        let (status, framing, at) = self.read_head().await?;
        match (status, framing) {
            (200, Framing::Length(length)) => Ok(length),
            (200, _) => Err(Failure::new(format!(
                "{what}: an answer that does not state its length"
            ))),
            (status, framing) => {
                let mut answer = Answer::headed(status, at);
                self.read_framed(framing, Body::Kept, &mut answer).await?;
                Err(answer
                    .expect(200, what)
                    .err()
                    .unwrap_or_else(|| Failure::new(what)))
            }
        }
    }

    /// Reads at most `most` bytes of a body whose head was read; 0 where the connection ended or broke.
    pub async fn read_body(&mut self, most: usize) -> usize {
        if self.filled > 0 {
            let taken = self.filled.min(most);
            self.consume(taken);
            return taken;
        }
        let room = self.buffer.len().min(most);
        match self.buffer.get_mut(..room) {
            Some(room) => self.stream.read(room).await.unwrap_or(0),
            None => 0,
        }
    }

    async fn answer(&mut self, body: Body) -> Result<Answer> {
        let (status, framing, at) = self.read_head().await?;
        let mut answer = Answer::headed(status, at);
        self.read_framed(framing, body, &mut answer).await?;
        answer.end = Instant::now();
        Ok(answer)
    }

    async fn read_framed(&mut self, framing: Framing, body: Body, answer: &mut Answer) -> Result<()> {
        let keep = body == Body::Kept || !(200..300).contains(&answer.status);
        match framing {
            Framing::Length(length) => self.read_exactly(length, keep, answer).await?,
            Framing::Chunked => self.read_chunks(keep, answer).await?,
            Framing::UntilClose => {
                self.open = false;
                while self.filled > 0 || self.fill().await? > 0 {
                    let all = self.filled;
                    self.take(all, keep, answer);
                }
            }
        }
        Ok(())
    }

    /// Status, framing of the body, and when the head was there.
    async fn read_head(&mut self) -> Result<(u16, Framing, Instant)> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut head = httparse::Response::new(&mut headers);
            let seen = self.buffer.get(..self.filled).unwrap_or_default();
            let parsed = head
                .parse(seen)
                .map_err(|error| Failure::new(format!("not HTTP: {error}")))?;
            if let httparse::Status::Complete(length) = parsed {
                let at = Instant::now();
                let status = head.code.unwrap_or_default();
                let mut framing = Framing::UntilClose;
                let mut open = head.version == Some(1);
                for header in head.headers.iter() {
                    let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
                    if header.name.eq_ignore_ascii_case("content-length") {
                        let length = value
                            .parse()
                            .map_err(|_| Failure::new("a length that is no number"))?;
                        framing = Framing::Length(length);
                    } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                        framing = Framing::Chunked;
                    } else if header.name.eq_ignore_ascii_case("connection") {
                        open = open && !value.eq_ignore_ascii_case("close");
                    }
                }
                if matches!(status, 204 | 304) {
                    framing = Framing::Length(0);
                }
                self.open = open;
                self.consume(length);
                return Ok((status, framing, at));
            }
            if self.fill().await? == 0 {
                return Err(Failure::new(
                    "the server closed the connection before it answered",
                ));
            }
        }
    }

    async fn read_exactly(&mut self, length: u64, keep: bool, answer: &mut Answer) -> Result<()> {
        let mut left = length;
        while left > 0 {
            if self.filled == 0 && self.fill().await? == 0 {
                return Err(Failure::new(format!(
                    "the body broke off after {} bytes",
                    answer.length
                )));
            }
            let part = self.filled.min(usize::try_from(left).unwrap_or(usize::MAX));
            self.take(part, keep, answer);
            left -= part as u64;
        }
        Ok(())
    }

    async fn read_chunks(&mut self, keep: bool, answer: &mut Answer) -> Result<()> {
        loop {
            let line = self.read_line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| Failure::new("a chunk without a size"))?;
            self.read_exactly(size, keep, answer).await?;
            if size == 0 {
                while !self.read_line().await?.is_empty() {}
                return Ok(());
            }
            self.read_line().await?;
        }
    }

    async fn read_line(&mut self) -> Result<String> {
        loop {
            let seen = self.buffer.get(..self.filled).unwrap_or_default();
            if let Some(end) = seen.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(seen.get(..end).unwrap_or_default()).into_owned();
                self.consume(end + 2);
                return Ok(line);
            }
            if self.fill().await? == 0 {
                return Err(Failure::new("the body broke off between chunks"));
            }
        }
    }

    async fn fill(&mut self) -> Result<usize> {
        let Some(room) = self.buffer.get_mut(self.filled..).filter(|room| !room.is_empty()) else {
            return Err(Failure::new("a head or a line longer than the buffer"));
        };
        let read = self.stream.read(room).await?;
        self.filled += read;
        Ok(read)
    }

    fn take(&mut self, part: usize, keep: bool, answer: &mut Answer) {
        if answer.length == 0 && part > 0 {
            answer.first_byte = Instant::now();
        }
        if keep {
            answer
                .body
                .extend_from_slice(self.buffer.get(..part).unwrap_or_default());
        }
        answer.length += part as u64;
        self.consume(part);
    }

    fn consume(&mut self, part: usize) {
        self.buffer.copy_within(part..self.filled, 0);
        self.filled -= part;
    }
}

/// One request on a connection of its own.
pub async fn once(target: &Target, request: &[u8]) -> Result<Answer> {
    Connection::open(target)
        .await?
        .exchange(request, Body::Kept)
        .await
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(error.to_string())
    }
}
