//! Time as a value. Nothing here reads a clock: [`crate::ports::Clock`] does, and hands the instant in.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// An instant: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// A length of time in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(pub i64);

impl Span {
    /// `n` seconds.
    pub const fn seconds(n: i64) -> Self {
        Self(n.saturating_mul(1_000_000))
    }

    /// `n` minutes.
    pub const fn minutes(n: i64) -> Self {
        Self::seconds(n.saturating_mul(60))
    }

    /// `n` hours.
    pub const fn hours(n: i64) -> Self {
        Self::minutes(n.saturating_mul(60))
    }

    /// Whole seconds, rounded down.
    pub const fn whole_seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }
}

impl Timestamp {
    /// This instant moved by `span`; stops at the ends of the range.
    #[must_use]
    pub const fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The time from `earlier` to this instant (negative when `earlier` is later).
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// The instant as a FHIR `instant`: RFC 3339 in UTC with milliseconds.
    pub fn to_instant(self) -> String {
        // Truncated to milliseconds: a FHIR instant of more digits trips common clients.
        let nanos = i128::from(self.0.div_euclid(1000)).saturating_mul(1_000_000);
        OffsetDateTime::from_unix_timestamp_nanos(nanos)
            .ok()
            .map_or_else(String::new, |t| {
                let (h, m, s, ms) = (t.hour(), t.minute(), t.second(), t.millisecond());
                let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
                format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
            })
    }

    /// The instant that an RFC 3339 text with time zone names (FHIR `instant`).
    pub fn parse_instant(text: &str) -> Option<Self> {
        let t = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(t.unix_timestamp_nanos().div_euclid(1000))
            .ok()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_round_trips_to_the_millisecond() {
        let t = Timestamp::parse_instant("2026-03-01T12:30:00.250+01:00").unwrap();
        assert_eq!(t.to_instant(), "2026-03-01T11:30:00.250Z");
        assert_eq!(Timestamp::parse_instant(&t.to_instant()), Some(t));
    }

    #[test]
    fn adding_never_wraps() {
        assert_eq!(Timestamp(i64::MAX).plus(Span::hours(1)), Timestamp(i64::MAX));
    }
}
