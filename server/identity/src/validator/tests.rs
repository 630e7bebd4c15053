//! The validator in front of the development issuer, over real HTTP.

mod dpop;
mod introspection;
mod keys;

use std::sync::Arc;

use handoff_domain::access::Role;
use ring::hmac;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::dev_issuer::{AuthorizeRequest, DevIssuer, DevKey, Realm};
use crate::test_server::{Counting, TestClock, TestServer, changed};

const START: Timestamp = Timestamp(1_800_000_000_000_000);
const NOW: i64 = 1_800_000_000;
const AUDIENCE: &str = "https://handoff.example/fhir";

/// A validator in front of the development issuer, served over HTTP.
struct Stage {
    clock: Arc<TestClock>,
    server: Arc<TestServer>,
    issuer: DevIssuer,
    key: DevKey,
    validator: TokenValidator,
}

impl Stage {
    async fn set() -> Self {
        Self::with(|config| config).await
    }

    async fn with(change: impl Fn(IssuerConfig) -> IssuerConfig) -> Self {
        let clock = TestClock::at(START);
        let server = TestServer::start().await;
        let key = DevKey::generate().unwrap();
        let issuer = DevIssuer::new(
            &server.base,
            Realm::Default,
            key.duplicate().unwrap(),
            Arc::new(Counting::default()),
        );
        let configs =
            Realm::ALL.map(|realm| change(DevIssuer::issuer_config(&server.base, realm, tenant(realm))));
        let validator = TokenValidator::new(configs.into(), &HttpSettings::default(), clock.clone()).unwrap();
        let stage = Self {
            clock,
            server,
            issuer,
            key,
            validator,
        };
        stage.publish(&stage.issuer);
        stage
    }

    fn publish(&self, issuer: &DevIssuer) {
        let path = issuer.realm().path();
        self.server.serve(
            &format!("{path}/.well-known/openid-configuration"),
            &issuer.discovery(),
        );
        self.server.serve(&format!("{path}/jwks"), &issuer.jwks());
    }

    fn issuer_with(&self, realm: Realm, key: DevKey) -> DevIssuer {
        DevIssuer::new(&self.server.base, realm, key, Arc::new(Counting::default()))
    }

    fn token(&self, client: &str) -> String {
        token_of(&self.issuer, client, self.clock.now())
    }

    /// Honest claims, changed: `Null` takes a member away.
    fn claims(&self, changes: &[(&str, Value)]) -> Value {
        let claims = json!({
            "iss": self.issuer.issuer(), "sub": "lane", "aud": AUDIENCE, "client_id": "lane",
            "iat": NOW, "exp": NOW + 600, "jti": "j1", "scope": "user/*.rs", "fhirUser": "Practitioner/lane",
            "roles": ["physician"],
        });
        changed(claims, changes)
    }

    fn signed(&self, changes: &[(&str, Value)]) -> String {
        self.key.sign("at+jwt", &self.claims(changes)).unwrap()
    }

    async fn validate(&self, token: &str) -> Result<Arc<Validated>, TokenError> {
        self.validator
            .validate(Presented::Bearer(token), &tenant(Realm::Default))
            .await
    }

    async fn detail(&self, token: &str) -> String {
        match self.validate(token).await {
            Err(error @ TokenError::Invalid(_)) => error.detail().to_owned(),
            other => format!("{other:?}"),
        }
    }
}

fn tenant(realm: Realm) -> TenantId {
    TenantId::parse(realm.tenant()).unwrap()
}

fn token_of(issuer: &DevIssuer, client: &str, now: Timestamp) -> String {
    issuer
        .issue(client, None, None, now)
        .unwrap()
        .access_token
        .expose_secret()
        .to_owned()
}

