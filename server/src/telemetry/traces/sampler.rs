//! Which traces are kept. Whoever calls us may ask for one (`traceparent` with the flag `sampled`) or ask for none, and is not
//! asked who it is: what callers ask for beyond the share that is kept anyway is limited.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use opentelemetry::trace::{
    Link, SamplingDecision, SamplingResult, SpanKind, TraceContextExt as _, TraceId, TraceState,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::ShouldSample;

/// Decides once for each trace that begins here or comes in; what follows within the process goes with it.
#[derive(Debug, Clone)]
pub(super) struct Sampler(std::sync::Arc<Deciding>);

#[derive(Debug)]
struct Deciding {
    /// Of 2⁶⁴.
    share: Share,
    /// Nobody can choose the number of a trace so that it is kept, without knowing this.
    seed: RandomState,
    asked_for: Mutex<Bucket>,
}

#[derive(Debug, Clone, Copy)]
enum Share {
    All,
    Below(u64),
}

/// What callers may still ask for.
#[derive(Debug)]
struct Bucket {
    left: f64,
    most: f64,
    at: Instant,
}

impl Bucket {
    /// Takes one, where there is one. As many a second come back as there are at most.
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + passed * self.most).min(self.most);
        let is_left = self.left >= 1.0;
        if is_left {
            self.left -= 1.0;
        }
        is_left
    }
}

impl Sampler {
    /// Keeps a share of all traces, from 0 to 1, and so many a second that callers ask for beyond that.
    pub(super) fn new(share: f64, asked_for: u32) -> Self {
        let share = if share >= 1.0 {
            Share::All
        } else {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a share of a range need not be exact, and what is beyond the range is its end"
            )]
            let below = (share.max(0.0) * u64::MAX as f64) as u64;
            Share::Below(below)
        };
        let most = f64::from(asked_for);
        Self(std::sync::Arc::new(Deciding {
            share,
            seed: RandomState::new(),
            asked_for: Mutex::new(Bucket {
                left: most,
                most,
                at: Instant::now(),
            }),
        }))
    }

    fn keeps(&self, parent: Parent, trace: TraceId, now: Instant) -> bool {
        let among_the_share = || match self.0.share {
            Share::All => true,
            Share::Below(limit) => self.0.seed.hash_one(trace.to_bytes()) < limit,
        };
        match parent {
            Parent::Ours { kept } => kept,
            Parent::Caller { kept: false } => false,
            Parent::Caller { kept: true } => {
                among_the_share()
                    || self
                        .0
                        .asked_for
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .take(now)
            }
            Parent::None => among_the_share(),
        }
    }
}

/// What a span goes on with.
#[derive(Debug, Clone, Copy)]
enum Parent {
    /// A span of ours.
    Ours { kept: bool },
    /// One that a caller named.
    Caller { kept: bool },
    /// It is the first of its trace.
    None,
}

impl ShouldSample for Sampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        _name: &str,
        _kind: &SpanKind,
        _attributes: &[KeyValue],
        _links: &[Link],
    ) -> SamplingResult {
        let parent = parent.map(|context| context.span().span_context().clone());
        let parent = match parent.filter(opentelemetry::trace::SpanContext::is_valid) {
            Some(parent) if parent.is_remote() => Parent::Caller {
                kept: parent.is_sampled(),
            },
            Some(parent) => Parent::Ours {
                kept: parent.is_sampled(),
            },
            None => Parent::None,
        };
        let decision = if self.keeps(parent, trace, Instant::now()) {
            SamplingDecision::RecordAndSample
        } else {
            SamplingDecision::Drop
        };
        SamplingResult {
            decision,
            attributes: Vec::new(),
            trace_state: TraceState::NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn kept(sampler: &Sampler, parent: Parent, now: Instant) -> usize {
        (1..=10_000_u128)
            .filter(|number| sampler.keeps(parent, TraceId::from(*number), now))
            .count()
    }

    #[test]
    fn what_begins_here_is_kept_by_its_share() {
        let now = Instant::now();
        for (share, least, most) in [(0.0, 0, 0), (0.1, 700, 1_300), (1.0, 10_000, 10_000)] {
            let kept = kept(&Sampler::new(share, 5), Parent::None, now);
            assert!((least..=most).contains(&kept), "{kept} of 10000 for {share}");
        }
    }

    #[test]
    fn a_trace_is_kept_in_all_its_parts_or_in_none() {
        let (sampler, now) = (Sampler::new(0.5, 0), Instant::now());
        for number in 1..100_u128 {
            let decide = || sampler.keeps(Parent::None, TraceId::from(number), now);
            assert_eq!(decide(), decide(), "{number}");
        }
        assert_eq!(kept(&sampler, Parent::Ours { kept: true }, now), 10_000);
        assert_eq!(kept(&sampler, Parent::Ours { kept: false }, now), 0);
    }

    #[test]
    fn callers_ask_for_no_more_than_they_may() {
        let (sampler, now) = (Sampler::new(0.0, 5), Instant::now());
        let asking = Parent::Caller { kept: true };
        assert_eq!(kept(&sampler, asking, now), 5);
        assert_eq!(kept(&sampler, asking, now), 0);
        assert_eq!(kept(&sampler, asking, now + Duration::from_millis(500)), 2);
        assert_eq!(kept(&sampler, asking, now + Duration::from_mins(5)), 5);
        assert_eq!(kept(&Sampler::new(0.0, 0), asking, now), 0);
        assert_eq!(kept(&Sampler::new(1.0, 0), asking, now), 10_000);
    }

    #[test]
    fn a_caller_who_wants_no_trace_gets_none() {
        let sampler = Sampler::new(1.0, 5);
        assert_eq!(kept(&sampler, Parent::Caller { kept: false }, Instant::now()), 0);
    }
}
