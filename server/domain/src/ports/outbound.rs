//! The outbound port: one HTTP exchange with an address that a customer gave. Which addresses may be reached, and how, is the
//! adapter's to know.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use super::BoxFuture;
use super::headers::HeaderError;

/// The most bytes that an endpoint's URL may have.
pub const LONGEST_URL: usize = 2_000;

/// The only way to addresses that customers gave.
pub trait Outbound: Send + Sync {
    /// Whether `url` could be an endpoint, as far as its text tells: nothing is resolved and nothing is connected to.
    /// [`Outbound::send`] asks this again each time, and of what a name resolves to as well.
    fn check(&self, url: &str) -> Result<(), EndpointError>;

    /// Sends one request and reads its answer. Nothing is sent twice, and no redirect is followed.
    fn send(&self, request: OutboundRequest) -> BoxFuture<'_, Result<OutboundAnswer, SendError>>;
}

/// What is asked of the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutboundMethod {
    /// GET.
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
}

impl OutboundMethod {
    /// As it stands in the request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// One request. Its `Debug` tells no path, no query, no header's value and no body: each may hold a secret or be about a patient.
#[derive(Clone, PartialEq, Eq)]
pub struct OutboundRequest {
    /// The method.
    pub method: OutboundMethod,
    /// Where to, absolute.
    pub url: String,
    /// Names and values, sent in this order. Each has to pass [`super::check_sent_header`].
    pub headers: Vec<(String, String)>,
    /// The body; sent also where it is empty, except with GET and DELETE.
    pub body: Vec<u8>,
    /// The most that everything together may take, from looking up the name to the answer's last byte.
    pub timeout: Duration,
    /// The most bytes that the answer's body may have. With 0 the body is of no interest and is not read, however long.
    pub answer_limit: usize,
}

impl fmt::Debug for OutboundRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("OutboundRequest")
            .field("method", &self.method)
            .field("authority", &authority(&self.url))
            .field("headers", &names)
            .field("body_bytes", &self.body.len())
            .field("timeout", &self.timeout)
            .field("answer_limit", &self.answer_limit)
            .finish()
    }
}

/// Host and port of an http or https URL; nothing of any other text.
fn authority(url: &str) -> &str {
    ["https://", "http://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))
        .and_then(|rest| rest.split(['/', '?', '#', '\\']).next())
        .and_then(|authority| authority.rsplit('@').next())
        .unwrap_or_default()
}

/// What the other side said: any status but 1xx and 3xx. Its `Debug` tells no header and no body.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OutboundAnswer {
    /// The status.
    pub status: u16,
    /// How long to wait before the next try, if it said so, and at most a day (RFC 9110 section 10.2.3).
    pub retry_after: Option<Duration>,
    /// `ETag`.
    pub etag: Option<String>,
    /// `Location`. Nothing has gone there.
    pub location: Option<String>,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// The body as it came: it is never decompressed.
    pub body: Vec<u8>,
}

impl fmt::Debug for OutboundAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundAnswer")
            .field("status", &self.status)
            .field("retry_after", &self.retry_after)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Why a URL can't be an endpoint, in words for whoever gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EndpointError {
    /// More than [`LONGEST_URL`] bytes.
    #[error("the URL has more than {LONGEST_URL} bytes: give a shorter one")]
    TooLong,
    /// Not an absolute URL.
    #[error(
        "not an absolute URL: write `https://host/path` without blanks, control characters or backslashes"
    )]
    NotAUrl,
    /// Neither https nor, where that is allowed, http to this machine.
    #[error("only `https` URLs are allowed")]
    Scheme,
    /// A user name or a password before the host.
    #[error("the URL holds a user name or a password: remove it and give credentials in a header")]
    Userinfo,
    /// A fragment.
    #[error("the URL has a fragment: remove `#` and what follows")]
    Fragment,
    /// No host, or one that is no name of the domain name system.
    #[error("the URL names no host that could be looked up")]
    Host,
    /// A port that belongs to another protocol, or 0.
    #[error("the port is not allowed: use 443, or one above 1023 that no other protocol is known for")]
    Port,
    /// The address is private, of this machine, or otherwise special.
    #[error("the address is not public: give a public one, or have the operator allow its network")]
    NotPublic,
}

