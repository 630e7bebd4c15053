//! Whose trace something belongs to, as W3C Trace Context has it (<https://www.w3.org/TR/trace-context/>): a number for the
//! trace, one for the step in it, and whether it is kept. Says nothing of anybody; measures and sends nothing.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How long a `traceparent` of version 00 is.
const LENGTH: usize = 55;

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceContext {
    trace: NonZeroU128,
    span: NonZeroU64,
    sampled: bool,
}

/// Why a text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a `traceparent`")]
pub struct TraceError;

impl TraceContext {
    /// Of these numbers, none of which may be 0.
    pub fn new(trace: u128, span: u64, sampled: bool) -> Option<Self> {
        Some(Self {
            trace: NonZeroU128::new(trace)?,
            span: NonZeroU64::new(span)?,
            sampled,
        })
    }

    /// Reads the value of a `traceparent` header, to the letter (section 3.2.2): lower-case hexadecimal digits, of a
    /// version after 00 what version 00 has.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let known = text.get(..LENGTH).ok_or(TraceError)?;
        let mut parts = known.split('-');
        let mut next = |length: usize| {
            parts
                .next()
                .filter(|part| part.len() == length)
                .and_then(hexadecimal)
        };
        let (version, trace, span, flags) = (next(2), next(32), next(16), next(2));
        let more_fits = match version.ok_or(TraceError)? {
            0 => text.len() == LENGTH,
            0xff => false,
            _ => text.len() == LENGTH || text.get(LENGTH..).is_some_and(|more| more.starts_with('-')),
        };
        let span = span.and_then(|span| u64::try_from(span).ok());
        match (trace, span, flags, more_fits) {
            (Some(trace), Some(span), Some(flags), true) => {
                Self::new(trace, span, flags & 1 == 1).ok_or(TraceError)
            }
            _ => Err(TraceError),
        }
    }

    /// The trace.
    pub const fn trace(self) -> u128 {
        self.trace.get()
    }

    /// The step in it.
    pub const fn span(self) -> u64 {
        self.span.get()
    }

    /// Whether whoever named it keeps what belongs to it.
    pub const fn is_sampled(self) -> bool {
        self.sampled
    }
}

/// The trace that an id names as W3C writes them: 32 lower-case hexadecimal digits, not all of them 0.
pub fn trace_named(id: &str) -> Option<u128> {
    let number = hexadecimal(id).filter(|_| id.len() == 32)?;
    (number != 0).then_some(number)
}

/// The number that lower-case hexadecimal digits mean.
fn hexadecimal(text: &str) -> Option<u128> {
    let fits = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    fits.then(|| u128::from_str_radix(text, 16).ok())?
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }
}

impl TryFrom<String> for TraceContext {
    type Error = TraceError;

    fn try_from(text: String) -> Result<Self, TraceError> {
        Self::parse(&text)
    }
}

impl From<TraceContext> for String {
    fn from(context: TraceContext) -> Self {
        context.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_written_as_it_was() {
        let context = TraceContext::parse(EXAMPLE).unwrap();
        assert_eq!(context.trace(), 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(context.span(), 0xb7ad_6b71_6920_3331);
        assert!(context.is_sampled());
        assert_eq!(context.to_string(), EXAMPLE);
        let unsampled = EXAMPLE.replace("-01", "-00");
        assert!(!TraceContext::parse(&unsampled).unwrap().is_sampled());
        // Other flags are none of ours, and are not handed on.
        let flags = EXAMPLE.replace("-01", "-ff");
        assert_eq!(TraceContext::parse(&flags), Ok(context));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        for text in [
            EXAMPLE.replacen("00", "01", 1),
            EXAMPLE.replacen("00", "cc", 1) + "-what-the-future-brings",
        ] {
            let read = TraceContext::parse(&text).unwrap();
            assert_eq!(read.to_string(), EXAMPLE, "{text}");
        }
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        let zeros = |length: usize| "0".repeat(length);
        for text in [
            String::new(),
            "00-".to_owned(),
            EXAMPLE[..54].to_owned(),
            format!("{EXAMPLE}-more"),
            format!("{EXAMPLE} "),
            format!(" {EXAMPLE}"),
            EXAMPLE.replacen("00", "ff", 1),
            EXAMPLE.replacen("00", "01", 1) + "more",
            EXAMPLE.to_uppercase(),
            EXAMPLE.replace('-', "_"),
            EXAMPLE.replace("0af7", "+af7"),
            EXAMPLE.replace("0af7", "0äf"),
            format!("00-{}-b7ad6b7169203331-01", zeros(32)),
            format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", zeros(16)),
            "x".repeat(10_000),
        ] {
            assert_eq!(TraceContext::parse(&text), Err(TraceError), "{text}");
        }
    }

    #[test]
    fn only_a_trace_id_is_one() {
        for none in [
            "",
            "c-1",
            &"0".repeat(32),
            &"A".repeat(32),
            &"a".repeat(31),
            &"+".repeat(32),
        ] {
            assert_eq!(trace_named(none), None, "{none}");
        }
        assert_eq!(trace_named(&"f".repeat(32)), Some(u128::MAX));
    }
}
