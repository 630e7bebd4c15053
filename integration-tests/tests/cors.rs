//! Browser apps of other origins: those that are listed may call the API and read its answers; others, and the pages
//! for people, know nothing of it.

use handoff_integration_tests::{Answer, Backend, TestApp};
use reqwest::Method;

const APP: &str = "https://app.example";

async fn preflight(app: &TestApp, path: &str, origin: &str, method: &str, headers: &str) -> Answer {
    let stranger = app.stranger();
    let request = stranger
        .request(Method::OPTIONS, path)
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", headers);
    stranger.send(request).await
}

async fn listed() -> TestApp {
    TestApp::start_with(Backend::Embedded, |options| {
        options.cors_origins = vec![APP.to_owned()];
    })
    .await
}

#[tokio::test]
async fn a_listed_app_may_call_the_api_and_read_what_it_needs() {
    let app = listed().await;
    for path in [
        "/fhir/Task",
        "/fhir/Task/1",
        "/t/b/fhir/Task/1",
        "/fhir/Binary/1",
        "/files/1/access-grants",
        "/access-grants/1",
        "/redemptions/1/content",
    ] {
        let wanted = "authorization,content-type,if-match,prefer,dpop,x-correlation-id";
        let answer = preflight(&app, path, APP, "PATCH", wanted).await.expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP), "{path}");
        let allowed = answer
            .header("access-control-allow-headers")
            .expect("headers")
            .to_lowercase();
        assert!(wanted.split(',').all(|name| allowed.contains(name)), "{allowed}");
        assert!(answer.header("access-control-allow-credentials").is_none());
        assert!(
            answer
                .header("vary")
                .expect("vary")
                .to_lowercase()
                .contains("origin")
        );
    }
    // A refusal can be read as well, or the app could not know what to do.
    let stranger = app.stranger();
    let request = stranger.request(Method::GET, "/fhir/Task").header("origin", APP);
    let answer = stranger.send(request).await.expect(401);
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    let shown = answer
        .header("access-control-expose-headers")
        .expect("headers")
        .to_lowercase();
    for name in [
        "www-authenticate",
        "etag",
        "location",
        "dpop-nonce",
        "x-correlation-id",
    ] {
        assert!(shown.contains(name), "{name}: {shown}");
    }
}

#[tokio::test]
async fn nobody_else_may() {
    let app = listed().await;
    for origin in [
        "https://app.example.evil.example",
        "http://app.example",
        "https://app.example:8443",
        "null",
    ] {
        let answer = preflight(&app, "/fhir/Task", origin, "GET", "authorization").await;
        assert!(answer.header("access-control-allow-origin").is_none(), "{origin}");
        let lane = app.client("lane").await;
        let request = lane.request(Method::GET, "/fhir/Task").header("origin", origin);
        let answer = lane.send(request).await.expect(200);
        assert!(answer.header("access-control-allow-origin").is_none(), "{origin}");
    }
    // Where nobody is listed nothing is said at all.
    let plain = TestApp::start(Backend::Embedded).await;
    let answer = preflight(&plain, "/fhir/Task", APP, "GET", "authorization").await;
    assert!(answer.status.is_client_error());
    assert!(answer.header("access-control-allow-origin").is_none());
}

#[tokio::test]
async fn the_pages_for_people_and_the_development_issuer_are_for_no_app() {
    let app = listed().await;
    for path in ["/handoff/0", "/handoff/page.js", "/dev-issuer/token"] {
        let answer = preflight(&app, path, APP, "POST", "content-type").await;
        assert!(answer.header("access-control-allow-origin").is_none(), "{path}");
    }
    // What tells where tokens come from is for everybody.
    let stranger = app.stranger();
    for path in [
        "/fhir/.well-known/smart-configuration",
        "/.well-known/oauth-protected-resource/fhir",
    ] {
        let request = stranger
            .request(Method::GET, path)
            .header("origin", "https://anybody.example");
        let answer = stranger.send(request).await.expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
    }
}