impl EndpointError {
    /// A stable code for logs, metrics and tests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "url-too-long",
            Self::NotAUrl => "not-a-url",
            Self::Scheme => "scheme",
            Self::Userinfo => "userinfo",
            Self::Fragment => "fragment",
            Self::Host => "host",
            Self::Port => "port",
            Self::NotPublic => "not-public",
        }
    }
}

/// Why there is no answer. Tells nothing of the URL, of addresses, or of what the other side wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SendError {
    /// The URL can't be an endpoint.
    #[error("{0}")]
    Endpoint(EndpointError),
    /// An address of the host is not public and not allowed either. Nothing was connected to.
    #[error("the host has an address that is not public")]
    NotPublic,
    /// The name has no address, or nobody can say.
    #[error("the host's name has no address")]
    Unresolved,
    /// No connection, or it broke.
    #[error("the host can't be reached")]
    Unreachable,
    /// No TLS session: the certificate is not for this name, not trusted or out of date, or the other side speaks no TLS.
    #[error("no TLS session with the host")]
    Tls,
    /// Not done in time. The other side may have got the request.
    #[error("the exchange took too long")]
    TimedOut,
    /// The body of the answer is longer than was asked for.
    #[error("the answer is too large")]
    TooLarge,
    /// The answer points elsewhere, where nothing is sent.
    #[error("the answer is a redirect (status {status})")]
    Redirected {
        /// The status, 3xx.
        status: u16,
    },
    /// A header of the request can't be sent.
    #[error("a header can't be sent: {0}")]
    Header(HeaderError),
    /// The answer is no HTTP/1.1.
    #[error("the answer is not HTTP")]
    Protocol,
}

impl SendError {
    /// A stable code for logs, metrics and tests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint(error) => error.as_str(),
            Self::NotPublic => "not-public",
            Self::Unresolved => "unresolved",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::TimedOut => "timed-out",
            Self::TooLarge => "too-large",
            Self::Redirected { .. } => "redirected",
            Self::Header(_) => "header",
            Self::Protocol => "protocol",
        }
    }
}

impl From<EndpointError> for SendError {
    fn from(error: EndpointError) -> Self {
        match error {
            EndpointError::NotPublic => Self::NotPublic,
            other => Self::Endpoint(other),
        }
    }
}

impl From<HeaderError> for SendError {
    fn from(error: HeaderError) -> Self {
        Self::Header(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_and_answered_is_not_printed() {
        let request = OutboundRequest {
            method: OutboundMethod::Post,
            url: "https://user:secret@hooks.example:8443/secret?key=secret#secret".to_owned(),
            headers: vec![("Authorization".to_owned(), "secret".to_owned())],
            body: b"secret".to_vec(),
            timeout: Duration::from_secs(20),
            answer_limit: 0,
        };
        let printed = format!("{request:?}");
        assert!(!printed.contains("secret"), "{printed}");
        assert!(printed.contains("\"hooks.example:8443\""), "{printed}");
        assert!(printed.contains("Authorization"), "{printed}");
        for url in [
            "secret",
            "secret?a://secret",
            "https://@secret@",
            "https://\\secret",
        ] {
            assert_eq!(authority(url), "", "{url}");
        }
        let answer = OutboundAnswer {
            status: 201,
            etag: Some("secret".to_owned()),
            location: Some("secret".to_owned()),
            content_type: Some("secret".to_owned()),
            body: b"secret".to_vec(),
            ..OutboundAnswer::default()
        };
        let printed = format!("{answer:?}");
        assert!(!printed.contains("secret"), "{printed}");
    }
}
