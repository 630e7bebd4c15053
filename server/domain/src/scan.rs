//! Malware scans: what is known of stored content, for how long that is good, and what it means for releases. Knows nothing of
//! scanners or of how content reaches them.

use crate::document::Sha256;
use crate::ids::BinaryId;
use crate::time::{Span, Timestamp};

/// The longest name of a finding, or of an engine, that is kept.
const LONGEST_NAME: usize = 200;
/// The pauses before content is tried again that could not be scanned: the first, and the longest.
const AFTER_FAILURE: (Span, Span) = (Span::seconds(10), Span::hours(1));
/// The same for a verdict that somebody else is still to give.
const UNTIL_GIVEN: (Span, Span) = (Span::seconds(1), Span::minutes(1));
/// The same for a scanner that does not answer, whatever the content.
const WHILE_DOWN: (Span, Span) = (Span(250_000), Span::seconds(5));

/// What was found out about content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing yet.
    Pending,
    /// Nothing bad was found in it.
    Clean,
    /// Malware. This is never taken back: what is uploaded again is looked at anew.
    Infected,
    /// The scanner could not say.
    Failed,
    /// It is larger than what is scanned.
    TooLarge,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::Clean,
        Self::Infected,
        Self::Failed,
        Self::TooLarge,
    ];

    /// The word in store, audit and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Clean => "clean",
            Self::Infected => "infected",
            Self::Failed => "failed",
            Self::TooLarge => "too-large",
        }
    }

    /// The verdict that a word names.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == word)
    }
}

/// What is known of one stored Binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The Binary.
    pub binary: BinaryId,
    /// SHA-256 of its bytes.
    pub sha256: Sha256,
    /// What was found out.
    pub verdict: Verdict,
    /// What the malware is called.
    pub signature: Option<String>,
    /// Which scanner said so, with the version of its signatures where it tells.
    pub engine: Option<String>,
    /// When.
    pub scanned_at: Option<Timestamp>,
    /// Since when it waits to be scanned, or the instant from which it will.
    pub since: Timestamp,
    /// Tries since the last verdict that gave none.
    pub tries: u32,
    /// When it is to be looked at next; `None` for never.
    pub due_at: Option<Timestamp>,
}

/// What a scanner found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub found: Found,
    /// Which scanner, with the version of its signatures where it tells.
    pub engine: Option<String>,
}

/// See [`Finding`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing bad.
    Nothing,
    /// Malware of this name.
    Malware(String),
    /// The scanner could not say.
    Failure,
    /// It is larger than what is scanned.
    TooLarge,
}

/// What releases ask of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanRule {
    /// How old it may be.
    pub max_age: Span,
}

/// Why content is withheld until a scan says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// It was not scanned yet.
    Waiting,
    /// It was, too long ago.
    Stale,
    /// The scanner could not say.
    Failed,
    /// It is larger than what is scanned.
    TooLarge,
    /// There is malware in it.
    Infected,
}

impl Withheld {
    /// The word in the audit.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Stale => "stale",
            Self::Failed => "failed",
            Self::TooLarge => "too-large",
            Self::Infected => "infected",
        }
    }
}

impl ScanRule {
    /// How long after a verdict the content is scanned again: a little before nothing would be released by it any more.
    pub const fn rescan_after(self) -> Span {
        Span(self.max_age.0.saturating_sub(self.max_age.0 / 8))
    }

    /// Why content of which this is known is not released; `None` while it may be.
    pub fn withholds(self, scan: Option<&Scan>, now: Timestamp) -> Option<Withheld> {
        let Some(scan) = scan else {
            return Some(Withheld::Waiting);
        };
        match scan.verdict {
            Verdict::Pending => Some(Withheld::Waiting),
            Verdict::Clean if self.is_fresh(scan, now) => None,
            Verdict::Clean => Some(Withheld::Stale),
            Verdict::Infected => Some(Withheld::Infected),
            Verdict::Failed => Some(Withheld::Failed),
            Verdict::TooLarge => Some(Withheld::TooLarge),
        }
    }

