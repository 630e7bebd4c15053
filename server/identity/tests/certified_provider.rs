//! Against a certified OpenID Connect provider: its discovery, its RS256 and ES256 keys, its tokens.
//! `integration-tests/with-services` starts it; without it these tests fail.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use handoff_domain::access::Role;
use handoff_domain::ids::TenantId;
use handoff_domain::ports::Clock;
use handoff_domain::time::Timestamp;
use handoff_identity::{HttpSettings, IssuerConfig, Presented, TokenError, TokenValidator};
use serde_json::Value;

const AUDIENCE: &str = "https://handoff.example/fhir";

struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the provider's tokens are of the present"
    )]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

fn provider() -> Option<String> {
    std::env::var("HANDOFF_TEST_OIDC_ISSUER").ok()
}

async fn token(issuer: &str, client: &str, audience: &str) -> Result<String, reqwest::Error> {
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", client),
        ("client_secret", "test-only-not-a-secret"),
        ("resource", audience),
        ("scope", "system/*.cruds"),
    ];
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    let http = reqwest::Client::builder().no_proxy().build()?;
    let document: Value = http
        .get(format!("{issuer}/.well-known/openid-configuration"))
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    let answer: Value = http
        .post(member(&document, "token_endpoint"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body)
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    Ok(member(&answer, "access_token").to_owned())
}

fn member<'a>(document: &'a Value, name: &str) -> &'a str {
    document.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn config(issuer: &str) -> IssuerConfig {
    IssuerConfig {
        allow_insecure_loopback: true,
        client_actor: Some("Device".to_owned()),
        ..IssuerConfig::new(issuer, TenantId::default_tenant(), vec![AUDIENCE.to_owned()])
    }
}

#[tokio::test]
async fn a_certified_providers_tokens_are_accepted_by_rs256_and_es256() {
    let issuer = provider().expect("`HANDOFF_TEST_OIDC_ISSUER`: run by `integration-tests/with-services`");
    let validator = TokenValidator::new(
        vec![config(&issuer)],
        &HttpSettings::default(),
        Arc::new(SystemClock),
    )
    .unwrap();
    let tenant = TenantId::default_tenant();
    for client in ["lane", "lane-es256"] {
        let token = token(&issuer, client, AUDIENCE).await.unwrap();
        let validated = validator
            .validate(Presented::Bearer(&token), &tenant)
            .await
            .unwrap();
        let principal = &validated.principal;
        assert_eq!(principal.actor.as_str(), "Practitioner/lane", "{client}");
        assert_eq!(principal.client, client);
        assert!(
            principal.has(Role::Fulfiller) && principal.teams.contains("cardiology"),
            "{client}"
        );
        assert!(principal.scopes.contains("system/*.cruds"), "{client}");
    }
    let machine = token(&issuer, "interface", AUDIENCE).await.unwrap();
    let validated = validator
        .validate(Presented::Bearer(&machine), &tenant)
        .await
        .unwrap();
    assert_eq!(validated.principal.actor.as_str(), "Device/interface");
}

#[tokio::test]
async fn a_certified_providers_token_for_somewhere_else_is_refused() {
    let issuer = provider().expect("`HANDOFF_TEST_OIDC_ISSUER`: run by `integration-tests/with-services`");
    let validator = TokenValidator::new(
        vec![config(&issuer)],
        &HttpSettings::default(),
        Arc::new(SystemClock),
    )
    .unwrap();
    let token = token(&issuer, "lane", "https://elsewhere.example/fhir")
        .await
        .unwrap();
    let refused = validator
        .validate(Presented::Bearer(&token), &TenantId::default_tenant())
        .await
        .unwrap_err();
    assert!(matches!(refused, TokenError::Invalid(_)));
    assert_eq!(refused.public(), "the access token is not for this server");
}
