//! Id tokens that are not for this login, each refused for its reason.

use ring::hmac;

use super::*;
use crate::test_server::changed;

/// Signs the claims by the header, or in a way of its own.
type Sign = fn(&Stage, &Value) -> String;

fn signed(stage: &Stage, claims: &Value) -> String {
    stage.key.sign("JWT", claims).unwrap()
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn claims(stage: &Stage, nonce: &str, changes: &[(&str, Value)]) -> Value {
    let claims = json!({
        "iss": stage.issuer.issuer(), "sub": "lane", "aud": CLIENT, "nonce": nonce, "iat": NOW, "exp": NOW + 600,
        "fhirUser": "Practitioner/lane", "roles": ["physician"],
    });
    changed(claims, changes)
}

/// Signs in where the issuer gives an id token of these claims.
async fn given(stage: &Stage, sign: Sign, changes: &[(&str, Value)]) -> Result<SignedIn, SignInError> {
    let asked = query(&stage.begin(PLACE).await);
    let id_token = sign(stage, &claims(stage, &asked["nonce"], changes));
    stage.server.serve(
        "/dev-issuer/token",
        &json!({ "access_token": "at", "token_type": "Bearer", "expires_in": 60, "id_token": id_token }),
    );
    stage.answered(&asked["state"], "c").await
}

#[tokio::test]
async fn claims_that_are_not_for_this_login_are_refused() {
    let stage = Stage::set().await;
    let other_nonce = secret(8).derive(Part::Nonce, stage.issuer.issuer(), PLACE);
    let same_for_elsewhere = stage
        .secret
        .derive(Part::Nonce, stage.issuer.issuer(), "elsewhere");
    let cases = [
        ("nonce", json!(other_nonce), "`nonce` is another login's"),
        ("nonce", json!(same_for_elsewhere), "`nonce` is another login's"),
        ("nonce", Value::Null, "`nonce` is another login's"),
        ("nonce", json!(""), "`nonce` is another login's"),
        ("nonce", json!(1), "`nonce` is another login's"),
        ("aud", json!("other"), "`aud` does not name our client"),
        ("aud", json!([]), "`aud` does not name our client"),
        ("aud", json!(["other"]), "`aud` does not name our client"),
        ("aud", Value::Null, "`aud` does not name our client"),
        (
            "aud",
            json!([CLIENT, "other"]),
            "`aud` names several, and there is no `azp`",
        ),
        ("azp", json!("other"), "`azp` is another client"),
        ("exp", json!(NOW - 60), "`exp` is past"),
        ("exp", Value::Null, "there is no `exp`"),
        ("iat", json!(NOW + 61), "`iat` or `nbf` is in the future"),
        ("nbf", json!(NOW + 61), "`iat` or `nbf` is in the future"),
        ("iat", Value::Null, "there is no `iat`"),
        (
            "auth_time",
            json!("yesterday"),
            "token has a malformed date: auth_time",
        ),
        ("at_hash", json!("AAAA"), "`at_hash` is another access token's"),
        ("at_hash", json!(1), "`at_hash` is another access token's"),
        (
            "iss",
            json!("https://elsewhere.example"),
            "`iss` is another issuer",
        ),
        ("iss", Value::Null, "`iss` is another issuer"),
        ("sub", Value::Null, "token lacks a claim that is needed: sub"),
    ];
    for (name, value, detail) in cases {
        let refused = given(&stage, signed, &[(name, value.clone())]).await;
        let expected = Err(SignInError::Invalid(format!("id token: {detail}")));
        assert_eq!(refused, expected, "{name}: {value}");
    }
}

#[tokio::test]
async fn what_an_issuer_may_write_either_way_is_accepted() {
    let stage = Stage::set().await;
    let hash = ring::digest::digest(&ring::digest::SHA256, b"at");
    let changes = [
        vec![("aud", json!([CLIENT]))],
        vec![("aud", json!([CLIENT, "other"])), ("azp", json!(CLIENT))],
        vec![("at_hash", json!(URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16])))],
        vec![("exp", json!(NOW - 59)), ("iat", json!(NOW + 60))],
        vec![
            ("updated_at", json!("of no concern")),
            ("email_verified", json!("true")),
        ],
    ];
    for changes in changes {
        let accepted = given(&stage, signed, &changes).await;
        assert!(accepted.is_ok(), "{changes:?}: {accepted:?}");
    }
}

