//! The development issuer over HTTP: discovery, keys, a sign-in page that asks for no password, tokens.
//! On loopback only, for visitors that name it so, and for no other site's scripts.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, LOCATION, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, HttpRequest, HttpResponse, web};
use handoff_domain::ports::{Clock, Entropy};
use handoff_identity::dev_issuer::{AuthorizeRequest, DevIssuer, DevIssuerError, DevKey, DevKeyError, Realm};
use secrecy::ExposeSecret;
use serde_json::json;
use url::{Url, form_urlencoded};

/// A token request is a few hundred bytes.
const MOST_FORM_BYTES: usize = 16 * 1024;

/// The page's own style and nothing else; its form may lead back to clients on loopback.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
    form-action 'self' http://127.0.0.1:* http://localhost:*; base-uri 'none'; frame-ancestors 'none'";

/// The development issuers of both tenants, under the paths of the server that serves them.
#[derive(Clone)]
pub struct DevIssuers {
    realms: [Arc<DevIssuer>; 2],
    clock: Arc<dyn Clock>,
    port: u16,
}

impl DevIssuers {
    /// Issuers with a fresh key under `base_url`, which listens on `port`.
    pub fn new(
        base_url: &str,
        port: u16,
        clock: &Arc<dyn Clock>,
        entropy: &Arc<dyn Entropy>,
    ) -> Result<Self, DevKeyError> {
        let key = DevKey::generate()?;
        let other = key.duplicate()?;
        let issuer = |realm, key| Arc::new(DevIssuer::new(base_url, realm, key, Arc::clone(entropy)));
        let realms = [issuer(Realm::B, key), issuer(Realm::Default, other)];
        Ok(Self {
            realms,
            clock: Arc::clone(clock),
            port,
        })
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &DevIssuer> {
        self.realms.iter().map(AsRef::as_ref)
    }

    /// Their routes. Tenant b's path lies below the other's and comes first.
    pub fn configure(&self, config: &mut web::ServiceConfig) {
        for issuer in &self.realms {
            let place = Place {
                issuer: Arc::clone(issuer),
                clock: Arc::clone(&self.clock),
                visitors: Visitors::of_port(self.port),
            };
            config.service(
                web::scope(issuer.realm().path())
                    .app_data(web::Data::new(place))
                    .app_data(web::PayloadConfig::new(MOST_FORM_BYTES))
                    .wrap(from_fn(refuse_strangers))
                    .route("/.well-known/openid-configuration", web::get().to(discovery))
                    .route("/jwks", web::get().to(jwks))
                    .route("/authorize", web::get().to(sign_in_page))
                    .route("/authorize", web::post().to(sign_in))
                    .route("/token", web::post().to(token)),
            );
        }
    }
}

/// One issuer where it is served.
struct Place {
    issuer: Arc<DevIssuer>,
    clock: Arc<dyn Clock>,
    visitors: Visitors,
}

/// The names under which visitors may come. Another name in `Host` is a rebound one of somebody else's site.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Visitors {
    hosts: Vec<String>,
}

impl Visitors {
    fn of_port(port: u16) -> Self {
        let mut hosts = Vec::new();
        for name in ["127.0.0.1", "localhost"] {
            hosts.push(format!("{name}:{port}"));
            if port == 80 {
                hosts.push(name.to_owned());
            }
        }
        Self { hosts }
    }

    fn admit(&self, headers: &HeaderMap) -> bool {
        let mut names = headers.get_all(HOST);
        let host = names
            .next()
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let host_is_ours =
            names.next().is_none() && self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host));
        let origins_are_ours = headers.get_all(ORIGIN).all(|origin| {
            let origin = origin.to_str().unwrap_or_default();
            origin
                .strip_prefix("http://")
                .is_some_and(|host| self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host)))
        });
        host_is_ours && origins_are_ours
    }
}

