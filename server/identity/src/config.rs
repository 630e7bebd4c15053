//! What is configured of an issuer: its name, its tenant, what its tokens must look like and which claims
//! say who the caller is. Nothing here fetches or validates a token.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use handoff_domain::access::Role;
use handoff_domain::ids::TenantId;
use openidconnect::IssuerUrl;
use openidconnect::core::CoreJwsSigningAlgorithm;
use thiserror::Error;
use url::{Host, Url};

use crate::introspect::Introspection;
use crate::sign_in::SignIn;

/// A signature algorithm that an issuer may be allowed (RFC 7518 section 3.1). `none` and the shared-secret
/// ones do not exist here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is what it says")]
pub enum Alg {
    Rs256,
    Rs384,
    Es256,
    Es384,
    Ps256,
}

impl Alg {
    /// Every algorithm.
    pub const ALL: [Self; 5] = [Self::Rs256, Self::Rs384, Self::Es256, Self::Es384, Self::Ps256];

    /// The name in a JWS header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Ps256 => "PS256",
        }
    }

    /// The algorithm of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.as_str() == name)
    }

    pub(crate) const fn core(self) -> CoreJwsSigningAlgorithm {
        match self {
            Self::Rs256 => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
            Self::Rs384 => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
            Self::Es256 => CoreJwsSigningAlgorithm::EcdsaP256Sha256,
            Self::Es384 => CoreJwsSigningAlgorithm::EcdsaP384Sha384,
            Self::Ps256 => CoreJwsSigningAlgorithm::RsaSsaPssSha256,
        }
    }
}

/// Which claims say who the caller is. A name is a member of the claims, or a path into them with dots
/// (`realm_access.roles`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimNames {
    /// The FHIR user: a URL or a relative reference. Default `fhirUser`.
    pub actor: String,
    /// Roles: an array of texts, or one text. Default `roles`.
    pub roles: String,
    /// Team codes, likewise. Default `teams`.
    pub teams: String,
    /// The OAuth client; the first that is present counts. Default `client_id`, `azp`.
    pub client: Vec<String>,
    /// Scopes: a text split at spaces, or an array; the first that is present counts. Default `scope`, `scp`.
    pub scope: Vec<String>,
    /// The patient of a launch context. Default `patient`.
    pub patient: String,
    /// Where in the organisation the person works. Default `department`.
    pub department: String,
    /// Where the person works. Default `location`.
    pub location: String,
    /// Purpose of use: a code, or what IHE IUA puts there. Default `purpose_of_use`.
    pub purpose_of_use: String,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self {
            actor: "fhirUser".to_owned(),
            roles: "roles".to_owned(),
            teams: "teams".to_owned(),
            client: vec!["client_id".to_owned(), "azp".to_owned()],
            scope: vec!["scope".to_owned(), "scp".to_owned()],
            patient: "patient".to_owned(),
            department: "department".to_owned(),
            location: "location".to_owned(),
            purpose_of_use: "purpose_of_use".to_owned(),
        }
    }
}

/// The external roles that are mapped without configuration. Canonical names always map to themselves.
pub fn default_role_map() -> HashMap<String, Role> {
    [
        ("physician", Role::Fulfiller),
        ("nurse", Role::Fulfiller),
        ("billing specialist", Role::TeamMember),
    ]
    .into_iter()
    .map(|(name, role)| (name.to_owned(), role))
    .collect()
}

/// One issuer, bound to one tenant.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct IssuerConfig {
    /// The issuer, exactly as its tokens write it in `iss`.
    pub issuer: String,
    /// The one tenant that its tokens are good for.
    pub tenant: TenantId,
    /// The audiences of which a token must name one.
    pub audience: Vec<String>,
    /// The allowed algorithms.
    pub algorithms: Vec<Alg>,
    /// Which claims say who the caller is.
    pub claims: ClaimNames,
    /// External role (any case) → canonical role. What is neither here nor in `role_words` nor canonical gives nothing,
    /// and is told to the audit.
    pub role_map: HashMap<String, Role>,
    /// What other words mean a role: those of a ConceptMap.
    pub role_words: fn(&str) -> Option<Role>,
    /// The clients that rules may treat as trusted.
    pub trusted_clients: BTreeSet<String>,
    /// How far the issuer's clock may be off, in seconds (0 to 300).
    pub leeway_seconds: i64,
    /// Whether the RFC 9068 header type `at+jwt` is demanded, and with it `iat`. Without it `JWT` or no type
    /// will do, for the many issuers that do not follow that RFC.
    pub require_at_jwt_typ: bool,
    /// Whether `jti` is demanded.
    pub require_jti: bool,
    /// The resource type (`Device`) as which a client's own token (`sub` is the client) acts where it names
    /// no FHIR user: `Device/{client_id}`. `None` refuses such tokens.
    pub client_actor: Option<String>,
    /// How the issuer is asked about its opaque tokens, which are refused where it is not. Signed tokens speak for
    /// themselves. One issuer of a tenant at most.
    pub introspection: Option<Introspection>,
    /// How people sign in at the issuer for web pages; `None` where they cannot.
    pub sign_in: Option<SignIn>,
    /// Whether a DPoP proof must carry a nonce of ours.
    pub require_dpop_nonce: bool,
    /// Whether plain http is accepted; on loopback only, whatever is set.
    pub allow_insecure_loopback: bool,
}

