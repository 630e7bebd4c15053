//! What the development issuer issues, and to whom it does not.

use base64::Engine as _;

use super::*;
use crate::test_server::Counting;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);
const VERIFIER: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const REDIRECT: &str = "http://127.0.0.1:8080/login/callback";

fn issuer() -> DevIssuer {
    let key = DevKey::generate().unwrap();
    DevIssuer::new(
        "http://127.0.0.1:8080/",
        Realm::Default,
        key,
        Arc::new(Counting::default()),
    )
}

fn claims(token: &SecretString) -> Value {
    let payload = token.expose_secret().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn challenge() -> String {
    URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, VERIFIER.as_bytes()))
}

fn request(challenge: &str) -> AuthorizeRequest<'_> {
    AuthorizeRequest {
        response_type: "code",
        client_id: "app",
        redirect_uri: REDIRECT,
        scope: Some("openid fhirUser user/Task.rs"),
        nonce: Some("n-1"),
        code_challenge: challenge,
        code_challenge_method: "S256",
    }
}

#[test]
fn the_issuers_name_is_its_path_below_the_servers() {
    let issuer = issuer();
    assert_eq!(issuer.issuer(), "http://127.0.0.1:8080/dev-issuer");
    assert_eq!(
        issuer.discovery()["jwks_uri"],
        "http://127.0.0.1:8080/dev-issuer/jwks"
    );
    assert_eq!(
        Realm::B.issuer("http://127.0.0.1:8080"),
        "http://127.0.0.1:8080/dev-issuer/b"
    );
}

#[test]
fn a_token_lasts_an_hour_and_says_who_it_is() {
    let response = issuer().issue("lane", None, Some("Patient/ada"), NOW).unwrap();
    let claims = claims(&response.access_token);
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        3600
    );
    assert_eq!(claims["aud"], "https://handoff.example/fhir");
    assert_eq!(claims["fhirUser"], "Practitioner/lane");
    assert_eq!(claims["roles"], json!(["physician"]));
    assert_eq!(claims["teams"], json!(["cardiology"]));
    assert_eq!(claims["patient"], "ada");
    assert_eq!(claims.get("act"), None);
    let body: Value = serde_json::from_str(&response.to_json()).unwrap();
    assert_eq!(
        (&body["token_type"], &body["expires_in"]),
        (&json!("Bearer"), &json!(3600))
    );
    assert_eq!(body["patient"], "ada");
}

#[test]
fn a_requested_scope_is_granted_as_it_stands_or_refused() {
    let issuer = issuer();
    let scope = |s: &str| issuer.issue("ehr", Some(s), None, NOW).map(|r| r.scope);
    assert_eq!(
        scope("system/Task.rs?owner=x"),
        Ok("system/Task.rs?owner=x".to_owned())
    );
    assert_eq!(scope(""), Ok("system/*.cruds".to_owned()));
    for bad in [" ", "a  b", "a\"b", "a\\b", "a\nb", "ä"] {
        assert_eq!(scope(bad).unwrap_err().code, "invalid_scope", "{bad:?}");
    }
}

#[test]
fn strangers_get_no_token() {
    let issuer = issuer();
    for stranger in ["", "nobody", "ehr-b", "LANE"] {
        assert_eq!(
            issuer.issue(stranger, None, None, NOW).unwrap_err().code,
            "invalid_client"
        );
    }
    assert_eq!(
        issuer.issue("lane", None, Some("a b"), NOW).unwrap_err().code,
        "invalid_request"
    );
}

