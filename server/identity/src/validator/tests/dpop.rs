//! Tokens that are bound to a key, and the proofs that come with them.

use super::*;

const METHOD: &str = "GET";
const URL: &str = "https://handoff.example/fhir/Task";

/// A client with a key of its own, and a token that is bound to it.
struct Client {
    key: DevKey,
    token: String,
}

impl Client {
    fn of(stage: &Stage) -> Self {
        let key = DevKey::generate().unwrap();
        let token = stage.signed(&[("cnf", json!({ "jkt": key.kid() })), ("jti", json!(key.kid()))]);
        Self { key, token }
    }

    fn public_key(&self) -> Value {
        let mut jwk = self.key.public_jwk();
        // Members beyond those that make the thumbprint.
        jwk["kid"] = json!("mine");
        jwk
    }

    fn claims(&self, id: &str) -> Value {
        json!({
            "htm": METHOD, "htu": URL, "iat": NOW, "jti": id,
            "ath": URL_SAFE_NO_PAD.encode(sha256(&self.token)),
        })
    }

    fn proof(&self, claims: &Value) -> String {
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": self.public_key() });
        self.key.sign_with(&header, claims).unwrap()
    }

    async fn send(&self, stage: &Stage, proof: &str) -> Result<Arc<Validated>, TokenError> {
        let proof = Proof {
            jwt: proof,
            method: METHOD,
            url: URL,
        };
        let presented = Presented::Dpop(&self.token, proof);
        stage.validator.validate(presented, &tenant(Realm::Default)).await
    }
}

#[tokio::test]
async fn a_bound_token_is_good_with_a_proof_for_this_request_and_once() {
    let stage = Stage::set().await;
    let client = Client::of(&stage);
    let proof = client.proof(&client.claims("1"));
    let validated = client.send(&stage, &proof).await.unwrap();
    assert_eq!(validated.principal.key.as_deref(), Some(client.key.kid()));
    let again = client.send(&stage, &proof).await.unwrap_err();
    assert_eq!(again.public(), "the DPoP proof was used before");
    client
        .send(&stage, &client.proof(&client.claims("2")))
        .await
        .unwrap();
    // Two minutes later it is too old to be used again, and may be forgotten.
    stage.clock.pass(Span::seconds(121));
    let old = client.send(&stage, &proof).await.unwrap_err();
    assert_eq!(old.public(), "the DPoP proof was not made just now");
}

#[tokio::test]
async fn a_bound_token_is_no_bearer_token_and_a_bearer_token_is_not_bound() {
    let stage = Stage::set().await;
    let client = Client::of(&stage);
    let error = stage.validate(&client.token).await.unwrap_err();
    assert_eq!(
        error.public(),
        "the access token is bound to a key, and cannot be used as a bearer token"
    );
    // Remembered as it is, it is refused all the same.
    client
        .send(&stage, &client.proof(&client.claims("1")))
        .await
        .unwrap();
    assert!(stage.validate(&client.token).await.is_err());
    let unbound = Client {
        token: stage.token("lane"),
        key: DevKey::generate().unwrap(),
    };
    let error = unbound
        .send(&stage, &unbound.proof(&unbound.claims("1")))
        .await
        .unwrap_err();
    assert_eq!(
        error.public(),
        "the access token is not bound to a key; send it as a bearer token"
    );
}

