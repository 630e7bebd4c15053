//! A client that reads as slowly as a test wants, over a plain socket with a small buffer.

use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::interval;

use crate::Client;

/// A download that stands still unless it is read.
pub struct SlowDownload {
    stream: TcpStream,
    head: String,
    body: Vec<u8>,
    length: usize,
}

impl SlowDownload {
    /// Sends the request, reads the head and at least `first` bytes of the body, then waits.
    pub async fn start(client: &Client, path: &str, first: usize) -> Self {
        let place = client.base.trim_start_matches("http://");
        // A base may lead to a tenant: `127.0.0.1:N/t/b`.
        let (address, tenant) = place.split_at(place.find('/').unwrap_or(place.len()));
        let address: std::net::SocketAddr = address.parse().expect("an address");
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(16 * 1024).expect("a small buffer");
        socket.connect(&address.into()).expect("the server listens");
        socket.set_nonblocking(true).expect("a non-blocking socket");
        let mut stream = TcpStream::from_std(socket.into()).expect("a stream");
        let token = client.token.as_deref().expect("a token");
        let request = format!(
            "GET {tenant}{path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        stream
            .write_all(request.as_bytes())
            .await
            .expect("the request is sent");
        let mut received = Vec::new();
        let end = loop {
            if let Some(end) = received.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            let mut chunk = [0u8; 4096];
            let n = stream.read(&mut chunk).await.expect("an answer");
            assert!(n > 0, "the server closed before the head");
            received.extend_from_slice(chunk.get(..n).expect("what was read"));
        };
        let body = received.split_off(end + 4);
        let head = String::from_utf8(received)
            .expect("a head in ASCII")
            .to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 20"), "{head}");
        let mut download = Self {
            stream,
            head,
            body,
            length: 0,
        };
        download.length = download
            .header("content-length")
            .expect("a length")
            .parse()
            .expect("a number");
        while download.body.len() < first.min(download.length) {
            assert!(download.read_chunk().await, "the download broke off too early");
        }
        download
    }

    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<String> {
        self.head.lines().find_map(|line| {
            let (n, value) = line.split_once(':')?;
            (n == name).then(|| value.trim().to_owned())
        })
    }

    /// Reads until at least `length` bytes are there; answers all so far.
    pub async fn read_some(&mut self, length: usize) -> Vec<u8> {
        while self.body.len() < length && self.read_chunk().await {}
        self.body.clone()
    }

    /// Reads to the end; answers all bytes, and whether they are as many as were announced.
    pub async fn read_to_end(&mut self) -> (Vec<u8>, bool) {
        while self.body.len() < self.length && self.read_chunk().await {}
        let whole = self.length == self.body.len();
        (std::mem::take(&mut self.body), whole)
    }

    /// Reads on at a walking pace, as somebody does who is being sent bytes all the time, and answers when the
    /// download was over and whether all had come.
    pub async fn over(mut self) -> (Instant, bool) {
        let mut pace = interval(Duration::from_millis(2));
        while self.body.len() < self.length && self.read_chunk().await {
            pace.tick().await;
        }
        (Instant::now(), self.length == self.body.len())
    }

    /// Whether more came. A reset ends the download as the end of the stream does.
    async fn read_chunk(&mut self) -> bool {
        let mut chunk = vec![0u8; 64 * 1024];
        match self.stream.read(&mut chunk).await {
            Ok(n) if n > 0 => {
                self.body
                    .extend_from_slice(chunk.get(..n).expect("what was read"));
                true
            }
            _ => false,
        }
    }
}
