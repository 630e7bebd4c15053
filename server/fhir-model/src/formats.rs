//! The written form of FHIR R4 primitives (datatypes page, regular expressions and ranges).
//! Pure checks on text; knows nothing of elements or JSON.

use handoff_fhir_profiles::elements::Primitive;

/// The longest `string` or `markdown` that FHIR R4 allows, in bytes.
pub(crate) const MAX_STRING: usize = 1024 * 1024;

/// Whether a text (JSON string) is written as its type demands; the message says what is expected.
pub(crate) fn check_text(primitive: Primitive, text: &str) -> Result<(), &'static str> {
    let (fine, expected) = match primitive {
        Primitive::String | Primitive::Markdown | Primitive::Xhtml => (true, ""),
        Primitive::Code => (
            is_code(text),
            "a code without leading, trailing or double spaces is expected",
        ),
        Primitive::Id => (
            is_id(text),
            "1 to 64 letters, digits, dashes and dots are expected",
        ),
        Primitive::Uri | Primitive::Url | Primitive::Canonical => {
            (is_uri(text), "a URI without whitespace is expected")
        }
        Primitive::Oid => (is_oid(text), "an OID as `urn:oid:1.2.3` is expected"),
        Primitive::Uuid => (
            is_uuid(text),
            "a UUID as `urn:uuid:` and 36 lower-case characters is expected",
        ),
        Primitive::Date => (
            is_date(text),
            "a date as `2026`, `2026-03` or `2026-03-01` is expected",
        ),
        Primitive::DateTime => (
            is_date_time(text),
            "a date, or a date and time with time zone (`2026-03-01T12:00:00Z`) is expected",
        ),
        Primitive::Instant => (
            is_instant(text),
            "a date and time with seconds and time zone (`2026-03-01T12:00:00Z`) is expected",
        ),
        Primitive::Time => (is_time(text), "a time as `12:00:00` is expected"),
        Primitive::Base64Binary => (is_base64(text), "base64 is expected"),
        Primitive::Boolean => (false, "true or false without quotes is expected"),
        Primitive::Decimal | Primitive::Integer | Primitive::PositiveInt | Primitive::UnsignedInt => {
            (false, "a number without quotes is expected")
        }
    };
    if fine { Ok(()) } else { Err(expected) }
}

/// Whether a number, as it is written, is in its type's form and range.
pub(crate) fn check_number(primitive: Primitive, written: &str) -> Result<(), &'static str> {
    let least = match primitive {
        Primitive::Decimal => return check_decimal(written),
        Primitive::Integer => i64::from(i32::MIN),
        Primitive::UnsignedInt => 0,
        Primitive::PositiveInt => 1,
        _ => return Err("text in quotes is expected"),
    };
    let whole = written != "-0" && written.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let value = written.parse::<i64>().ok().filter(|_| whole);
    match (value, primitive) {
        (Some(n), _) if (least..=i64::from(i32::MAX)).contains(&n) => Ok(()),
        (_, Primitive::PositiveInt) => Err("a whole number from 1 to 2147483647 is expected"),
        (_, Primitive::UnsignedInt) => Err("a whole number from 0 to 2147483647 is expected"),
        _ => Err("a whole number from -2147483648 to 2147483647 is expected"),
    }
}

/// Decimals are kept as written, but must not blow up whoever computes with them.
fn check_decimal(written: &str) -> Result<(), &'static str> {
    let (mantissa, exponent) = written.split_once(['e', 'E']).unwrap_or((written, "0"));
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let sane = exponent.parse::<i32>().is_ok_and(|e| (-64..=64).contains(&e));
    if digits <= 64 && sane {
        Ok(())
    } else {
        Err("a decimal of at most 64 digits and an exponent up to 64 is expected")
    }
}

/// Whether text holds only characters that FHIR strings may: no control characters but tab and line ends,
/// and none that XML could not carry.
pub(crate) fn has_only_allowed_characters(text: &str) -> bool {
    let bytes = text.as_bytes();
    // U+FFFE and U+FFFF are EF BF BE and EF BF BF.
    let control = bytes
        .iter()
        .any(|b| *b < 0x20 && !matches!(b, b'\t' | b'\r' | b'\n'));
    let noncharacter = bytes.contains(&0xef) && text.chars().any(|c| matches!(c, '\u{fffe}' | '\u{ffff}'));
    !control && !noncharacter
}