#[tokio::test]
async fn a_proof_that_is_not_exactly_one_for_this_request_is_refused() {
    let stage = Stage::set().await;
    let client = Client::of(&stage);
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut claims = client.claims("changed");
        change(&mut claims);
        client.proof(&claims)
    };
    let under = |header: Value| client.key.sign_with(&header, &client.claims("header")).unwrap();
    let other = DevKey::generate().unwrap();
    let good_header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": client.public_key() });
    let with = |name: &str, value: Value| {
        let mut header = good_header.clone();
        header[name] = value;
        under(header)
    };
    let mut private = client.public_key();
    private["d"] = json!("AAAA");
    let long = changed(&|c| c["jti"] = json!("x".repeat(9000)));
    let cases = [
        ("is for another method", changed(&|c| c["htm"] = json!("POST"))),
        ("is for another method", changed(&|c| c["htm"] = json!("get"))),
        (
            "is for another URL",
            changed(&|c| c["htu"] = json!("https://handoff.example/fhir/Task/1")),
        ),
        (
            "is for another URL",
            changed(&|c| c["htu"] = json!("http://handoff.example/fhir/Task")),
        ),
        (
            "is for another URL",
            changed(&|c| c["htu"] = json!("https://elsewhere.example/fhir/Task")),
        ),
        ("is for another URL", changed(&|c| c["htu"] = json!("not a URL"))),
        ("was not made just now", changed(&|c| c["iat"] = json!(NOW - 61))),
        ("was not made just now", changed(&|c| c["iat"] = json!(NOW + 61))),
        (
            "does not say when it was made",
            changed(&|c| c["iat"] = json!("now")),
        ),
        (
            "does not say when it was made",
            changed(&|c| {
                c.as_object_mut().unwrap().remove("iat");
            }),
        ),
        (
            "is for another access token",
            changed(&|c| c["ath"] = json!(URL_SAFE_NO_PAD.encode(sha256("other")))),
        ),
        (
            "is for another access token",
            changed(&|c| {
                c.as_object_mut().unwrap().remove("ath");
            }),
        ),
        (
            "has no usable id",
            changed(&|c| {
                c.as_object_mut().unwrap().remove("jti");
            }),
        ),
        ("has no usable id", changed(&|c| c["jti"] = json!(""))),
        (
            "has no usable id",
            changed(&|c| c["jti"] = json!("x".repeat(257))),
        ),
        ("is too long", long),
        ("is not a DPoP proof", with("typ", json!("JWT"))),
        (
            "is signed with an algorithm that is not allowed",
            with("alg", json!("none")),
        ),
        (
            "is signed with an algorithm that is not allowed",
            with("alg", json!("HS256")),
        ),
        ("is not signed by its key", with("alg", json!("RS256"))),
        (
            "is by a key that the access token is not bound to",
            with("jwk", other.public_jwk()),
        ),
        ("has no key", with("jwk", json!("key"))),
        ("shows a private key", with("jwk", private)),
        ("has no usable key", with("jwk", json!({ "kty": "oct" }))),
        (
            "has no usable key",
            with("jwk", json!({ "kty": "EC", "crv": "P-256", "x": "AA" })),
        ),
        ("is by a key that the access token is not bound to", {
            let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": other.public_jwk() });
            other.sign_with(&header, &client.claims("other")).unwrap()
        }),
        ("is not a signed JWT", "a.b.c".to_owned()),
        ("is not a signed JWT", String::new()),
        (
            "is not a signed JWT",
            client.proof(&client.claims("5")).replace('.', ".."),
        ),
    ];
    for (what, proof) in cases {
        let error = client.send(&stage, &proof).await.unwrap_err();
        assert!(matches!(error, TokenError::Proof(_)), "{what}: {error:?}");
        assert_eq!(error.public(), format!("the DPoP proof {what}"));
    }
    // A query, a fragment and the default port say nothing of the URL.
    for (id, url) in [
        "https://handoff.example:443/fhir/Task",
        "https://HANDOFF.example/fhir/Task?x=1#y",
    ]
    .iter()
    .enumerate()
    {
        let mut claims = client.claims(&format!("url {id}"));
        claims["htu"] = json!(url);
        client.send(&stage, &client.proof(&claims)).await.unwrap();
    }
}

#[tokio::test]
async fn a_nonce_is_ours_and_of_late_and_may_be_demanded() {
    let stage = Stage::with(|config| IssuerConfig {
        require_dpop_nonce: true,
        ..config
    })
    .await;
    let client = Client::of(&stage);
    let with = |id: &str, nonce: Option<&str>, iat: i64| {
        let mut claims = client.claims(id);
        claims["iat"] = json!(iat);
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        client.proof(&claims)
    };
    let demanded = client.send(&stage, &with("1", None, NOW)).await.unwrap_err();
    assert_eq!(demanded, TokenError::UseNonce);
    let nonce = stage.validator.nonce();
    client.send(&stage, &with("1", Some(&nonce), NOW)).await.unwrap();
    let foreign = Stage::set().await;
    let not_ours = foreign.validator.nonce();
    assert_eq!(
        client.send(&stage, &with("2", Some(&not_ours), NOW)).await,
        Err(TokenError::UseNonce)
    );
    stage.clock.pass(Span::minutes(3));
    client
        .send(&stage, &with("3", Some(&nonce), NOW + 180))
        .await
        .unwrap();
    stage.clock.pass(Span::minutes(3));
    let late = client.send(&stage, &with("4", Some(&nonce), NOW + 360)).await;
    assert_eq!(late, Err(TokenError::UseNonce));
}

#[tokio::test]
async fn a_token_that_is_bound_in_another_way_is_good_for_nothing() {
    let stage = Stage::set().await;
    let certificate = json!({ "x5t#S256": "A".repeat(43) });
    let both = json!({ "jkt": "A".repeat(43), "x5t#S256": "A".repeat(43) });
    for cnf in [
        certificate,
        both,
        json!({}),
        json!("key"),
        json!({ "jkt": "short" }),
        json!({ "jkt": 1 }),
    ] {
        let token = stage.signed(&[("cnf", cnf.clone())]);
        let error = stage.validate(&token).await.unwrap_err();
        assert_eq!(
            error.public(),
            "the access token is bound to its sender in a way that is not supported here",
            "{cnf}"
        );
    }
}
