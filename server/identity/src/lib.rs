//! Who is calling: access tokens of configured issuers, validated by OIDC discovery and the issuers' keys,
//! people who sign in at those issuers for web pages, and the development issuer of the demo. The only crate that touches `openidconnect`; it knows no HTTP
//! server, no SQL and no policy.

mod cache;
mod claims;
mod config;
pub mod dev_issuer;
mod dpop;
mod error;
mod fetch;
mod introspect;
mod jws;
mod keys;
mod metadata;
mod sign_in;
mod validator;

#[cfg(test)]
mod test_server;

pub use config::{Alg, ClaimNames, HttpSettings, IssuerConfig, IssuerConfigError, default_role_map};
pub use dpop::Proof;
pub use error::{Refusal, TokenError};
pub use introspect::Introspection;
pub use metadata::IssuerMetadata;
pub use sign_in::{Callback, LoginSecret, Logout, SignIn, SignInChoice, SignInError, SignedIn};
pub use validator::{Presented, TokenValidator, Validated};
