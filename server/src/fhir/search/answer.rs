//! Bundles put together from stored bytes, without reading them again. Knows the form of a Bundle, nothing of
//! what is in it.

use handoff_domain::ports::{Found, Kind};
use handoff_domain::time::Timestamp;

use super::link::{self, Cursor};
use super::{Parsed, control};

/// Writes a Bundle member by member.
pub struct BundleWriter {
    out: Vec<u8>,
    entries: usize,
}

impl BundleWriter {
    /// A Bundle of this type (`searchset`, `history`), with room for about `size` bytes.
    pub fn new(kind: &str, now: Timestamp, size: usize) -> Self {
        let mut writer = Self {
            out: Vec::with_capacity(size.saturating_add(512)),
            entries: 0,
        };
        writer.raw(r#"{"resourceType":"Bundle","type":""#);
        writer.raw(kind);
        writer.raw(r#"","timestamp":""#);
        writer.raw(&now.to_instant());
        writer.raw("\"");
        writer
    }

    /// How many match in all.
    pub fn total(&mut self, total: u64) {
        self.raw(r#","total":"#);
        self.raw(&total.to_string());
    }

    /// The links: `self`, and `next` where there is one.
    pub fn links(&mut self, this: &str, next: Option<&str>) {
        self.raw(r#","link":[{"relation":"self","url":"#);
        self.text(this);
        if let Some(next) = next {
            self.raw(r#"},{"relation":"next","url":"#);
            self.text(next);
        }
        self.raw("}]");
    }

    /// One entry: its address, the stored resource (none for a deletion), and JSON members that follow them.
    pub fn entry(&mut self, full_url: &str, resource: &[u8], rest: &str) {
        self.raw(if self.entries == 0 {
            r#","entry":[{"fullUrl":"#
        } else {
            r#",{"fullUrl":"#
        });
        self.entries = self.entries.saturating_add(1);
        self.text(full_url);
        if !resource.is_empty() {
            self.raw(r#","resource":"#);
            self.out.extend_from_slice(resource);
        }
        self.raw(rest);
        self.raw("}");
    }

    /// The whole Bundle.
    pub fn finish(mut self) -> Vec<u8> {
        if self.entries > 0 {
            self.raw("]");
        }
        self.raw("}");
        self.out
    }

    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn text(&mut self, text: &str) {
        self.raw(&serde_json::Value::from(text).to_string());
    }
}

/// The rest of an entry that matched.
pub const MATCHED: &str = r#","search":{"mode":"match"}"#;

/// The answer to a search; `base` is our FHIR base with its trailing slash.
pub fn searchset(base: &str, kind: Kind, found: &Found, parsed: &Parsed, now: Timestamp) -> Vec<u8> {
    let size = found.resources.iter().map(|(_, _, body)| body.len() + 200).sum();
    let mut bundle = BundleWriter::new("searchset", now, size);
    let whole = !found.more && parsed.query.after.is_none() && parsed.query.limit > 0;
    let counted = found
        .total
        .or_else(|| whole.then(|| u64::try_from(found.resources.len()).ok()).flatten());
    if let Some(total) = counted {
        bundle.total(total);
    }
    let name = kind.as_str();
    let cursor = found.resources.last().filter(|_| found.more).map(|(id, at, _)| {
        Cursor {
            at: at.0,
            id: id.clone(),
        }
        .encode(parsed.check)
    });
    let next = cursor.map(|page| link::url(base, name, &parsed.used, Some(&page)));
    bundle.links(&link::url(base, name, &parsed.used, None), next.as_deref());
    let base = base.trim_end_matches('/');
    for (id, _, body) in &found.resources {
        bundle.entry(&format!("{base}/{name}/{id}"), body, MATCHED);
    }
    bundle.finish()
}

/// Results that were read one beyond the page, to know whether more follow: those of the page, and whether.
pub fn page_of<T>(rows: &[T], limit: u32) -> (&[T], bool) {
    let limit = usize::try_from(limit.min(control::MAX_COUNT)).unwrap_or(usize::MAX);
    match rows.get(..limit) {
        Some(page) if rows.len() > limit => (page, true),
        _ => (rows, false),
    }
}
