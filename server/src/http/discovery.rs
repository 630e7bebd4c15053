//! What a client reads before it has a token: where tokens for this server come from and which scopes it understands
//! (SMART App Launch 2.2 `.well-known/smart-configuration`; RFC 9728 protected resource metadata). Open to all, from
//! any web page, and the same for everybody.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use handoff_domain::ids::TenantId;
use handoff_domain::reason::Reason;
use handoff_domain::scopes::SmartScope;
use handoff_identity::{Alg, IssuerMetadata};
use serde_json::{Map, Value, json};

use super::HttpState;
use super::answer::{Face, failure, split_origin};
use super::request::tenant_of;
use crate::app::caps::CAPPED;
use crate::app::{AppError, Class};

/// How long a client may keep a document, in seconds.
const KEPT: u32 = 300;

/// Below the FHIR base.
pub fn smart_routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/.well-known/smart-configuration")
            .route(web::get().to(smart_configuration))
            .route(web::head().to(smart_configuration))
            .default_service(web::to(not_allowed)),
    );
}

/// At the root: the path of the resource follows (RFC 9728 section 3.1).
pub fn resource_routes(cfg: &mut web::ServiceConfig) {
    cfg.service(
        web::resource("/.well-known/oauth-protected-resource{path:(/.*)?}")
            .route(web::get().to(protected_resource))
            .route(web::head().to(protected_resource))
            .default_service(web::to(not_allowed)),
    );
}

/// Open to all, so that nobody is asked for a token here.
async fn not_allowed(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    let error = AppError::new(
        Class::MethodNotAllowed,
        Reason::NotSupported,
        "this document can only be read",
    );
    let mut answer = failure(&state, &request, Face::Problem, &error);
    answer
        .headers_mut()
        .insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
    answer
}

async fn smart_configuration(state: web::Data<HttpState>, request: HttpRequest) -> HttpResponse {
    let answer = async {
        let tenant = tenant_of(&state, &request)?;
        let issuer = state
            .validator
            .issuers_of(&tenant)
            .next()
            .ok_or_else(AppError::not_found)?;
        let metadata = state.validator.metadata(issuer).await.map_err(|error| {
            AppError::new(
                Class::Unavailable,
                Reason::StorageUnavailable,
                "the identity provider can't be reached to say where tokens come from; try again shortly",
            )
            .because(error.detail().to_owned())
        })?;
        Ok(configuration(&metadata))
    };
    match answer.await {
        Ok(body) => document(&body),
        Err(error) => failure(&state, &request, Face::Fhir, &error),
    }
}

async fn protected_resource(
    state: web::Data<HttpState>,
    request: HttpRequest,
    path: web::Path<String>,
) -> HttpResponse {
    let named = state.tenants.iter().find_map(|tenant| {
        let resource = resource_of(&state, tenant);
        let (_, own) = split_origin(&resource);
        (own == path.as_str()).then_some((tenant, resource.clone()))
    });
    let Some((tenant, resource)) = named else {
        return failure(&state, &request, Face::Problem, &AppError::not_found());
    };
    let issuers: Vec<&str> = state.validator.issuers_of(tenant).collect();
    let body = json!({
        "resource": resource,
        "resource_name": "Handoff",
        "authorization_servers": issuers,
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": Alg::ALL.map(Alg::as_str),
        "scopes_supported": [
            "patient/*.cruds",
            "user/*.cruds",
            "system/*.cruds",
        ],
    });
    document(&body)
}

/// The resource identifier of a tenant's FHIR server: its base without the slash at the end.
fn resource_of(state: &HttpState, tenant: &TenantId) -> String {
    let mut base = state.app.settings.fhir_base(tenant);
    base.truncate(base.trim_end_matches('/').len());
    base
}

