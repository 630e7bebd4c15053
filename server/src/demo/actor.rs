//! One of the play's cast with a token in hand, who asks over real HTTP and looks at the answer.

use reqwest::header::{CONTENT_TYPE, ETAG, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::time::Duration;

use super::play::PlayError;

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    pub(super) etag: Option<String>,
    pub(super) content_type: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null where it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The reason code of a refusal, in either form of error body.
    pub(super) fn reason(&self) -> Option<String> {
        let body = self.json();
        body.pointer("/issue/0/details/coding/0/code")
            .or_else(|| body.get("reason"))
            .and_then(Value::as_str)
            .map(str::to_owned)
    }

    /// What a refusal says in words.
    pub(super) fn words(&self) -> Option<String> {
        let body = self.json();
        [
            "/issue/0/details/text",
            "/issue/0/diagnostics",
            "/detail",
            "/title",
        ]
        .iter()
        .find_map(|place| body.pointer(place))
        .and_then(Value::as_str)
        .map(str::to_owned)
    }

    /// The resource's id, from its body or from where it is said to be.
    pub(super) fn id(&self) -> Option<String> {
        let body = self.json();
        if let Some(id) = body.get("id").and_then(Value::as_str) {
            return Some(id.to_owned());
        }
        let location = self.location.as_deref()?;
        let whole = location.split("/_history").next().unwrap_or(location);
        whole.rsplit('/').next().map(str::to_owned)
    }
}

/// The wire: a client that keeps to what it is told and follows no redirect by itself.
pub(super) fn client() -> Result<Client, PlayError> {
    let built = Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build();
    built.map_err(|error| PlayError::Wire(error.to_string()))
}

/// One of the cast.
pub(super) struct Actor {
    /// As people call them.
    pub(super) name: &'static str,
    client: Client,
    base: String,
    token: SecretString,
}

impl Actor {
    /// Gets a token for `client_id` from the development issuer.
    pub(super) async fn enter(
        client: &Client,
        base: &str,
        issuer_base: &str,
        client_id: &str,
        name: &'static str,
    ) -> Result<Self, PlayError> {
        let request = client
            .post(format!("{issuer_base}/dev-issuer/token"))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(format!("grant_type=client_credentials&client_id={client_id}"));
        let answer = send(request).await?;
        let token = answer
            .json()
            .get("access_token")
            .and_then(Value::as_str)
            .map(SecretString::from);
        let token =
            token.ok_or_else(|| PlayError::Wire(format!("no token for `{client_id}`: {}", answer.status)))?;
        Ok(Self {
            name,
            client: client.clone(),
            base: base.to_owned(),
            token,
        })
    }

    /// Asks for `path` with a body of `content_type`, or without one where that is empty.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> Result<Answer, PlayError> {
        let url = if path.starts_with("http://") {
            path.to_owned()
        } else {
            format!("{}{path}", self.base)
        };
        let mut request = self
            .client
            .request(method, url)
            .bearer_auth(self.token.expose_secret());
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type).body(body);
        }
        send(request).await
    }
}

async fn send(request: RequestBuilder) -> Result<Answer, PlayError> {
    let wire = |error: reqwest::Error| PlayError::Wire(error.without_url().to_string());
    let response = request.send().await.map_err(wire)?;
    let header = |name| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let (location, etag) = (header(LOCATION), header(ETAG));
    let content_type = header(CONTENT_TYPE).unwrap_or_default();
    let status = response.status().as_u16();
    let body = response.bytes().await.map_err(wire)?.to_vec();
    Ok(Answer {
        status,
        location,
        etag,
        content_type,
        body,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(body: &Value, location: Option<&str>) -> Answer {
        Answer {
            status: 403,
            location: location.map(str::to_owned),
            etag: None,
            content_type: String::new(),
            body: body.to_string().into_bytes(),
        }
    }

    #[test]
    fn a_reason_is_read_from_an_outcome_and_from_a_problem() {
        let outcome = json!({"issue": [{"details": {"coding": [{"code": "exhausted"}], "text": "used"}}]});
        assert_eq!(answer(&outcome, None).reason().as_deref(), Some("exhausted"));
        assert_eq!(answer(&outcome, None).words().as_deref(), Some("used"));
        let problem = json!({"reason": "replayed", "detail": "again"});
        assert_eq!(answer(&problem, None).reason().as_deref(), Some("replayed"));
        assert_eq!(answer(&json!(7), None).reason(), None);
    }

    #[test]
    fn an_id_is_read_from_the_body_or_from_the_location() {
        assert_eq!(answer(&json!({"id": "a"}), None).id().as_deref(), Some("a"));
        let location = "http://h/fhir/Binary/b/_history/1";
        assert_eq!(answer(&json!({}), Some(location)).id().as_deref(), Some("b"));
        assert_eq!(
            answer(&json!({}), Some("/redemptions/c")).id().as_deref(),
            Some("c")
        );
    }
}
