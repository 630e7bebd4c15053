//! Microsoft Defender for Storage, by the index tags that it sets on a blob once it has scanned it. It is asked for nothing but
//! what stands there; the bytes are not read.

use std::sync::Arc;

use handoff_domain::document::StoredBinary;
use handoff_domain::ports::{BlobError, BlobStore, BoxFuture, ByteStream, Scanner, ScannerError};
use handoff_domain::scan::{Finding, Found};

/// The verdicts of Defender, as tags of blobs.
pub struct Defender {
    /// Where the blobs are.
    pub blobs: Arc<dyn BlobStore>,
    /// The tag with the result. It was spelled in several ways: letter case is no difference.
    pub tag: String,
}

impl Scanner for Defender {
    fn ready(&self) -> BoxFuture<'_, Result<(), ScannerError>> {
        Box::pin(async move {
            let ready = self.blobs.ready().await;
            ready.map_err(|error| ScannerError::Unreachable(error.to_string()))
        })
    }

    fn scan<'a>(
        &'a self,
        content: &'a StoredBinary,
        _bytes: ByteStream,
    ) -> BoxFuture<'a, Result<Finding, ScannerError>> {
        Box::pin(async move {
            let tags = self.blobs.tags(&content.pin).await.map_err(|error| match error {
                BlobError::Unavailable(cause) => ScannerError::Unreachable(cause),
                other => ScannerError::Content(other),
            })?;
            let found = found(&tags, &self.tag).ok_or(ScannerError::NotYet)?;
            Ok(Finding {
                found,
                engine: Some("Microsoft Defender for Storage".to_owned()),
            })
        })
    }
}

/// What the tags say; `None` where there is no result yet. Of several results the worst counts.
fn found(tags: &[(String, String)], tag: &str) -> Option<Found> {
    let mut results = tags
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(tag))
        .map(|(_, value)| value.as_str());
    let first = results.next()?;
    let mut all = std::iter::once(first).chain(results);
    let is = |result: &str, word: &str| result.eq_ignore_ascii_case(word);
    if all.clone().any(|result| is(result, "Malicious")) {
        return Some(Found::Malware("Malicious".to_owned()));
    }
    Some(if all.all(|result| is(result, "No threats found")) {
        Found::Nothing
    } else {
        Found::Failure
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "Malware Scanning scan result";

    fn tagged(tags: &[(&str, &str)]) -> Option<Found> {
        let tags: Vec<_> = tags
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        found(&tags, TAG)
    }

    #[test]
    fn a_result_counts_as_what_it_says_and_anything_else_as_none() {
        let malicious = Some(Found::Malware("Malicious".to_owned()));
        assert_eq!(tagged(&[(TAG, "No threats found")]), Some(Found::Nothing));
        assert_eq!(
            tagged(&[("malware scanning scan result", "No threats found")]),
            Some(Found::Nothing)
        );
        assert_eq!(tagged(&[(TAG, "Malicious")]), malicious);
        for other in ["Error", "Not Scanned", "", "Scan aborted", "no threats"] {
            assert_eq!(tagged(&[(TAG, other)]), Some(Found::Failure), "{other}");
        }
        assert_eq!(tagged(&[]), None);
        assert_eq!(tagged(&[("Malware Scanning scan time UTC", "2026-01-01")]), None);
        let upper = TAG.to_uppercase();
        let both = [(TAG, "No threats found"), (upper.as_str(), "Malicious")];
        assert_eq!(tagged(&both), malicious);
        let doubtful = [(TAG, "No threats found"), (upper.as_str(), "Error")];
        assert_eq!(tagged(&doubtful), Some(Found::Failure));
    }
}
