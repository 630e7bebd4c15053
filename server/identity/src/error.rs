//! Why a token was not accepted. What the caller is told and what the log is told are separate,
//! and neither ever holds the token.

use thiserror::Error;

const USE_NONCE: &str = "the DPoP proof must carry the nonce that came with this answer";

/// One refusal: a fixed sentence for the caller, and the detail for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    public: &'static str,
    detail: String,
}

impl Refusal {
    pub(crate) fn new(public: &'static str, detail: impl Into<String>) -> Self {
        Self {
            public,
            detail: detail.into(),
        }
    }
}

/// Why there is no principal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// No token at all: 401 with a bare challenge.
    #[error("no access token was sent")]
    Missing,
    /// Not a signed JWT: 401 `invalid_token`.
    #[error("{}", .0.public)]
    Malformed(Refusal),
    /// A JWT that is not acceptable here: 401 `invalid_token`.
    #[error("{}", .0.public)]
    Invalid(Refusal),
    /// The token may be good; the proof that comes with it is not: 401 `invalid_dpop_proof`.
    #[error("{}", .0.public)]
    Proof(Refusal),
    /// The proof has to carry a nonce of ours: 401 `use_dpop_nonce`.
    #[error("{USE_NONCE}")]
    UseNonce,
    /// The issuer's keys were never read and it cannot be reached: 503 with `Retry-After`.
    #[error("{}", .0.public)]
    Unavailable(Refusal),
}

impl TokenError {
    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::Malformed(Refusal::new("the access token is not a signed JWT", detail))
    }

    pub(crate) fn invalid(public: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid(Refusal::new(public, detail))
    }

    pub(crate) fn proof(public: &'static str, detail: impl Into<String>) -> Self {
        Self::Proof(Refusal::new(public, detail))
    }

    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::Unavailable(Refusal::new(
            "the issuer of the access token cannot be reached",
            detail,
        ))
    }

    pub(crate) fn busy(public: &'static str) -> Self {
        Self::Unavailable(Refusal::new(public, public))
    }

    /// What the caller may be told: fit for `error_description` of RFC 6750 (ASCII, no quote, no backslash).
    pub fn public(&self) -> &'static str {
        match self {
            Self::Missing => "no access token was sent",
            Self::UseNonce => USE_NONCE,
            Self::Malformed(r) | Self::Invalid(r) | Self::Proof(r) | Self::Unavailable(r) => r.public,
        }
    }

    /// What the log may be told.
    pub fn detail(&self) -> &str {
        match self {
            Self::Missing => "no access token was sent",
            Self::UseNonce => USE_NONCE,
            Self::Malformed(r) | Self::Invalid(r) | Self::Proof(r) | Self::Unavailable(r) => &r.detail,
        }
    }

    /// Seconds after which asking again makes sense; only where the issuer was unreachable.
    pub const fn retry_after_seconds(&self) -> Option<u32> {
        match self {
            Self::Unavailable(_) => Some(2),
            Self::Missing | Self::Malformed(_) | Self::Invalid(_) | Self::Proof(_) | Self::UseNonce => None,
        }
    }
}

/// Text that a stranger chose, cut and escaped so that it can stand in a log line.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    let cut: String = text.chars().take(SHOWN).flat_map(char::escape_default).collect();
    format!("`{cut}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_text_is_cut_and_escaped() {
        assert_eq!(quoted("a\nb"), "`a\\nb`");
        assert_eq!(quoted(&"x".repeat(500)).len(), 82);
    }
}
