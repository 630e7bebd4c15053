//! Tokens that must not open anything, and what their senders are told: one table that a reviewer can read.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use handoff::wiring::{Identity, Options};
use handoff_domain::ports::Clock as _;
use handoff_domain::time::Span;
use handoff_identity::dev_issuer::DevKey;
use handoff_integration_tests::issuer::{AUDIENCE, OwnIssuer};
use handoff_integration_tests::{Answer, Backend, TestApp, assert_committed};
use reqwest::{Method, RequestBuilder};
use ring::hmac;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const TABLE: &str = include_str!("bad_tokens.txt");

/// A server, the issuer that it trusts, and a client whose tokens are bound to a key of its own.
struct Stage {
    app: TestApp,
    issuer: OwnIssuer,
    key: DevKey,
    now: i64,
}

impl Stage {
    async fn set() -> Self {
        Self::set_with(|_| {}).await
    }

    async fn set_with(change: impl FnOnce(&mut Options)) -> Self {
        let issuer = OwnIssuer::start().await;
        let identity = Identity::Issuers(vec![issuer.trusted_for("default")]);
        let app = TestApp::start_with(Backend::Embedded, |options| {
            options.identity = identity;
            change(options);
        })
        .await;
        let now = app.clock.now().0.div_euclid(1_000_000);
        Self {
            app,
            issuer,
            key: DevKey::generate().expect("a key"),
            now,
        }
    }

    fn request(&self) -> RequestBuilder {
        self.app.stranger().request(Method::GET, "/fhir/Task?_count=1")
    }

    async fn send(&self, request: RequestBuilder) -> Answer {
        self.app.stranger().send(request).await
    }

    fn claims(&self, changes: &[(&str, Value)]) -> Value {
        self.issuer.claims(self.now, changes)
    }

    fn token(&self, changes: &[(&str, Value)]) -> String {
        self.issuer.token(&self.claims(changes))
    }

    fn under(&self, header: &Value) -> String {
        self.issuer
            .key
            .sign_with(header, &self.claims(&[]))
            .expect("a signature")
    }

    fn bound(&self) -> String {
        self.token(&[("cnf", json!({ "jkt": self.key.kid() }))])
    }

    fn proof_claims(&self, token: &str, id: &str) -> Value {
        json!({
            "htm": "GET", "htu": format!("{}/fhir/Task", self.app.server.base_url), "iat": self.now, "jti": id,
            "ath": URL_SAFE_NO_PAD.encode(Sha256::digest(token)),
        })
    }

