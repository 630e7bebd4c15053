//! What is taken of an answer: its status, the few headers that matter, and as much of its body as was asked for.

use std::time::Duration;

use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, DATE, ETAG, HeaderMap, HeaderName, LOCATION, RETRY_AFTER};

use handoff_domain::ports::{OutboundAnswer, SendError};

use crate::failure::explain;

/// The longest that anybody may have us wait.
const LONGEST_WAIT: Duration = Duration::from_hours(24);
/// The most bytes of a header that is handed on.
const LONGEST_VALUE: usize = 2_000;

/// Reads `response` to its end, or to `limit`, beyond which it is an error. With a limit of 0 its body stays unread: dropped,
/// it takes its connection along unless its end was there already.
pub(crate) async fn read(mut response: Response, limit: usize) -> Result<OutboundAnswer, SendError> {
    let status = response.status();
    if status.is_redirection() {
        return Err(SendError::Redirected {
            status: status.as_u16(),
        });
    }
    if status.is_informational() {
        return Err(SendError::Protocol);
    }
    let headers = response.headers();
    let mut answer = OutboundAnswer {
        status: status.as_u16(),
        retry_after: value(headers, &RETRY_AFTER).and_then(|asked| wait(asked, value(headers, &DATE))),
        etag: value(headers, &ETAG).map(str::to_owned),
        location: value(headers, &LOCATION).map(str::to_owned),
        content_type: value(headers, &CONTENT_TYPE).map(str::to_owned),
        body: Vec::new(),
    };
    if limit > 0 {
        answer.body = body(&mut response, limit).await?;
    }
    Ok(answer)
}

async fn body(response: &mut Response, limit: usize) -> Result<Vec<u8>, SendError> {
    let stated = response.content_length().unwrap_or(0);
    if usize::try_from(stated).map_or(true, |stated| stated > limit) {
        return Err(SendError::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| explain(&e))? {
        if chunk.len() > limit.saturating_sub(body.len()) {
            return Err(SendError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let value = headers.get(name)?.to_str().ok()?;
    (value.len() <= LONGEST_VALUE).then_some(value)
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date, which is counted from the answer's own `Date`, so that it does not
/// matter how far the two clocks are apart. A date without that, and what is neither, asks for nothing.
fn wait(asked: &str, date: Option<&str>) -> Option<Duration> {
    let asked = asked.trim();
    let wait = if !asked.is_empty() && asked.bytes().all(|b| b.is_ascii_digit()) {
        // What does not fit is long in any case.
        asked.parse().map_or(LONGEST_WAIT, Duration::from_secs)
    } else {
        let until = httpdate::parse_http_date(asked).ok()?;
        let from = httpdate::parse_http_date(date?.trim()).ok()?;
        until.duration_since(from).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: &str = "Sun, 06 Nov 1994 12:00:00 GMT";

    #[test]
    fn who_is_busy_says_when_to_come_back() {
        let seconds = |n| Some(Duration::from_secs(n));
        for (asked, expected) in [
            ("0", seconds(0)),
            ("120", seconds(120)),
            (" 007 ", seconds(7)),
            ("86401", Some(LONGEST_WAIT)),
            ("99999999999999999999999", Some(LONGEST_WAIT)),
            ("Sun, 06 Nov 1994 12:01:30 GMT", seconds(90)),
            ("Sunday, 06-Nov-94 12:00:05 GMT", seconds(5)),
            ("Sun Nov  6 12:00:07 1994", seconds(7)),
            ("Sun, 06 Nov 1994 11:59:59 GMT", seconds(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(LONGEST_WAIT)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("soon", None),
            ("1994-11-06T12:00:00Z", None),
        ] {
            assert_eq!(wait(asked, Some(NOON)), expected, "{asked:?}");
        }
    }

    #[test]
    fn a_date_says_nothing_without_the_present_one() {
        for date in [None, Some(""), Some("now")] {
            assert_eq!(wait("Sun, 06 Nov 1994 12:01:30 GMT", date), None, "{date:?}");
        }
        assert_eq!(wait("30", None), Some(Duration::from_secs(30)));
    }
}
