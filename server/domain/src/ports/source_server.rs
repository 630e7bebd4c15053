//! The port to sources: what may be asked of a FHIR server that tells us what changed there. How we prove who we are, and
//! which addresses may be reached, is the adapter's to know; what an answer means is not.

use std::fmt;

use thiserror::Error;

use super::BoxFuture;
use crate::source::Source;

/// What is asked of a source.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceRequest {
    /// What to do.
    pub act: SourceAct,
    /// Where, from the source's base on: `Task/1`, `Task?_lastUpdated=gt…`. Never another server's.
    pub path: String,
    /// The most bytes that the answer may have.
    pub answer_limit: usize,
}

/// Prints no path: a query may be about a patient.
impl fmt::Debug for SourceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceRequest").finish_non_exhaustive()
    }
}

/// What to do at a source.
#[derive(Clone, PartialEq, Eq)]
pub enum SourceAct {
    /// Read or search.
    Get,
    /// Create this resource, or call an operation with it.
    Post(Vec<u8>),
    /// Update to this resource.
    Put(Vec<u8>),
}

/// What a source answered: any status but a redirect.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceAnswer {
    /// The status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Location`.
    pub location: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Prints the status alone.
impl fmt::Debug for SourceAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceAnswer")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// Why a source gave no answer. Tells nothing of addresses, secrets, or what the other side wrote.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SourceError {
    /// No FHIR base is configured.
    #[error("no FHIR base is configured")]
    NoBase,
    /// The path leads elsewhere.
    #[error("the path is not the source's own")]
    Path,
    /// Our key can't be read or used, or there is no token for it.
    #[error("our credentials at the source can't be used: {0}")]
    Credentials(String),
    /// It can't be reached, or not as it is configured.
    #[error("the source can't be reached: {0}")]
    Unreachable(String),
    /// The answer is longer than was asked for.
    #[error("the answer is too large")]
    TooLarge,
}

/// The only way to sources.
pub trait SourceServer: Send + Sync {
    /// Asks a source.
    fn ask<'a>(
        &'a self,
        source: &'a Source,
        request: SourceRequest,
    ) -> BoxFuture<'a, Result<SourceAnswer, SourceError>>;
}
