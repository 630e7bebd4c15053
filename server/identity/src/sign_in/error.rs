//! Why nobody is signed in. What the person is told and what the log is told are separate, and neither ever holds a
//! code, a token or a secret.

use std::fmt;

/// Why a sign-in did not come about. The text in a variant is for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignInError {
    /// The tenant has no such issuer, or people do not sign in there: 404.
    NotOffered,
    /// The place to go to afterwards is not one: 400.
    Place,
    /// The answer is not to a login that this browser began: 400; begin again.
    NotBegunHere(String),
    /// The person, or the issuer for them, said no (`access_denied`): 403.
    Denied,
    /// The issuer does not take part: it answered an error, or refuses us as a client. 502.
    Refused(String),
    /// The code is used, expired or another's (`invalid_grant`): 400; begin again.
    Expired(String),
    /// The issuer's id token is not acceptable: 403.
    Invalid(String),
    /// The person is who they are, and nobody who can act here: 403.
    NobodyHere(String),
    /// The issuer cannot be reached: 503 with `Retry-After`; begin again then, for the code may be used up.
    Unavailable(String),
}

impl SignInError {
    /// What the person may be told.
    pub const fn public(&self) -> &'static str {
        match self {
            Self::NotOffered => "nobody signs in there",
            Self::Place => "that is no place to go to after signing in",
            Self::NotBegunHere(_) => {
                "this sign-in was not begun in this browser, or too long ago; begin again"
            }
            Self::Denied => "the sign-in was called off",
            Self::Refused(_) => "the sign-in service refused; tell whoever looks after this server",
            Self::Expired(_) => "the sign-in took too long or was already used; begin again",
            Self::Invalid(_) => "what the sign-in service says is not acceptable here",
            Self::NobodyHere(_) => "your account is not set up to be used here",
            Self::Unavailable(_) => "the sign-in service cannot be reached; begin again in a moment",
        }
    }

    /// What the log may be told.
    pub fn detail(&self) -> &str {
        match self {
            Self::NotOffered | Self::Place | Self::Denied => self.public(),
            Self::NotBegunHere(detail)
            | Self::Refused(detail)
            | Self::Expired(detail)
            | Self::Invalid(detail)
            | Self::NobodyHere(detail)
            | Self::Unavailable(detail) => detail,
        }
    }
}

impl fmt::Display for SignInError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.public())
    }
}

impl std::error::Error for SignInError {}