fn strings<const N: usize>(texts: [&str; N]) -> BTreeSet<String> {
    texts.into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_physicians_token_gives_her_principal() {
    let stage = Stage::set().await;
    let validated = stage.validate(&stage.token("lane")).await.unwrap();
    let principal = &validated.principal;
    assert_eq!(principal.tenant, TenantId::default_tenant());
    assert_eq!(principal.issuer, stage.issuer.issuer());
    assert_eq!(
        (principal.subject.as_str(), principal.client.as_str()),
        ("lane", "lane")
    );
    assert_eq!(principal.actor.as_str(), "Practitioner/lane");
    assert_eq!(principal.roles, BTreeSet::from([Role::Fulfiller]));
    assert_eq!(principal.teams, strings(["cardiology"]));
    assert_eq!(principal.scopes, strings(["user/*.cruds"]));
    assert_eq!(
        (principal.delegate.as_deref(), principal.patient.as_deref()),
        (None, None)
    );
    assert_eq!(validated.expires_at, START.plus(Span::hours(1)));
    assert!(validated.principal.attributes.unmapped_roles.is_empty());
}

#[tokio::test]
async fn everyone_of_the_cast_is_accepted_by_their_own_tenant_and_by_no_other() {
    let stage = Stage::set().await;
    let b = stage.issuer_with(Realm::B, DevKey::generate().unwrap());
    stage.publish(&b);
    for (issuer, own, other) in [
        (&stage.issuer, Realm::Default, Realm::B),
        (&b, Realm::B, Realm::Default),
    ] {
        for member in own.cast() {
            let token = token_of(issuer, member.client_id, START);
            // Before and after it was validated, and so remembered.
            for _ in 0..2 {
                let refused = stage
                    .validator
                    .validate(Presented::Bearer(&token), &tenant(other))
                    .await
                    .unwrap_err();
                assert_eq!(refused, foreign(), "{}", member.client_id);
                let accepted = stage
                    .validator
                    .validate(Presented::Bearer(&token), &tenant(own))
                    .await
                    .unwrap();
                assert_eq!(accepted.principal.actor.as_str(), member.fhir_user);
                assert_eq!(accepted.principal.roles.len(), 1, "{}", member.client_id);
            }
        }
    }
}

#[tokio::test]
async fn an_app_that_acts_for_a_person_is_her_delegate() {
    let stage = Stage::set().await;
    let validated = stage.validate(&stage.token("viewer-app")).await.unwrap();
    let principal = &validated.principal;
    assert_eq!(
        (principal.subject.as_str(), principal.client.as_str()),
        ("lane", "viewer-app")
    );
    assert_eq!(principal.actor.as_str(), "Practitioner/lane");
    assert_eq!(principal.delegate.as_deref(), Some("viewer-app"));
    assert_eq!(principal.roles, BTreeSet::from([Role::DocumentViewer]));
}

#[tokio::test]
async fn bad_tokens_are_refused_each_for_its_reason() {
    let stage = Stage::set().await;
    let issuer = stage.issuer.issuer().to_owned();
    let key = &stage.key;
    let honest = stage.signed(&[]);
    let header = |changes: Value| {
        let mut header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": key.kid() });
        header
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        key.sign_with(&header, &stage.claims(&[])).unwrap()
    };
    let unsigned = |alg: &str| {
        let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        format!(
            "{}.{}",
            part(&json!({ "alg": alg, "typ": "at+jwt", "kid": key.kid() })),
            part(&stage.claims(&[]))
        )
    };
    let hs256 = {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, key.public_jwk().to_string().as_bytes());
        let signed = unsigned("HS256");
        let tag = hmac::sign(&secret, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let tampered = {
        let mut parts: Vec<&str> = honest.split('.').collect();
        let other = URL_SAFE_NO_PAD.encode(stage.claims(&[("roles", json!(["operator"]))]).to_string());
        parts[1] = &other;
        parts.join(".")
    };
    let offered_key = {
        let own = DevKey::generate().unwrap();
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": key.kid(), "jwk": own.public_jwk() });
        own.sign_with(&header, &stage.claims(&[])).unwrap()
    };
    let foreign = foreign();
    let refusals = [
        (
            "alg none",
            format!("{}.", unsigned("none")),
            "algorithm `none` is not allowed",
        ),
        (
            "the public key as secret",
            hs256,
            "algorithm `HS256` is not allowed",
        ),
        (
            "alg not of this issuer",
            header(json!({ "alg": "RS256" })),
            "algorithm `RS256` is not allowed",
        ),
        (
            "unknown kid",
            header(json!({ "kid": "other" })),
            "no such key of the issuer: `other`",
        ),
        ("tampered payload", tampered, "signature does not hold"),
        (
            "a key that the token brings",
            offered_key,
            "signature does not hold",
        ),
        (
            "issuer with a slash",
            stage.signed(&[("iss", json!(format!("{issuer}/")))]),
            foreign.detail(),
        ),
        (
            "unknown issuer",
            stage.signed(&[("iss", json!("https://evil.example"))]),
            foreign.detail(),
        ),
        (
            "no issuer",
            stage.signed(&[("iss", Value::Null)]),
            foreign.detail(),
        ),
        (
            "b's issuer, our key",
            stage.signed(&[("iss", json!(format!("{issuer}/b")))]),
            foreign.detail(),
        ),
        (
            "id token's type",
            key.sign("JWT", &stage.claims(&[])).unwrap(),
            "header type is `jwt`, not `at+jwt`",
        ),
        (
            "logout token",
            header(json!({ "typ": "logout+jwt" })),
            "header type is `logout+jwt`, not `at+jwt`",
        ),
        (
            "wrong audience",
            stage.signed(&[("aud", json!("https://x.example"))]),
            "`aud` names none of ours",
        ),
        (
            "longer audience",
            stage.signed(&[("aud", json!(format!("{AUDIENCE}/")))]),
            "`aud` names none of ours",
        ),
        (
            "no audience",
            stage.signed(&[("aud", Value::Null)]),
            "`aud` names none of ours",
        ),
        (
            "expired",
            stage.signed(&[("exp", json!(NOW - 61))]),
            "`exp` is past",
        ),
        (
            "no expiry",
            stage.signed(&[("exp", Value::Null)]),
            "token has no expiry: `exp`",
        ),
        (
            "expiry as text",
            stage.signed(&[("exp", json!("2100"))]),
            "token has a malformed date: exp",
        ),
        (
            "endless",
            stage.signed(&[("exp", json!(u64::MAX))]),
            "token has a malformed date: exp",
        ),
        (
            "not valid yet",
            stage.signed(&[("nbf", json!(NOW + 61))]),
            "`nbf` is in the future",
        ),
        (
            "issued tomorrow",
            stage.signed(&[("iat", json!(NOW + 86400))]),
            "`iat` is in the future",
        ),
        (
            "no issue time",
            stage.signed(&[("iat", Value::Null)]),
            "token has no issue time: `iat`",
        ),
        (
            "no subject",
            stage.signed(&[("sub", Value::Null)]),
            "token lacks a claim that is needed: sub",
        ),
        (
            "no client",
            stage.signed(&[("client_id", Value::Null)]),
            "token names no client: client claim",
        ),
        (
            "no id",
            stage.signed(&[("jti", Value::Null)]),
            "token has no id: `jti`",
        ),
        (
            "no FHIR user",
            stage.signed(&[("fhirUser", Value::Null)]),
            "actor claim is absent",
        ),
        (
            "FHIR user without type",
            stage.signed(&[("fhirUser", json!("lane"))]),
            "actor claim is not a reference",
        ),
        (
            "FHIR user of a type that cannot act",
            stage.signed(&[("fhirUser", json!("Observation/1"))]),
            "actor claim is not a reference to someone who can act",
        ),
        (
            "malformed delegation",
            stage.signed(&[("act", json!("app"))]),
            "token has a malformed delegation: `act`",
        ),
        (
            "malformed patient",
            stage.signed(&[("patient", json!(["a"]))]),
            "token has a malformed patient: patient claim",
        ),
        (
            "bound to a key",
            stage.signed(&[("cnf", json!({ "jkt": "x" }))]),
            "`cnf` is not a `jkt` alone",
        ),
    ];
    for (what, token, detail) in refusals {
        assert_eq!(stage.detail(&token).await, detail, "{what}");
    }
    for (what, token) in [
        ("a critical extension", header(json!({ "crit": ["x"] }))),
        ("garbage", "garbage".to_owned()),
        (
            "too long",
            stage.signed(&[("filler", json!("x".repeat(16 * 1024)))]),
        ),
        ("cut short", honest.rsplit_once('.').unwrap().0.to_owned()),
    ] {
        assert!(
            matches!(stage.validate(&token).await, Err(TokenError::Malformed(_))),
            "{what}"
        );
    }
    assert_eq!(stage.validate("").await, Err(TokenError::Missing));
    assert!(stage.validate(&honest).await.is_ok());
}

#[tokio::test]
async fn an_id_token_is_no_access_token_even_for_a_lenient_issuer() {
    let stage = Stage::with(|config| IssuerConfig {
        require_at_jwt_typ: false,
        audience: vec![AUDIENCE.to_owned(), "app".to_owned()],
        ..config
    })
    .await;
    let verifier = "v".repeat(43);
    let challenge = URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, verifier.as_bytes()));
    let request = AuthorizeRequest {
        response_type: "code",
        client_id: "app",
        redirect_uri: "http://127.0.0.1:1/cb",
        scope: Some("openid fhirUser"),
        nonce: Some("n"),
        code_challenge: &challenge,
        code_challenge_method: "S256",
    };
    let code = stage.issuer.authorize(&request, "lane", START).unwrap();
    let tokens = stage
        .issuer
        .exchange(
            code.expose_secret(),
            &verifier,
            request.redirect_uri,
            "app",
            START,
        )
        .unwrap();
    let id_token = tokens.id_token.unwrap();
    assert_eq!(stage.detail(id_token.expose_secret()).await, "token has `nonce`");
    assert!(stage.validate(tokens.access_token.expose_secret()).await.is_ok());
    let plain = stage
        .key
        .sign("JWT", &stage.claims(&[("iat", Value::Null)]))
        .unwrap();
    assert!(stage.validate(&plain).await.is_ok(), "a plain JWT will do here");
}

