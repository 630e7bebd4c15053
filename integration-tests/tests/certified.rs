//! A certified OpenID Connect provider's tokens of every kind, against the server: backend services, people, opaque and
//! bound tokens, changes of keys, and the provider's absence.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use handoff::wiring::Identity;
use handoff_domain::ports::Clock as _;
use handoff_domain::time::Span;
use handoff_identity::dev_issuer::DevKey;
use handoff_identity::{Introspection, IssuerConfig};
use handoff_integration_tests::issuer::AUDIENCE;
use handoff_integration_tests::provider::{Provider, SECRET, access_token};
use handoff_integration_tests::scene::Referral;
use handoff_integration_tests::{Answer, Backend, Client, TestApp};
use reqwest::Method;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

async fn trusting(config: IssuerConfig) -> TestApp {
    TestApp::start_with(Backend::Embedded, |options| {
        options.identity = Identity::Issuers(vec![config]);
    })
    .await
}

fn with(app: &TestApp, token: &str) -> Client {
    app.stranger().with_token(token.to_owned())
}

fn seconds(app: &TestApp) -> i64 {
    app.clock.now().0.div_euclid(1_000_000)
}

/// A backend service's key, of the kind that SMART asks for.
struct BackendKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl BackendKey {
    #[expect(
        clippy::disallowed_methods,
        reason = "ring makes keys only with a generator of its own"
    )]
    fn generate() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, document.as_ref(), &random).unwrap();
        Self { pair, random }
    }

    fn public(&self) -> Value {
        let point = self.pair.public_key().as_ref().strip_prefix(&[4]).unwrap();
        let (x, y) = point.split_at(48);
        let encoded = |half: &[u8]| URL_SAFE_NO_PAD.encode(half);
        json!({"keys": [
            {"kty": "EC", "crv": "P-384", "alg": "ES384", "use": "sig", "kid": "b1", "x": encoded(x), "y": encoded(y)}
        ]})
    }

    fn sign(&self, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({"alg": "ES384", "typ": "JWT", "kid": "b1"});
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self.pair.sign(&self.random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[tokio::test]
async fn a_backend_service_comes_by_private_key_jwt() {
    let key = BackendKey::generate();
    let provider = Provider::start(Some(&key.public())).await;
    let app = trusting(provider.config()).await;
    let endpoint = provider.endpoint("token_endpoint").await;
    let now = seconds(&app);
    let assertion = key.sign(&json!({
        "iss": "backend", "sub": "backend", "aud": provider.issuer, "jti": "1", "iat": now, "exp": now + 60,
    }));
    let form = [
        ("grant_type", "client_credentials"),
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ),
        ("client_assertion", assertion.as_str()),
        ("scope", "system/*.cruds"),
        ("resource", AUDIENCE),
    ];
    let tokens = provider.post(&endpoint, &form).await;
    let backend = with(&app, &access_token(&tokens));
    // A subscriber follows Tasks, and does nothing else.
    let found = backend.get("/fhir/Task").await.expect(200).json();
    assert_eq!(found["total"], 0);
    backend
        .get("/fhir/DocumentReference")
        .await
        .refused(403, "policy-denied");
    let again = provider.post_with(&endpoint, &form, &[]).await;
    assert_eq!(again.status().as_u16(), 401, "an assertion is good once");
}

#[tokio::test]
async fn a_person_comes_by_an_app_with_authorization_code_and_pkce_and_stays_by_refresh() {
    let provider = Provider::start(None).await;
    let app = trusting(provider.config()).await;
    let scope = "openid offline_access fhirUser launch/patient user/*.cruds";
    let tokens = provider.sign_in("lane", scope).await;
    let lane = with(&app, &access_token(&tokens));
    let ehr = with(&app, &provider.token("ehr").await);
    let referral = Referral::between(ehr, (lane, "Practitioner/lane"), b"%PDF-1.4 a letter").await;
    referral.fetch(&referral.lane).await.expect(200);
    // Her id token says who she is, and opens nothing.
    let id_token = tokens["id_token"].as_str().expect("an id token");
    with(&app, id_token)
        .get("/fhir/Task")
        .await
        .refused(401, "token-invalid");

    let refresh = tokens["refresh_token"].as_str().expect("a refresh token");
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", "app"),
        ("refresh_token", refresh),
        ("resource", AUDIENCE),
    ];
    let fresh = provider
        .post(&provider.endpoint("token_endpoint").await, &form)
        .await;
    let later = with(&app, &access_token(&fresh));
    assert_ne!(later.token, referral.lane.token);
    let found = later.get("/fhir/Task").await.expect(200).json();
    assert_eq!(found["total"], 1);
}

#[tokio::test]
async fn a_patients_launch_sees_that_patient_alone() {
    let provider = Provider::start(None).await;
    let app = trusting(provider.config()).await;
    let ehr = with(&app, &provider.token("ehr").await);
    let lane = with(
        &app,
        &access_token(
            &provider
                .sign_in("lane", "openid offline_access user/*.cruds")
                .await,
        ),
    );
    let scope = "openid offline_access launch/patient patient/*.rs";
    let tokens = provider.sign_in("lane", scope).await;
    let launched = with(&app, &access_token(&tokens));
    let referral = Referral::between(ehr, (lane, "Practitioner/lane"), b"%PDF-1.4 a letter").await;
    launched
        .get(&format!("/fhir/Task/{}", referral.task))
        .await
        .expect(200);
    let mut other = referral.current().await;
    other["for"] = json!({"reference": "Patient/ben"});
    other.as_object_mut().unwrap().remove("focus");
    let other = referral.ehr.post("/fhir/Task", &other).await.expect(201).id();
    referral
        .lane
        .get(&format!("/fhir/Task/{other}"))
        .await
        .expect(200);
    launched
        .get(&format!("/fhir/Task/{other}"))
        .await
        .refused(404, "not-found");
    assert_eq!(
        launched.get("/fhir/Task?_summary=count").await.expect(200).json()["total"],
        1
    );
}

