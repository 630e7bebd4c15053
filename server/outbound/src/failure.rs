//! Why an exchange failed, out of the client's error. That error holds the URL, and addresses: none of it goes on.

use std::error::Error;
use std::io;
use std::iter::successors;

use handoff_domain::ports::SendError;

/// What became of the exchange that ended in `error`.
pub(crate) fn explain(error: &reqwest::Error) -> SendError {
    if let Some(told_by_resolver) = find::<SendError>(error) {
        *told_by_resolver
    } else if find::<rustls::Error>(error).is_some() {
        SendError::Tls
    } else if error.is_timeout() {
        SendError::TimedOut
    } else if find::<hyper::Error>(error).is_some_and(hyper::Error::is_parse) || is_garbled(error) {
        SendError::Protocol
    } else {
        SendError::Unreachable
    }
}

/// Whether the pieces that a body came in were none.
fn is_garbled(error: &reqwest::Error) -> bool {
    find::<io::Error>(error)
        .is_some_and(|e| matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
}

/// The first of all causes that is an `E`.
fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        // Its `source` would be that of the error it wraps, which would be passed over.
        Some(outer) => outer.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    })
    .find_map(|cause| cause.downcast_ref())
}
