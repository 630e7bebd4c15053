//! The development issuer as a browser, a client and a stranger meet it.

use actix_web::http::Method;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::adapters::{OsEntropy, SystemClock};

const HOST_NAME: &str = "127.0.0.1:8080";

fn issuers() -> DevIssuers {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy::new());
    DevIssuers::new("http://127.0.0.1:8080", 8080, &clock, &entropy).unwrap()
}

struct Told {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn location(&self) -> Url {
        Url::parse(self.headers.get(LOCATION).unwrap().to_str().unwrap()).unwrap()
    }
}

async fn ask(issuers: &DevIssuers, method: Method, uri: &str, form: &str, headers: &[(&str, &str)]) -> Told {
    let app =
        init_service(App::new().configure(|config: &mut web::ServiceConfig| issuers.configure(config))).await;
    let mut request = TestRequest::with_uri(uri)
        .method(method)
        .set_payload(form.to_owned());
    for (name, value) in headers {
        request = request.insert_header((*name, *value));
    }
    let response = call_service(&app, request.to_request()).await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = String::from_utf8(read_body(response).await.to_vec()).unwrap();
    Told {
        status,
        headers,
        body,
    }
}

async fn get(issuers: &DevIssuers, uri: &str) -> Told {
    ask(issuers, Method::GET, uri, "", &[("host", HOST_NAME)]).await
}

async fn post(issuers: &DevIssuers, uri: &str, form: &str) -> Told {
    ask(issuers, Method::POST, uri, form, &[("host", HOST_NAME)]).await
}

#[actix_web::test]
async fn each_tenant_has_an_issuer_that_says_where_it_is() {
    let issuers = issuers();
    for (path, issuer) in [
        ("/dev-issuer", "http://127.0.0.1:8080/dev-issuer"),
        ("/dev-issuer/b", "http://127.0.0.1:8080/dev-issuer/b"),
    ] {
        let told = get(&issuers, &format!("{path}/.well-known/openid-configuration")).await;
        assert_eq!(told.status, 200);
        assert_eq!(told.json()["issuer"], issuer);
        assert_eq!(told.json()["jwks_uri"], format!("{issuer}/jwks"));
        assert!(told.headers.get("access-control-allow-origin").is_none());
        let keys = get(&issuers, &format!("{path}/jwks")).await.json();
        assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
        assert!(keys["keys"][0].get("d").is_none());
    }
}

#[actix_web::test]
async fn the_cast_gets_tokens_by_name_and_nobody_else_does() {
    let issuers = issuers();
    let told = post(
        &issuers,
        "/dev-issuer/token",
        "grant_type=client_credentials&client_id=ehr",
    )
    .await;
    assert_eq!(told.status, 200);
    assert_eq!(told.json()["expires_in"], 3600);
    assert_eq!(told.json()["token_type"], "Bearer");
    assert_eq!(told.headers.get(CACHE_CONTROL).unwrap(), "no-store");
    let stranger = post(
        &issuers,
        "/dev-issuer/token",
        "grant_type=client_credentials&client_id=mallory",
    )
    .await;
    assert_eq!(
        (stranger.status, stranger.json()["error"].clone()),
        (401, json!("invalid_client"))
    );
    let foreign = post(
        &issuers,
        "/dev-issuer/b/token",
        "grant_type=client_credentials&client_id=ehr",
    )
    .await;
    assert_eq!(foreign.status, 401);
    let other = post(&issuers, "/dev-issuer/token", "grant_type=password&client_id=ehr").await;
    assert_eq!(
        (other.status, other.json()["error"].clone()),
        (400, json!("unsupported_grant_type"))
    );
}

#[actix_web::test]
async fn another_name_or_another_site_is_refused() {
    let issuers = issuers();
    let uri = "/dev-issuer/.well-known/openid-configuration";
    for headers in [
        &[("host", "attacker.example:8080")][..],
        &[("host", "127.0.0.1:9")],
        &[],
        &[("host", HOST_NAME), ("origin", "https://attacker.example")],
        &[("host", HOST_NAME), ("origin", "http://127.0.0.1:9")],
        &[("host", HOST_NAME), ("origin", "null")],
    ] {
        assert_eq!(
            ask(&issuers, Method::GET, uri, "", headers).await.status,
            403,
            "{headers:?}"
        );
    }
    for headers in [
        &[("host", HOST_NAME)][..],
        &[("host", "localhost:8080")],
        &[("host", HOST_NAME), ("origin", "http://127.0.0.1:8080")],
    ] {
        assert_eq!(
            ask(&issuers, Method::GET, uri, "", headers).await.status,
            200,
            "{headers:?}"
        );
    }
}

#[actix_web::test]
async fn a_person_signs_in_with_a_code_that_is_good_once() {
    let issuers = issuers();
    let verifier = "v".repeat(43);
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
    let query = format!(
        "response_type=code&client_id=app&redirect_uri=http%3A%2F%2F127.0.0.1%3A9%2Fback&scope=openid\
         &state=a%26b&code_challenge={challenge}&code_challenge_method=S256"
    );
    let page = get(&issuers, &format!("/dev-issuer/authorize?{query}")).await;
    assert_eq!(page.status, 200);
    assert!(
        page.body.contains("value=\"lane\"") && page.body.contains("value=\"a&amp;b\""),
        "{}",
        page.body
    );

    let told = post(&issuers, "/dev-issuer/authorize", &format!("{query}&person=lane")).await;
    assert_eq!(told.status, 303);
    let answer: HashMap<_, _> = told.location().query_pairs().into_owned().collect();
    assert_eq!(answer["state"], "a&b");
    assert_eq!(answer["iss"], "http://127.0.0.1:8080/dev-issuer");

    let form = format!(
        "grant_type=authorization_code&code={}&code_verifier={verifier}\
         &redirect_uri=http%3A%2F%2F127.0.0.1%3A9%2Fback&client_id=app",
        answer["code"]
    );
    let tokens = post(&issuers, "/dev-issuer/token", &form).await;
    assert_eq!(tokens.status, 200, "{}", tokens.body);
    assert!(tokens.json()["id_token"].is_string());
    let again = post(&issuers, "/dev-issuer/token", &form).await;
    assert_eq!(
        (again.status, again.json()["error"].clone()),
        (400, json!("invalid_grant"))
    );
}

#[actix_web::test]
async fn nobody_is_sent_off_this_machine() {
    let issuers = issuers();
    let query = "response_type=code&client_id=app&redirect_uri=https%3A%2F%2Fattacker.example";
    let told = get(&issuers, &format!("/dev-issuer/authorize?{query}")).await;
    assert_eq!(told.status, 400);
    assert!(told.headers.get(LOCATION).is_none());
}