    fn proof_by(key: &DevKey, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "typ": "dpop+jwt", "jwk": key.public_jwk() });
        key.sign_with(&header, claims).expect("a signature")
    }

    fn proof(&self, token: &str, id: &str, changes: &[(&str, Value)]) -> String {
        let mut claims = self.proof_claims(token, id);
        for (name, value) in changes {
            claims[*name] = value.clone();
        }
        Self::proof_by(&self.key, &claims)
    }

    fn bearer(&self, token: &str) -> RequestBuilder {
        self.request().header("authorization", format!("Bearer {token}"))
    }

    fn dpop(&self, token: &str, proof: &str) -> RequestBuilder {
        self.request()
            .header("authorization", format!("DPoP {token}"))
            .header("dpop", proof)
    }

    fn header(&self) -> Value {
        json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.issuer.key.kid() })
    }

    fn header_with(&self, name: &str, value: Value) -> Value {
        let mut header = self.header();
        header[name] = value;
        header
    }

    /// Every request that must be refused, by what is wrong with it.
    async fn bad(&self) -> Vec<(&'static str, RequestBuilder)> {
        let mut all = self.badly_sent();
        all.extend(self.badly_signed());
        all.extend(self.badly_claimed());
        all.extend(self.badly_proved().await);
        all
    }

    fn badly_sent(&self) -> Vec<(&'static str, RequestBuilder)> {
        let honest = self.token(&[]);
        let in_query = || {
            let url = format!("/fhir/Task?access_token={honest}");
            self.app.stranger().request(Method::GET, &url)
        };
        let in_header = format!("Bearer {honest}");
        let encoded = {
            let url = format!("/fhir/Task?access%5Ftoken={honest}");
            self.app.stranger().request(Method::GET, &url)
        };
        let in_form = self
            .app
            .stranger()
            .request(Method::POST, "/fhir/Task/_search")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("authorization", &in_header)
            .body(format!("access_token={honest}"));
        let sent = |value: &str| self.request().header("authorization", value);
        vec![
            ("nothing is sent", self.request()),
            ("no token after the scheme", sent("Bearer ")),
            ("not a token", sent("Bearer opaque")),
            ("another scheme", sent("Basic bGFuZTpsYW5l")),
            (
                "two Authorization headers",
                sent(&in_header).header("authorization", &in_header),
            ),
            ("token in the query", in_query()),
            (
                "token in the query beside a good one",
                in_query().header("authorization", &in_header),
            ),
            (
                "token in the query, encoded, beside a good one",
                encoded.header("authorization", &in_header),
            ),
            ("token in a form beside a good one", in_form),
        ]
    }

    fn badly_signed(&self) -> Vec<(&'static str, RequestBuilder)> {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = part(&self.claims(&[]));
        let unsigned = format!("{}.{claims}.", part(&self.header_with("alg", json!("none"))));
        let confused = {
            let to_sign = format!("{}.{claims}", part(&self.header_with("alg", json!("HS256"))));
            let public_half = self.issuer.key.public_jwk().to_string();
            let tag = hmac::sign(
                &hmac::Key::new(hmac::HMAC_SHA256, public_half.as_bytes()),
                to_sign.as_bytes(),
            );
            format!("{to_sign}.{}", URL_SAFE_NO_PAD.encode(tag))
        };
        let tampered = {
            let honest = self.token(&[]);
            let (head, rest) = honest.split_once('.').expect("a header");
            let (_, signature) = rest.split_once('.').expect("a signature");
            format!(
                "{head}.{}.{signature}",
                part(&self.claims(&[("roles", json!(["operator"]))]))
            )
        };
        let other = DevKey::generate().expect("a key");
        let by_other =
            |header: &Value| self.bearer(&other.sign_with(header, &self.claims(&[])).expect("a signature"));
        let by_other_with = |name: &str, value: Value| by_other(&self.header_with(name, value));
        let id_token = {
            let claims = self.claims(&[("nonce", json!("n")), ("aud", json!(AUDIENCE))]);
            let header = self.header_with("typ", json!("JWT"));
            self.issuer.key.sign_with(&header, &claims).expect("a signature")
        };
        let untyped = json!({ "alg": "ES256", "kid": self.issuer.key.kid() });
        vec![
            ("alg none", self.bearer(&unsigned)),
            ("HS256 with the public key as secret", self.bearer(&confused)),
            ("claims changed after signing", self.bearer(&tampered)),
            ("signed by another key", by_other(&self.header())),
            ("unknown kid", by_other_with("kid", json!("unheard-of"))),
            (
                "jku that names the signer's keys",
                by_other_with("jku", json!("http://127.0.0.1:1/jwks")),
            ),
            (
                "x5u that names the signer's certificate",
                by_other_with("x5u", json!("http://127.0.0.1:1/x5c")),
            ),
            (
                "jwk with the signer's key",
                by_other_with("jwk", other.public_jwk()),
            ),
            (
                "crit with an extension",
                self.bearer(&self.under(&self.header_with("crit", json!(["b64"])))),
            ),
            ("id_token as access token", self.bearer(&id_token)),
            ("no type in the header", self.bearer(&self.under(&untyped))),
        ]
    }

    fn badly_claimed(&self) -> Vec<(&'static str, RequestBuilder)> {
        let (now, issuer) = (self.now, self.issuer.name());
        let changed = |name: &str, value: Value| self.bearer(&self.token(&[(name, value)]));
        vec![
            (
                "wrong aud",
                changed("aud", json!("https://elsewhere.example/fhir")),
            ),
            ("no aud", changed("aud", Value::Null)),
            (
                "iss with a trailing slash",
                changed("iss", json!(format!("{issuer}/"))),
            ),
            ("iss of nobody", changed("iss", json!("https://issuer.example"))),
            ("no iss", changed("iss", Value::Null)),
            ("expired", changed("exp", json!(now - 61))),
            ("no exp", changed("exp", Value::Null)),
            ("exp as text", changed("exp", json!("tomorrow"))),
            ("not yet valid", changed("nbf", json!(now + 120))),
            ("issued in the future", changed("iat", json!(now + 120))),
            ("no sub", changed("sub", Value::Null)),
            ("no client_id", changed("client_id", Value::Null)),
            ("no fhirUser", changed("fhirUser", Value::Null)),
            (
                "fhirUser that cannot act",
                changed("fhirUser", json!("Library/1")),
            ),
            (
                "bound by a certificate",
                changed("cnf", json!({ "x5t#S256": "A".repeat(43) })),
            ),
        ]
    }

    async fn badly_proved(&self) -> Vec<(&'static str, RequestBuilder)> {
        let (now, honest, bound) = (self.now, self.token(&[]), self.bound());
        let used = self.proof(&bound, "used", &[]);
        self.send(self.dpop(&bound, &used)).await.expect(200);
        let proof =
            |id: &str, name: &str, value: Value| self.dpop(&bound, &self.proof(&bound, id, &[(name, value)]));
        let elsewhere = format!("{}/fhir/DocumentReference", self.app.server.base_url);
        let by_another = Stage::proof_by(
            &DevKey::generate().expect("a key"),
            &self.proof_claims(&bound, "i"),
        );
        let without = self.request().header("authorization", format!("DPoP {bound}"));
        let twice = self.dpop(&bound, &self.proof(&bound, "a", &[]));
        vec![
            ("bound token as Bearer", self.bearer(&bound)),
            ("bound token without a proof", without),
            ("two proofs", twice.header("dpop", self.proof(&bound, "b", &[]))),
            (
                "unbound token as DPoP",
                self.dpop(&honest, &self.proof(&honest, "c", &[])),
            ),
            ("replayed DPoP proof", self.dpop(&bound, &used)),
            ("proof with wrong htu", proof("d", "htu", json!(elsewhere))),
            ("proof with wrong htm", proof("e", "htm", json!("POST"))),
            (
                "proof for another token",
                proof("f", "ath", json!(URL_SAFE_NO_PAD.encode(Sha256::digest("other")))),
            ),
            ("old proof", proof("g", "iat", json!(now - 61))),
            (
                "proof with a nonce of somebody else",
                proof("h", "nonce", json!("theirs")),
            ),
            ("proof by another key", self.dpop(&bound, &by_another)),
        ]
    }
}

