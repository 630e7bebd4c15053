//! A certified OpenID Connect provider of a test's own, which can be told to change its keys and to go away, and what its
//! clients say to it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use handoff::wiring::Identity;
use handoff_domain::ids::TenantId;
use handoff_identity::{IssuerConfig, SignIn};
use reqwest::{Response, StatusCode, Url};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::issuer::AUDIENCE;
use crate::visitor::Visitor;
use crate::{Backend, Client, TestApp, free_address, http_client};

/// The secret of the clients that have one.
pub const SECRET: &str = "test-only-not-a-secret";

/// A running provider.
pub struct Provider {
    /// Its name.
    pub issuer: String,
    http: reqwest::Client,
    process: Child,
    orders: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Provider {
    /// Starts one on a free port. `backend_keys` are those of the client `backend`.
    pub async fn start(backend_keys: Option<&Value>) -> Self {
        let keys = backend_keys.map(|keys| ("CLIENT_JWKS", keys.to_string()));
        Self::start_at(0, keys).await
    }

    /// Starts one where people sign in for the pages of a server at `base`.
    pub async fn for_pages(base: &str) -> Self {
        Self::start_at(0, Some(("PAGES", base.to_owned()))).await
    }

    async fn start_at(port: u16, told: Option<(&str, String)>) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("node");
        command
            .arg(here.join("services/oidc-provider.mjs"))
            .env("PORT", port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        if let Some((name, value)) = told {
            command.env(name, value);
        }
        let mut process = command.spawn().expect("node is installed");
        let orders = process.stdin.take().expect("a pipe");
        let mut said = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let line = said
            .next_line()
            .await
            .expect("a line")
            .expect("the provider starts");
        let issuer = line.strip_prefix("issuer ").expect("its name").to_owned();
        Self {
            issuer,
            http: http_client(),
            process,
            orders,
            said,
        }
    }

    /// Replaces its signing keys.
    pub async fn rotate(&mut self) {
        self.orders
            .write_all(b"rotate\n")
            .await
            .expect("the provider listens");
        let line = self.said.next_line().await.expect("a line");
        assert_eq!(line.as_deref(), Some("rotated"));
    }

    /// Goes away. What comes back under the same name has other keys, and has forgotten everybody.
    pub async fn stop(mut self) -> Stopped {
        let url = Url::parse(&self.issuer).expect("a URL");
        self.process.kill().await.expect("it ends");
        Stopped(url.port().expect("a port"))
    }

    /// As a server trusts it.
    pub fn config(&self) -> IssuerConfig {
        IssuerConfig {
            allow_insecure_loopback: true,
            client_actor: Some("Device".to_owned()),
            ..IssuerConfig::new(
                &self.issuer,
                TenantId::default_tenant(),
                vec![AUDIENCE.to_owned()],
            )
        }
    }

    /// As a server trusts it, with people who sign in for its pages.
    pub fn with_sign_in(&self) -> IssuerConfig {
        IssuerConfig {
            sign_in: Some(SignIn {
                client_id: "pages".to_owned(),
                client_secret: Some(SECRET.to_owned().into()),
                scopes: vec!["fhirUser".to_owned()],
                label: "Sign in with the hospital account".to_owned(),
            }),
            ..self.config()
        }
    }

    /// One of its clients, of a server that trusts it.
    pub async fn client(&self, app: &TestApp, name: &str) -> Client {
        app.stranger().with_token(self.token(name).await)
    }

    /// An endpoint of it.
    pub async fn endpoint(&self, name: &str) -> String {
        let url = format!("{}/.well-known/openid-configuration", self.issuer);
        let document: Value = self
            .http
            .get(url)
            .send()
            .await
            .expect("it answers")
            .json()
            .await
            .expect("JSON");
        document[name].as_str().expect("an endpoint").to_owned()
    }

    /// A form posted to an endpoint.
    pub async fn post(&self, endpoint: &str, form: &[(&str, &str)]) -> Value {
        let answer = self.post_with(endpoint, form, &[]).await;
        let (status, body) = (answer.status(), answer.text().await.expect("text"));
        assert_eq!(status, StatusCode::OK, "{body}");
        serde_json::from_str(&body).unwrap_or_default()
    }

    /// The same with headers.
    pub async fn post_with(
        &self,
        endpoint: &str,
        form: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Response {
        let mut request = self
            .http
            .post(endpoint)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(encoded(form));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("it answers")
    }

    /// A token of a client that has a secret.
    pub async fn token(&self, client: &str) -> String {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client),
            ("client_secret", SECRET),
            ("resource", AUDIENCE),
            ("scope", "system/*.cruds"),
        ];
        let tokens = self.post(&self.endpoint("token_endpoint").await, &form).await;
        access_token(&tokens)
    }

    /// Signs `who` in by authorization code and PKCE, as the client `app`, and answers its tokens.
    pub async fn sign_in(&self, who: &str, scope: &str) -> Value {
        const CALLBACK: &str = "http://127.0.0.1:9/callback";
        let verifier = "a-verifier-of-enough-length-that-nobody-guesses-it";
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        let mut url = Url::parse(&self.endpoint("authorization_endpoint").await).expect("a URL");
        url.query_pairs_mut()
            .append_pair("client_id", "app")
            .append_pair("response_type", "code")
            .append_pair("redirect_uri", CALLBACK)
            .append_pair("scope", scope)
            .append_pair("resource", AUDIENCE)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .append_pair("state", "a-state")
            .append_pair("prompt", "consent");
        let back = Visitor::default().sign_in_at(&self.issuer, url, who).await;
        let answered: BTreeMap<_, _> = back.query_pairs().into_owned().collect();
        assert_eq!(
            answered.get("state").map(String::as_str),
            Some("a-state"),
            "{answered:?}"
        );
        let code = answered
            .get("code")
            .unwrap_or_else(|| panic!("no code: {answered:?}"));
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", "app"),
            ("code", code),
            ("redirect_uri", CALLBACK),
            ("code_verifier", verifier),
            ("resource", AUDIENCE),
        ];
        self.post(&self.endpoint("token_endpoint").await, &form).await
    }
}

/// A server whose people sign in at a provider of its own, and that provider.
pub async fn app_with_sign_in(backend: Backend) -> (TestApp, Provider) {
    let listen = free_address();
    let provider = Provider::for_pages(&format!("http://{listen}")).await;
    let app = TestApp::start_with(backend, |options| {
        options.listen = listen;
        options.identity = Identity::Issuers(vec![provider.with_sign_in()]);
    })
    .await;
    (app, provider)
}

/// A provider that went away.
pub struct Stopped(u16);

impl Stopped {
    /// Comes back.
    pub async fn start(self) -> Provider {
        Provider::start_at(self.0, None).await
    }
}

/// The access token of an answer.
pub fn access_token(tokens: &Value) -> String {
    tokens["access_token"]
        .as_str()
        .expect("an access token")
        .to_owned()
}

fn encoded(form: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish()
}