#[tokio::test]
async fn claims_are_read_where_the_issuer_puts_them() {
    let stage = Stage::with(|config| {
        let mut config = IssuerConfig {
            client_actor: Some("Device".to_owned()),
            ..config
        };
        config.claims.roles = "realm_access.roles".to_owned();
        config.claims.teams = "https://clinic.example/team.codes".to_owned();
        config
    })
    .await;
    let token = stage.signed(&[
        (
            "realm_access",
            json!({ "roles": ["Billing Specialist", "NURSE", "auditor", "janitor"] }),
        ),
        ("https://clinic.example/team.codes", json!("cardiology")),
        (
            "fhirUser",
            json!("https://ehr.clinic.example/r4/Practitioner/lane"),
        ),
        ("client_id", Value::Null),
        ("azp", json!("app")),
        ("scope", Value::Null),
        ("scp", json!(["user/Task.rs", "openid"])),
        ("aud", json!(["https://x.example", AUDIENCE])),
        ("patient", json!("Patient/ada")),
        ("exp", serde_json::from_str(&format!("{NOW}.75")).unwrap()),
    ]);
    let validated = stage.validate(&token).await.unwrap();
    let principal = &validated.principal;
    assert_eq!(
        principal.roles,
        BTreeSet::from([Role::TeamMember, Role::Fulfiller, Role::Auditor])
    );
    assert_eq!(validated.principal.attributes.unmapped_roles, ["janitor"]);
    assert_eq!(principal.teams, strings(["cardiology"]));
    assert_eq!(principal.actor.as_str(), "Practitioner/lane");
    assert_eq!(principal.client, "app");
    assert_eq!(principal.scopes, strings(["user/Task.rs", "openid"]));
    assert_eq!(principal.patient.as_deref(), Some("ada"));
    assert_eq!(validated.expires_at, START, "the fraction of a second is dropped");

    let own = stage.signed(&[
        ("fhirUser", Value::Null),
        ("sub", json!("engine")),
        ("client_id", json!("engine")),
    ]);
    assert_eq!(
        stage.validate(&own).await.unwrap().principal.actor.as_str(),
        "Device/engine"
    );
    let for_a_person = stage.signed(&[("fhirUser", Value::Null), ("client_id", json!("engine"))]);
    assert_eq!(
        stage.detail(&for_a_person).await,
        "actor claim is absent, and the token is not a client's own"
    );
}

