//! For tests: a few lines of HTTP/1.1 on a real socket that serve an issuer's two documents, count what was
//! asked for, and can be told to fail; a clock to be turned by hand; predictable ids.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use handoff_domain::ports::{Clock, Entropy};
use handoff_domain::time::{Span, Timestamp};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn at(now: Timestamp) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(now.0)))
    }

    pub(crate) fn pass(&self, span: Span) {
        self.0.fetch_add(span.0, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[derive(Default)]
pub(crate) struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let n = self.0.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        for (to, from) in bytes.iter_mut().zip(n.iter().cycle()) {
            *to = *from;
        }
    }
}

/// Answers a request, head and body, with a status and a body.
type Answer = Box<dyn Fn(&str) -> (u16, String) + Send>;

/// Serves JSON documents by path.
pub(crate) struct TestServer {
    pub(crate) base: String,
    documents: Mutex<HashMap<String, Answer>>,
    down: AtomicBool,
    hits: AtomicUsize,
    last: Mutex<String>,
}

impl TestServer {
    pub(crate) async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Self {
            base: format!("http://{}", listener.local_addr().unwrap()),
            documents: Mutex::default(),
            down: AtomicBool::new(false),
            hits: AtomicUsize::new(0),
            last: Mutex::default(),
        });
        let this = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                let mut byte = [0; 1];
                while !request.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).await.is_ok() {
                    request.push(byte[0]);
                }
                let length = String::from_utf8_lossy(&request)
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok())
                    .unwrap_or(0);
                let mut body = vec![0; length];
                stream.read_exact(&mut body).await.unwrap_or_default();
                request.extend(body);
                let line = String::from_utf8_lossy(&request).into_owned();
                line.clone_into(&mut this.last.lock().unwrap());
                let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                let answer = this.answer(&path, &line);
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        server
    }

    pub(crate) fn serve(&self, path: &str, document: &Value) {
        let document = document.to_string();
        self.serve_by(path, move |_| (200, document.clone()));
    }

    pub(crate) fn serve_by(&self, path: &str, answer: impl Fn(&str) -> (u16, String) + Send + 'static) {
        self.documents
            .lock()
            .unwrap()
            .insert(path.to_owned(), Box::new(answer));
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// How often discovery began.
    pub(crate) fn reads(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// The last request, head and body.
    pub(crate) fn last_request(&self) -> String {
        self.last.lock().unwrap().clone()
    }

    fn answer(&self, path: &str, request: &str) -> String {
        if path.ends_with("/openid-configuration") {
            self.hits.fetch_add(1, Ordering::SeqCst);
        }
        let documents = self.documents.lock().unwrap();
        let (status, body) = match documents.get(path) {
            _ if self.down.load(Ordering::SeqCst) => (503, String::new()),
            Some(answer) => answer(request),
            None => (404, String::new()),
        };
        let length = body.len();
        format!(
            "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    }
}

/// Claims with some changed: `Null` takes a member away.
pub(crate) fn changed(mut claims: Value, changes: &[(&str, Value)]) -> Value {
    for (name, value) in changes {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(*name);
        } else {
            claims[*name] = value.clone();
        }
    }
    claims
}