pub(crate) fn is_id(text: &str) -> bool {
    handoff_domain::ids::is_fhir_id(text)
}

/// `[^\s]+(\s[^\s]+)*`
fn is_code(text: &str) -> bool {
    !text.is_empty() && text.split([' ', '\t', '\r', '\n']).all(|word| !word.is_empty())
}

fn is_uri(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_whitespace)
}

pub(crate) fn is_oid(text: &str) -> bool {
    let Some(numbers) = text.strip_prefix("urn:oid:") else {
        return false;
    };
    let mut parts = numbers.split('.');
    let root = parts.next().is_some_and(|first| matches!(first, "0" | "1" | "2"));
    let mut count = 0;
    let rest = parts.all(|n| {
        count += 1;
        !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) && (n == "0" || !n.starts_with('0'))
    });
    root && rest && count > 0
}

fn is_uuid(text: &str) -> bool {
    is_any_case_uuid(text) && !text.bytes().any(|b| b.is_ascii_uppercase())
}

/// As in `Reference.reference`, where some senders write upper case.
pub(crate) fn is_any_case_uuid(text: &str) -> bool {
    text.strip_prefix("urn:uuid:").is_some_and(|id| {
        id.len() == 36
            && id.bytes().enumerate().all(|(i, b)| match i {
                8 | 13 | 18 | 23 => b == b'-',
                _ => b.is_ascii_hexdigit(),
            })
    })
}

