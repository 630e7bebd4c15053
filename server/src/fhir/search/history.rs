//! The history of one resource: its parameters, and its versions as a Bundle, newest first.

use handoff_domain::ports::{Kind, Method, Version};
use handoff_domain::time::Timestamp;

use super::answer::BundleWriter;
use super::control::{Controls, not_supported};
use super::link::{self, Cursor};
use crate::app::AppError;
use crate::app::read::HISTORY_PAGE;

/// What of a history is asked for.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// The most versions to answer; one fewer than a read gives, so that reading one more tells what follows.
    pub count: u32,
    /// `_since`: changed at or after.
    pub since: Option<Timestamp>,
    /// Older than this version, on pages after the first.
    pub before: Option<i64>,
    /// The parameters that took effect.
    pub used: Vec<(String, String)>,
    check: link::Check,
}

/// The page that `pairs` ask for. Unknown parameters are ignored; `_at` and `_list` are refused.
pub fn parse_history(pairs: &[(String, String)]) -> Result<HistoryPage, AppError> {
    let (controls, rest) = Controls::split(pairs)?;
    let mut since = None;
    let mut used = Vec::new();
    for (name, value) in rest {
        match name {
            "_since" if since.is_some() => return Err(AppError::bad("`_since` may be given once only")),
            "_since" => {
                // In a URL a `+` that was not encoded arrives as a space.
                let at = Timestamp::parse_instant(&value.replacen(' ', "+", 1));
                since =
                    Some(at.ok_or_else(|| AppError::bad("`_since` is an instant: `2026-03-01T12:00:00Z`"))?);
                used.push((name.to_owned(), value.to_owned()));
            }
            "_at" => return Err(not_supported("`_at` is not supported; use `_since`")),
            _ => {}
        }
    }
    if controls.sort.is_some() {
        return Err(not_supported(
            "a history comes newest first and in no other order",
        ));
    }
    let most = HISTORY_PAGE.saturating_sub(1);
    let count = controls.limit().min(most);
    used.extend(controls.used.into_iter().map(|(name, value)| {
        let value = if name == "_count" {
            count.to_string()
        } else {
            value
        };
        (name, value)
    }));
    let check = link::check("_history", &used);
    let before = match controls.page {
        Some(page) => Some(Cursor::decode(&page, check)?.at),
        None => None,
    };
    Ok(HistoryPage {
        count,
        since,
        before,
        used,
        check,
    })
}

/// The versions of a page as a Bundle; `more` tells whether older ones follow. `base` is our FHIR base with its
/// trailing slash.
pub fn history_bundle(
    base: &str,
    kind: Kind,
    id: &str,
    versions: &[Version],
    page: &HistoryPage,
    more: bool,
    now: Timestamp,
) -> Vec<u8> {
    let size = versions.iter().map(|version| version.body.len() + 300).sum();
    let mut bundle = BundleWriter::new("history", now, size);
    if !more && page.before.is_none() && page.count > 0 {
        bundle.total(u64::try_from(versions.len()).unwrap_or(u64::MAX));
    }
    let name = kind.as_str();
    let path = format!("{name}/{id}/_history");
    let cursor = versions.last().filter(|_| more).map(|last| {
        Cursor {
            at: last.version,
            id: String::new(),
        }
        .encode(page.check)
    });
    let next = cursor.map(|cursor| link::url(base, &path, &page.used, Some(&cursor)));
    bundle.links(&link::url(base, &path, &page.used, None), next.as_deref());
    let full_url = format!("{}/{name}/{id}", base.trim_end_matches('/'));
    for version in versions {
        let (method, url, status) = match version.method {
            Method::Create => ("POST", name.to_owned(), "201 Created"),
            Method::Update => ("PUT", format!("{name}/{id}"), "200 OK"),
            Method::Delete => ("DELETE", format!("{name}/{id}"), "204 No Content"),
        };
        let rest = format!(
            r#","request":{{"method":"{method}","url":"{url}"}},"response":{{"status":"{status}","etag":"W/\"{}\"","lastModified":"{}"}}"#,
            version.version,
            version.last_updated.to_instant(),
        );
        bundle.entry(&full_url, &version.body, &rest);
    }
    bundle.finish()
}
