//! `[websockets]`: how many web sockets there may be and for whom, and what is asked of those who open them.

use std::time::Duration;

use toml::{Table, Value};

use super::Problem;
use super::reader::Section;
use super::units::show_duration;

/// The most of anything that can be asked for.
const MOST: u64 = 100_000;

/// `[websockets]`: past each a socket is refused, or closed with the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebSockets {
    /// Sockets of this process.
    pub max: usize,
    /// Those of one address; 0 is no limit. Proxies are not counted.
    pub max_per_address: usize,
    /// Those that hear Subscriptions of one creator; 0 is no limit.
    pub max_per_creator: usize,
    /// Subscriptions of one socket.
    pub max_subscriptions: usize,
    /// Messages that a client may send in a minute.
    pub messages_per_minute: usize,
    /// How long a client may take to its first binding.
    pub first_bind: Duration,
    /// How often it is asked for a sign of life.
    pub ping: Duration,
    /// How long it may give none.
    pub pong: Duration,
}

impl Default for WebSockets {
    fn default() -> Self {
        Self {
            max: 1_000,
            max_per_address: 200,
            max_per_creator: 100,
            max_subscriptions: 100,
            messages_per_minute: 20,
            first_bind: Duration::from_secs(10),
            ping: Duration::from_secs(30),
            pong: Duration::from_secs(75),
        }
    }
}

pub(super) fn read(root: &mut Table, problems: &mut Vec<Problem>) -> WebSockets {
    let defaults = WebSockets::default();
    let mut section = Section::take(root, "websockets", problems);
    let mut count = |key, default: usize, least| {
        usize::try_from(section.number(key, default as u64, least, MOST)).unwrap_or(default)
    };
    let max = count("max", defaults.max, 1);
    let max_per_address = count("max_per_address", defaults.max_per_address, 0);
    let max_per_creator = count("max_per_creator", defaults.max_per_creator, 0);
    let max_subscriptions = count("max_subscriptions", defaults.max_subscriptions, 1);
    let messages_per_minute = count("messages_per_minute", defaults.messages_per_minute, 1);
    let websockets = WebSockets {
        max,
        max_per_address,
        max_per_creator,
        max_subscriptions,
        messages_per_minute,
        first_bind: section.duration("first_bind", defaults.first_bind),
        ping: section.duration("ping", defaults.ping),
        pong: section.duration("pong", defaults.pong),
    };
    if websockets.pong <= websockets.ping {
        section.problem(
            "pong",
            "is no longer than `ping`: every client would be closed before it can answer",
            "set it to more than twice `ping`",
        );
    }
    section.finish();
    websockets
}

pub(super) fn show(websockets: &WebSockets) -> Vec<(&'static str, Value)> {
    let number = |n: usize| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX));
    let time = |duration| Value::String(show_duration(duration));
    vec![
        ("max", number(websockets.max)),
        ("max_per_address", number(websockets.max_per_address)),
        ("max_per_creator", number(websockets.max_per_creator)),
        ("max_subscriptions", number(websockets.max_subscriptions)),
        ("messages_per_minute", number(websockets.messages_per_minute)),
        ("first_bind", time(websockets.first_bind)),
        ("ping", time(websockets.ping)),
        ("pong", time(websockets.pong)),
    ]
}
