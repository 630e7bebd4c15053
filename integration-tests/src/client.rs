//! A client of the server: one of the cast, with its token, or a stranger.

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

/// A client with or without a token.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// The server: `http://127.0.0.1:N`.
    pub base: String,
    /// The access token, where there is one.
    pub token: Option<String>,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Client {
    /// Signs in at the development issuer.
    pub async fn sign_in(http: &reqwest::Client, issuer: &str, base: &str, name: &str) -> Self {
        Self::sign_in_for(http, issuer, base, name, &[]).await
    }

    /// Signs in for less than the role's full scope: `asked` goes along with the request for the token.
    pub async fn sign_in_for(
        http: &reqwest::Client,
        issuer: &str,
        base: &str,
        name: &str,
        asked: &[(&str, &str)],
    ) -> Self {
        let realm = if name.ends_with("-b") {
            "/dev-issuer/b"
        } else {
            "/dev-issuer"
        };
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials")
            .append_pair("client_id", name)
            .extend_pairs(asked);
        let answer = http
            .post(format!("{issuer}{realm}/token"))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.finish())
            .send()
            .await
            .expect("the issuer answers");
        assert_eq!(answer.status(), StatusCode::OK, "a token for {name}");
        let body: Value = answer.json().await.expect("JSON");
        let token = body["access_token"].as_str().expect("an access token").to_owned();
        Self {
            http: http.clone(),
            base: base.to_owned(),
            token: Some(token),
        }
    }

    /// A client without credentials.
    pub fn anonymous(http: &reqwest::Client, base: &str) -> Self {
        Self {
            http: http.clone(),
            base: base.to_owned(),
            token: None,
        }
    }

    /// The same client with this token.
    #[must_use]
    pub fn with_token(self, token: String) -> Self {
        Self {
            token: Some(token),
            ..self
        }
    }

    /// The same caller at another server.
    #[must_use]
    pub fn at(&self, base: &str) -> Self {
        Self {
            base: base.to_owned(),
            ..self.clone()
        }
    }

    /// A request with the caller's token, to be completed.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.base)
        };
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request and reads the answer to its end.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let answer = request.send().await.expect("the server answers");
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.expect("a whole body").to_vec();
        Answer {
            status,
            headers,
            body,
        }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// HEAD.
    pub async fn head(&self, path: &str) -> Answer {
        self.send(self.request(Method::HEAD, path)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// POST of FHIR JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send_json(Method::POST, path, "application/fhir+json", body)
            .await
    }

    /// POST of plain JSON.
    pub async fn post_plain(&self, path: &str, body: &Value) -> Answer {
        self.send_json(Method::POST, path, "application/json", body).await
    }

    /// PUT of plain JSON.
    pub async fn put_plain(&self, path: &str, body: &Value) -> Answer {
        self.send_json(Method::PUT, path, "application/json", body).await
    }

    /// PUT of FHIR JSON.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send_json(Method::PUT, path, "application/fhir+json", body)
            .await
    }

    async fn send_json(&self, method: Method, path: &str, kind: &str, body: &Value) -> Answer {
        let request = self
            .request(method, path)
            .header(CONTENT_TYPE, kind)
            .body(body.to_string());
        self.send(request).await
    }

    /// POST of bytes.
    pub async fn post_bytes(&self, path: &str, content_type: &str, body: Vec<u8>) -> Answer {
        let request = self
            .request(Method::POST, path)
            .header(CONTENT_TYPE, content_type)
            .body(body);
        self.send(request).await
    }
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| {
            panic!(
                "not JSON ({e}), status {}: {}",
                self.status,
                String::from_utf8_lossy(&self.body)
            )
        })
    }

    /// The answer, if its status is this one; else the test fails with what came instead.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        self
    }

    /// The answer, if its status is one of these.
    #[track_caller]
    pub fn expect_one_of(self, statuses: &[u16]) -> Self {
        let status = self.status.as_u16();
        let told = String::from_utf8_lossy(&self.body);
        assert!(statuses.contains(&status), "{status}: {told}");
        self
    }

    /// The answer, if it refuses with this status and reason code.
    #[track_caller]
    pub fn refused(self, status: u16, reason: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(
            answer.reason().as_deref(),
            Some(reason),
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
        answer
    }

    /// The reason code of a refusal, in either form.
    pub fn reason(&self) -> Option<String> {
        let body: Value = serde_json::from_slice(&self.body).ok()?;
        let coded = body["issue"][0]["details"]["coding"][0]["code"].as_str();
        coded.or_else(|| body["reason"].as_str()).map(str::to_owned)
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// `id` of the resource in the body.
    pub fn id(&self) -> String {
        self.json()["id"].as_str().expect("an id").to_owned()
    }
}
