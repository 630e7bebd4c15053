//! FHIR dates as ranges of time: `2026-03` is all of March. Dates without time zone are read as UTC.

use handoff_domain::Timestamp;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// The first microsecond of a `date`, `dateTime` or `instant`, and the first after it.
/// `None` where the text is none of them.
pub fn range(text: &str) -> Option<(Timestamp, Timestamp)> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let year: i64 = number(parts.next().filter(|y| y.len() == 4)?)?;
    let month = parts.next().map(two_digits);
    let day = parts.next().map(two_digits);
    if parts.next().is_some() || !(1..=9999).contains(&year) {
        return None;
    }
    let (from, until) = match month {
        None => (days(year, 1, 1), days(year + 1, 1, 1)),
        Some(month) => {
            let month = month.filter(|m| (1..=12).contains(m))?;
            let first = days(year, month, 1);
            let next = if month == 12 {
                days(year + 1, 1, 1)
            } else {
                days(year, month + 1, 1)
            };
            match day {
                None => (first, next),
                Some(day) => {
                    let at = first + day.filter(|d| (1..=next - first).contains(d))? - 1;
                    (at, at + 1)
                }
            }
        }
    };
    let Some(time) = time else {
        return Some((Timestamp(from * DAY), Timestamp(until * DAY)));
    };
    // A time needs a whole date before it.
    day?;
    let (start, length) = clock(time)?;
    let first = from * DAY + start;
    Some((Timestamp(first), Timestamp(first + length)))
}

/// Microseconds from UTC midnight to a time with zone, and how many it spans as it is written.
fn clock(text: &str) -> Option<(i64, i64)> {
    let zone_at = text.find(['Z', '+', '-'])?;
    let (time, zone) = text.split_at(zone_at);
    let mut parts = time.split(':');
    let hours = number(parts.next()?)?;
    let minutes = number(parts.next()?)?;
    let (seconds, fraction) = match parts.next().unwrap_or("00").split_once('.') {
        Some((seconds, fraction)) => (number(seconds)?, fraction),
        None => (time.split(':').nth(2).map_or(Some(0), number)?, ""),
    };
    let has_seconds = time.split(':').count() > 2;
    let (micros, length) = if fraction.is_empty() {
        (0, if has_seconds { SECOND } else { 60 * SECOND })
    } else {
        let digits = fraction.get(..fraction.len().min(6))?;
        let scale = 10i64.pow(6 - u32::try_from(digits.len()).ok()?);
        // Digits beyond microseconds are dropped; the range is then one microsecond.
        (number(digits)? * scale, scale)
    };
    let offset = if zone == "Z" {
        0
    } else {
        let (h, m) = zone.get(1..)?.split_once(':')?;
        let minutes = number(h)? * 60 + number(m)?;
        if zone.starts_with('-') { -minutes } else { minutes }
    };
    let fine = hours <= 23 && minutes <= 59 && seconds <= 60 && offset.abs() <= 14 * 60;
    let start = ((hours * 60 + minutes - offset) * 60 + seconds) * SECOND + micros;
    fine.then_some((start, length))
}

fn number(text: &str) -> Option<i64> {
    (!text.is_empty() && text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())?
}

fn two_digits(text: &str) -> Option<i64> {
    number(text).filter(|_| text.len() == 2)
}

/// Days from 1970-01-01 to a day of the proleptic Gregorian calendar.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    // Counted from March, so that the leap day is the last of its year.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, from: &str, until: &str) {
        let instant = |t| Timestamp::parse_instant(t).unwrap();
        assert_eq!(range(text), Some((instant(from), instant(until))), "{text}");
    }

    #[test]
    fn a_date_is_the_range_that_its_precision_leaves_open() {
        check("2026", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
        check("2026-12", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z");
        check("2024-02", "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z");
        check("1969-07-20", "1969-07-20T00:00:00Z", "1969-07-21T00:00:00Z");
        check(
            "2026-03-01T12:00:00+02:00",
            "2026-03-01T10:00:00Z",
            "2026-03-01T10:00:01Z",
        );
        check(
            "2026-03-01T00:30:00.25-05:30",
            "2026-03-01T06:00:00.25Z",
            "2026-03-01T06:00:00.26Z",
        );
        check(
            "2026-03-01T12:00Z",
            "2026-03-01T12:00:00Z",
            "2026-03-01T12:01:00Z",
        );
    }

    #[test]
    fn what_is_not_a_date_has_no_range() {
        for text in [
            "",
            "x",
            "26",
            "2026-13",
            "2026-00-01",
            "2026-03-01T",
            "2026-03T12:00:00Z",
            "2026-03-01T12:00:00",
            "2026-1-1-1",
        ] {
            assert_eq!(range(text), None, "{text}");
        }
    }
}
