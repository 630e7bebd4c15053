//! Tokens that say nothing by themselves, and an issuer that is asked about them.

use super::*;
use crate::introspect::Introspection;

/// What makes an answer one that must be refused.
type Change = fn(&mut Value);

/// A validator that asks the issuer, which knows one token; with the answers it was given.
async fn asking(answer: Value) -> Stage {
    let stage = Stage::with(|config| IssuerConfig {
        introspection: (config.tenant == tenant(Realm::Default)).then(|| Introspection {
            client_id: "hand:off".to_owned(),
            client_secret: "s3cret/+".to_owned().into(),
            endpoint: None,
            remember_seconds: 5,
        }),
        ..config
    })
    .await;
    let path = format!("{}/.well-known/openid-configuration", stage.issuer.realm().path());
    let mut discovery = stage.issuer.discovery();
    discovery["introspection_endpoint"] = json!(format!("{}/introspect", stage.server.base));
    stage.server.serve(&path, &discovery);
    stage.server.serve("/introspect", &answer);
    stage
}

fn active() -> Value {
    json!({
        "active": true, "scope": "user/*.rs", "client_id": "app", "sub": "lane", "aud": AUDIENCE,
        "exp": NOW + 600, "fhirUser": "Practitioner/lane", "roles": ["physician"], "patient": "ada",
    })
}

#[tokio::test]
async fn an_opaque_token_is_what_its_issuer_says_it_is() {
    let stage = asking(active()).await;
    let validated = stage.validate("opaque-token").await.unwrap();
    assert_eq!(validated.principal.actor.as_str(), "Practitioner/lane");
    assert_eq!(validated.principal.client, "app");
    assert_eq!(validated.principal.patient.as_deref(), Some("ada"));
    assert!(validated.principal.token_id.starts_with("sha256:"));
    let asked = stage.server.last_request();
    assert!(asked.starts_with("POST /introspect "), "{asked}");
    // RFC 6749 section 2.3.1: both are form-encoded before they are joined.
    let credentials = base64::engine::general_purpose::STANDARD.encode("hand%3Aoff:s3cret%2F%2B");
    assert!(
        asked.contains(&format!("authorization: Basic {credentials}")),
        "{asked}"
    );
    assert!(
        asked.ends_with("token=opaque-token&token_type_hint=access_token"),
        "{asked}"
    );
}

#[tokio::test]
async fn an_answer_is_remembered_for_as_long_as_is_set_and_no_longer() {
    let stage = asking(active()).await;
    stage.validate("opaque-token").await.unwrap();
    stage.server.serve("/introspect", &json!({ "active": false }));
    stage.clock.pass(Span::seconds(4));
    stage.validate("opaque-token").await.unwrap();
    stage.clock.pass(Span::seconds(1));
    let revoked = stage.validate("opaque-token").await.unwrap_err();
    assert_eq!(
        revoked.public(),
        "the access token is expired, revoked or unknown to its issuer"
    );
    // Neither is the issuer asked about the same nonsense again and again.
    stage.server.serve("/introspect", &active());
    assert!(stage.validate("opaque-token").await.is_err());
    stage.clock.pass(Span::seconds(5));
    stage.validate("opaque-token").await.unwrap();
}

#[tokio::test]
async fn a_signed_token_of_such_an_issuer_speaks_for_itself() {
    let stage = asking(json!({ "active": false })).await;
    stage.validate(&stage.token("lane")).await.unwrap();
    assert!(!stage.server.last_request().contains("/introspect"));
    let bound = stage.signed(&[("cnf", json!({ "jkt": "A".repeat(43) }))]);
    assert!(stage.validate(&bound).await.is_err(), "its binding holds");
}

#[tokio::test]
async fn what_the_issuer_says_is_held_to_the_same_rules() {
    let not_an_access_token = "the token is not an access token";
    let cases: [(&str, Change); 12] = [
        (not_an_access_token, |c| c["token_type"] = json!("refresh_token")),
        (not_an_access_token, |c| c["token_use"] = json!("refresh_token")),
        (not_an_access_token, |c| c["typ"] = json!("ID")),
        // Bound, it says, and not to which key.
        (not_an_access_token, |c| c["token_type"] = json!("DPoP")),
        ("the access token lacks a claim that is needed", |c| {
            c.as_object_mut().unwrap().remove("sub");
            c["username"] = json!("lane");
        }),
        ("the access token is not for this server", |c| {
            c["aud"] = json!("https://elsewhere.example");
        }),
        ("the access token is not for this server", |c| {
            c.as_object_mut().unwrap().remove("aud");
        }),
        ("the access token is expired", |c| c["exp"] = json!(NOW - 61)),
        ("the access token lacks a claim that is needed", |c| {
            c.as_object_mut().unwrap().remove("exp");
        }),
        ("the issuer of the access token is not trusted here", |c| {
            c["iss"] = json!("https://elsewhere.example");
        }),
        ("the access token names no usable FHIR user", |c| {
            c.as_object_mut().unwrap().remove("fhirUser");
        }),
        (
            "the access token is bound to a key, and cannot be used as a bearer token",
            |c| {
                c["cnf"] = json!({ "jkt": "A".repeat(43) });
            },
        ),
    ];
    for (public, change) in cases {
        let mut answer = active();
        change(&mut answer);
        let stage = asking(answer).await;
        assert_eq!(stage.validate("opaque-token").await.unwrap_err().public(), public);
    }
}

#[tokio::test]
async fn an_issuer_that_cannot_be_asked_lets_nobody_in_and_says_try_again() {
    for answer in [json!({ "active": "yes" }), json!([]), json!({})] {
        let stage = asking(answer).await;
        assert!(matches!(
            stage.validate("opaque-token").await,
            Err(TokenError::Unavailable(_))
        ));
    }
    let stage = asking(active()).await;
    stage.validate("another").await.unwrap();
    stage.server.set_down(true);
    assert!(matches!(
        stage.validate("opaque-token").await,
        Err(TokenError::Unavailable(_))
    ));
}

#[tokio::test]
async fn without_an_issuer_to_ask_an_opaque_token_is_no_token() {
    let stage = Stage::set().await;
    assert!(matches!(
        stage.validate("opaque-token").await,
        Err(TokenError::Malformed(_))
    ));
    let stage = asking(active()).await;
    // The issuer of another tenant is not asked, and neither is any about what can't be a token.
    let other = stage
        .validator
        .validate(Presented::Bearer("opaque-token"), &tenant(Realm::B))
        .await;
    assert!(matches!(other, Err(TokenError::Malformed(_))));
    assert!(matches!(
        stage.validate("two words").await,
        Err(TokenError::Malformed(_))
    ));
}

#[test]
fn two_issuers_of_a_tenant_are_not_both_asked() {
    let asked = |name: &str, tenant: &str| IssuerConfig {
        introspection: Some(Introspection {
            client_id: "handoff".to_owned(),
            client_secret: "secret".to_owned().into(),
            endpoint: None,
            remember_seconds: 5,
        }),
        ..IssuerConfig::new(name, TenantId::parse(tenant).unwrap(), vec![AUDIENCE.to_owned()])
    };
    let validator = |tenants: [&str; 2]| {
        let issuers = vec![
            asked("https://one.example", tenants[0]),
            asked("https://two.example", tenants[1]),
        ];
        TokenValidator::new(issuers, &HttpSettings::default(), TestClock::at(START))
    };
    assert!(validator(["default", "b"]).is_ok());
    let refused = validator(["default", "default"]).unwrap_err().to_string();
    assert!(refused.contains("each would see those of the other"), "{refused}");
}