/// May be kept by shared caches, so it carries nothing of the request.
fn document(body: &Value) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    response.insert_header((header::CACHE_CONTROL, format!("public, max-age={KEPT}")));
    response.insert_header((header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"));
    response.content_type("application/json").body(body.to_string())
}

/// The SMART configuration of a server whose tokens come from this issuer. It claims what the issuer says that it does
/// and this server understands; of PKCE it says what SMART demands of every issuer.
fn configuration(issuer: &IssuerMetadata) -> Value {
    let mut members = Map::new();
    let has = |list: &[String], name: &str| list.iter().any(|one| one == name);
    // RFC 8414 section 2: what an issuer does that does not say.
    let or = |list: &[String], default: &[&str]| -> Vec<String> {
        if list.is_empty() {
            default.iter().map(|one| (*one).to_owned()).collect()
        } else {
            list.to_vec()
        }
    };
    let mut grants = or(&issuer.grant_types_supported, &["authorization_code"]);
    grants.retain(|grant| {
        matches!(
            grant.as_str(),
            "authorization_code" | "client_credentials" | "refresh_token"
        )
    });
    let scopes: Vec<&String> = issuer
        .scopes_supported
        .iter()
        .filter(|s| is_understood(s))
        .collect();
    let methods = or(
        &issuer.token_endpoint_auth_methods_supported,
        &["client_secret_basic"],
    );
    let signs_in = has(&grants, "authorization_code");
    let opens_id = signs_in && scopes.iter().any(|scope| *scope == "openid");
    let launches = scopes.iter().any(|scope| *scope == "launch/patient");
    let about_patients = launches || scopes.iter().any(|scope| scope.starts_with("patient/"));
    let mut put = |name: &str, value: Value| {
        let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if !is_empty {
            members.insert(name.to_owned(), value);
        }
    };
    if opens_id {
        put("issuer", json!(issuer.issuer));
        put("jwks_uri", json!(issuer.jwks_uri));
    }
    if signs_in {
        put("authorization_endpoint", json!(issuer.authorization_endpoint));
        put("response_types_supported", json!(issuer.response_types_supported));
    }
    put("token_endpoint", json!(issuer.token_endpoint));
    put("registration_endpoint", json!(issuer.registration_endpoint));
    put("introspection_endpoint", json!(issuer.introspection_endpoint));
    put("revocation_endpoint", json!(issuer.revocation_endpoint));
    put("grant_types_supported", json!(grants));
    put("token_endpoint_auth_methods_supported", json!(methods));
    put(
        "token_endpoint_auth_signing_alg_values_supported",
        json!(issuer.token_endpoint_auth_signing_alg_values_supported),
    );
    put("scopes_supported", json!(scopes));
    // Demanded by SMART of every server, and `plain` of none.
    put("code_challenge_methods_supported", json!(["S256"]));
    let capabilities: Vec<&str> = [
        ("permission-v1", true),
        ("permission-v2", true),
        ("permission-patient", about_patients),
        ("permission-user", true),
        (
            "permission-offline",
            scopes.iter().any(|scope| *scope == "offline_access"),
        ),
        ("launch-standalone", signs_in),
        ("context-standalone-patient", signs_in && launches),
        ("sso-openid-connect", opens_id),
        ("client-public", has(&methods, "none")),
        (
            "client-confidential-symmetric",
            has(&methods, "client_secret_basic") || has(&methods, "client_secret_post"),
        ),
        ("client-confidential-asymmetric", has(&methods, "private_key_jwt")),
    ]
    .into_iter()
    .filter_map(|(name, is_so)| is_so.then_some(name))
    .collect();
    put("capabilities", json!(capabilities));
    Value::Object(members)
}

/// Whether a scope means something to this server, or to the client alone.
fn is_understood(scope: &str) -> bool {
    match SmartScope::parse(scope) {
        Some(parsed) => {
            parsed.is_ok_and(|scope| scope.kind.is_none_or(|kind| CAPPED.contains(&kind.as_str())))
        }
        None => matches!(
            scope,
            "openid"
                | "fhirUser"
                | "profile"
                | "launch"
                | "launch/patient"
                | "offline_access"
                | "online_access"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|one| (*one).to_owned()).collect()
    }

    #[test]
    fn a_backend_only_issuer_claims_no_sign_in() {
        let issuer = IssuerMetadata {
            issuer: "https://issuer.example".to_owned(),
            authorization_endpoint: "https://issuer.example/authorize".to_owned(),
            token_endpoint: Some("https://issuer.example/token".to_owned()),
            grant_types_supported: texts(&["client_credentials", "implicit"]),
            scopes_supported: texts(&["openid", "system/*.rs", "user/Task.sr", "billing"]),
            token_endpoint_auth_methods_supported: texts(&["private_key_jwt"]),
            ..IssuerMetadata::default()
        };
        assert_eq!(
            configuration(&issuer),
            json!({
                "token_endpoint": "https://issuer.example/token",
                "grant_types_supported": ["client_credentials"],
                "token_endpoint_auth_methods_supported": ["private_key_jwt"],
                "scopes_supported": ["openid", "system/*.rs"],
                "code_challenge_methods_supported": ["S256"],
                "capabilities": [
                    "permission-v1",
                    "permission-v2",
                    "permission-user",
                    "client-confidential-asymmetric",
                ],
            })
        );
    }
}