#[tokio::test]
async fn bad_tokens_are_refused_each_with_the_right_challenge() {
    let stage = Stage::set().await;
    stage.send(stage.bearer(&stage.token(&[]))).await.expect(200);
    let mut table =
        String::from("# What is wrong, and what the sender is told: status, reason, challenge.\n");
    for (what, request) in stage.bad().await {
        let answer = stage.send(request).await;
        let challenge = answer.header("www-authenticate").unwrap_or("none");
        let challenge = challenge.replace(&stage.app.server.base_url, "BASE");
        let nonce = if answer.header("dpop-nonce").is_some() {
            ", and a nonce"
        } else {
            ""
        };
        let (status, reason) = (answer.status.as_u16(), answer.reason().unwrap_or_default());
        writeln!(table, "\n{what}\n    {status} {reason}{nonce}\n    {challenge}").expect("text grows");
    }
    assert_committed(env!("CARGO_TARGET_TMPDIR"), "bad_tokens.txt", &table, TABLE);
}

#[tokio::test]
async fn external_roles_mean_what_the_concept_map_says_and_others_nothing() {
    let stage = Stage::set().await;
    let ask = async |roles: Value, id: &str| {
        let token = stage.token(&[("roles", roles), ("jti", json!(id))]);
        stage.send(stage.bearer(&token)).await
    };
    ask(json!(["Nurse_Practitioner"]), "mapped").await.expect(200);
    ask(json!(["janitor", "night watch"]), "unmapped")
        .await
        .refused(403, "policy-denied");
    let auditor = stage.token(&[("roles", json!(["auditor"])), ("jti", json!("auditor"))]);
    let auditor = stage.app.stranger().with_token(auditor);
    let found = auditor
        .get("/fhir/AuditEvent?subtype=request-denied&_count=1")
        .await
        .expect(200)
        .json();
    let role = &found["entry"][0]["resource"]["agent"][0]["role"];
    assert_eq!(
        role,
        &json!([{"text": "unmapped: janitor"}, {"text": "unmapped: night watch"}])
    );
}

