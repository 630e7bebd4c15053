//! What has no way over HTTP of its own: the decision of the policy, and the validation of an access token whose
//! issuer's keys are known, each token seen for the first time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use handoff::adapters::{OsEntropy, SystemClock};
use handoff_domain::access::{Action, Policy};
use handoff_domain::ids::TenantId;
use handoff_domain::ports::Clock;
use handoff_identity::dev_issuer::{DevIssuer, DevKey, Realm};
use handoff_identity::{HttpSettings, IssuerConfig, Presented, TokenValidator};
use handoff_policies::{Asker, RuleSet, Situation};
use secrecy::ExposeSecret;

use super::micros;
use crate::failure::{Failure, Result};
use crate::http::{Body, Connection, Target};
use crate::latencies::Latencies;
use crate::report::{Budget, Row};
use crate::run::Run;

const AUDIENCE: &str = "https://handoff.example/fhir";

pub(super) async fn measure(run: &Run) -> Result<Vec<Row>> {
    let mut decisions = decisions(run.scale.tokens * 10)?;
    let es256 = es256(run.scale.tokens).await?;
    let row = |id, what: &str, figure: Duration, most| {
        Row::new(id, what, micros(figure), "µs", Budget::AtMost(most))
    };
    let mut rows = vec![
        row(
            "policy-p50",
            "policy decision (Cedar, the shipped rules), p50",
            decisions.p50(),
            100.0,
        ),
        row(
            "policy-p99",
            "policy decision (Cedar, the shipped rules), p99",
            decisions.p99(),
            500.0,
        ),
        validation(
            "token-es256",
            "token validation with cached keys, ES256, p50",
            es256,
        ),
    ];
    // Signing is a second's work for some hundreds, so there are fewer of these.
    let title = "token validation with cached keys, RS256, p50";
    rows.push(match std::env::var("HANDOFF_TEST_OIDC_ISSUER") {
        Ok(issuer) => validation(
            "token-rs256",
            title,
            rs256(&issuer, run.scale.tokens.min(300)).await?,
        ),
        Err(_) => Row::not_measured("token-rs256", title, "HANDOFF_TEST_OIDC_ISSUER is not set"),
    });
    Ok(rows)
}

fn validation(id: &'static str, what: &str, mut took: Latencies) -> Row {
    let p99 = micros(took.p99());
    Row::new(id, what, micros(took.p50()), "µs", Budget::AtMost(400.0))
        .detail(format!("p99 {p99:.0}"))
        .with("p99_us", p99)
}

/// A specialist fetching what she was granted: the decision that stands in the way of every byte.
fn decisions(count: usize) -> Result<Latencies> {
    let words = |all: &[&str]| all.iter().map(|word| (*word).to_owned()).collect();
    let facts = Situation {
        relation: words(&["owner", "team", "grantee"]),
        caller: Asker {
            actor: "Practitioner/lane".to_owned(),
            roles: words(&["fulfiller"]),
            teams: words(&["cardiology"]),
            ..Asker::default()
        },
        ..Situation::about(Action::BinaryFetch)
    }
    .facts()
    .map_err(|error| Failure::new(error.to_string()))?;
    let rules = RuleSet::shipped().map_err(|error| Failure::new(error.to_string()))?;
    let mut took = Latencies::default();
    for _ in 0..count {
        let request = facts.request();
        let since = Instant::now();
        let decision = std::hint::black_box(rules.decide(std::hint::black_box(&request)));
        took.add(since.elapsed());
        if !decision.allowed {
            return Err(Failure::new("the policy denies what it should allow"));
        }
    }
    Ok(took)
}

/// Tokens of the development issuer.
async fn es256(count: usize) -> Result<Latencies> {
    const BASE: &str = "http://127.0.0.1:9";
    let key = DevKey::generate().map_err(|error| Failure::new(error.to_string()))?;
    let issuer = DevIssuer::new(BASE, Realm::Default, key, Arc::new(OsEntropy::new()));
    let tenant = TenantId::default_tenant();
    let validator = validator(DevIssuer::issuer_config(BASE, Realm::Default, tenant))?;
    if !validator.preload(issuer.issuer(), &issuer.discovery(), &issuer.jwks()) {
        return Err(Failure::new("the validator does not take the issuer's keys"));
    }
    let mut tokens = Vec::new();
    for _ in 0..count {
        let answer = issuer
            .issue("lane", None, None, SystemClock.now())
            .map_err(|error| Failure::new(error.to_string()))?;
        tokens.push(answer.access_token.expose_secret().to_owned());
    }
    validate(&validator, &tokens).await
}

/// Tokens of the certified provider that the tests use.
async fn rs256(issuer: &str, count: usize) -> Result<Latencies> {
    let target = Target::parse(issuer)?;
    let mut connection = Connection::open(&target).await?;
    let asked = target.request("GET", "/.well-known/openid-configuration", &[], b"");
    let discovery = connection
        .exchange(&asked, Body::Kept)
        .await?
        .expect(200, "discovery")?
        .json()?;
    let endpoint = discovery["token_endpoint"].as_str().unwrap_or_default();
    let path = endpoint
        .strip_prefix(issuer)
        .ok_or_else(|| Failure::new("the provider's token endpoint is elsewhere"))?;
    let form = "grant_type=client_credentials&client_id=lane&client_secret=test-only-not-a-secret\
        &resource=https%3A%2F%2Fhandoff.example%2Ffhir&scope=user%2F*.cruds";
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let ask = target.request("POST", path, &headers, form.as_bytes());
    let mut tokens = Vec::new();
    for _ in 0..count {
        let body = connection
            .exchange(&ask, Body::Kept)
            .await?
            .expect(200, "a token")?
            .json()?;
        tokens.push(body["access_token"].as_str().unwrap_or_default().to_owned());
    }
    let mut config = IssuerConfig::new(issuer, TenantId::default_tenant(), vec![AUDIENCE.to_owned()]);
    config.allow_insecure_loopback = true;
    validate(&validator(config)?, &tokens).await
}

fn validator(config: IssuerConfig) -> Result<TokenValidator> {
    TokenValidator::new(vec![config], &HttpSettings::default(), Arc::new(SystemClock))
        .map_err(|error| Failure::new(error.to_string()))
}

async fn validate(validator: &TokenValidator, tokens: &[String]) -> Result<Latencies> {
    let tenant = TenantId::default_tenant();
    let mut took = Latencies::default();
    for (number, token) in tokens.iter().enumerate() {
        let since = Instant::now();
        validator
            .validate(Presented::Bearer(token), &tenant)
            .await
            .map_err(|error| Failure::new(format!("a good token is refused: {error}")))?;
        // The first one may fetch the keys.
        if number > 0 {
            took.add(since.elapsed());
        }
    }
    Ok(took)
}