#[tokio::test]
async fn an_opaque_token_is_good_until_it_is_revoked() {
    let provider = Provider::start(None).await;
    let app = trusting(IssuerConfig {
        introspection: Some(Introspection {
            client_id: "gateway".to_owned(),
            client_secret: SECRET.to_owned().into(),
            endpoint: None,
            remember_seconds: 5,
        }),
        ..provider.config()
    })
    .await;
    let token = provider.token("lane-opaque").await;
    assert!(!token.contains('.'), "it says nothing by itself");
    let lane = with(&app, &token);
    let ehr = with(&app, &provider.token("ehr-opaque").await);
    let referral = Referral::between(ehr, (lane, "Practitioner/lane"), b"%PDF-1.4 a letter").await;
    referral.fetch(&referral.lane).await.expect(200);
    with(&app, "made-up")
        .get("/fhir/Task")
        .await
        .refused(401, "token-invalid");

    let form = [
        ("token", token.as_str()),
        ("client_id", "lane-opaque"),
        ("client_secret", SECRET),
    ];
    provider
        .post(&provider.endpoint("revocation_endpoint").await, &form)
        .await;
    app.clock.advance(Span::seconds(6));
    referral
        .lane
        .get("/fhir/Task")
        .await
        .refused(401, "token-invalid");
}

#[tokio::test]
async fn a_bound_token_needs_its_key_at_the_provider_and_here() {
    let provider = Provider::start(None).await;
    let app = trusting(provider.config()).await;
    let key = DevKey::generate().unwrap();
    let proof = |method: &str, url: &str, id: &str, token: Option<&str>| {
        let mut claims = json!({"htm": method, "htu": url, "iat": seconds(&app), "jti": id});
        if let Some(token) = token {
            claims["ath"] = json!(URL_SAFE_NO_PAD.encode(Sha256::digest(token)));
        }
        let jwk = key.public_jwk();
        let jwk = json!({"kty": jwk["kty"], "crv": jwk["crv"], "x": jwk["x"], "y": jwk["y"]});
        key.sign_with(&json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk}), &claims)
            .unwrap()
    };
    let endpoint = provider.endpoint("token_endpoint").await;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "lane"),
        ("client_secret", SECRET),
        ("resource", AUDIENCE),
        ("scope", "system/*.cruds"),
    ];
    let sent = proof("POST", &endpoint, "provider", None);
    let answer = provider
        .post_with(&endpoint, &form, &[("dpop", sent.as_str())])
        .await;
    let tokens: Value = answer.json().await.unwrap();
    assert_eq!(tokens["token_type"], "DPoP", "{tokens}");
    let token = access_token(&tokens);
    let ask = async |proof: &str| -> Answer {
        let stranger = app.stranger();
        let request = stranger
            .request(Method::GET, "/fhir/Task?_count=5")
            .header("authorization", format!("DPoP {token}"))
            .header("dpop", proof);
        stranger.send(request).await
    };
    let url = format!("{}/fhir/Task", app.server.base_url);
    let good = proof("GET", &url, "1", Some(&token));
    ask(&good).await.expect(200);
    ask(&good).await.refused(401, "token-invalid");
    ask(&proof("GET", &url, "2", Some(&token))).await.expect(200);
    with(&app, &token)
        .get("/fhir/Task")
        .await
        .refused(401, "token-invalid");
}

#[tokio::test]
async fn keys_change_while_the_server_runs() {
    let mut provider = Provider::start(None).await;
    let app = trusting(provider.config()).await;
    let before = with(&app, &provider.token("auditor").await);
    before.get("/fhir/Task").await.expect(200);
    provider.rotate().await;
    let after = with(&app, &provider.token("auditor").await);
    // Keys are not asked for twice in ten seconds, whoever names unknown ones.
    after.get("/fhir/Task").await.refused(401, "token-invalid");
    app.clock.advance(Span::seconds(11));
    after.get("/fhir/Task").await.expect(200);
    // What the old key signed is good for as long as it is remembered, a minute at most.
    app.clock.advance(Span::seconds(61));
    before.get("/fhir/Task").await.refused(401, "token-invalid");
}

#[tokio::test]
async fn while_the_provider_is_away_known_keys_go_on_and_unknown_ones_wait() {
    let provider = Provider::start(None).await;
    let app = trusting(provider.config()).await;
    with(&app, &provider.token("auditor").await)
        .get("/fhir/Task")
        .await
        .expect(200);
    let unseen = with(&app, &provider.token("operator").await);
    let config = provider.config();
    let away = provider.stop().await;
    unseen.get("/fhir/Task").await.expect(200);
    // A server that never saw its keys lets nobody in, and says when to come back.
    let newcomer = trusting(config).await;
    let refused = unseen
        .at(&newcomer.server.base_url)
        .get("/fhir/Task")
        .await
        .expect(503);
    assert_eq!(refused.header("retry-after"), Some("2"));

    let back = away.start().await;
    let fresh = with(&newcomer, &back.token("operator").await);
    newcomer.clock.advance(Span::seconds(2));
    fresh.get("/fhir/Task").await.expect(200);
    // The keys of before are gone with the provider's memory.
    unseen
        .at(&newcomer.server.base_url)
        .get("/fhir/Task")
        .await
        .refused(401, "token-invalid");
}