/// A whole number of exactly `len` digits.
fn number(text: Option<&str>, len: usize) -> Option<u32> {
    let text = text?;
    (text.len() == len && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

const fn days_in(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

fn is_date(text: &str) -> bool {
    let mut parts = text.split('-');
    let Some(year) = number(parts.next(), 4).filter(|y| *y > 0) else {
        return false;
    };
    let Some(month) = parts.next() else { return true };
    let Some(month) = number(Some(month), 2).filter(|m| (1..=12).contains(m)) else {
        return false;
    };
    let Some(day) = parts.next() else { return true };
    let day = number(Some(day), 2).filter(|d| (1..=days_in(year, month)).contains(d));
    day.is_some() && parts.next().is_none()
}

fn is_time(text: &str) -> bool {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let mut parts = whole.split(':');
    let fine = number(parts.next(), 2).is_some_and(|h| h <= 23)
        && number(parts.next(), 2).is_some_and(|m| m <= 59)
        // A leap second is legal.
        && number(parts.next(), 2).is_some_and(|s| s <= 60)
        && parts.next().is_none();
    let digits = |f: &str| (1..=12).contains(&f.len()) && f.bytes().all(|b| b.is_ascii_digit());
    fine && fraction.is_none_or(digits)
}

fn is_zone(text: &str) -> bool {
    if text == "Z" {
        return true;
    }
    let Some(rest) = text.strip_prefix(['+', '-']) else {
        return false;
    };
    let Some((hours, minutes)) = rest.split_once(':') else {
        return false;
    };
    match (number(Some(hours), 2), number(Some(minutes), 2)) {
        (Some(14), Some(0)) => true,
        (Some(h), Some(m)) => h <= 13 && m <= 59,
        _ => false,
    }
}

fn is_instant(text: &str) -> bool {
    let Some((date, rest)) = text.split_once('T') else {
        return false;
    };
    let zone_at = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(zone_at);
    date.len() == 10 && is_date(date) && is_time(time) && is_zone(zone)
}

fn is_date_time(text: &str) -> bool {
    if text.contains('T') {
        is_instant(text)
    } else {
        is_date(text)
    }
}

/// Whether text is base64 with its padding; white space within is allowed (R4 datatypes, base64Binary).
pub(crate) fn is_base64(text: &str) -> bool {
    let mut letters = 0usize;
    let mut padding = 0usize;
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' if padding == 0 => letters += 1,
            b'=' => padding += 1,
            b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => return false,
        }
    }
    letters > 0 && padding <= 2 && (letters + padding).is_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Primitive as P;

    #[test]
    fn texts_are_taken_or_refused_by_the_form_of_their_type() {
        for (primitive, good, bad) in [
            (P::Id, &["a", "A-1.z"][..], &["", "a b", "a/b", "ä", "a_b"][..]),
            (P::Code, &["a", "a b"], &["", " a", "a ", "a  b", "a\nb\n"]),
            (P::Uri, &["http://x/y", "urn:a", "x"], &["", "a b", "a\u{a0}b"]),
            (
                P::Oid,
                &["urn:oid:1.2.0.840"],
                &[
                    "1.2.3",
                    "urn:oid:3.1",
                    "urn:oid:1",
                    "urn:oid:1.02",
                    "urn:oid:1..2",
                ],
            ),
            (
                P::Uuid,
                &["urn:uuid:c757873d-ec9a-4326-a141-556f43239520"],
                &[
                    "urn:uuid:C757873D-ec9a-4326-a141-556f43239520",
                    "c757873d-ec9a-4326-a141-556f43239520",
                ],
            ),
            (
                P::Date,
                &["2026", "2026-02", "2024-02-29", "2000-02-29"],
                &[
                    "",
                    "26",
                    "0000",
                    "2026-13",
                    "2026-02-29",
                    "1900-02-29",
                    "2026-2-1",
                    "2026-02-01T00:00:00Z",
                    "2026-",
                ],
            ),
            (
                P::DateTime,
                &["2026", "2026-03-01T23:59:60Z", "2026-03-01T12:00:00.123+14:00"],
                &[
                    "2026-03-01T12:00Z",
                    "2026-03-01T12:00:00",
                    "2026-03-01T24:00:00Z",
                    "2026-03-01T12:00:00+14:30",
                    "2026-03T12:00:00Z",
                    "2026-03-01 12:00:00Z",
                    "2026-03-01T12:00:00.Z",
                    "2026-03-01T12:00:00z",
                ],
            ),
            (
                P::Instant,
                &["2026-03-01T12:00:00Z"],
                &["2026-03-01", "2026-03-01T12:00Z"],
            ),
            (
                P::Time,
                &["12:00:00", "12:00:00.5"],
                &["12:00", "24:00:00", "12:00:00Z", "12:61:00"],
            ),
            (
                P::Base64Binary,
                &["AA==", "AAA=", "AAAA", "AA AA\n"],
                &["", "A", "AAA", "A===", "AA=A", "A-_A", "===="],
            ),
        ] {
            for text in good {
                assert_eq!(check_text(primitive, text), Ok(()), "{primitive:?} {text}");
            }
            for text in bad {
                assert!(check_text(primitive, text).is_err(), "{primitive:?} {text}");
            }
        }
    }

    #[test]
    fn numbers_are_taken_or_refused_by_form_and_range() {
        for (primitive, good, bad) in [
            (
                P::Integer,
                &["0", "-5", "2147483647", "-2147483648"][..],
                &["2147483648", "1.0", "1e2", "-0"][..],
            ),
            (P::UnsignedInt, &["0", "5"], &["-1", "2147483648"]),
            (P::PositiveInt, &["1"], &["0", "-1"]),
            (
                P::Decimal,
                &["1.0100", "-0.0", "1e5", "1E-10"],
                &["1e999999999", "1e65", "1e99999999999999"],
            ),
            (P::String, &[], &["1"]),
        ] {
            for text in good {
                assert_eq!(check_number(primitive, text), Ok(()), "{primitive:?} {text}");
            }
            for text in bad {
                assert!(check_number(primitive, text).is_err(), "{primitive:?} {text}");
            }
        }
    }

    #[test]
    fn control_characters_are_not_allowed_in_text() {
        assert!(has_only_allowed_characters("a\tb\r\nc ä 😀"));
        for bad in ["\0", "a\u{1}", "\u{1f}", "\u{ffff}", "\u{fffe}"] {
            assert!(!has_only_allowed_characters(bad));
        }
    }
}
