//! `[blobs]`: where content is kept, and when that is held against the records.

use std::path::PathBuf;
use std::time::Duration;

use handoff_blobs::{AzureConfig, AzureCredential, BlobConfig};
use handoff_domain::time::Span;
use secrecy::ExposeSecret;
use toml::Table;

use super::reader::Section;
use super::units::parse_duration;
use super::{Problem, redact_url};
use crate::app::drift::Reconciling;

/// `[blobs]`
#[derive(Debug, Clone)]
pub struct Blobs {
    /// The store and what opens it.
    pub config: BlobConfig,
    /// Its URL, fit to be shown.
    pub shown: String,
    /// When it is held against the records.
    pub reconciling: Reconciling,
}

/// Reads it.
pub(super) fn read(root: &mut Table, problems: &mut Vec<Problem>) -> Blobs {
    let mut section = Section::take(root, "blobs", problems);
    let remedy =
        "set it to `file:///var/lib/handoff/blobs` or `https://ACCOUNT.blob.core.windows.net/CONTAINER`";
    let absent = section.is_absent("url") && section.is_absent("url_file");
    let url = section.secret("url", "url_file");
    let key = section.secret("key", "key_file");
    let sas = section.secret("sas", "sas_file");
    let create_container = section.flag("create_container", false);
    let reconciling = read_reconciling(&mut section);
    if key.is_some() && sas.is_some() {
        section.problem("sas", "is set beside a key", "keep one of the two");
    }
    if url.is_none() && absent {
        section.problem("url", "is missing", remedy);
    }
    let shown = url
        .as_ref()
        .map(|url| redact_url(url.expose_secret()))
        .unwrap_or_default();
    let named_plainly = url.as_ref().is_some_and(|url| !url.expose_secret().contains('?'));
    let parsed = url.and_then(|url| match BlobConfig::parse(url.expose_secret()) {
        Ok(config) => Some(config),
        // A key may go over plain http, and at this point it is not known yet that there is one.
        Err(error) => {
            section.problem("url", error.to_string(), remedy);
            None
        }
    });
    let config = match parsed {
        Some(BlobConfig::Azure(azure)) => {
            let credential = match (key, sas) {
                (Some(key), _) => AzureCredential::Key(key),
                (None, Some(sas)) => AzureCredential::Sas(sas),
                (None, None) => azure.credential.clone(),
            };
            if !named_plainly && !matches!(credential, AzureCredential::Sas(_)) {
                section.problem("url", "carries a signature beside the key", "keep one of the two");
            }
            let azure = AzureConfig {
                credential,
                create_container: create_container || azure.create_container,
                ..azure
            };
            if let Err(error) = azure.check() {
                section.problem("url", error.to_string(), remedy);
            }
            BlobConfig::Azure(azure)
        }
        other => {
            if key.is_some() || sas.is_some() {
                section.problem(
                    "url",
                    "is no Azure container, and there is a key or signature for one",
                    remedy,
                );
            }
            other.unwrap_or_else(|| BlobConfig::Directory { path: PathBuf::new() })
        }
    };
    section.finish();
    Blobs {
        config,
        shown,
        reconciling,
    }
}

/// When stored content is held against the records, and what becomes of what nobody needs.
fn read_reconciling(section: &mut Section<'_>) -> Reconciling {
    const SHORTEST: Duration = Duration::from_hours(1);
    const LONGEST: Duration = Duration::from_hours(87_600);
    let time = |text: &str, least| parse_duration(text).filter(|time| (least..=LONGEST).contains(time));
    let every = section.parsed(
        "reconcile_every",
        "set it to a time from `1 h` on, like `24 h`",
        |text| time(text, SHORTEST),
    );
    // Whoever restores a database has this long to notice.
    let remove_after = section.parsed(
        "remove_orphans_after",
        "set it to a time from `24 h` on, like `720 h`, or leave it out so that nothing is removed",
        |text| time(text, Duration::from_hours(24)),
    );
    let span = |time: Duration| Span::seconds(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    let default = Reconciling::default();
    Reconciling {
        every: every.map_or(default.every, span),
        remove_after: remove_after.map(span),
        ..default
    }
}
