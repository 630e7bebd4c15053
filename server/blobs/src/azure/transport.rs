//! The HTTP client under the SDK. It is ours because of what content costs on its way through: each thread has
//! connections of its own, and none reads ahead of who waits for the bytes by more than a little.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use azure_core::error::{Error, ErrorKind};
use azure_core::headers::{HeaderName, HeaderValue, Headers};
use azure_core::{Body, HttpClient, Request, Response, StatusCode};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::Uri;
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use thread_local::ThreadLocal;
use tokio::net::TcpStream;
use tower_service::Service;

/// To connect at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How much is read from a connection at once, ahead of who waits for it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reads {
    /// Little: thousands may wait, each holding a few such reads.
    Sparing,
    /// Much: fewer trips for those who take everything at once.
    Ample,
}

impl Reads {
    const fn size(self) -> usize {
        match self {
            Self::Sparing => 16 * 1024,
            Self::Ample => 256 * 1024,
        }
    }
}

/// Connections of a thread that wait for the next request.
const IDLE_CONNECTIONS: usize = 16;

type BoxError = Box<dyn StdError + Send + Sync>;
type ThreadClient = Client<HttpsConnector<Route>, Full<Bytes>>;

/// HTTP/1.1 over rustls, pooled by thread. A connection belongs to the runtime of the thread that opened it; on another one
/// each piece of content would have to be handed over from thread to thread, which costs as much as reading it.
pub(super) struct Transport {
    connector: HttpsConnector<Route>,
    reads: Reads,
    /// How long a connection may wait for the next request.
    idle: Duration,
    clients: ThreadLocal<ThreadClient>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").finish_non_exhaustive()
    }
}

impl Transport {
    /// To an account on this machine, which is an emulator and never behind a proxy, or elsewhere.
    pub(super) fn new(loopback: bool, reads: Reads) -> Self {
        if loopback {
            // An emulator closes a quiet connection after five seconds, the service after minutes.
            Self::through(None, reads, Duration::from_secs(3))
        } else {
            Self::through(Some(Matcher::from_env()), reads, Duration::from_mins(1))
        }
    }

    fn through(proxies: Option<Matcher>, reads: Reads, idle: Duration) -> Self {
        let mut direct = HttpConnector::new();
        direct.enforce_http(false);
        direct.set_nodelay(true);
        direct.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(Route {
                direct,
                proxies: proxies.map(Arc::new),
            });
        Self {
            connector,
            reads,
            idle,
            clients: ThreadLocal::new(),
        }
    }

    /// This thread's client.
    fn client(&self) -> &ThreadClient {
        self.clients.get_or(|| {
            Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(self.idle)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .http1_read_buf_exact_size(self.reads.size())
                .build(self.connector.clone())
        })
    }
}

#[async_trait::async_trait]
impl HttpClient for Transport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<Response> {
        let sending = self.client().request(outgoing(request)?);
        let (head, body) = sending.await.map_err(failed)?.into_parts();
        let status = StatusCode::try_from(head.status.as_u16())
            .map_err(|_| Error::message(ErrorKind::DataConversion, "the answer has no status that exists"))?;
        let mut headers = Headers::new();
        for (name, value) in &head.headers {
            if let Ok(value) = value.to_str() {
                let name = HeaderName::from(name.as_str().to_owned());
                headers.insert(name, HeaderValue::from(value.to_owned()));
            }
        }
        let body = body.into_data_stream().map_err(failed);
        Ok(Response::new(status, headers, Box::pin(body)))
    }
}

fn failed(error: impl StdError + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Io, error)
}

/// The SDK's request as it is sent.
fn outgoing(request: &Request) -> azure_core::Result<http::Request<Full<Bytes>>> {
    let Body::Bytes(body) = request.body() else {
        return Err(Error::message(ErrorKind::Other, "a body is sent from memory"));
    };
    let mut outgoing = http::Request::builder()
        .method(request.method().as_ref())
        .uri(request.url().as_str());
    for (name, value) in request.headers().iter() {
        outgoing = outgoing.header(name.as_str(), value.as_str());
    }
    outgoing
        .body(Full::new(body.clone()))
        .map_err(|error| Error::new(ErrorKind::DataConversion, error))
}

/// Straight to the account, or through the proxy that `HTTPS_PROXY` names for it.
#[derive(Clone)]
struct Route {
    direct: HttpConnector,
    proxies: Option<Arc<Matcher>>,
}

impl Service<Uri> for Route {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, account: Uri) -> Self::Future {
        let mut direct = self.direct.clone();
        let proxy = self.proxies.as_ref().and_then(|all| all.intercept(&account));
        Box::pin(async move {
            let Some(proxy) = proxy else {
                return Ok(direct.call(account).await?);
            };
            if proxy.uri().scheme_str() != Some("http") {
                return Err("a proxy is reached over plain HTTP, and carries TLS".into());
            }
            let mut tunnel = Tunnel::new(proxy.uri().clone(), direct);
            if let Some(credentials) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(credentials.clone());
            }
            Ok(tunnel.call(account).await?)
        })
    }
}

#[cfg(test)]
mod tests {
    use azure_core::Method;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use url::Url;

    use super::*;

    #[tokio::test]
    async fn an_account_behind_a_proxy_is_reached_through_a_tunnel() {
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = proxy.local_addr().unwrap();
        let matcher = Matcher::builder()
            .https(format!("http://someone:secret@{address}"))
            .no("127.0.0.0/8")
            .build();
        let transport = Transport::through(Some(matcher), Reads::Sparing, Duration::from_secs(1));
        let asked = tokio::spawn(async move {
            let (mut stream, _) = proxy.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
            }
            stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await.unwrap();
            String::from_utf8(head).unwrap().to_ascii_lowercase()
        });
        let url = Url::parse("https://account.blob.core.windows.net/container/key").unwrap();
        let refused = transport.execute_request(&Request::new(url, Method::Get)).await;
        assert!(refused.is_err(), "the proxy refuses");
        let asked = asked.await.unwrap();
        assert!(
            asked.starts_with("connect account.blob.core.windows.net:443 http/1.1\r\n"),
            "{asked}"
        );
        assert!(asked.contains("proxy-authorization: basic "), "{asked}");
    }
}