impl IssuerConfig {
    /// An issuer with the strict defaults.
    pub fn new(issuer: impl Into<String>, tenant: TenantId, audience: Vec<String>) -> Self {
        Self {
            issuer: issuer.into(),
            tenant,
            audience,
            algorithms: Alg::ALL.to_vec(),
            claims: ClaimNames::default(),
            role_map: default_role_map(),
            role_words: |_| None,
            trusted_clients: BTreeSet::new(),
            leeway_seconds: 60,
            require_at_jwt_typ: true,
            require_jti: false,
            client_actor: None,
            introspection: None,
            sign_in: None,
            require_dpop_nonce: false,
            allow_insecure_loopback: false,
        }
    }

    /// Every problem of this configuration, each a sentence; empty when it can be used.
    pub fn problems(&self) -> Vec<String> {
        let name = &self.issuer;
        let mut found = Vec::new();
        match Url::parse(name) {
            Err(_) => found.push(format!("issuer `{name}` is not a URL")),
            Ok(url) => {
                if !may_fetch(&url, self.allow_insecure_loopback) {
                    found.push(format!(
                        "issuer `{name}` must be https (plain http is for loopback, where it is allowed)"
                    ));
                }
                if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
                    found.push(format!("issuer `{name}` must have no query, fragment or user"));
                }
            }
        }
        if self.audience.is_empty() || self.audience.iter().any(String::is_empty) {
            found.push(format!("issuer `{name}` needs an audience"));
        }
        if self.algorithms.is_empty() {
            found.push(format!("issuer `{name}` allows no algorithm"));
        }
        if !(0..=300).contains(&self.leeway_seconds) {
            found.push(format!("leeway of issuer `{name}` must be 0 to 300 seconds"));
        }
        if self.claims.client.is_empty() || self.claims.scope.is_empty() {
            found.push(format!(
                "issuer `{name}` names no claim for the client or the scope"
            ));
        }
        if let Some(sign_in) = &self.sign_in {
            found.extend(
                sign_in
                    .problems()
                    .map(|problem| format!("sign-in at issuer `{name}` {problem}")),
            );
        }
        found
    }

    pub(crate) fn url(&self) -> Result<IssuerUrl, IssuerConfigError> {
        IssuerUrl::new(self.issuer.clone())
            .map_err(|_| IssuerConfigError(vec![format!("issuer `{}` is not a URL", self.issuer)]))
    }
}

/// What is wrong with the configured issuers: every problem at once.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", .0.join("; "))]
pub struct IssuerConfigError(pub Vec<String>);

/// How issuers are asked.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Limit of one request, from connecting to the last byte.
    pub timeout: Duration,
    /// Further certificate authorities, as one PEM bundle.
    pub ca_bundle: Option<Vec<u8>>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            ca_bundle: None,
        }
    }
}

/// Whether `url` names this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Whether keys may be fetched from `url`: https, or plain http on loopback where that is allowed.
pub(crate) fn may_fetch(url: &Url, insecure_loopback: bool) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => insecure_loopback && is_loopback(url),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(issuer: &str) -> IssuerConfig {
        IssuerConfig::new(issuer, TenantId::default_tenant(), vec!["a".to_owned()])
    }

    #[test]
    fn plain_http_is_for_loopback_only_and_only_where_allowed() {
        let loopback = ["http://127.0.0.1:1", "http://[::1]:1/x", "http://localhost:1"];
        for issuer in loopback {
            assert_eq!(config(issuer).problems().len(), 1, "{issuer}");
            let allowed = IssuerConfig {
                allow_insecure_loopback: true,
                ..config(issuer)
            };
            assert!(allowed.problems().is_empty(), "{issuer}");
        }
        for issuer in [
            "http://issuer.example",
            "http://127.0.0.1.example",
            "file:///etc",
            "nothing",
        ] {
            let allowed = IssuerConfig {
                allow_insecure_loopback: true,
                ..config(issuer)
            };
            assert_eq!(allowed.problems().len(), 1, "{issuer}");
        }
        assert!(config("https://issuer.example").problems().is_empty());
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let bad = IssuerConfig {
            audience: Vec::new(),
            algorithms: Vec::new(),
            leeway_seconds: 301,
            ..config("http://issuer.example/?x=1")
        };
        assert_eq!(bad.problems().len(), 5, "{:?}", bad.problems());
    }

    #[test]
    fn an_algorithm_without_a_public_key_has_no_name_here() {
        for name in ["none", "HS256", "HS384", "HS512", "rs256", ""] {
            assert_eq!(Alg::parse(name), None, "{name}");
        }
        for alg in Alg::ALL {
            assert_eq!(Alg::parse(alg.as_str()), Some(alg));
        }
    }
}