    fn is_fresh(self, scan: &Scan, now: Timestamp) -> bool {
        scan.scanned_at
            .is_some_and(|scanned| scanned.plus(self.max_age) > now)
    }
}

impl Scan {
    /// Of content that has just come.
    pub fn of_new(binary: BinaryId, sha256: Sha256, now: Timestamp) -> Self {
        Self {
            binary,
            sha256,
            verdict: Verdict::Pending,
            signature: None,
            engine: None,
            scanned_at: None,
            since: now,
            tries: 0,
            due_at: Some(now),
        }
    }

    /// After a scanner looked at it. A scan that found nothing out takes nothing from what is known, as long as that is fresh,
    /// and nothing undoes that malware was found.
    #[must_use]
    pub fn after(self, finding: Finding, rule: ScanRule, now: Timestamp) -> Self {
        if self.verdict == Verdict::Infected {
            return self;
        }
        let engine = finding.engine.map(|engine| fit(&engine));
        let known = Self {
            engine: engine.or_else(|| self.engine.clone()),
            scanned_at: Some(now),
            tries: 0,
            ..self.clone()
        };
        match finding.found {
            Found::Nothing => {
                let again = now.plus(rule.rescan_after());
                Self {
                    verdict: Verdict::Clean,
                    since: again,
                    due_at: Some(again),
                    ..known
                }
            }
            Found::Malware(name) => Self {
                verdict: Verdict::Infected,
                signature: Some(fit(&name)),
                due_at: None,
                ..known
            },
            Found::Failure => {
                let pause = pause(AFTER_FAILURE, self.tries);
                self.without_verdict(Verdict::Failed, pause, rule, now)
            }
            Found::TooLarge => self.without_verdict(Verdict::TooLarge, AFTER_FAILURE.1, rule, now),
        }
    }

    /// After it turned out that whoever gives the verdict has not given it yet.
    #[must_use]
    pub fn put_off(self, now: Timestamp) -> Self {
        Self {
            due_at: Some(now.plus(pause(UNTIL_GIVEN, self.tries))),
            tries: self.tries.saturating_add(1),
            ..self
        }
    }

    fn without_verdict(self, verdict: Verdict, pause: Span, rule: ScanRule, now: Timestamp) -> Self {
        let stands = self.verdict == Verdict::Clean && rule.is_fresh(&self, now);
        Self {
            verdict: if stands { self.verdict } else { verdict },
            tries: self.tries.saturating_add(1),
            due_at: Some(now.plus(pause)),
            ..self
        }
    }
}

/// How long to wait after so many failures in a row of a scanner that does not answer, shortened by up to half by `chance`, so
/// that many servers do not come back together.
pub fn pause_while_down(failures: u32, chance: u8) -> Span {
    let most = pause(WHILE_DOWN, failures.saturating_sub(1)).0;
    Span(most.saturating_sub(most.saturating_mul(i64::from(chance)) / 512))
}

/// Twice as long each time.
fn pause((first, longest): (Span, Span), before: u32) -> Span {
    let factor = 1_i64.checked_shl(before.min(20)).unwrap_or(i64::MAX);
    Span(first.0.saturating_mul(factor).min(longest.0))
}