async fn refuse_strangers(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let admitted = request
        .app_data::<web::Data<Place>>()
        .is_some_and(|p| p.visitors.admit(request.headers()));
    if admitted {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    let refused = HttpResponse::Forbidden().json(json!({
        "error": "access_denied",
        "error_description": "the development issuer is for this machine alone, under its own name",
    }));
    Ok(request.into_response(refused).map_into_boxed_body())
}

async fn discovery(place: web::Data<Place>) -> HttpResponse {
    HttpResponse::Ok().json(place.issuer.discovery())
}

async fn jwks(place: web::Data<Place>) -> HttpResponse {
    HttpResponse::Ok().json(place.issuer.jwks())
}

/// Parameters of a query or a form; of those that come twice the first counts.
struct Parameters(HashMap<String, String>);

impl Parameters {
    fn parse(encoded: &[u8]) -> Self {
        let mut found = HashMap::new();
        for (name, value) in form_urlencoded::parse(encoded) {
            found
                .entry(name.into_owned())
                .or_insert_with(|| value.into_owned());
        }
        Self(found)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    fn authorize_request(&self) -> AuthorizeRequest<'_> {
        AuthorizeRequest {
            response_type: self.text("response_type"),
            client_id: self.text("client_id"),
            redirect_uri: self.text("redirect_uri"),
            scope: self.get("scope"),
            nonce: self.get("nonce"),
            code_challenge: self.text("code_challenge"),
            code_challenge_method: self.text("code_challenge_method"),
        }
    }

    /// The way back to the client with an answer in the query.
    fn back(&self, issuer: &DevIssuer, answer: &[(&str, &str)]) -> HttpResponse {
        if !self.authorize_request().redirect_is_safe() {
            return page(
                StatusCode::BAD_REQUEST,
                "This can't be answered",
                "<p>The redirect address must be on this machine.</p>",
            );
        }
        let Ok(mut url) = Url::parse(self.text("redirect_uri")) else {
            return HttpResponse::BadRequest().finish();
        };
        url.query_pairs_mut()
            .extend_pairs(answer)
            .append_pair("iss", issuer.issuer());
        if let Some(state) = self.get("state") {
            url.query_pairs_mut().append_pair("state", state);
        }
        HttpResponse::SeeOther()
            .insert_header((LOCATION, url.as_str()))
            .insert_header((CACHE_CONTROL, "no-store"))
            .insert_header((REFERRER_POLICY, "no-referrer"))
            .finish()
    }

    fn refused(&self, issuer: &DevIssuer, error: DevIssuerError) -> HttpResponse {
        self.back(
            issuer,
            &[("error", error.code), ("error_description", error.description)],
        )
    }
}

async fn sign_in_page(place: web::Data<Place>, request: HttpRequest) -> HttpResponse {
    let parameters = Parameters::parse(request.query_string().as_bytes());
    let asked = parameters.authorize_request();
    if let Err(error) = asked.check() {
        return parameters.refused(&place.issuer, error);
    }
    let mut body = format!(
        "<p><b>{}</b> asks who you are. This is a development issuer: pick anybody.</p><form method=\"post\">",
        escaped(asked.client_id)
    );
    let hidden = [
        "response_type",
        "client_id",
        "redirect_uri",
        "scope",
        "nonce",
        "state",
        "code_challenge",
        "code_challenge_method",
    ];
    for name in hidden {
        if let Some(value) = parameters.get(name) {
            // Writing to a String can't fail.
            let _infallible = write!(
                body,
                "<input type=\"hidden\" name=\"{name}\" value=\"{}\">",
                escaped(value)
            );
        }
    }
    for person in place.issuer.people() {
        let _infallible = write!(
            body,
            "<button name=\"person\" value=\"{}\">{}<small>{}</small></button>",
            escaped(person.client_id),
            escaped(person.name),
            escaped(person.role)
        );
    }
    body.push_str("</form>");
    page(StatusCode::OK, "Who are you?", &body)
}

async fn sign_in(place: web::Data<Place>, form: web::Bytes) -> HttpResponse {
    let parameters = Parameters::parse(&form);
    let answer = place.issuer.authorize(
        &parameters.authorize_request(),
        parameters.text("person"),
        place.clock.now(),
    );
    match answer {
        Ok(code) => parameters.back(&place.issuer, &[("code", code.expose_secret())]),
        Err(error) => parameters.refused(&place.issuer, error),
    }
}

async fn token(place: web::Data<Place>, form: web::Bytes) -> HttpResponse {
    let asked = Parameters::parse(&form);
    let now = place.clock.now();
    let answer = match asked.text("grant_type") {
        "client_credentials" => place.issuer.issue(
            asked.text("client_id"),
            asked.get("scope"),
            asked.get("patient"),
            now,
        ),
        "authorization_code" => place.issuer.exchange(
            asked.text("code"),
            asked.text("code_verifier"),
            asked.text("redirect_uri"),
            asked.text("client_id"),
            now,
        ),
        _ => {
            return token_error(
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "use `client_credentials` or `authorization_code`",
            );
        }
    };
    match answer {
        Ok(response) => HttpResponse::Ok()
            .insert_header((CACHE_CONTROL, "no-store"))
            .content_type("application/json")
            .body(response.to_json()),
        Err(error) => {
            let status = match error.code {
                "invalid_client" => StatusCode::UNAUTHORIZED,
                "server_error" => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::BAD_REQUEST,
            };
            token_error(status, error.code, error.description)
        }
    }
}

fn token_error(status: StatusCode, code: &str, description: &str) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(json!({ "error": code, "error_description": description }))
}

fn page(status: StatusCode, title: &str, body: &str) -> HttpResponse {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title><style>\
         body{{font:1rem/1.5 system-ui,sans-serif;max-width:26rem;margin:10vh auto;padding:0 1rem}}\
         button{{display:block;width:100%;margin:.5rem 0;padding:.75rem 1rem;font:inherit;text-align:left;\
         border:1px solid #889;border-radius:.5rem;background:#fff;color:#112;cursor:pointer}}\
         button:hover,button:focus{{border-color:#06c;outline:2px solid #06c}}small{{display:block;color:#445}}\
         </style></head><body><main><h1>{title}</h1>{body}</main></body></html>"
    );
    HttpResponse::build(status)
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((CONTENT_SECURITY_POLICY, PAGE_POLICY))
        // Without any referrer the browser would post the form with `Origin: null`.
        .insert_header((REFERRER_POLICY, "same-origin"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .content_type("text/html; charset=utf-8")
        .body(html)
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests;
