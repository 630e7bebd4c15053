//! From a code to an id token, by the issuer's token endpoint (RFC 6749 section 4.1.3, RFC 7636 section 4.5). The
//! answer is read as text: the client library's typed claims would lose those that an issuer's configuration names.

use std::time::Duration;

use openidconnect::HttpRequest;
use openidconnect::http::{Method, header};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use tokio::time::timeout;
use url::Url;
use url::form_urlencoded::Serializer;

use super::{SignIn, SignInError};
use crate::error::quoted;
use crate::fetch::{FetchError, basic, chain};
use crate::metadata::IssuerMetadata;
use crate::validator::Issuer;

/// The longest answer that is read: three tokens of 16 KiB, and a little.
const MOST_ANSWER_BYTES: usize = 64 * 1024;
/// How long an exchange waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);

/// A code, and what shows that it was meant for us.
pub(super) struct Grant<'g> {
    pub(super) code: &'g str,
    pub(super) redirect_uri: &'g Url,
    pub(super) verifier: SecretString,
}

/// What the issuer gave for a code.
#[derive(Deserialize)]
pub(super) struct Tokens {
    #[serde(default, deserialize_with = "secret")]
    pub(super) id_token: Option<SecretString>,
    /// Asked nothing with; `at_hash` of the id token may name it.
    #[serde(default, deserialize_with = "secret")]
    pub(super) access_token: Option<SecretString>,
}

fn secret<'d, D: Deserializer<'d>>(value: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(value)?.map(SecretString::from))
}

#[derive(Deserialize)]
struct Trouble {
    error: String,
}

/// Exchanges a code. Any attempt may use it up.
pub(super) async fn exchange(
    issuer: &Issuer,
    metadata: &IssuerMetadata,
    sign_in: &SignIn,
    grant: &Grant<'_>,
) -> Result<Tokens, SignInError> {
    // A flood of made-up codes must not become one of exchanges.
    let _place = timeout(PATIENCE, issuer.exchanges.acquire())
        .await
        .ok()
        .and_then(Result::ok)
        .ok_or_else(|| SignInError::Unavailable("too many codes are being exchanged".to_owned()))?;
    let request = request(metadata, sign_in, grant)?;
    let fetched = issuer.keys.fetcher().fetch(request).await;
    let answer = fetched.map_err(|error| match error {
        FetchError::Http(_) => SignInError::Unavailable(format!("exchange: {}", chain(&error))),
        FetchError::Address | FetchError::TooLarge => SignInError::Refused(format!("exchange: {error}")),
    })?;
    if answer.body().len() > MOST_ANSWER_BYTES {
        return Err(SignInError::Refused(
            "exchange: the answer is too long".to_owned(),
        ));
    }
    match answer.status().as_u16() {
        200 => serde_json::from_slice(answer.body())
            .map_err(|_| SignInError::Refused("exchange: the answer has no tokens".to_owned())),
        status @ (429 | 500..) => Err(SignInError::Unavailable(format!(
            "exchange: the issuer answered {status}"
        ))),
        status => Err(match serde_json::from_slice::<Trouble>(answer.body()) {
            Ok(trouble) if trouble.error == "invalid_grant" => {
                SignInError::Expired("exchange: `invalid_grant`".to_owned())
            }
            Ok(trouble) => SignInError::Refused(format!(
                "exchange: the issuer answered {status}, {}",
                quoted(&trouble.error)
            )),
            Err(_) => SignInError::Refused(format!("exchange: the issuer answered {status}")),
        }),
    }
}

fn request(
    metadata: &IssuerMetadata,
    sign_in: &SignIn,
    grant: &Grant<'_>,
) -> Result<HttpRequest, SignInError> {
    let endpoint = metadata
        .token_endpoint
        .as_deref()
        .ok_or_else(|| SignInError::Refused("the issuer names no token endpoint".to_owned()))?;
    let unsendable = |_| SignInError::Refused("the exchange cannot be written as a request".to_owned());
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "authorization_code")
        .append_pair("code", grant.code)
        .append_pair("redirect_uri", grant.redirect_uri.as_str())
        .append_pair("code_verifier", grant.verifier.expose_secret());
    let mut request = openidconnect::http::Request::builder()
        .method(Method::POST)
        .uri(endpoint)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ACCEPT, "application/json");
    match &sign_in.client_secret {
        None => {
            form.append_pair("client_id", &sign_in.client_id);
        }
        Some(secret) if in_the_body(metadata) => {
            form.append_pair("client_id", &sign_in.client_id)
                .append_pair("client_secret", secret.expose_secret());
        }
        Some(secret) => {
            let credentials = basic(&sign_in.client_id, secret).map_err(|error| unsendable(error.into()))?;
            request = request.header(header::AUTHORIZATION, credentials);
        }
    }
    request.body(form.finish().into_bytes()).map_err(unsendable)
}

/// Whether the issuer wants the secret in the body. Who says nothing wants it in the header (Discovery 1.0 section 3).
fn in_the_body(metadata: &IssuerMetadata) -> bool {
    let offers = |name: &str| {
        metadata
            .token_endpoint_auth_methods_supported
            .iter()
            .any(|method| method == name)
    };
    offers("client_secret_post") && !offers("client_secret_basic")
}
