//! What went wrong in a database, in the words of the port. Never hands on a row's content or a password.

use diesel::result::{ConnectionError, DatabaseErrorKind, Error};
use handoff_domain::ports::StoreError;

/// What PostgreSQL and SQLite say when there is no room left. Diesel keeps the kind of few errors only, so the
/// text has to do; connections ask PostgreSQL for English.
const FULL: [&str; 3] = ["No space left on device", "database or disk is full", "disk full"];

/// What they say when somebody else came first.
const CONFLICT: [&str; 2] = ["deadlock detected", "could not serialize access"];

/// What they say when they can't be reached, are shutting down, or gave up waiting.
const UNAVAILABLE: [&str; 14] = [
    "server closed the connection",
    "terminating connection",
    "no connection to the server",
    "connection to server",
    "connection not open",
    "could not receive data",
    "could not send data",
    "SSL connection has been closed",
    "the database system is",
    "statement timeout",
    "lock timeout",
    "too many clients",
    "database is locked",
    "remaining connection slots",
];

/// The port's error for one of Diesel's.
pub(crate) fn refused(error: &Error) -> StoreError {
    match error {
        Error::DatabaseError(kind, information) => {
            let message = information.message();
            match kind {
                DatabaseErrorKind::UniqueViolation | DatabaseErrorKind::SerializationFailure => {
                    StoreError::Conflict
                }
                DatabaseErrorKind::ClosedConnection => StoreError::Unavailable(short(message)),
                _ => by_message(message),
            }
        }
        Error::BrokenTransactionManager => StoreError::Unavailable("the connection broke".to_owned()),
        Error::RollbackErrorOnCommit { commit_error, .. } => refused(commit_error),
        Error::NotFound => StoreError::Broken("a row that must exist does not".to_owned()),
        // The others may quote values.
        Error::DeserializationError(_) => StoreError::Broken("a stored value can't be read".to_owned()),
        Error::SerializationError(_) => StoreError::Broken("a value can't be stored".to_owned()),
        _ => StoreError::Broken("the database did not understand".to_owned()),
    }
}

fn by_message(message: &str) -> StoreError {
    let says = |any: &[&str]| any.iter().any(|text| message.contains(text));
    if says(&FULL) {
        StoreError::Full
    } else if says(&CONFLICT) {
        StoreError::Conflict
    } else if says(&UNAVAILABLE) {
        StoreError::Unavailable(short(message))
    } else {
        StoreError::Broken(short(message))
    }
}

/// The port's error for a connection that could not be made. libpq quotes the URL, password and all, when it
/// can't read it: then its words are left out.
pub(crate) fn unreachable(error: &ConnectionError, url: &str) -> StoreError {
    let message = error.to_string();
    let secret = url
        .split_once("://")
        .and_then(|(_, rest)| rest.rsplit_once('@'))
        .and_then(|(user, _)| {
            user.split_once(':')
                .map(|(_, password)| password)
                .filter(|p| !p.is_empty())
        });
    let tells = message.contains("://")
        || message.contains("password=")
        || secret.is_some_and(|secret| message.contains(secret));
    StoreError::Unavailable(if tells {
        "the connection URL can't be read".to_owned()
    } else {
        short(&message)
    })
}

/// The first line, cut to a length fit for a log.
fn short(message: &str) -> String {
    message
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect()
}

/// A stored value that is not what it should be. Names the place, never the value.
pub(crate) fn unreadable(what: &'static str) -> StoreError {
    StoreError::Broken(format!("stored {what} can't be read"))
}

/// Hands Diesel's errors on as the port's.
pub(crate) trait OrRefused<T> {
    /// The value, or the port's error.
    fn or_refused(self) -> Result<T, StoreError>;
}

impl<T> OrRefused<T> for diesel::QueryResult<T> {
    fn or_refused(self) -> Result<T, StoreError> {
        self.map_err(|error| refused(&error))
    }
}

/// Exactly one row was to be changed; none means that somebody else changed it first.
pub(crate) fn exactly_one(changed: usize) -> Result<(), StoreError> {
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::Conflict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_libpq_quotes_is_not_handed_on() {
        let url = "postgres://handoff:s3cret@db:x/handoff";
        for message in ["invalid port in \"postgres://handoff:s3cret@db:x\"", "bad s3cret"] {
            let error = unreachable(&ConnectionError::BadConnection(message.to_owned()), url);
            assert_eq!(
                error,
                StoreError::Unavailable("the connection URL can't be read".to_owned())
            );
        }
    }

    #[test]
    fn a_full_disk_is_told_from_a_busy_database() {
        assert_eq!(
            by_message("could not extend file \"base/1\": No space left on device"),
            StoreError::Full
        );
        assert_eq!(by_message("deadlock detected"), StoreError::Conflict);
        assert!(matches!(
            by_message("canceling statement due to statement timeout"),
            StoreError::Unavailable(_)
        ));
        assert!(matches!(
            by_message("relation `x` does not exist"),
            StoreError::Broken(_)
        ));
    }
}
