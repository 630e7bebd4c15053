//! The HTTP client behind discovery and whatever else issuers are asked: no redirects, no more than a mebibyte, and only addresses that the
//! issuer's configuration allows. Knows nothing of keys or tokens.

use std::future::Future;
use std::pin::Pin;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openidconnect::http::HeaderValue;
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use url::Url;
use url::form_urlencoded::byte_serialize;

use crate::config::{HttpSettings, is_loopback, may_fetch};

const MOST_BYTES: usize = 1024 * 1024;

/// A document that could not be fetched.
#[derive(Debug, Error)]
pub(crate) enum FetchError {
    #[error("address is neither https nor an allowed loopback address")]
    Address,
    #[error("answer is larger than {MOST_BYTES} bytes")]
    TooLarge,
    #[error("{0}")]
    Http(String),
}

/// Fetches for one issuer.
pub(crate) struct Fetcher {
    client: reqwest::Client,
    insecure_loopback: bool,
}

impl Fetcher {
    /// A fetcher for `issuer`. Fails where the certificate bundle cannot be read.
    pub(crate) fn new(
        issuer: &Url,
        insecure_loopback: bool,
        settings: &HttpSettings,
    ) -> Result<Self, reqwest::Error> {
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(settings.timeout)
            // Fetches are rare, and a kept connection would be tied to the runtime that opened it.
            .pool_max_idle_per_host(0);
        if let Some(pem) = &settings.ca_bundle {
            for certificate in reqwest::Certificate::from_pem_bundle(pem)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        if is_loopback(issuer) {
            builder = builder.no_proxy();
        }
        Ok(Self {
            client: builder.build()?,
            insecure_loopback,
        })
    }

    /// Sends one request. Its answer is whatever comes; a redirect is not followed.
    pub(crate) async fn fetch(&self, request: HttpRequest) -> Result<HttpResponse, FetchError> {
        let request = reqwest::Request::try_from(request).map_err(|e| http(&e))?;
        if !may_fetch(request.url(), self.insecure_loopback) {
            return Err(FetchError::Address);
        }
        let mut answer = self.client.execute(request).await.map_err(|e| http(&e))?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|e| http(&e))? {
            if body.len().saturating_add(chunk.len()) > MOST_BYTES {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let mut out = HttpResponse::new(body);
        *out.status_mut() = answer.status();
        *out.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(out)
    }
}

fn http(error: &reqwest::Error) -> FetchError {
    FetchError::Http(chain(error))
}

/// `Authorization` of a client that shows its secret (RFC 6749 section 2.3.1: both are form-encoded first).
pub(crate) fn basic(
    client_id: &str,
    secret: &SecretString,
) -> Result<HeaderValue, openidconnect::http::header::InvalidHeaderValue> {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let (id, secret) = (encoded(client_id), encoded(secret.expose_secret()));
    let mut credentials =
        HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))))?;
    credentials.set_sensitive(true);
    Ok(credentials)
}

/// An error with all its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

impl<'c> AsyncHttpClient<'c> for Fetcher {
    type Error = FetchError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, FetchError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.fetch(request))
    }
}
