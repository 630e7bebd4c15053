//! Why somebody takes emergency access, in their own words. It stands in the Task that is made for it and in the audit,
//! and never in a log.

use thiserror::Error;

/// The longest reason, in characters.
const MOST: usize = 500;

/// A reason for emergency access: 1 to 500 characters of text on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakGlassReason(String);

/// What is no such reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BreakGlassReasonError {
    /// Not UTF-8.
    #[error("is not text in UTF-8")]
    NotText,
    /// Nothing, or blanks alone.
    #[error("is empty; say in a few words why access can't wait")]
    Empty,
    /// Longer than may be.
    #[error("is longer than 500 characters")]
    TooLong,
    /// A control character in it.
    #[error("has a control character in it, such as a tab")]
    Control,
}

impl BreakGlassReason {
    /// The reason that a header's value gives, without the blanks around it. Nothing in it is decoded.
    pub fn parse(value: &[u8]) -> Result<Self, BreakGlassReasonError> {
        let text = str::from_utf8(value)
            .map_err(|_| BreakGlassReasonError::NotText)?
            .trim();
        if text.is_empty() {
            return Err(BreakGlassReasonError::Empty);
        }
        if text.chars().count() > MOST {
            return Err(BreakGlassReasonError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(BreakGlassReasonError::Control);
        }
        Ok(Self(text.to_owned()))
    }

    /// The words.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_some_words_on_one_line() {
        let parsed = |text: &str| BreakGlassReason::parse(text.as_bytes()).map(|reason| reason.0);
        assert_eq!(
            parsed("  übel, 40 % blood loss ").unwrap(),
            "übel, 40 % blood loss"
        );
        assert_eq!(parsed(&"ü".repeat(500)).unwrap().chars().count(), 500);
        assert_eq!(parsed(&"ü".repeat(501)), Err(BreakGlassReasonError::TooLong));
        assert_eq!(parsed(" \t "), Err(BreakGlassReasonError::Empty));
        assert_eq!(parsed("a\tb"), Err(BreakGlassReasonError::Control));
        assert_eq!(parsed("a\u{85}b"), Err(BreakGlassReasonError::Control));
        assert_eq!(
            BreakGlassReason::parse(&[0xfc]),
            Err(BreakGlassReasonError::NotText)
        );
    }
}
