//! Sources over the guarded HTTP client: every request stays below the source's base, and carries a token of SMART backend
//! services where credentials are configured. Tokens are kept in memory until shortly before they expire.

mod assertion;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handoff_domain::ports::{
    BoxFuture, Clock, Entropy, Outbound, OutboundAnswer, OutboundMethod, OutboundRequest, SendError,
    SourceAct, SourceAnswer, SourceError, SourceRequest, SourceServer,
};
use handoff_domain::source::{Credentials, Source};
use handoff_domain::time::{Span, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::form_urlencoded::Serializer;

use super::secret_place;

/// The most that one exchange takes.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The most of an answer about tokens.
const TOKEN_LIMIT: usize = 64 * 1024;
/// How long before its end a token is not used any more, and the longest that one is kept.
const MARGIN: Span = Span::seconds(30);
const LONGEST_LIFE: i64 = 3600;
/// The most tokens that are kept.
const MOST_TOKENS: usize = 1000;

/// Whose token: client, where, what for.
type Holder = (String, String, String);

/// Sources over HTTP.
pub struct SourcesOverHttp {
    outbound: Arc<dyn Outbound>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    tokens: Mutex<HashMap<Holder, (SecretString, Timestamp)>>,
}

impl SourcesOverHttp {
    /// By this client.
    pub fn new(outbound: Arc<dyn Outbound>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            outbound,
            clock,
            entropy,
            tokens: Mutex::default(),
        }
    }

    async fn exchange(&self, source: &Source, request: SourceRequest) -> Result<SourceAnswer, SourceError> {
        let base = source.settings.base.as_deref().ok_or(SourceError::NoBase)?;
        if !stays_below(&request.path) {
            return Err(SourceError::Path);
        }
        // A server may page by its base alone.
        let between = if request.path.starts_with('?') { "" } else { "/" };
        let url = format!("{base}{between}{}", request.path);
        let mut answer = self.send(source, &url, &request, false).await?;
        if answer.status == 401 && source.settings.credentials.is_some() {
            // The token may have been revoked before its end.
            answer = self.send(source, &url, &request, true).await?;
        }
        Ok(SourceAnswer {
            status: answer.status,
            content_type: answer.content_type,
            location: answer.location,
            body: answer.body,
        })
    }

    async fn send(
        &self,
        source: &Source,
        url: &str,
        request: &SourceRequest,
        anew: bool,
    ) -> Result<OutboundAnswer, SourceError> {
        let mut headers = vec![
            ("Accept".to_owned(), "application/fhir+json".to_owned()),
            ("User-Agent".to_owned(), "handoff".to_owned()),
        ];
        if let Some(credentials) = &source.settings.credentials {
            let token = self.token(source, credentials, anew).await?;
            headers.push((
                "Authorization".to_owned(),
                format!("Bearer {}", token.expose_secret()),
            ));
        }
        let (method, body) = match &request.act {
            SourceAct::Get => (OutboundMethod::Get, Vec::new()),
            SourceAct::Post(body) => (OutboundMethod::Post, body.clone()),
            SourceAct::Put(body) => (OutboundMethod::Put, body.clone()),
        };
        if method != OutboundMethod::Get {
            headers.push(("Content-Type".to_owned(), "application/fhir+json".to_owned()));
        }
        let request = OutboundRequest {
            method,
            url: url.to_owned(),
            headers,
            body,
            timeout: TIMEOUT,
            answer_limit: request.answer_limit,
        };
        self.outbound.send(request).await.map_err(failed)
    }

    /// A token for the source, kept or fresh.
    async fn token(
        &self,
        source: &Source,
        credentials: &Credentials,
        anew: bool,
    ) -> Result<SecretString, SourceError> {
        let now = self.clock.now();
        let holder = (
            credentials.client_id.clone(),
            source.settings.base.clone().unwrap_or_default(),
            credentials.scope.clone(),
        );
        if !anew {
            let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((token, _)) = tokens.get(&holder).filter(|(_, until)| now < *until) {
                return Ok(token.clone());
            }
        }
        let token_url = match &credentials.token_url {
            Some(url) => url.clone(),
            None => self.discover(source).await?,
        };
        let key = secret_place::read(&credentials.key)
            .await
            .map_err(SourceError::Credentials)?;
        let assertion = assertion::signed(
            &assertion::Claims {
                client_id: &credentials.client_id,
                audience: &token_url,
                key_id: credentials.key_id.as_deref(),
                id: &self.entropy.fresh_id(),
                now,
            },
            &key,
        )
        .map_err(|error| SourceError::Credentials(error.to_owned()))?;
        let (token, life) = self
            .ask_for_token(&token_url, &credentials.client_id, &credentials.scope, &assertion)
            .await?;
        let until = now
            .plus(Span::seconds(life.min(LONGEST_LIFE)))
            .plus(Span(-MARGIN.0));
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MOST_TOKENS {
            tokens.clear();
        }
        tokens.insert(holder, (token.clone(), until));
        Ok(token)
    }

    /// The token endpoint of a source's `smart-configuration`.
    async fn discover(&self, source: &Source) -> Result<String, SourceError> {
        let base = source.settings.base.as_deref().ok_or(SourceError::NoBase)?;
        let request = OutboundRequest {
            method: OutboundMethod::Get,
            url: format!("{base}/.well-known/smart-configuration"),
            headers: vec![("Accept".to_owned(), "application/json".to_owned())],
            body: Vec::new(),
            timeout: TIMEOUT,
            answer_limit: TOKEN_LIMIT,
        };
        let answer = self.outbound.send(request).await.map_err(failed)?;
        let found: Option<Value> = serde_json::from_slice(&answer.body).ok();
        let url = found.filter(|_| answer.status == 200).and_then(|found| {
            let url = found.get("token_endpoint")?.as_str()?;
            Some(url.to_owned())
        });
        let url = url.ok_or_else(|| {
            SourceError::Credentials("the source's `smart-configuration` names no token endpoint".to_owned())
        })?;
        if is_same_server(&url, base) {
            Ok(url)
        } else {
            Err(SourceError::Credentials(
                "the source names a token endpoint of another server: where that is right, give it as `--token-url`".to_owned(),
            ))
        }
    }

    async fn ask_for_token(
        &self,
        url: &str,
        client_id: &str,
        scope: &str,
        assertion: &SecretString,
    ) -> Result<(SecretString, i64), SourceError> {
        let form = Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            // Not needed, since the assertion says it; it may be there (RFC 7521 section 4.2), and some look for it.
            .append_pair("client_id", client_id)
            .append_pair("scope", scope)
            .append_pair(
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            )
            .append_pair("client_assertion", assertion.expose_secret())
            .finish();
        let request = OutboundRequest {
            method: OutboundMethod::Post,
            url: url.to_owned(),
            headers: vec![
                ("Accept".to_owned(), "application/json".to_owned()),
                (
                    "Content-Type".to_owned(),
                    "application/x-www-form-urlencoded".to_owned(),
                ),
            ],
            body: form.into_bytes(),
            timeout: TIMEOUT,
            answer_limit: TOKEN_LIMIT,
        };
        let answer = self.outbound.send(request).await.map_err(failed)?;
        let refused = || SourceError::Credentials(format!("no token was given (status {})", answer.status));
        if answer.status != 200 {
            return Err(refused());
        }
        let body: Value = serde_json::from_slice(&answer.body).map_err(|_| refused())?;
        let token = body
            .get("access_token")
            .and_then(Value::as_str)
            .ok_or_else(refused)?;
        let is_token = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        let is_bearer = body
            .get("token_type")
            .and_then(Value::as_str)
            .is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"));
        if !is_token || !is_bearer {
            return Err(refused());
        }
        let life = body.get("expires_in").and_then(Value::as_i64).unwrap_or(60);
        Ok((SecretString::from(token.to_owned()), life))
    }
}

