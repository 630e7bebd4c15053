//! Signing in at the development issuer, over real HTTP.

mod id_tokens;
mod logout;
mod sessions;

use std::collections::HashMap;

use handoff_domain::ports::Entropy as _;
use handoff_domain::time::Span;
use serde_json::json;

use super::*;
use crate::config::{Alg, HttpSettings, IssuerConfig};
use crate::dev_issuer::{AuthorizeRequest, DevIssuer, DevKey, Realm};
use crate::test_server::{Counting, TestClock, TestServer};

const START: Timestamp = Timestamp(1_800_000_000_000_000);
const NOW: i64 = 1_800_000_000;
const CLIENT: &str = "hand:off";
const PLACE: &str = "tasks/T-1~now";

/// The development issuer of the default tenant, served over HTTP, and a validator whose people sign in there.
struct Stage {
    clock: Arc<TestClock>,
    server: Arc<TestServer>,
    issuer: Arc<DevIssuer>,
    key: DevKey,
    validator: TokenValidator,
    secret: LoginSecret,
}

fn sign_in() -> SignIn {
    SignIn {
        client_id: CLIENT.to_owned(),
        client_secret: None,
        scopes: vec!["openid".to_owned(), "fhirUser".to_owned()],
        label: "Development issuer".to_owned(),
    }
}

fn tenant(realm: Realm) -> TenantId {
    TenantId::parse(realm.tenant()).unwrap()
}

fn callback_uri() -> Url {
    Url::parse("http://127.0.0.1:8080/sign-in/callback?x=1").unwrap()
}

fn secret(n: u8) -> LoginSecret {
    LoginSecret::from_bytes([n; 32])
}

fn query(url: &Url) -> HashMap<String, String> {
    url.query_pairs().into_owned().collect()
}

impl Stage {
    async fn set() -> Self {
        Self::with(|config| config).await
    }

    async fn with(change: impl Fn(IssuerConfig) -> IssuerConfig) -> Self {
        let server = TestServer::start().await;
        let key = DevKey::generate().unwrap();
        let issuer = Arc::new(DevIssuer::new(
            &server.base,
            Realm::Default,
            key.duplicate().unwrap(),
            Arc::new(Counting::default()),
        ));
        let clock = TestClock::at(START);
        let validator = validator(&server, &clock, change);
        let stage = Self {
            clock,
            server,
            issuer,
            key,
            validator,
            secret: secret(7),
        };
        stage.publish(&stage.issuer.discovery());
        stage.server.serve("/dev-issuer/jwks", &stage.issuer.jwks());
        let other = DevIssuer::new(
            &stage.server.base,
            Realm::B,
            stage.key.duplicate().unwrap(),
            Arc::new(Counting::default()),
        );
        stage.server.serve(
            "/dev-issuer/b/.well-known/openid-configuration",
            &other.discovery(),
        );
        stage.server.serve("/dev-issuer/b/jwks", &other.jwks());
        let issuer = Arc::clone(&stage.issuer);
        stage.server.serve_by("/dev-issuer/token", move |request| {
            let body = request.split_once("\r\n\r\n").unwrap().1;
            let form: HashMap<_, _> = url::form_urlencoded::parse(body.as_bytes())
                .into_owned()
                .collect();
            let text = |name: &str| form.get(name).map_or("", String::as_str);
            let tokens = issuer.exchange(
                text("code"),
                text("code_verifier"),
                text("redirect_uri"),
                text("client_id"),
                START,
            );
            match tokens {
                Ok(tokens) => (200, tokens.to_json()),
                Err(error) => (400, json!({ "error": error.code }).to_string()),
            }
        });
        stage
    }

    fn publish(&self, discovery: &Value) {
        self.server
            .serve("/dev-issuer/.well-known/openid-configuration", discovery);
    }

    fn key(&self) -> String {
        self.validator.sign_in_choices(&tenant(Realm::Default))[0]
            .key
            .clone()
    }

    async fn begin(&self, place: &str) -> Url {
        self.validator
            .authorization_url(
                &tenant(Realm::Default),
                &self.key(),
                &self.secret,
                &callback_uri(),
                place,
            )
            .await
            .unwrap()
    }

