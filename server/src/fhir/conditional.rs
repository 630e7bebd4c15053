//! Version tags. FHIR's are weak, and `If-Match` compares the version that they hold (R4 http, 3.1.0.5): both
//! `W/"3"` and `"3"` mean version 3.

use actix_web::HttpRequest;
use actix_web::http::header;

use crate::app::AppError;
use crate::app::tasks::Expected;

/// What `If-Match` asks for; `None` where the text is no tag.
pub fn parse_if_match(text: &str) -> Option<Expected> {
    let text = text.trim();
    if text == "*" {
        return Some(Expected::Existing);
    }
    let quoted = text.strip_prefix("W/").unwrap_or(text);
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    // One tag alone: a list of them is nothing that a version could be compared with.
    if inner.contains('"') {
        return None;
    }
    // A tag that is no number of ours names a version that does not exist.
    Some(Expected::Version(inner.parse().unwrap_or(-1)))
}

/// The `If-Match` of a request.
pub fn expected(request: &HttpRequest) -> Result<Expected, AppError> {
    let mut values = request.headers().get_all(header::IF_MATCH);
    let Some(value) = values.next() else {
        return Ok(Expected::Any);
    };
    let tag = value.to_str().ok().and_then(parse_if_match);
    match (tag, values.next()) {
        (Some(tag), None) => Ok(tag),
        _ => Err(AppError::bad("`If-Match` must be one version tag like `W/\"1\"`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weak_and_a_strong_tag_name_the_same_version() {
        assert_eq!(parse_if_match("W/\"3\""), Some(Expected::Version(3)));
        assert_eq!(parse_if_match("\"3\""), Some(Expected::Version(3)));
        assert_eq!(parse_if_match("*"), Some(Expected::Existing));
        assert_eq!(parse_if_match("W/\"abc\""), Some(Expected::Version(-1)));
        assert_eq!(parse_if_match("3"), None);
        assert_eq!(parse_if_match("\"3\", \"4\""), None);
    }
}
