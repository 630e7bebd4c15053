//! `[sessions]`: how long a person who signed in with a browser stays so.

use std::time::Duration;

use toml::{Table, Value};

use super::Problem;
use super::reader::Section;
use super::units::show_duration;

/// `[sessions]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sessions {
    /// How long a session may be left alone.
    pub idle: Duration,
    /// How long it lasts, however busy.
    pub absolute: Duration,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            idle: Duration::from_mins(15),
            absolute: Duration::from_hours(1),
        }
    }
}

pub(super) fn read(root: &mut Table, problems: &mut Vec<Problem>) -> Sessions {
    let defaults = Sessions::default();
    let mut section = Section::take(root, "sessions", problems);
    let sessions = Sessions {
        idle: section.duration("idle", defaults.idle),
        absolute: section.duration("absolute", defaults.absolute),
    };
    if sessions.idle > sessions.absolute {
        section.problem(
            "idle",
            "is longer than a session lasts",
            "set it to at most `absolute`",
        );
    }
    section.finish();
    sessions
}

pub(super) fn show(sessions: &Sessions) -> Vec<(&'static str, Value)> {
    let time = |duration| Value::String(show_duration(duration));
    vec![
        ("idle", time(sessions.idle)),
        ("absolute", time(sessions.absolute)),
    ]
}
