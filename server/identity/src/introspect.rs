//! Asking the issuer what a token is good for (RFC 7662): for opaque tokens, which say nothing by themselves.

use std::time::Duration;

use openidconnect::HttpRequest;
use openidconnect::http::{Method, header};
use secrecy::SecretString;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use url::form_urlencoded::Serializer;

use crate::error::TokenError;
use crate::fetch::{Fetcher, basic, chain};

/// The most questions to one issuer at once.
const MOST_AT_ONCE: usize = 32;
/// How long a question waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);

/// How an issuer is asked about its tokens.
#[derive(Debug, Clone)]
pub struct Introspection {
    /// As whom we ask.
    pub client_id: String,
    /// What proves that it is us.
    pub client_secret: SecretString,
    /// Where, if not where the issuer's discovery document says.
    pub endpoint: Option<String>,
    /// How long an answer is good, in seconds: for so long a revoked token may live on.
    pub remember_seconds: i64,
}

/// Asks one issuer.
pub(crate) struct Introspector {
    settings: Introspection,
    places: Semaphore,
}

impl Introspector {
    pub(crate) fn new(settings: Introspection) -> Self {
        Self {
            settings,
            places: Semaphore::new(MOST_AT_ONCE),
        }
    }

    pub(crate) const fn remember_seconds(&self) -> i64 {
        self.settings.remember_seconds
    }

    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.settings.endpoint.as_deref()
    }

    /// What the issuer says of `token`; `None` where it is not good for anything.
    pub(crate) async fn ask(
        &self,
        fetcher: &Fetcher,
        endpoint: &str,
        token: &str,
    ) -> Result<Option<Map<String, Value>>, TokenError> {
        // A flood of made-up tokens must not become one of questions.
        let _place = timeout(PATIENCE, self.places.acquire())
            .await
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| TokenError::unavailable("too many tokens are being asked about"))?;
        let failed = |detail: String| TokenError::unavailable(format!("introspection: {detail}"));
        let answer = fetcher
            .fetch(
                self.question(endpoint, token)
                    .map_err(|error| failed(error.to_string()))?,
            )
            .await
            .map_err(|error| failed(chain(&error)))?;
        match answer.status().as_u16() {
            200 => {}
            // It can't be one of its tokens, then.
            400 => return Ok(None),
            status @ (401 | 403) => {
                tracing::warn!(status, endpoint, "the issuer does not let us ask about tokens");
                return Err(failed(format!("the issuer answered {status}")));
            }
            status => return Err(failed(format!("the issuer answered {status}"))),
        }
        match serde_json::from_slice(answer.body()) {
            Ok(Value::Object(said)) if said.get("active") == Some(&Value::Bool(true)) => Ok(Some(said)),
            Ok(Value::Object(said)) if said.get("active") == Some(&Value::Bool(false)) => Ok(None),
            _ => Err(failed(
                "the issuer did not say whether the token is active".to_owned(),
            )),
        }
    }

    fn question(&self, endpoint: &str, token: &str) -> Result<HttpRequest, openidconnect::http::Error> {
        let body = Serializer::new(String::new())
            .append_pair("token", token)
            .append_pair("token_type_hint", "access_token")
            .finish();
        let credentials = basic(&self.settings.client_id, &self.settings.client_secret)?;
        openidconnect::http::Request::builder()
            .method(Method::POST)
            .uri(endpoint)
            .header(header::AUTHORIZATION, credentials)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(body.into_bytes())
    }
}