#[tokio::test]
async fn a_bound_token_goes_through_everything_with_a_fresh_proof_each_time() {
    let stage = Stage::set().await;
    let bound = stage.bound();
    for id in ["1", "2", "3"] {
        stage
            .send(stage.dpop(&bound, &stage.proof(&bound, id, &[])))
            .await
            .expect(200);
    }
    // Every way in asks for the token once.
    let search = format!("{}/fhir/Task/_search", stage.app.server.base_url);
    let proof = stage.proof(
        &bound,
        "search",
        &[("htm", json!("POST")), ("htu", json!(search))],
    );
    let request = stage
        .app
        .stranger()
        .request(Method::POST, "/fhir/Task/_search")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("authorization", format!("DPoP {bound}"))
        .header("dpop", proof)
        .body("_count=1");
    stage.send(request).await.expect(200);
    // The nonce that comes with a refusal is good.
    let refused = stage
        .send(stage.dpop(&bound, &stage.proof(&bound, "4", &[("nonce", json!("old"))])))
        .await;
    let nonce = refused
        .expect(401)
        .header("dpop-nonce")
        .expect("a nonce")
        .to_owned();
    let proof = stage.proof(&bound, "4", &[("nonce", json!(nonce))]);
    stage.send(stage.dpop(&bound, &proof)).await.expect(200);
}

#[tokio::test]
async fn a_bound_token_that_was_good_needs_its_proof_where_its_address_has_failed_too_often() {
    let stage = Stage::set_with(|options| options.clients.failed_tokens_per_minute = 3).await;
    let bound = stage.bound();
    let good = async |id: &str| {
        stage
            .send(stage.dpop(&bound, &stage.proof(&bound, id, &[])))
            .await
    };
    good("1").await.expect(200);
    for _ in 0..3 {
        stage.send(stage.bearer("no")).await.refused(401, "token-invalid");
    }
    let fresh = stage.token(&[("jti", json!("fresh"))]);
    stage
        .send(stage.bearer(&fresh))
        .await
        .refused(429, "rate-limited");
    // Neither a demand for a nonce nor success uses anything up.
    for id in ["2", "3", "4", "5"] {
        good(id).await.expect(200);
        let outdated = stage.proof(&bound, id, &[("nonce", json!("old"))]);
        stage
            .send(stage.dpop(&bound, &outdated))
            .await
            .refused(401, "token-invalid");
    }
    for _ in 0..3 {
        stage
            .send(stage.bearer(&bound))
            .await
            .refused(401, "token-invalid");
    }
    stage
        .send(stage.bearer(&bound))
        .await
        .refused(429, "rate-limited");
    good("6").await.refused(429, "rate-limited");
    stage.app.clock.advance(Span::seconds(21));
    let later = stage.proof(&bound, "7", &[("iat", json!(stage.now + 21))]);
    stage.send(stage.dpop(&bound, &later)).await.expect(200);
}