/// Whether a path can't leave the base that stands before it.
fn stays_below(path: &str) -> bool {
    let (way, _) = path.split_once('?').unwrap_or((path, ""));
    let leaves = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('%');
    !path.contains(['#', '\\'])
        && path.bytes().all(|b| b.is_ascii_graphic())
        && (path.starts_with('?') || !way.split('/').any(leaves))
        && !way.contains(':')
}

fn failed(error: SendError) -> SourceError {
    match error {
        SendError::TooLarge => SourceError::TooLarge,
        other => SourceError::Unreachable(other.as_str().to_owned()),
    }
}

impl SourceServer for SourcesOverHttp {
    fn ask<'a>(
        &'a self,
        source: &'a Source,
        request: SourceRequest,
    ) -> BoxFuture<'a, Result<SourceAnswer, SourceError>> {
        Box::pin(self.exchange(source, request))
    }
}

/// Whether a token endpoint is of the server that names it. Were it believed about any other, it could have us fetch a token that
/// is good there, and send it here.
fn is_same_server(url: &str, base: &str) -> bool {
    let origin = |url: &str| url::Url::parse(url).ok().map(|url| url.origin());
    origin(url).is_some_and(|found| found.is_tuple() && Some(found) == origin(base))
}

#[cfg(test)]
mod tests {
    use super::{is_same_server, stays_below};

    #[test]
    fn a_source_speaks_of_its_own_token_endpoint_alone() {
        let base = "https://ehr.example/fhir";
        for own in [
            "https://ehr.example/oauth2/token",
            "https://EHR.example:443/token",
        ] {
            assert!(is_same_server(own, base), "{own}");
        }
        for other in [
            "https://other.example/token",
            "http://ehr.example/token",
            "https://ehr.example:8443/token",
            "https://ehr.example@other.example/token",
            "/token",
            "data:text/plain,token",
        ] {
            assert!(!is_same_server(other, base), "{other}");
        }
    }

    #[test]
    fn a_path_stays_below_its_base() {
        for path in [
            "Task/1",
            "Task?_lastUpdated=gt2026-01-01T00:00:00Z&_count=9",
            "?page=a%2Fb",
            "Subscription/1/$status",
        ] {
            assert!(stays_below(path), "{path}");
        }
        for path in [
            "",
            "/etc",
            "../x",
            "Task/../../x",
            "https://other/x",
            "a//b",
            "Task/%2e%2e/x",
            "Task#x",
            "Ta sk",
        ] {
            assert!(!stays_below(path), "{path}");
        }
    }
}