#[test]
fn a_login_gives_the_persons_tokens_to_the_client() {
    let issuer = issuer();
    let challenge = challenge();
    let code = issuer.authorize(&request(&challenge), "otis", NOW).unwrap();
    let tokens = issuer
        .exchange(code.expose_secret(), VERIFIER, REDIRECT, "app", NOW)
        .unwrap();
    let id = claims(tokens.id_token.as_ref().unwrap());
    assert_eq!(
        (&id["sub"], &id["aud"], &id["nonce"]),
        (&json!("otis"), &json!("app"), &json!("n-1"))
    );
    assert_eq!(id["auth_time"], json!(NOW.0 / 1_000_000));
    assert_eq!(id["sid"].as_str().map(str::len), Some(32));
    assert_eq!(id["at_hash"].as_str().map(str::len), Some(22));
    let otis = Realm::Default.member("otis").unwrap();
    assert_eq!(
        (&id["fhirUser"], &id["roles"], &id["teams"]),
        (&json!(otis.fhir_user), &json!([otis.role]), &json!(otis.teams))
    );
    let access = claims(&tokens.access_token);
    assert_eq!(
        (&access["sub"], &access["client_id"]),
        (&json!("otis"), &json!("app"))
    );
    assert_eq!(access.get("nonce"), None);
    let again = issuer.exchange(code.expose_secret(), VERIFIER, REDIRECT, "app", NOW);
    assert_eq!(again.unwrap_err().code, "invalid_grant");
}

#[test]
fn a_code_is_good_only_for_who_asked_and_for_a_minute() {
    let issuer = issuer();
    let challenge = challenge();
    let other = "z".repeat(43);
    let late = NOW.plus(Span::seconds(60));
    for (verifier, redirect, client, when) in [
        (other.as_str(), REDIRECT, "app", NOW),
        (VERIFIER, "http://127.0.0.1:8080/", "app", NOW),
        (VERIFIER, REDIRECT, "other", NOW),
        (VERIFIER, REDIRECT, "app", late),
    ] {
        let code = issuer.authorize(&request(&challenge), "lane", NOW).unwrap();
        let refused = issuer.exchange(code.expose_secret(), verifier, redirect, client, when);
        assert_eq!(refused.unwrap_err().code, "invalid_grant");
        let burnt = issuer.exchange(code.expose_secret(), VERIFIER, REDIRECT, "app", NOW);
        assert_eq!(
            burnt.unwrap_err().code,
            "invalid_grant",
            "any attempt uses the code up"
        );
    }
}

#[test]
fn unsafe_authorization_requests_are_refused() {
    let issuer = issuer();
    let challenge = challenge();
    let good = request(&challenge);
    for (bad, code) in [
        (
            AuthorizeRequest {
                redirect_uri: "https://evil.example/",
                ..good
            },
            "invalid_request",
        ),
        (
            AuthorizeRequest {
                redirect_uri: "javascript:alert(1)",
                ..good
            },
            "invalid_request",
        ),
        (
            AuthorizeRequest {
                redirect_uri: "http://127.0.0.1/#x",
                ..good
            },
            "invalid_request",
        ),
        (
            AuthorizeRequest {
                code_challenge_method: "plain",
                ..good
            },
            "invalid_request",
        ),
        (
            AuthorizeRequest {
                code_challenge: "short",
                ..good
            },
            "invalid_request",
        ),
        (
            AuthorizeRequest {
                response_type: "token",
                ..good
            },
            "unsupported_response_type",
        ),
        (
            AuthorizeRequest {
                scope: Some("a  b"),
                ..good
            },
            "invalid_scope",
        ),
    ] {
        assert_eq!(
            issuer.authorize(&bad, "lane", NOW).unwrap_err().code,
            code,
            "{bad:?}"
        );
    }
    for not_a_person in ["ehr", "viewer-app", "nobody"] {
        assert_eq!(
            issuer.authorize(&good, not_a_person, NOW).unwrap_err().code,
            "access_denied"
        );
    }
}

#[test]
fn a_key_that_is_kept_stays_the_same() {
    let key = DevKey::generate().unwrap();
    let again = DevKey::from_pkcs8(key.pkcs8().expose_secret()).unwrap();
    assert_eq!(again.public_jwk(), key.public_jwk());
    assert_eq!(key.duplicate().unwrap().kid(), key.kid());
    assert_eq!(DevKey::from_pkcs8(b"no key").unwrap_err(), DevKeyError);
    assert_ne!(DevKey::generate().unwrap().kid(), key.kid());
}
