//! What is done to the servers and when, all of it from one number: the same seed gives the same kills, the same
//! faults and the same choices of every client. Does nothing itself.

use std::time::Duration;

/// A part that a server stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The database.
    Database,
    /// The content store.
    Blobs,
}

/// What happens to the connections of one server to one of its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// All break, new ones stand.
    Cut,
    /// Each ends in the direction of the part, and goes on in the other.
    HalfCloseRequests,
    /// Each ends in the direction of the server, and goes on in the other.
    HalfCloseAnswers,
    /// Every piece takes this long.
    Delay(Duration),
    /// Nothing passes.
    Stall,
    /// Requests pass, answers don't: what was committed is not heard of.
    StallAnswers,
    /// All break, new ones are refused.
    Refuse,
}

/// One thing that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// A server is killed, and started again after a while.
    Kill {
        /// How long it stays away.
        down: Duration,
    },
    /// A part is in trouble for a while.
    Trouble {
        /// Which part.
        part: Part,
        /// What happens.
        fault: Fault,
        /// For how long.
        lasting: Duration,
    },
}

/// When something is done to which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// From the start.
    pub at: Duration,
    /// To which server.
    pub server: usize,
    /// What.
    pub act: Act,
}

/// All that is done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What everything follows from.
    pub seed: u64,
    /// In order of time.
    pub events: Vec<Event>,
}

/// From this length on, one server is cut off from its database for longer than others wait before they take it for
/// dead.
const LONG_RUN: Duration = Duration::from_mins(2);
const LONG_SILENCE: Duration = Duration::from_secs(45);

impl Plan {
    /// A plan for so many servers. `proxied` says whether something stands between them and their parts.
    pub fn new(seed: u64, lasting: Duration, kills: u32, servers: usize, proxied: bool) -> Self {
        let mut events = kills_of(seed, lasting, kills, servers);
        if proxied {
            for server in 0..servers {
                for part in [Part::Database, Part::Blobs] {
                    events.extend(troubles_of(seed, lasting, server, part));
                }
            }
        }
        events.sort_by_key(|event| event.at);
        Self { seed, events }
    }
}

/// The choices of one who takes part, independent of everybody else's.
pub fn choices(seed: u64, who: &str, number: usize) -> fastrand::Rng {
    let mixed = who.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    fastrand::Rng::with_seed(mixed.wrapping_add(number as u64))
}

/// One in each of as many equal stretches, so that they don't all fall together.
fn kills_of(seed: u64, lasting: Duration, kills: u32, servers: usize) -> Vec<Event> {
    let mut choice = choices(seed, "kills", 0);
    let stretch = lasting.as_secs_f64() / f64::from(kills.max(1));
    (0..kills)
        .map(|n| Event {
            at: Duration::from_secs_f64((f64::from(n) + choice.f64()) * stretch),
            server: choice.usize(..servers),
            act: Act::Kill {
                down: milliseconds(&mut choice, 20, 2000),
            },
        })
        .collect()
}

fn troubles_of(seed: u64, lasting: Duration, server: usize, part: Part) -> Vec<Event> {
    let mut choice = choices(seed, &format!("{part:?}"), server);
    let mut events = Vec::new();
    let mut at = milliseconds(&mut choice, 2000, 8000);
    let long = server == 0 && part == Part::Database && lasting >= LONG_RUN;
    let mut long_at = long.then_some(lasting / 3);
    while at < lasting {
        let (fault, lasting) = match long_at.take_if(|long_at| at >= *long_at) {
            Some(_) => (Fault::Stall, LONG_SILENCE),
            None => trouble(&mut choice),
        };
        events.push(Event {
            at,
            server,
            act: Act::Trouble { part, fault, lasting },
        });
        at += lasting + milliseconds(&mut choice, 4000, 16_000);
    }
    events
}

fn trouble(choice: &mut fastrand::Rng) -> (Fault, Duration) {
    match choice.u8(..7) {
        0 => (Fault::Cut, Duration::ZERO),
        1 => (Fault::HalfCloseRequests, Duration::ZERO),
        2 => (Fault::HalfCloseAnswers, Duration::ZERO),
        3 => (
            Fault::Delay(milliseconds(choice, 1, 30)),
            milliseconds(choice, 1000, 5000),
        ),
        4 => (Fault::Stall, milliseconds(choice, 300, 4000)),
        5 => (Fault::StallAnswers, milliseconds(choice, 300, 4000)),
        _ => (Fault::Refuse, milliseconds(choice, 200, 3000)),
    }
}

fn milliseconds(choice: &mut fastrand::Rng, least: u64, most: u64) -> Duration {
    Duration::from_millis(choice.u64(least..=most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_seed_another() {
        let plan = |seed| Plan::new(seed, Duration::from_mins(10), 50, 2, true);
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1).events, plan(2).events);
    }

    #[test]
    fn every_kill_falls_into_the_run_and_each_server_meets_some() {
        let lasting = Duration::from_mins(10);
        let plan = Plan::new(3, lasting, 50, 2, true);
        let is_kill = |event: &&Event| matches!(event.act, Act::Kill { .. });
        assert_eq!(plan.events.iter().filter(is_kill).count(), 50);
        assert!(plan.events.iter().all(|event| event.at < lasting));
        for server in 0..2 {
            assert!(plan.events.iter().filter(is_kill).any(|e| e.server == server));
        }
        let silences = plan
            .events
            .iter()
            .filter(|e| matches!(e.act, Act::Trouble { lasting, .. } if lasting == LONG_SILENCE));
        assert_eq!(silences.count(), 1);
    }
}