    /// What the sign-in page does: the code for `person`.
    fn pick(&self, asked: &HashMap<String, String>, person: &str) -> String {
        let request = AuthorizeRequest {
            response_type: &asked["response_type"],
            client_id: &asked["client_id"],
            redirect_uri: &asked["redirect_uri"],
            scope: asked.get("scope").map(String::as_str),
            nonce: asked.get("nonce").map(String::as_str),
            code_challenge: &asked["code_challenge"],
            code_challenge_method: &asked["code_challenge_method"],
        };
        let code = self.issuer.authorize(&request, person, START).unwrap();
        code.expose_secret().to_owned()
    }

    async fn finish(&self, callback: Callback<'_>) -> Result<SignedIn, SignInError> {
        self.validator
            .finish(&tenant(Realm::Default), &self.secret, &callback_uri(), callback)
            .await
    }

    async fn sign_in(&self, person: &str) -> Result<SignedIn, SignInError> {
        let asked = query(&self.begin(PLACE).await);
        let code = self.pick(&asked, person);
        self.answered(&asked["state"], &code).await
    }

    async fn answered(&self, state: &str, code: &str) -> Result<SignedIn, SignInError> {
        self.finish(Callback {
            code: Some(code),
            state: Some(state),
            iss: Some(self.issuer.issuer()),
            error: None,
        })
        .await
    }
}

fn validator(
    server: &TestServer,
    clock: &Arc<TestClock>,
    change: impl Fn(IssuerConfig) -> IssuerConfig,
) -> TokenValidator {
    let configs = Realm::ALL.map(|realm| {
        change(IssuerConfig {
            sign_in: Some(sign_in()),
            ..DevIssuer::issuer_config(&server.base, realm, tenant(realm))
        })
    });
    TokenValidator::new(configs.into(), &HttpSettings::default(), clock.clone()).unwrap()
}

#[tokio::test]
async fn a_person_signs_in_and_comes_back_to_where_they_were_going() {
    let stage = Stage::set().await;
    let url = stage.begin(PLACE).await;
    assert!(
        url.as_str()
            .starts_with(&format!("{}/authorize?", stage.issuer.issuer()))
    );
    let asked = query(&url);
    assert_eq!(asked["response_type"], "code");
    assert_eq!(asked["client_id"], CLIENT);
    assert_eq!(asked["scope"], "openid fhirUser");
    assert_eq!(asked["code_challenge_method"], "S256");
    assert_eq!(asked["redirect_uri"], callback_uri().as_str());
    let signed_in = stage.sign_in("lane").await.unwrap();
    assert_eq!(signed_in.issuer, stage.issuer.issuer());
    assert_eq!(
        (signed_in.subject.as_str(), signed_in.place.as_str()),
        ("lane", PLACE)
    );
    let claims: Value = serde_json::from_str(&signed_in.claims).unwrap();
    assert_eq!(claims["sid"].as_str(), signed_in.sid.as_deref());
    assert_eq!(claims["roles"], json!(["physician"]));
    assert_eq!((claims.get("nonce"), claims.get("at_hash")), (None, None));
    assert_eq!(stage.server.reads(), 1, "the issuer is not read at each login");
}

#[tokio::test]
async fn the_place_may_be_none_at_all_and_is_never_more_than_a_place() {
    let stage = Stage::set().await;
    let asked = query(&stage.begin("").await);
    let code = stage.pick(&asked, "lane");
    assert_eq!(stage.answered(&asked["state"], &code).await.unwrap().place, "");
    let long = "a".repeat(201);
    for bad in ["a.b", "a b", "https://x", "a?b", "ä", "a\\b", "a\0b", &long] {
        let refused = stage
            .validator
            .authorization_url(
                &tenant(Realm::Default),
                &stage.key(),
                &stage.secret,
                &callback_uri(),
                bad,
            )
            .await;
        assert_eq!(refused, Err(SignInError::Place), "{bad:?}");
    }
}

