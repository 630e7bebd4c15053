//! The ends of sessions: the way to the issuer's own, and its logout tokens.

use super::*;
use crate::test_server::changed;
use crate::validator::Presented;

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

fn claims(stage: &Stage, changes: &[(&str, Value)]) -> Value {
    let claims = json!({
        "iss": stage.issuer.issuer(), "aud": CLIENT, "sub": "lane", "sid": "s1", "iat": NOW, "exp": NOW + 120,
        "jti": "j1", "events": { EVENT: {} },
    });
    changed(claims, changes)
}

impl Stage {
    async fn logout(&self, typ: &str, changes: &[(&str, Value)]) -> Result<Logout, TokenError> {
        let token = self.key.sign(typ, &claims(self, changes)).unwrap();
        self.validator.logout_token(&tenant(Realm::Default), &token).await
    }
}

#[tokio::test]
async fn an_issuer_says_whose_sessions_end() {
    let stage = Stage::set().await;
    let logout = stage.logout("logout+jwt", &[]).await.unwrap();
    let expected = Logout {
        issuer: stage.issuer.issuer().to_owned(),
        subject: Some("lane".to_owned()),
        sid: Some("s1".to_owned()),
    };
    assert_eq!(logout, expected);
    let good = [
        ("sub", Value::Null),
        ("sid", Value::Null),
        ("exp", Value::Null),
        ("exp", json!(NOW - 59)),
        ("aud", json!([CLIENT])),
        ("iat", json!(NOW - 360)),
        ("iat", json!(NOW + 60)),
        ("events", json!({ EVENT: {}, "https://other.example": {} })),
    ];
    for (name, value) in good {
        let accepted = stage.logout("JWT", &[(name, value.clone())]).await;
        assert!(accepted.is_ok(), "{name}: {value}: {accepted:?}");
    }
}

#[tokio::test]
async fn what_is_no_logout_token_ends_nothing() {
    let stage = Stage::set().await;
    let bad = [
        ("iss", json!("https://elsewhere.example")),
        ("iss", json!(Realm::B.issuer(&stage.server.base))),
        ("iss", Value::Null),
        ("aud", json!("other")),
        ("aud", Value::Null),
        ("aud", json!([CLIENT, "other"])),
        ("iat", Value::Null),
        ("iat", json!(NOW - 361)),
        ("iat", json!(NOW + 61)),
        ("iat", json!("now")),
        ("exp", json!(NOW - 60)),
        ("exp", json!("soon")),
        ("jti", Value::Null),
        ("jti", json!("")),
        ("jti", json!(1)),
        ("nonce", json!("n")),
        ("sub", json!(1)),
        ("sid", json!("")),
        ("events", Value::Null),
        ("events", json!({})),
        ("events", json!([EVENT])),
        ("events", json!({ EVENT: true })),
        ("events", json!({ "http://schemas.openid.net/event/other": {} })),
    ];
    for (name, value) in bad {
        let refused = stage.logout("logout+jwt", &[(name, value.clone())]).await;
        let error = refused.expect_err(&format!("{name}: {value}"));
        assert!(matches!(error, TokenError::Invalid(_)), "{name}: {error:?}");
        assert_eq!(error.public(), "the logout token is not acceptable here");
    }
    let nobody = stage
        .logout("JWT", &[("sub", Value::Null), ("sid", Value::Null)])
        .await;
    assert!(nobody.is_err());
    assert!(stage.logout("at+jwt", &[]).await.is_err());
    let stranger = DevKey::generate().unwrap();
    let honest = claims(&stage, &[]);
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!("{}.{}.", part(&json!({ "alg": "none" })), part(&honest));
    let good = stage.key.sign("logout+jwt", &honest).unwrap();
    let own = tenant(Realm::Default);
    for token in ["", "x", &stranger.sign("logout+jwt", &honest).unwrap(), &unsigned] {
        let refused = stage.validator.logout_token(&own, token).await;
        assert!(matches!(refused, Err(TokenError::Invalid(_))), "{refused:?}");
    }
    assert!(
        stage
            .validator
            .logout_token(&tenant(Realm::B), &good)
            .await
            .is_err()
    );
    let closed = validator(&stage.server, &stage.clock, |config| IssuerConfig {
        sign_in: None,
        ..config
    });
    assert!(closed.logout_token(&own, &good).await.is_err());
    stage.validator.logout_token(&own, &good).await.unwrap();
}

#[tokio::test]
async fn neither_an_id_token_nor_a_logout_token_is_anything_else() {
    let stage = Stage::with(|config| IssuerConfig {
        require_at_jwt_typ: false,
        require_jti: false,
        audience: vec![CLIENT.to_owned()],
        ..config
    })
    .await;
    let asked = query(&stage.begin(PLACE).await);
    let code = stage.pick(&asked, "lane");
    stage.answered(&asked["state"], &code).await.unwrap();
    let more = [
        ("client_id", json!("app")),
        ("fhirUser", json!("Practitioner/lane")),
    ];
    let logout = stage.key.sign("JWT", &claims(&stage, &more)).unwrap();
    let mut id = claims(&stage, &more);
    id.as_object_mut().unwrap().remove("events");
    id["nonce"] = json!("n");
    let id = stage.key.sign("JWT", &id).unwrap();
    for token in [&logout, &id] {
        let refused = stage
            .validator
            .validate(Presented::Bearer(token), &tenant(Realm::Default))
            .await
            .unwrap_err();
        assert_eq!(refused.public(), "the token is not an access token");
    }
    let own = tenant(Realm::Default);
    assert!(stage.validator.logout_token(&own, &id).await.is_err());
}

#[tokio::test]
async fn an_issuer_that_was_never_read_and_is_down_may_send_its_logout_again() {
    let stage = Stage::set().await;
    stage.server.set_down(true);
    let refused = stage.logout("logout+jwt", &[]).await;
    assert!(matches!(refused, Err(TokenError::Unavailable(_))), "{refused:?}");
}

#[tokio::test]
async fn a_person_is_signed_out_at_an_issuer_that_can() {
    let after = Url::parse("https://handoff.example/bye?x=1").unwrap();
    let stage = Stage::set().await;
    let (own, issuer) = (tenant(Realm::Default), stage.issuer.issuer().to_owned());
    let none = stage.validator.end_session_url(&own, &issuer, &after).await;
    assert_eq!(none, None, "the development issuer has no such place");
    for (endpoint, works) in [
        (format!("{}/end?a=b", stage.server.base), true),
        ("http://elsewhere.example/end".to_owned(), false),
        ("javascript:alert(1)".to_owned(), false),
    ] {
        let stage = Stage::set().await;
        let mut discovery = stage.issuer.discovery();
        discovery["end_session_endpoint"] = json!(endpoint);
        stage.publish(&discovery);
        let issuer = stage.issuer.issuer();
        let url = stage.validator.end_session_url(&own, issuer, &after).await;
        assert_eq!(url.is_some(), works, "{endpoint}");
        if let Some(url) = url {
            let asked = query(&url);
            assert_eq!((asked["a"].as_str(), asked["client_id"].as_str()), ("b", CLIENT));
            assert_eq!(asked["post_logout_redirect_uri"], after.as_str());
        }
        let other = tenant(Realm::B);
        assert_eq!(
            stage.validator.end_session_url(&other, issuer, &after).await,
            None
        );
    }
}
