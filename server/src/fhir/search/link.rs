//! Links of a Bundle, and the cursor in them that says where a page ended. A cursor holds a time, an id and a
//! check, no values that were searched for; it carries no authority, each page is decided anew.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use handoff_domain::ids::is_fhir_id;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use crate::app::AppError;

/// What stands as it is in a query: unreserved characters, and those of FHIR's own syntax that RFC 3986 allows.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'/')
    .remove(b',')
    .remove(b'$');

/// Where a page ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// A time, a version or a sequence number.
    pub at: i64,
    /// A logical id; empty where `at` says it all.
    pub id: String,
}

/// What ties a cursor to one search: eight bytes of a digest over what was searched and how.
pub type Check = [u8; 8];

/// The check of a search over `scope` (a resource type, or another word for the sort of search) with these
/// parameters, whatever their order. Those that only change the form of a page are left out.
pub fn check(scope: &str, used: &[(String, String)]) -> Check {
    let free = ["_count", "_total", "_format", "_pretty", "_summary"];
    let mut pairs: Vec<&(String, String)> = used
        .iter()
        .filter(|(name, _)| !free.contains(&name.as_str()))
        .collect();
    pairs.sort();
    let mut digest = Sha256::new();
    for text in std::iter::once(scope).chain(pairs.iter().flat_map(|(n, v)| [n.as_str(), v.as_str()])) {
        digest.update(text.len().to_be_bytes());
        digest.update(text.as_bytes());
    }
    let digest = digest.finalize();
    let mut check = Check::default();
    for (to, from) in check.iter_mut().zip(digest) {
        *to = from;
    }
    check
}

impl Cursor {
    /// The cursor as it stands in a link.
    pub fn encode(&self, check: Check) -> String {
        let mut bytes = self.at.to_be_bytes().to_vec();
        bytes.extend(check);
        bytes.extend(self.id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The cursor in `text`, if it belongs to the search with this check.
    pub fn decode(text: &str, check: Check) -> Result<Self, AppError> {
        Self::read(text, check).ok_or_else(|| {
            AppError::bad("`_page` is not of this search; follow the link `next` as it is, or search anew")
        })
    }

    fn read(text: &str, check: Check) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (at, rest) = bytes.split_first_chunk::<8>()?;
        let (found, id) = rest.split_first_chunk::<8>()?;
        let id = std::str::from_utf8(id)
            .ok()
            .filter(|id| id.is_empty() || is_fhir_id(id))?;
        (*found == check).then(|| Self {
            at: i64::from_be_bytes(*at),
            id: id.to_owned(),
        })
    }
}

/// A link to `path` (`Task`, `Task/1/_history`) under `base` with these parameters, and a cursor after them.
pub fn url(base: &str, path: &str, used: &[(String, String)], page: Option<&str>) -> String {
    let mut out = format!("{}/{path}", base.trim_end_matches('/'));
    let query = query(used, page);
    if !query.is_empty() {
        out.push('?');
        out.push_str(&query);
    }
    out
}

/// The query of such a link.
pub fn query(used: &[(String, String)], page: Option<&str>) -> String {
    let mut out = String::new();
    let pairs = used.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in pairs.chain(page.map(|page| ("_page", page))) {
        if !out.is_empty() {
            out.push('&');
        }
        out.extend(utf8_percent_encode(name, QUERY));
        out.push('=');
        out.extend(utf8_percent_encode(value, QUERY));
    }
    out
}