#[tokio::test]
async fn an_answer_to_another_login_is_refused_before_anybody_is_asked() {
    let stage = Stage::set().await;
    let asked = query(&stage.begin(PLACE).await);
    let code = stage.pick(&asked, "lane");
    let ours = &asked["state"];
    let mac = ours.rsplit('.').next().unwrap();
    let b = &stage.validator.sign_in_choices(&tenant(Realm::B))[0].key;
    let key = stage.key();
    let with = |place: &str, key: &str, mac: &str| format!("{place}.{key}.{mac}");
    let nonce = &asked["nonce"];
    for bad in [
        String::new(),
        "..".to_owned(),
        "a".repeat(10_000),
        with("tasks/T-2", &key, mac),
        with(PLACE, b, mac),
        with(PLACE, "", mac),
        with(PLACE, &key, ""),
        with(PLACE, &key, nonce),
        with(PLACE, &key, &mac[..42]),
        format!("{ours}."),
    ] {
        let refused = stage.answered(&bad, &code).await;
        assert!(
            matches!(refused, Err(SignInError::NotBegunHere(_))),
            "{bad}: {refused:?}"
        );
    }
    for (tenant, secret) in [(tenant(Realm::Default), secret(8)), (tenant(Realm::B), secret(7))] {
        let callback = Callback {
            code: Some(&code),
            state: Some(ours),
            ..Callback::default()
        };
        let refused = stage
            .validator
            .finish(&tenant, &secret, &callback_uri(), callback)
            .await;
        assert!(
            matches!(refused, Err(SignInError::NotBegunHere(_))),
            "{refused:?}"
        );
    }
    let absent = stage.finish(Callback {
        state: None,
        code: Some(&code),
        ..Callback::default()
    });
    assert!(matches!(absent.await, Err(SignInError::NotBegunHere(_))));
    stage.answered(ours, &code).await.unwrap();
}

#[tokio::test]
async fn who_answers_must_be_who_was_asked() {
    let stage = Stage::set().await;
    let asked = query(&stage.begin(PLACE).await);
    let code = stage.pick(&asked, "lane");
    // The issuer says that it always names itself.
    for iss in [Some("https://elsewhere.example"), Some(""), None] {
        let callback = Callback {
            code: Some(&code),
            state: Some(&asked["state"]),
            iss,
            error: None,
        };
        let refused = stage.finish(callback).await;
        assert!(
            matches!(refused, Err(SignInError::NotBegunHere(_))),
            "{refused:?}"
        );
    }
    let silent = Stage::set().await;
    let mut discovery = silent.issuer.discovery();
    discovery["authorization_response_iss_parameter_supported"] = json!("no answer");
    silent.publish(&discovery);
    let asked = query(&silent.begin(PLACE).await);
    let code = silent.pick(&asked, "lane");
    let callback = Callback {
        code: Some(&code),
        state: Some(&asked["state"]),
        ..Callback::default()
    };
    silent.finish(callback).await.unwrap();
}

#[tokio::test]
async fn a_no_of_the_issuer_is_told_from_a_failure_of_it() {
    let stage = Stage::set().await;
    let asked = query(&stage.begin(PLACE).await);
    let ours = asked["state"].as_str();
    let answer = |error: &'static str, sent| {
        stage.finish(Callback {
            state: Some(sent),
            error: Some(error),
            code: Some("c"),
            ..Callback::default()
        })
    };
    assert_eq!(answer("access_denied", ours).await, Err(SignInError::Denied));
    let down = answer("temporarily_unavailable", ours).await.unwrap_err();
    assert!(matches!(down, SignInError::Unavailable(_)), "{down:?}");
    let refused = answer("invalid_scope\n", ours).await.unwrap_err();
    assert_eq!(refused.detail(), "the issuer answered `invalid_scope\\n`");
    assert!(matches!(refused, SignInError::Refused(_)));
    let stranger = answer("access_denied", "x.y.z").await.unwrap_err();
    assert!(matches!(stranger, SignInError::NotBegunHere(_)));
    for code in [None, Some(""), Some("a\nb")] {
        let refused = stage.finish(Callback {
            state: Some(ours),
            code,
            iss: Some(stage.issuer.issuer()),
            error: None,
        });
        assert!(
            matches!(refused.await, Err(SignInError::NotBegunHere(_))),
            "{code:?}"
        );
    }
}

