//! Servers of tests: one that answers everything in the same way and keeps what it was sent, and one that nobody should call.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What a peer does when a request has come.
#[derive(Clone)]
pub enum Reply {
    /// Answers with these bytes and waits for the next request.
    Bytes(Vec<u8>),
    /// Answers with these bytes and closes.
    Last(Vec<u8>),
    /// Answers with the first bytes and then with the second ones for as long as it is listened to, at this pace.
    Endless(Vec<u8>, Vec<u8>, Duration),
    /// Says nothing, and stays.
    Silence,
}

impl Reply {
    /// A status line, headers, and a body of stated length.
    pub fn message(status: &str, headers: &str, body: &[u8]) -> Self {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n");
        Self::Bytes([head.as_bytes(), body].concat())
    }

    /// Nothing but a status.
    pub fn status(status: &str) -> Self {
        Self::message(status, "", b"")
    }
}

/// A server. It ends with the test that it is part of.
pub struct Peer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Peer {
    /// One that speaks HTTP at `ip`.
    pub async fn plain(ip: &str, reply: Reply) -> Self {
        Self::serve(ip, None, reply).await
    }

    /// One that speaks HTTP over TLS at `ip`.
    pub async fn tls(ip: &str, acceptor: TlsAcceptor, reply: Reply) -> Self {
        Self::serve(ip, Some(acceptor), reply).await
    }

    async fn serve(ip: &str, tls: Option<TlsAcceptor>, reply: Reply) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let (kept, counted) = (Arc::clone(&requests), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *counted.lock().unwrap() += 1;
                tokio::spawn(connection(stream, tls.clone(), reply.clone(), Arc::clone(&kept)));
            }
        });
        Self {
            address,
            requests,
            connections,
            task,
        }
    }

    /// `http://` and where it is.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The requests that came, each as it came.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    reply: Reply,
    requests: Arc<Mutex<Vec<String>>>,
) {
    match tls {
        None => exchange(stream, reply, &requests).await,
        Some(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                exchange(stream, reply, &requests).await;
            }
        }
    }
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    reply: Reply,
    requests: &Mutex<Vec<String>>,
) {
    while let Some(request) = read_request(&mut stream).await {
        requests.lock().unwrap().push(request);
        match &reply {
            Reply::Bytes(bytes) => {
                if stream.write_all(bytes).await.is_err() {
                    return;
                }
            }
            Reply::Last(bytes) => {
                let _ = stream.write_all(bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Endless(first, more, pace) => {
                let mut next = stream.write_all(first).await;
                while next.is_ok() {
                    tokio::time::sleep(*pace).await;
                    next = stream.write_all(more).await;
                }
                return;
            }
            Reply::Silence => std::future::pending().await,
        }
    }
}

/// A request with its body, or nothing where the other side has gone.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(bytes.clone()).unwrap().to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    bytes.extend(body);
    Some(String::from_utf8(bytes).unwrap())
}

/// A listener at every address of this machine that nobody should connect to.
pub struct Doorbell {
    listener: TcpListener,
}

impl Doorbell {
    /// One that hears IPv4 and IPv6.
    pub async fn hang() -> Self {
        Self {
            listener: TcpListener::bind("[::]:0").await.unwrap(),
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// Makes sure that nobody came: connections are taken in the order in which they were made, so the first one has to be the
    /// one that is made here.
    pub async fn nobody_came(self) {
        let own = TcpStream::connect(("127.0.0.1", self.port())).await.unwrap();
        let (_, first) = self.listener.accept().await.unwrap();
        assert_eq!(
            first.port(),
            own.local_addr().unwrap().port(),
            "somebody connected"
        );
    }
}
