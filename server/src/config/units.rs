//! Sizes and lengths of time as people write them: `5 GiB`, `30 s`. A bare number is bytes or seconds.

use std::time::Duration;

/// The number and the unit of `text`.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.replace('_', "").parse().ok()?, unit.trim()))
}

/// Bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// A length of time.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "min" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

/// `bytes` in the largest unit that divides it.
pub fn show_size(bytes: u64) -> String {
    for (unit, factor) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(factor) {
            return format!("{} {unit}", bytes / factor);
        }
    }
    format!("{bytes} B")
}

/// `duration` in seconds where it is whole seconds, else in milliseconds.
pub fn show_duration(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_as_people_write_it() {
        assert_eq!(parse_size("5 GiB"), Some(5 << 30));
        assert_eq!(parse_size("10MiB"), Some(10 << 20));
        assert_eq!(parse_size("1_000"), Some(1000));
        for bad in [
            "",
            "GiB",
            "5 gigs",
            "-1",
            "99999999999999999999",
            "18446744073709551615 GiB",
        ] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_length_of_time_is_read_as_people_write_it() {
        assert_eq!(parse_duration("30 s"), Some(Duration::from_secs(30)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("2 min"), Some(Duration::from_mins(2)));
        assert_eq!(parse_duration("soon"), None);
    }

    #[test]
    fn what_is_shown_is_read_back_the_same() {
        for bytes in [1, 1 << 10, 5 << 30, 1_000_001] {
            assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }
        for duration in [Duration::from_secs(75), Duration::from_millis(1500)] {
            assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }
    }
}