#[tokio::test]
async fn a_code_is_good_once() {
    let stage = Stage::set().await;
    let asked = query(&stage.begin(PLACE).await);
    let code = stage.pick(&asked, "lane");
    stage.answered(&asked["state"], &code).await.unwrap();
    let again = stage.answered(&asked["state"], &code).await;
    assert!(matches!(again, Err(SignInError::Expired(_))), "{again:?}");
    // Another login's code, by its PKCE challenge.
    let other = query(&stage.begin("elsewhere").await);
    let code = stage.pick(&other, "lane");
    let mixed = stage.answered(&asked["state"], &code).await;
    assert!(matches!(mixed, Err(SignInError::Expired(_))), "{mixed:?}");
}

#[tokio::test]
async fn an_issuer_that_is_down_is_to_be_asked_again_and_one_that_talks_nonsense_is_not() {
    let stage = Stage::set().await;
    let asked = query(&stage.begin(PLACE).await);
    stage.server.set_down(true);
    let down = stage.answered(&asked["state"], "c").await.unwrap_err();
    assert!(matches!(down, SignInError::Unavailable(_)), "{down:?}");
    stage.server.set_down(false);
    let long = json!({ "access_token": "a".repeat(70_000) }).to_string();
    let longer = "a".repeat(1024 * 1024 + 1);
    let client = json!({ "error": "invalid_client" }).to_string();
    for (status, body) in [
        (200, long),
        (200, longer),
        (200, "1".to_owned()),
        (200, json!({ "id_token": 1 }).to_string()),
        (401, client),
        (400, "no JSON".to_owned()),
        (302, String::new()),
        (204, String::new()),
    ] {
        stage
            .server
            .serve_by("/dev-issuer/token", move |_| (status, body.clone()));
        let refused = stage.answered(&asked["state"], "c").await.unwrap_err();
        assert!(
            matches!(refused, SignInError::Refused(_)),
            "{status}: {refused:?}"
        );
    }
    let never = Stage::set().await;
    never.server.set_down(true);
    let refused = never
        .validator
        .authorization_url(
            &tenant(Realm::Default),
            &never.key(),
            &never.secret,
            &callback_uri(),
            PLACE,
        )
        .await;
    assert!(matches!(refused, Err(SignInError::Unavailable(_))), "{refused:?}");
}

#[tokio::test]
async fn a_client_with_a_secret_shows_it_in_the_way_that_the_issuer_wants() {
    let post = "client_secret_post";
    for (methods, in_body) in [
        (json!(["client_secret_basic", post]), false),
        (json!([post, "private_key_jwt"]), true),
        (Value::Null, false),
    ] {
        let stage = Stage::with(|config| IssuerConfig {
            sign_in: Some(SignIn {
                client_secret: Some("s3cret/+".to_owned().into()),
                ..sign_in()
            }),
            ..config
        })
        .await;
        let mut discovery = stage.issuer.discovery();
        let members = discovery.as_object_mut().unwrap();
        members.remove("token_endpoint_auth_methods_supported");
        if !methods.is_null() {
            members.insert("token_endpoint_auth_methods_supported".to_owned(), methods);
        }
        stage.publish(&discovery);
        let asked = query(&stage.begin(PLACE).await);
        let _refused = stage.answered(&asked["state"], "c d").await.unwrap_err();
        let sent = stage.server.last_request();
        assert!(sent.starts_with("POST /dev-issuer/token "), "{sent}");
        assert!(sent.contains("grant_type=authorization_code&code=c+d&redirect_uri=http%3A%2F%2F"));
        assert!(sent.contains("&code_verifier="), "{sent}");
        let basic = base64::engine::general_purpose::STANDARD.encode("hand%3Aoff:s3cret%2F%2B");
        assert_eq!(
            sent.contains(&format!("authorization: Basic {basic}")),
            !in_body,
            "{sent}"
        );
        let body = "&client_id=hand%3Aoff&client_secret=s3cret%2F%2B";
        assert_eq!(sent.contains(body), in_body, "{sent}");
    }
}