#[tokio::test]
async fn a_signature_that_anybody_could_make_is_none() {
    let stage = Stage::with(|config| IssuerConfig {
        sign_in: Some(SignIn {
            client_secret: Some("s3cret".to_owned().into()),
            ..sign_in()
        }),
        algorithms: Alg::ALL.to_vec(),
        ..config
    })
    .await;
    let cases: [(&str, Sign); 7] = [
        ("algorithm `none` is not allowed", |_, claims| {
            format!("{}.{}.", part(&json!({ "alg": "none" })), part(claims))
        }),
        ("algorithm `HS256` is not allowed", |_, claims| {
            let signed = format!("{}.{}", part(&json!({ "alg": "HS256" })), part(claims));
            let key = hmac::Key::new(hmac::HMAC_SHA256, b"s3cret");
            let mac = hmac::sign(&key, signed.as_bytes());
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
        }),
        ("signature does not hold", |stage, claims| {
            let header = json!({ "alg": "ES256", "kid": stage.key.kid() });
            let other = DevKey::generate().unwrap();
            other.sign_with(&header, claims).unwrap()
        }),
        ("no such key of the issuer", |_, claims| {
            DevKey::generate().unwrap().sign("JWT", claims).unwrap()
        }),
        (
            "header type is `at+jwt`, which is no id token's",
            |stage, claims| stage.key.sign("at+jwt", claims).unwrap(),
        ),
        (
            "header type is `logout+jwt`, which is no id token's",
            |stage, claims| stage.key.sign("logout+jwt", claims).unwrap(),
        ),
        ("token does not have three parts", |_, _| "a.b.c.d.e".to_owned()),
    ];
    for (detail, sign) in cases {
        let refused = given(&stage, sign, &[]).await.unwrap_err();
        assert!(matches!(refused, SignInError::Invalid(_)), "{refused:?}");
        assert!(refused.detail().contains(detail), "{}", refused.detail());
    }
    let allowed_less = Stage::with(|config| IssuerConfig {
        algorithms: vec![Alg::Rs256],
        ..config
    })
    .await;
    let refused = given(&allowed_less, signed, &[]).await.unwrap_err();
    assert_eq!(refused.detail(), "id token: algorithm `ES256` is not allowed");
}

#[tokio::test]
async fn an_answer_without_an_id_token_signs_nobody_in() {
    let stage = Stage::set().await;
    let asked = query(&stage.begin(PLACE).await);
    for answer in [
        json!({ "access_token": "at" }),
        json!({ "id_token": null }),
        json!({ "id_token": "" }),
    ] {
        stage.server.serve("/dev-issuer/token", &answer);
        let refused = stage.answered(&asked["state"], "c").await;
        assert!(
            matches!(refused, Err(SignInError::Invalid(_))),
            "{answer}: {refused:?}"
        );
    }
    let huge = json!({ "id_token": "a".repeat(17_000) });
    stage.server.serve("/dev-issuer/token", &huge);
    let refused = stage.answered(&asked["state"], "c").await;
    assert!(matches!(refused, Err(SignInError::Invalid(_))), "{refused:?}");
}

#[tokio::test]
async fn somebody_who_is_no_fhir_user_is_told_so_at_once() {
    // A client of the same name may act as a device; whoever signs in with it may not.
    let stage = Stage::with(|config| IssuerConfig {
        client_actor: Some("Device".to_owned()),
        sign_in: Some(SignIn {
            client_id: "handoff".to_owned(),
            ..sign_in()
        }),
        ..config
    })
    .await;
    for user in [Value::Null, json!("lane"), json!("Task/1"), json!(7)] {
        let changes = [
            ("aud", json!("handoff")),
            ("sub", json!("handoff")),
            ("fhirUser", user.clone()),
        ];
        let refused = given(&stage, signed, &changes).await;
        assert!(
            matches!(refused, Err(SignInError::NobodyHere(_))),
            "{user}: {refused:?}"
        );
    }
}