/// What a scanner says, fit to be kept and shown.
fn fit(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .take(LONGEST_NAME)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: ScanRule = ScanRule {
        max_age: Span::seconds(80),
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    fn fresh() -> Scan {
        Scan::of_new(BinaryId::parse("b").unwrap(), Sha256([7; 32]), at(0))
    }

    fn finding(found: Found) -> Finding {
        Finding {
            found,
            engine: Some("ClamAV 1.4/27000".to_owned()),
        }
    }

    fn malware() -> Finding {
        finding(Found::Malware("Eicar".to_owned()))
    }

    #[test]
    fn a_verdict_is_written_as_it_is_read() {
        for verdict in Verdict::ALL {
            assert_eq!(Verdict::parse(verdict.as_str()), Some(verdict));
        }
        assert_eq!(Verdict::parse("fine"), None);
    }

    #[test]
    fn content_is_released_by_a_clean_verdict_alone_and_as_long_as_it_is_fresh() {
        let released = |scan: Option<&Scan>, seconds| RULE.withholds(scan, at(seconds));
        assert_eq!(released(None, 0), Some(Withheld::Waiting));
        assert_eq!(released(Some(&fresh()), 0), Some(Withheld::Waiting));
        let clean = fresh().after(finding(Found::Nothing), RULE, at(10));
        assert_eq!(released(Some(&clean), 10), None);
        assert_eq!(released(Some(&clean), 89), None);
        assert_eq!(released(Some(&clean), 90), Some(Withheld::Stale));
        assert_eq!(clean.due_at, Some(at(80)), "it is scanned again before that");
        for (found, why) in [
            (Found::Malware("Eicar".to_owned()), Withheld::Infected),
            (Found::Failure, Withheld::Failed),
            (Found::TooLarge, Withheld::TooLarge),
        ] {
            let scan = fresh().after(finding(found), RULE, at(10));
            assert_eq!(released(Some(&scan), 10), Some(why));
        }
    }

    #[test]
    fn what_was_found_infected_stays_so() {
        let infected = fresh().after(malware(), RULE, at(10));
        assert_eq!(infected.signature.as_deref(), Some("Eicar"));
        assert_eq!(infected.due_at, None);
        for found in [Found::Nothing, Found::Failure, Found::TooLarge] {
            assert_eq!(infected.clone().after(finding(found), RULE, at(20)), infected);
        }
        let turned = fresh()
            .after(finding(Found::Nothing), RULE, at(1))
            .after(malware(), RULE, at(2));
        assert_eq!(turned.verdict, Verdict::Infected);
    }

    #[test]
    fn a_scan_that_failed_takes_nothing_from_a_verdict_that_is_fresh() {
        let clean = fresh().after(finding(Found::Nothing), RULE, at(0));
        let failed = clean.after(finding(Found::Failure), RULE, at(75));
        assert_eq!(
            (failed.verdict, failed.scanned_at, failed.tries),
            (Verdict::Clean, Some(at(0)), 1)
        );
        assert_eq!(failed.due_at, Some(at(85)));
        let again = failed.after(finding(Found::Failure), RULE, at(85));
        assert_eq!((again.verdict, again.tries), (Verdict::Failed, 2));
        assert_eq!(again.due_at, Some(at(105)), "each time twice as long");
        let clean = again.after(finding(Found::Nothing), RULE, at(105));
        assert_eq!((clean.verdict, clean.tries), (Verdict::Clean, 0));
    }

    #[test]
    fn a_verdict_that_is_to_come_is_asked_for_ever_more_seldom() {
        let mut scan = fresh();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            scan = scan.put_off(at(0));
            pauses.push(scan.due_at.unwrap().0 / 1_000_000);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(scan.verdict, Verdict::Pending);
    }

    #[test]
    fn a_scanner_that_is_down_is_asked_again_within_five_seconds() {
        assert_eq!(pause_while_down(1, 0), Span(250_000));
        assert_eq!(pause_while_down(2, 0), Span(500_000));
        assert_eq!(pause_while_down(u32::MAX, 0), Span::seconds(5));
        assert!(pause_while_down(100, 255).0 >= 2_500_000);
    }

    #[test]
    fn what_a_scanner_says_is_cut_to_what_can_be_kept() {
        let long = format!("Win.Test\n\u{1b}[31m{}", "x".repeat(500));
        let scan = fresh().after(finding(Found::Malware(long)), RULE, at(0));
        let name = scan.signature.unwrap();
        assert_eq!(name.len(), LONGEST_NAME);
        assert!(name.starts_with("Win.Test[31mx"), "{name}");
    }
}