#[tokio::test]
async fn each_tenant_is_offered_its_own_issuers_and_no_others() {
    let stage = Stage::with(|config| IssuerConfig {
        sign_in: config.sign_in.filter(|_| config.tenant == tenant(Realm::Default)),
        ..config
    })
    .await;
    let offered = stage.validator.sign_in_choices(&tenant(Realm::Default));
    assert_eq!(offered.len(), 1);
    assert_eq!(
        (offered[0].label.as_str(), offered[0].key.len()),
        ("Development issuer", 11)
    );
    assert_eq!(offered[0].issuer, stage.issuer.issuer());
    assert!(stage.validator.sign_in_choices(&tenant(Realm::B)).is_empty());
    let none = "";
    let closed = key_of(&Realm::B.issuer(&stage.server.base));
    for (realm, key) in [
        (Realm::B, stage.key().as_str()),
        (Realm::B, closed.as_str()),
        (Realm::Default, closed.as_str()),
        (Realm::Default, none),
    ] {
        let refused = stage
            .validator
            .authorization_url(&tenant(realm), key, &stage.secret, &callback_uri(), PLACE)
            .await;
        assert_eq!(refused, Err(SignInError::NotOffered), "{key}");
    }
}

#[test]
fn a_sign_in_that_cannot_work_is_named_when_it_is_configured() {
    let bad = SignIn {
        client_id: String::new(),
        client_secret: Some(String::new().into()),
        scopes: vec!["two words".to_owned()],
        label: "x".repeat(101),
    };
    let config = |sign_in| IssuerConfig {
        sign_in: Some(sign_in),
        ..IssuerConfig::new(
            "https://issuer.example",
            TenantId::default_tenant(),
            vec!["a".to_owned()],
        )
    };
    assert_eq!(config(bad).problems().len(), 4);
    assert!(config(sign_in()).problems().is_empty());
    for label in ["", " ", "a\nb"] {
        let label = label.to_owned();
        assert_eq!(config(SignIn { label, ..sign_in() }).problems().len(), 1);
    }
}

#[test]
fn a_secret_goes_to_the_browser_and_back_and_parts_of_it_differ() {
    let fresh = LoginSecret::fresh(&Counting::default());
    let text = fresh.to_base64url();
    assert_eq!(text.expose_secret().len(), 43);
    let back = LoginSecret::parse(text.expose_secret()).unwrap();
    let parts = [Part::State, Part::Nonce, Part::Verifier].map(|part| fresh.derive(part, "i", "p"));
    assert_eq!(parts[0], back.derive(Part::State, "i", "p"));
    assert!(parts.iter().all(|part| part.len() == 43));
    assert!(parts[0] != parts[1] && parts[1] != parts[2] && parts[0] != parts[2]);
    for bad in ["", "short", &format!("{}=", text.expose_secret())] {
        assert!(LoginSecret::parse(bad).is_none(), "{bad}");
    }
    let mut bytes = [0; 4];
    Counting::default().fill(&mut bytes);
    assert!(LoginSecret::parse(&URL_SAFE_NO_PAD.encode(bytes)).is_none());
}

#[tokio::test]
async fn nothing_secret_is_shown_where_it_is_logged() {
    let stage = Stage::with(|config| IssuerConfig {
        sign_in: Some(SignIn {
            client_secret: Some("s3cret".to_owned().into()),
            ..sign_in()
        }),
        ..config
    })
    .await;
    let callback = Callback {
        code: Some("c0de"),
        state: Some("st4te"),
        ..Callback::default()
    };
    let config = SignIn {
        client_secret: Some("s3cret".to_owned().into()),
        ..sign_in()
    };
    let refused = stage
        .answered(&query(&stage.begin(PLACE).await)["state"], "c0de")
        .await;
    let signed_in = SignedIn {
        issuer: "i".to_owned(),
        claims: "cl4ims".to_owned(),
        subject: "subj3ct".to_owned(),
        sid: Some("s1d".to_owned()),
        place: PLACE.to_owned(),
    };
    let shown = format!(
        "{callback:?} {config:?} {refused:?} {signed_in:?} {:?} {:?}",
        secret(b's'),
        stage.validator
    );
    let bytes = URL_SAFE_NO_PAD.encode([b's'; 32]);
    let numbers = "115, 115";
    for hidden in [
        "c0de", "st4te", "s3cret", "cl4ims", "subj3ct", "s1d", &bytes, numbers,
    ] {
        assert!(!shown.contains(hidden), "{hidden}: {shown}");
    }
}