#[tokio::test]
async fn a_token_without_id_is_named_by_its_hash() {
    let stage = Stage::with(|config| IssuerConfig {
        require_jti: false,
        ..config
    })
    .await;
    let token = stage.signed(&[("jti", Value::Null)]);
    let id = stage.validate(&token).await.unwrap().principal.token_id.clone();
    assert!(id.starts_with("sha256:") && id.len() == 50, "{id}");
}

#[tokio::test]
async fn a_remembered_token_still_ends_with_its_expiry() {
    let stage = Stage::set().await;
    let token = stage.signed(&[("exp", json!(NOW + 10))]);
    assert!(stage.validate(&token).await.is_ok());
    stage.clock.pass(Span::seconds(69));
    assert!(stage.validate(&token).await.is_ok(), "within the leeway");
    stage.clock.pass(Span::seconds(1));
    assert_eq!(stage.detail(&token).await, "`exp` is past");
}

#[tokio::test]
async fn a_token_is_known_from_when_it_was_found_good_until_it_ends() {
    let stage = Stage::set().await;
    let token = stage.signed(&[("exp", json!(NOW + 300))]);
    assert_eq!(stage.validator.known(&token), None);
    assert!(stage.validate(&token).await.is_ok());
    stage.clock.pass(Span::seconds(359));
    assert_eq!(stage.validator.known(&token), Some(sha256(&token)));
    stage.clock.pass(Span::seconds(1));
    assert_eq!(stage.validator.known(&token), None);
    assert!(stage.validate("no").await.is_err());
    assert_eq!(stage.validator.known("no"), None);
}

