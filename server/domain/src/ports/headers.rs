//! Which headers may go with a request to an address that a customer gave, and which of them a customer may choose.
//! Knows nothing of what any of them means to the receiver.

use thiserror::Error;

/// The most bytes that the name of a header may have.
pub const LONGEST_HEADER_NAME: usize = 100;
/// The most bytes that the value of a header may have.
pub const LONGEST_HEADER_VALUE: usize = 8_000;

/// Why a header can't be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Not a token (RFC 9110 section 5.6.2).
    #[error("the name of a header has letters, digits and `!#$%&'*+-.^_`|~` alone")]
    Name,
    /// Not of visible ASCII characters, blanks and tabs.
    #[error("the value of a header has visible ASCII characters, blanks and tabs alone")]
    Value,
    /// Longer than [`LONGEST_HEADER_NAME`] or [`LONGEST_HEADER_VALUE`], or one of too many.
    #[error("a header's name has at most {LONGEST_HEADER_NAME} bytes, its value {LONGEST_HEADER_VALUE}")]
    TooLong,
    /// Set by the server, or a matter between the two ends of a connection.
    #[error("this header is set by the server")]
    Reserved,
}

/// Headers of the connection or of the message's frame (RFC 9110 sections 7.2, 7.6.1, 8.6, 10.1; RFC 9112 section 6).
const OF_THE_CONNECTION: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a customer may have this header sent: one that can be sent at all, and that neither says what the body is nor who
/// vouches for it (`Content-*`, `Webhook-*`), which the server does.
pub fn check_header(name: &str, value: &str) -> Result<(), HeaderError> {
    check_sent_header(name, value)?;
    if starts_with(name, "content-") || starts_with(name, "webhook-") {
        return Err(HeaderError::Reserved);
    }
    Ok(())
}

/// Whether a header can be sent, whoever wants it: a token, a value that ends no line, and nothing that HTTP sets by itself.
pub fn check_sent_header(name: &str, value: &str) -> Result<(), HeaderError> {
    if name.len() > LONGEST_HEADER_NAME || value.len() > LONGEST_HEADER_VALUE {
        return Err(HeaderError::TooLong);
    }
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(HeaderError::Name);
    }
    if !value.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t')) {
        return Err(HeaderError::Value);
    }
    let of_the_connection = OF_THE_CONNECTION.iter().any(|own| name.eq_ignore_ascii_case(own));
    if of_the_connection || starts_with(name, "proxy-") {
        return Err(HeaderError::Reserved);
    }
    Ok(())
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_may_have_headers_of_the_receiver_sent() {
        for (name, value) in [
            ("Authorization", "Bearer abc.def~"),
            ("X-Clinic", ""),
            ("x!#$%&'*+-.^_`|~9", "one\ttwo three"),
            ("Host-Of-Ours", "a"),
        ] {
            assert_eq!(check_header(name, value), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_customer_sets_no_header_of_the_connection_the_body_or_the_signature() {
        for name in [
            "Host",
            "HOST",
            "content-length",
            "Content-Type",
            "Content-Encoding",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "Upgrade",
            "HTTP2-Settings",
            "Proxy-Authorization",
            "proxy-connection",
            "TE",
            "Trailer",
            "Expect",
            "webhook-id",
            "Webhook-Signature",
            "WEBHOOK-",
        ] {
            assert_eq!(check_header(name, "1"), Err(HeaderError::Reserved), "{name}");
        }
        assert_eq!(check_sent_header("webhook-id", "1"), Ok(()));
        assert_eq!(check_sent_header("Content-Type", "application/fhir+json"), Ok(()));
    }

    #[test]
    fn no_header_begins_another_line() {
        for value in [
            "a\r\nHost: b",
            "a\nb",
            "a\rb",
            "a\0b",
            "a\u{7f}",
            "é",
            "\u{85}",
            "\u{2028}",
        ] {
            assert_eq!(check_header("X-A", value), Err(HeaderError::Value), "{value:?}");
        }
        for name in ["", "X A", "X-A:", "X-A\r\nHost", "X\0", "X-Ä", "(x)", "X-A\t"] {
            assert_eq!(check_header(name, "a"), Err(HeaderError::Name), "{name:?}");
        }
    }

    #[test]
    fn a_header_has_an_end() {
        let (name, value) = ("a".repeat(LONGEST_HEADER_NAME), "b".repeat(LONGEST_HEADER_VALUE));
        assert_eq!(check_header(&name, &value), Ok(()));
        assert_eq!(check_header(&format!("{name}a"), ""), Err(HeaderError::TooLong));
        assert_eq!(check_header("a", &format!("{value}b")), Err(HeaderError::TooLong));
    }
}
