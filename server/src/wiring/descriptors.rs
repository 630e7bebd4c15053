//! The descriptors that this process may have: as many as it is allowed, and connections no more than those bear.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Clients;

/// Descriptors for everything that is neither a connection nor a download: listeners, threads' pollers, files of the
/// embedded database, requests to the identity provider, and some to spare.
const OTHERS: u64 = 128;

/// Raises the soft limit to the hard limit, and answers the limit in force; `None` where there is none.
pub(super) fn raise() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    if before.current == before.maximum {
        return before.current;
    }
    let wanted = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => tracing::info!(
            before = before.current,
            now = before.maximum,
            "raised the limit of descriptors"
        ),
        Err(error) => {
            tracing::warn!(limit = before.current, %error, "the limit of descriptors can't be raised");
        }
    }
    getrlimit(Resource::Nofile).current
}

/// `clients` with no more connections, downloads and uploads than `limit` descriptors bear, `database` of which are
/// for the database. A connection needs one; a download or upload one more, to the content store.
pub(super) fn fit(clients: Clients, limit: Option<u64>, database: u32) -> Clients {
    let Some(limit) = limit else { return clients };
    let free = limit.saturating_sub(OTHERS).saturating_sub(u64::from(database));
    let free = usize::try_from(free).unwrap_or(usize::MAX);
    let uploads = clients.max_uploads.min((free / 6).max(1));
    let downloads = clients.max_downloads.min((free / 3).max(1));
    let left = free.saturating_sub(uploads).saturating_sub(downloads).max(1);
    let fitted = Clients {
        max_connections: clients.max_connections.min(left),
        max_downloads: downloads,
        max_uploads: uploads,
        ..clients
    };
    if fitted != clients {
        tracing::info!(
            descriptors = limit,
            max_connections = fitted.max_connections,
            max_downloads = fitted.max_downloads,
            max_uploads = fitted.max_uploads,
            "there are fewer descriptors than `[clients]` asks for, so clients get less"
        );
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_it_may_be() {
        let limit = raise();
        assert_eq!(limit, getrlimit(Resource::Nofile).maximum);
    }

    #[test]
    fn clients_get_what_they_are_allowed_where_the_system_has_it() {
        let asked = Clients::default();
        assert_eq!(fit(asked, None, 16), asked);
        assert_eq!(fit(asked, Some(1 << 20), 16), asked);
    }

    #[test]
    fn clients_never_get_more_descriptors_than_there_are() {
        for limit in [1024, 4096, 20_000, 65_536] {
            let fitted = fit(Clients::default(), Some(limit), 16);
            let used = fitted.max_connections + fitted.max_downloads + fitted.max_uploads;
            assert!(used as u64 + OTHERS + 16 <= limit, "{limit}: {fitted:?}");
            assert!(
                used as u64 + OTHERS + 16 + 3 >= limit.min(30_000),
                "{limit}: {fitted:?}"
            );
        }
        assert_eq!(fit(Clients::default(), Some(10), 16).max_connections, 1);
    }
}
