//! How far the audit was forwarded to a sink: what was taken, and what is on its way. A batch is fixed before any of it is sent,
//! so that whoever sends it again sends the same. Knows nothing of what a sink is, or of how it is reached.

use std::fmt;

use thiserror::Error;

use crate::time::Span;

/// The longest pause between two attempts that we choose ourselves.
const LONGEST_PAUSE: Span = Span::minutes(1);
/// The longest that a sink may have us wait (`Retry-After`).
const LONGEST_WISH: Span = Span::minutes(5);
/// The pause after the first failure, before it is shortened by chance.
const FIRST_PAUSE: Span = Span(500_000);

/// The name of a sink, as an operator gives it: fit for a metric's label, a lease and a header.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SinkName(String);

/// A text that is no name of a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not the name of a sink: 1 to 32 of lower-case letters, digits and `-`, a letter first")]
pub struct SinkNameError;

impl SinkName {
    /// The name in `text`, if it is one.
    pub fn parse(text: impl Into<String>) -> Result<Self, SinkNameError> {
        let text = text.into();
        let fits = text.len() <= 32
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fits { Ok(Self(text)) } else { Err(SinkNameError) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a sink begins that nothing was forwarded to before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With the first row that there is.
    #[default]
    Beginning,
    /// With what is recorded from then on.
    Now,
}

impl Start {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Beginning, Self::Now];

    /// The word in a configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Beginning => "beginning",
            Self::Now => "now",
        }
    }

    /// What a word means.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == word)
    }
}

/// How far a sink is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The sink.
    pub sink: SinkName,
    /// What tells this course of batches from any other, of another database too. Part of every batch's id.
    pub stream: String,
    /// The number of the last row that the sink took.
    pub done: i64,
    /// The number of the last row of the batch that is being sent, if there is one.
    pub sending: Option<i64>,
}

impl Cursor {
    /// The same with a batch up to `until` about to be sent; `None` where one is already, or nothing would be in it.
    #[must_use]
    pub fn fixed(&self, until: i64) -> Option<Self> {
        (self.sending.is_none() && until > self.done).then(|| Self {
            sending: Some(until),
            ..self.clone()
        })
    }

    /// The same once that batch was taken; `None` where there is none.
    #[must_use]
    pub fn taken(&self) -> Option<Self> {
        self.sending.map(|until| Self {
            done: until,
            sending: None,
            ..self.clone()
        })
    }

    /// What the batch that is being sent is called at each attempt; `None` where there is none.
    pub fn batch_id(&self) -> Option<String> {
        let until = self.sending?;
        Some(format!("{}-{}-{until}", self.stream, self.done))
    }
}

/// How long to wait after so many failures in a row: twice as long each time, up to a minute, and shortened by up to half by
/// `chance` (0 to 255), so that many servers do not come back together. A sink that asks for longer gets up to five minutes.
pub fn pause_after(failures: u32, wish: Option<Span>, chance: u8) -> Span {
    let doubled = FIRST_PAUSE.0.saturating_mul(
        1_i64
            .checked_shl(failures.saturating_sub(1).min(20))
            .unwrap_or(i64::MAX),
    );
    let most = doubled.min(LONGEST_PAUSE.0);
    let shortened = most.saturating_sub(most.saturating_mul(i64::from(chance)) / 512);
    let wish = wish.map_or(0, |wish| wish.0.clamp(0, LONGEST_WISH.0));
    Span(shortened.max(wish))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        Cursor {
            sink: SinkName::parse("siem").unwrap(),
            stream: "abc".to_owned(),
            done: 4,
            sending: None,
        }
    }

    #[test]
    fn a_name_fits_a_label_a_lease_and_a_header() {
        for good in ["a", "siem", "siem-2", &"a".repeat(32)] {
            assert!(SinkName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "2a", "SIEM", "a.b", "a b", "a\"", "ä", &"a".repeat(33)] {
            assert_eq!(SinkName::parse(bad), Err(SinkNameError), "{bad}");
        }
    }

    #[test]
    fn a_batch_is_fixed_before_it_is_sent_and_keeps_its_name() {
        let cursor = cursor();
        assert_eq!(cursor.batch_id(), None);
        assert_eq!(cursor.taken(), None);
        assert_eq!(cursor.fixed(4), None, "nothing is in it");
        let fixed = cursor.fixed(9).unwrap();
        assert_eq!(fixed.batch_id().as_deref(), Some("abc-4-9"));
        assert_eq!(fixed.fixed(12), None, "what is on its way does not grow");
        let taken = fixed.taken().unwrap();
        assert_eq!((taken.done, taken.sending), (9, None));
    }

    #[test]
    fn pauses_grow_to_a_minute_and_a_sink_may_ask_for_five() {
        let pause = |failures, wish: Option<i64>, chance| {
            pause_after(failures, wish.map(Span::seconds), chance).0 / 1_000
        };
        assert_eq!(pause(1, None, 0), 500);
        assert_eq!(pause(2, None, 0), 1_000);
        assert_eq!(pause(1_000, None, 0), 60_000);
        assert_eq!(pause(u32::MAX, None, 0), 60_000);
        assert!((30_000..30_500).contains(&pause(1_000, None, 255)));
        assert_eq!(pause(1, Some(7), 0), 7_000);
        assert_eq!(pause(1, Some(86_400), 0), 300_000);
        assert_eq!(pause(1, Some(-1), 0), 500);
    }
}
