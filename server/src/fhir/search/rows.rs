//! Searches of the audit's rows, of which AuditEvent and Provenance are two faces: the order, the pages and the Bundle that both have.
//! Which parameters there are, and what one row is told as, is theirs to say.

use handoff_domain::ports::{AuditSearch, RecordedRow};
use handoff_domain::time::Timestamp;
use serde_json::Value;

use super::answer::{BundleWriter, MATCHED, page_of};
use super::control::{Controls, not_supported, shown};
use super::link::{self, Check, Cursor};
use crate::app::AppError;

/// How many bytes a row is told in, about.
const ROW: usize = 2048;

/// The page of a search that is asked for.
#[derive(Debug, Clone)]
pub struct Page {
    /// How many rows it holds at most.
    pub count: u32,
    /// The parameters that took effect, as the link `self` lists them.
    pub used: Vec<(String, String)>,
    /// Names of parameters without effect.
    pub ignored: Vec<String>,
    kind: &'static str,
    check: Check,
    oldest_first: bool,
    after: Option<i64>,
}

impl Page {
    /// Reads what steers a search for resources of a type out of `pairs`, and gives each other parameter that is `known` to `take`. They are sorted
    /// by the parameter `date`.
    ///
    /// Fails with 400, in strict handling also at what would be ignored.
    pub fn read(
        kind: &'static str,
        pairs: &[(String, String)],
        strict: bool,
        known: impl Fn(&str) -> bool,
        date: &str,
        mut take: impl FnMut(&str, &str) -> Result<(), AppError>,
    ) -> Result<Self, AppError> {
        let (mut controls, rest) = Controls::split(pairs)?;
        let mut used = Vec::new();
        for (written, value) in rest {
            let (name, modifier) = written
                .split_once(':')
                .map_or((written, None), |(n, m)| (n, Some(m)));
            if !known(name) {
                controls.ignore(written);
                continue;
            }
            if let Some(modifier) = modifier {
                return Err(not_supported(format!(
                    "the modifier `:{}` is not supported for `{name}`",
                    shown(modifier)
                )));
            }
            take(name, value)?;
            used.push((written.to_owned(), value.to_owned()));
        }
        controls.settle(strict)?;
        if controls.only_count || controls.total {
            return Err(not_supported(format!(
                "resources of the type {kind} are not counted"
            )));
        }
        let oldest_first = match controls.sort.as_deref() {
            None => false,
            Some(sort) if sort.strip_prefix('-') == Some(date) => false,
            Some(sort) if sort == date => true,
            Some(_) => {
                return Err(not_supported(format!(
                    "results can be sorted by `{date}` or `-{date}`"
                )));
            }
        };
        used.append(&mut controls.used);
        let check = link::check(kind, &used);
        let after = match &controls.page {
            Some(page) => Some(Cursor::decode(page, check)?.at),
            None => None,
        };
        Ok(Self {
            count: controls.limit(),
            used,
            ignored: controls.ignored,
            kind,
            check,
            oldest_first,
            after,
        })
    }

    /// The question for its rows, and for one more, to know whether more follow.
    pub fn of(&self, search: AuditSearch) -> AuditSearch {
        AuditSearch {
            oldest_first: self.oldest_first,
            after: self.after,
            limit: self.count.saturating_add(1),
            ..search
        }
    }

    /// The answer with these rows, told as resources. `base` is our FHIR base with its trailing slash.
    pub fn searchset(
        &self,
        base: &str,
        rows: &[RecordedRow],
        now: Timestamp,
        resource: impl Fn(&RecordedRow) -> Option<Value>,
    ) -> Vec<u8> {
        let (page, more) = page_of(rows, self.count);
        let mut bundle = BundleWriter::new("searchset", now, page.len().saturating_mul(ROW));
        if !more && self.after.is_none() && self.count > 0 {
            bundle.total(u64::try_from(page.len()).unwrap_or(u64::MAX));
        }
        let cursor = page.last().filter(|_| more).map(|last| {
            Cursor {
                at: last.sequence,
                id: String::new(),
            }
            .encode(self.check)
        });
        let next = cursor.map(|cursor| link::url(base, self.kind, &self.used, Some(&cursor)));
        bundle.links(&link::url(base, self.kind, &self.used, None), next.as_deref());
        let short = base.trim_end_matches('/');
        for row in page {
            if let Some(body) = resource(row) {
                let url = format!("{short}/{}/{}", self.kind, row.id);
                bundle.entry(&url, body.to_string().as_bytes(), MATCHED);
            }
        }
        bundle.finish()
    }
}
