//! What an issuer says about itself (OpenID Connect Discovery 1.0, RFC 8414), so far as clients of ours need it: where
//! to get tokens, and how.

use openidconnect::core::{
    CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreResponseMode, CoreResponseType,
    CoreSubjectIdentifierType,
};
use openidconnect::{AdditionalProviderMetadata, ProviderMetadata};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

/// Members of a discovery document that are not OpenID Connect's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct More {
    #[serde(default, deserialize_with = "if_readable")]
    introspection_endpoint: Option<String>,
    #[serde(default, deserialize_with = "if_readable")]
    revocation_endpoint: Option<String>,
    #[serde(default, deserialize_with = "if_readable")]
    end_session_endpoint: Option<String>,
    #[serde(default, deserialize_with = "if_readable")]
    authorization_response_iss_parameter_supported: Option<bool>,
    #[serde(default, deserialize_with = "if_readable")]
    token_endpoint_auth_signing_alg_values_supported: Option<Vec<String>>,
}

/// Something of the wrong type says nothing, and must not cost the issuer its keys.
fn if_readable<'d, D: Deserializer<'d>, T: DeserializeOwned>(value: D) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(value)?;
    Ok(serde_json::from_value(value).ok())
}

impl AdditionalProviderMetadata for More {}

pub(crate) type Discovered = ProviderMetadata<
    More,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// An issuer as clients see it. Names are those of its discovery document; empty where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the member of that name")]
pub struct IssuerMetadata {
    pub issuer: String,
    pub jwks_uri: String,
    pub authorization_endpoint: String,
    pub token_endpoint: Option<String>,
    pub registration_endpoint: Option<String>,
    pub introspection_endpoint: Option<String>,
    pub revocation_endpoint: Option<String>,
    pub end_session_endpoint: Option<String>,
    pub authorization_response_iss_parameter_supported: bool,
    pub scopes_supported: Vec<String>,
    pub response_types_supported: Vec<String>,
    pub grant_types_supported: Vec<String>,
    pub token_endpoint_auth_methods_supported: Vec<String>,
    pub token_endpoint_auth_signing_alg_values_supported: Vec<String>,
}

impl From<&Discovered> for IssuerMetadata {
    fn from(found: &Discovered) -> Self {
        let more = found.additional_metadata();
        Self {
            issuer: found.issuer().to_string(),
            jwks_uri: found.jwks_uri().to_string(),
            authorization_endpoint: found.authorization_endpoint().to_string(),
            token_endpoint: found.token_endpoint().map(ToString::to_string),
            registration_endpoint: found.registration_endpoint().map(ToString::to_string),
            introspection_endpoint: more.introspection_endpoint.clone(),
            revocation_endpoint: more.revocation_endpoint.clone(),
            end_session_endpoint: more.end_session_endpoint.clone(),
            authorization_response_iss_parameter_supported: more
                .authorization_response_iss_parameter_supported
                .unwrap_or_default(),
            scopes_supported: written(found.scopes_supported()),
            response_types_supported: found
                .response_types_supported()
                .iter()
                .map(|types| written(Some(types)).join(" "))
                .collect(),
            grant_types_supported: written(found.grant_types_supported()),
            token_endpoint_auth_methods_supported: written(found.token_endpoint_auth_methods_supported()),
            token_endpoint_auth_signing_alg_values_supported: more
                .token_endpoint_auth_signing_alg_values_supported
                .clone()
                .unwrap_or_default(),
        }
    }
}

/// Names as they stand in the document.
fn written<T: Serialize>(names: Option<&Vec<T>>) -> Vec<String> {
    names
        .into_iter()
        .flatten()
        .filter_map(|name| match serde_json::to_value(name) {
            Ok(serde_json::Value::String(text)) => Some(text),
            _ => None,
        })
        .collect()
}
