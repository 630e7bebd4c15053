//! `[clients]`: how much of the server clients may hold at once, how fast they have to be, and how often they may fail.

use std::time::Duration;

use toml::{Table, Value};

use super::Problem;
use super::reader::Section;
use super::units::{show_duration, show_size};

/// The most connections, downloads or uploads that can be asked for.
const MOST: u64 = 1_000_000;

/// The largest head that can be asked for: the parser of the HTTP server gives up on names of 64 KiB, and badly.
const LARGEST_HEADER: usize = 60 << 10;

/// `[clients]`: past each a client is told 503, 408, 429 or 431, or let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clients {
    /// Connections in all. Fewer where the system allows fewer descriptors.
    pub max_connections: usize,
    /// Connections of one address; 0 is no limit. Proxies are not counted.
    pub max_per_address: usize,
    /// Downloads of content at once. Fewer where the system allows fewer descriptors.
    pub max_downloads: usize,
    /// Uploads of content at once. Each may need some MiB of memory.
    pub max_uploads: usize,
    /// Bytes of a request's head.
    pub max_header: usize,
    /// Bytes of bodies in memory, of all requests together.
    pub max_buffered: usize,
    /// Bytes per second that a client must take over `rate_window`; 0 asks for none.
    pub least_download_rate: u64,
    /// Bytes per second that a client must send over `rate_window`; 0 asks for none.
    pub least_upload_rate: u64,
    /// Over what time rates are measured.
    pub rate_window: Duration,
    /// Access tokens of one address that may be refused in a minute, before no more are looked at; 0 is no limit. As
    /// those that follow it is counted by each process alone.
    pub failed_tokens_per_minute: usize,
    /// Attempts at links from one address that may fail in a minute; 0 is no limit.
    pub failed_links_per_minute_address: usize,
    /// The same by one client application.
    pub failed_links_per_minute_client: usize,
    /// The same at one link.
    pub failed_links_per_minute_link: usize,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_per_address: 1_000,
            max_downloads: 10_000,
            max_uploads: 100,
            max_header: 32 << 10,
            max_buffered: 256 << 20,
            least_download_rate: 1 << 10,
            least_upload_rate: 1 << 10,
            rate_window: Duration::from_mins(1),
            failed_tokens_per_minute: 100,
            failed_links_per_minute_address: 30,
            failed_links_per_minute_client: 30,
            failed_links_per_minute_link: 10,
        }
    }
}

pub(super) fn read(root: &mut Table, problems: &mut Vec<Problem>, largest_body: usize) -> Clients {
    let defaults = Clients::default();
    let mut section = Section::take(root, "clients", problems);
    let mut count = |key, default: usize, least| {
        usize::try_from(section.number(key, default as u64, least, MOST)).unwrap_or(default)
    };
    let max_connections = count("max_connections", defaults.max_connections, 1);
    let max_per_address = count("max_per_address", defaults.max_per_address, 0);
    let max_downloads = count("max_downloads", defaults.max_downloads, 1);
    let max_uploads = count("max_uploads", defaults.max_uploads, 1);
    let mut failures = |key, default| count(key, default, 0);
    let failed_tokens_per_minute = failures("failed_tokens_per_minute", defaults.failed_tokens_per_minute);
    let failed_links_per_minute_address = failures(
        "failed_links_per_minute_address",
        defaults.failed_links_per_minute_address,
    );
    let failed_links_per_minute_client = failures(
        "failed_links_per_minute_client",
        defaults.failed_links_per_minute_client,
    );
    let failed_links_per_minute_link = failures(
        "failed_links_per_minute_link",
        defaults.failed_links_per_minute_link,
    );
    let mut size =
        |key, default: usize| usize::try_from(section.size(key, default as u64)).unwrap_or(default);
    let clients = Clients {
        max_connections,
        max_per_address,
        max_downloads,
        max_uploads,
        max_header: size("max_header", defaults.max_header),
        max_buffered: size("max_buffered", defaults.max_buffered),
        least_download_rate: section.size_or_none("least_download_rate", defaults.least_download_rate),
        least_upload_rate: section.size_or_none("least_upload_rate", defaults.least_upload_rate),
        rate_window: section.duration("rate_window", defaults.rate_window),
        failed_tokens_per_minute,
        failed_links_per_minute_address,
        failed_links_per_minute_client,
        failed_links_per_minute_link,
    };
    if clients.max_header > LARGEST_HEADER {
        section.problem(
            "max_header",
            format!(
                "`{}` is more than a head may ever be",
                show_size(clients.max_header as u64)
            ),
            format!("set it to `{}` at most", show_size(LARGEST_HEADER as u64)),
        );
    }
    if clients.max_buffered < largest_body {
        section.problem(
            "max_buffered",
            format!(
                "`{}` holds no body of `{}`, which `[limits]` allows",
                show_size(clients.max_buffered as u64),
                show_size(largest_body as u64)
            ),
            "set it to a multiple of `limits.max_bundle` and `limits.max_body`",
        );
    }
    section.finish();
    clients
}

pub(super) fn show(clients: &Clients) -> Vec<(&'static str, Value)> {
    let number = |n: usize| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
    let size = |bytes: u64| Value::String(show_size(bytes));
    vec![
        ("max_connections", number(clients.max_connections)),
        ("max_per_address", number(clients.max_per_address)),
        ("max_downloads", number(clients.max_downloads)),
        ("max_uploads", number(clients.max_uploads)),
        ("max_header", size(clients.max_header as u64)),
        ("max_buffered", size(clients.max_buffered as u64)),
        ("least_download_rate", size(clients.least_download_rate)),
        ("least_upload_rate", size(clients.least_upload_rate)),
        ("rate_window", Value::String(show_duration(clients.rate_window))),
        (
            "failed_tokens_per_minute",
            number(clients.failed_tokens_per_minute),
        ),
        (
            "failed_links_per_minute_address",
            number(clients.failed_links_per_minute_address),
        ),
        (
            "failed_links_per_minute_client",
            number(clients.failed_links_per_minute_client),
        ),
        (
            "failed_links_per_minute_link",
            number(clients.failed_links_per_minute_link),
        ),
    ]
}
