//! The adapter of the outbound port: HTTP/1.1 over TLS to addresses that are public or that the operator allows, and no further
//! than the first answer. Knows nothing of what is sent.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Method, Proxy, Request};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::time::timeout;

use handoff_domain::ports::{
    BoxFuture, EndpointError, HeaderError, Outbound, OutboundAnswer, OutboundMethod, OutboundRequest,
    SendError, check_sent_header,
};

use crate::answer;
use crate::endpoint::{Endpoint, Way};
use crate::failure::explain;
use crate::resolve::{Admits, Lookup, Resolver, SystemLookup};
use crate::rules::{Reach, Rules, RulesError, proxy};

const USER_AGENT: &str = concat!("Handoff/", env!("CARGO_PKG_VERSION"));
/// To look the name up, connect, and agree on TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection waits for the next request, and how many do for one host.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE_CONNECTIONS: usize = 4;

/// The guarded way out. A URL is judged at each request, and what its name resolves to at each connection. A connection that
/// is kept was made to addresses that were judged, so a request on it goes nowhere else; it asks for no name again.
///
/// Connections belong to the runtime that opened them: send from one that lasts.
pub struct Guarded {
    reach: Arc<Reach>,
    tls: Client,
    /// To this machine without TLS, where that is allowed.
    plain: Option<Client>,
}

impl Guarded {
    /// The way out under `rules`, by the name service of the operating system.
    pub fn new(rules: &Rules) -> Result<Self, RulesError> {
        Self::with_resolver(rules, Arc::new(SystemLookup::default()))
    }

    /// The way out under `rules`, by a name service of the caller's.
    pub fn with_resolver(rules: &Rules, lookup: Arc<dyn Lookup>) -> Result<Self, RulesError> {
        let reach = Arc::new(Reach::new(&rules.allowed)?);
        let plain = if rules.plain_loopback {
            Some(build(client(), Arc::clone(&lookup), Admits::Loopback)?)
        } else {
            None
        };
        let mut tls = client().https_only(true);
        for certificate in roots(&rules.extra_roots)? {
            tls = tls.add_root_certificate(certificate);
        }
        let mut admits = Admits::Reach(Arc::clone(&reach));
        if let Some(text) = &rules.proxy {
            let (url, name) = proxy(text)?;
            tls = tls.proxy(Proxy::all(url).map_err(|_| RulesError::Proxy)?);
            admits = Admits::Proxy(name);
        }
        Ok(Self {
            reach,
            tls: build(tls, lookup, admits)?,
            plain,
        })
    }

    fn endpoint(&self, url: &str) -> Result<Endpoint, EndpointError> {
        Endpoint::parse(url, &self.reach, self.plain.is_some())
    }

    async fn exchange(&self, request: OutboundRequest) -> Result<OutboundAnswer, SendError> {
        let Endpoint { url, way } = self.endpoint(&request.url)?;
        let client = match way {
            Way::Tls => &self.tls,
            Way::PlainLoopback => self.plain.as_ref().ok_or(EndpointError::Scheme)?,
        };
        let limit = request.answer_limit;
        let mut outgoing = Request::new(method(request.method), url);
        *outgoing.headers_mut() = headers(&request.headers)?;
        if !request.body.is_empty() {
            *outgoing.body_mut() = Some(request.body.into());
        } else if matches!(request.method, OutboundMethod::Post | OutboundMethod::Put) {
            // Some servers want it stated that nothing comes (RFC 9110 section 8.6).
            outgoing
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        timeout(request.timeout, async {
            let response = client.execute(outgoing).await.map_err(|e| explain(&e))?;
            answer::read(response, limit).await
        })
        .await
        .map_err(|_| SendError::TimedOut)?
    }
}

/// Whether `url` could be an endpoint under `rules`, as far as its text tells: what [`Guarded`] asks of it too, each time.
pub fn check(url: &str, rules: &Rules) -> Result<(), EndpointError> {
    let reach = Reach::new(&rules.allowed).map_err(|_| EndpointError::NotPublic)?;
    Endpoint::parse(url, &reach, rules.plain_loopback).map(drop)
}

impl Outbound for Guarded {
    fn check(&self, url: &str) -> Result<(), EndpointError> {
        self.endpoint(url).map(drop)
    }

    fn send(&self, request: OutboundRequest) -> BoxFuture<'_, Result<OutboundAnswer, SendError>> {
        Box::pin(self.exchange(request))
    }
}

/// What all our clients have in common. A body is handed on as it came, so no few bytes become many: encodings are switched off
/// by name, in case another crate of the build switches their support on.
fn client() -> ClientBuilder {
    Client::builder()
        .user_agent(USER_AGENT)
        .redirect(Policy::none())
        .referer(false)
        .no_proxy()
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .http1_only()
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
}

fn build(builder: ClientBuilder, lookup: Arc<dyn Lookup>, admits: Admits) -> Result<Client, RulesError> {
    builder
        .dns_resolver(Arc::new(Resolver::new(lookup, admits)))
        .build()
        .map_err(|_| RulesError::Client)
}

/// The certificates of PEM texts. A text without any, or with one that vouches for nobody, is a mistake, and better noticed here
/// than at the first delivery.
fn roots(texts: &[Vec<u8>]) -> Result<Vec<Certificate>, RulesError> {
    let mut store = RootCertStore::empty();
    let mut roots = Vec::new();
    for text in texts {
        let found = CertificateDer::pem_slice_iter(text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| RulesError::Root)?;
        if found.is_empty() {
            return Err(RulesError::Root);
        }
        for der in found {
            roots.push(Certificate::from_der(&der).map_err(|_| RulesError::Root)?);
            store.add(der).map_err(|_| RulesError::Root)?;
        }
    }
    Ok(roots)
}

const fn method(method: OutboundMethod) -> Method {
    match method {
        OutboundMethod::Get => Method::GET,
        OutboundMethod::Post => Method::POST,
        OutboundMethod::Put => Method::PUT,
        OutboundMethod::Delete => Method::DELETE,
    }
}

fn headers(pairs: &[(String, String)]) -> Result<HeaderMap, HeaderError> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        check_sent_header(name, value)?;
        let name = HeaderName::try_from(name).map_err(|_| HeaderError::Name)?;
        let mut value = HeaderValue::try_from(value).map_err(|_| HeaderError::Value)?;
        value.set_sensitive(true);
        headers
            .try_append(name, value)
            .map_err(|_| HeaderError::TooLong)?;
    }
    Ok(headers)
}
