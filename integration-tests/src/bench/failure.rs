//! Why a measurement could not be made: one sentence, without the secrets of the run.

use std::fmt;

/// A measurement that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(String);

/// A measurement, or why there is none.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Failed for this reason.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    /// The same, with what was being done in front.
    #[must_use]
    pub fn during(self, what: &str) -> Self {
        Self(format!("{what}: {}", self.0))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