#[tokio::test]
async fn nothing_that_can_be_printed_shows_a_token() {
    let stage = Stage::set().await;
    let response = stage.issuer.issue("lane", None, Some("ada"), START).unwrap();
    let token = response.access_token.expose_secret().to_owned();
    let signature = token.rsplit_once('.').unwrap().1;
    let tampered = format!("{token}AAAA");
    let error = stage.validate(&tampered).await.unwrap_err();
    let validated = stage.validate(&token).await.unwrap();
    let printed = format!(
        "{response:?} {error:?} {error} {} {validated:?} {:?} {:?} {:?}",
        error.detail(),
        stage.validator,
        stage.issuer,
        stage.key
    );
    assert!(
        !printed.contains(signature) && !printed.contains(&token[..40]),
        "{printed}"
    );
    let private = format!("{:?}", &stage.key.pkcs8().expose_secret()[36..68]);
    assert!(!printed.contains(private.trim_matches(['[', ']'])), "{printed}");
}

#[tokio::test]
async fn issuers_with_problems_are_refused_all_at_once() {
    let good = IssuerConfig::new(
        "https://a.example",
        TenantId::default_tenant(),
        vec!["a".to_owned()],
    );
    let bad = IssuerConfig {
        issuer: "http://b.example".to_owned(),
        audience: Vec::new(),
        ..good.clone()
    };
    let clock = TestClock::at(START);
    let refused =
        TokenValidator::new(vec![good.clone(), good, bad], &HttpSettings::default(), clock).unwrap_err();
    assert_eq!(refused.0.len(), 3, "{refused}");
}
