//! An issuer of a test's own on loopback: it signs whatever the test wants signed, as no honest one would.

use std::sync::Arc;

use handoff::adapters::OsEntropy;
use handoff_domain::ids::TenantId;
use handoff_identity::IssuerConfig;
use handoff_identity::dev_issuer::{DevIssuer, DevKey, Realm};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The audience of its tokens.
pub const AUDIENCE: &str = "https://handoff.example/fhir";

/// An issuer whose key is in the test's hands.
pub struct OwnIssuer {
    /// The key that it publishes.
    pub key: DevKey,
    issuer: DevIssuer,
    base: String,
}

impl OwnIssuer {
    /// Starts it: discovery and keys are served until the test ends.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let key = DevKey::generate().expect("a key");
        let double = key.duplicate().expect("the same key");
        let issuer = DevIssuer::new(&base, Realm::Default, double, Arc::new(OsEntropy::new()));
        let (discovery, keys) = (issuer.discovery().to_string(), issuer.jwks().to_string());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that goes away is none of the test's business.
                let _gone = answer(stream, &discovery, &keys).await;
            }
        });
        Self { key, issuer, base }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.issuer.issuer()
    }

    /// As a server trusts it, for a tenant.
    pub fn trusted_for(&self, tenant: &str) -> IssuerConfig {
        let tenant = TenantId::parse(tenant).expect("a tenant");
        let config = DevIssuer::issuer_config(&self.base, Realm::Default, tenant);
        IssuerConfig {
            client_actor: None,
            ..config
        }
    }

    /// Dr. Lane's claims at `now` (seconds), changed: `Null` takes a member away.
    pub fn claims(&self, now: i64, changes: &[(&str, Value)]) -> Value {
        let mut claims = json!({
            "iss": self.name(), "sub": "lane", "aud": AUDIENCE, "client_id": "lane", "iat": now, "exp": now + 600,
            "jti": format!("j{now}"), "scope": "user/*.cruds", "fhirUser": "Practitioner/lane",
            "roles": ["physician"], "teams": ["cardiology"],
        });
        for (name, value) in changes {
            if value.is_null() {
                claims.as_object_mut().expect("an object").remove(*name);
            } else {
                claims[*name] = value.clone();
            }
        }
        claims
    }

    /// A token with these claims, signed as it should be.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.key.kid() });
        self.key.sign_with(&header, claims).expect("a signature")
    }
}

async fn answer(mut stream: TcpStream, discovery: &str, keys: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let body = if head.contains("openid-configuration") {
        discovery
    } else {
        keys
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
