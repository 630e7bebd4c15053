//! A browser session: somebody who signed in at an issuer, for as long as they keep at it. Holds what the issuer said
//! of them, and never what would prove to anybody that the session is theirs.

use crate::time::{Span, Timestamp};

/// One session.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// SHA-256 of the browser's cookie, in hexadecimal.
    pub id: String,
    /// Where the person signed in.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// The issuer's own name for its session with the person.
    pub sid: Option<String>,
    /// What the issuer vouches for, as a JSON object.
    pub claims: String,
    /// What forms of this session are made with. The browser never has it.
    pub key: [u8; 32],
    /// When it began.
    pub began_at: Timestamp,
    /// When it was last used, more or less.
    pub seen_at: Timestamp,
    /// When it ends at the latest.
    pub ends_at: Timestamp,
}

impl Session {
    /// Whether it may be used at `now`: not past its end, nor left alone for longer than `idle`.
    pub fn is_live(&self, idle: Span, now: Timestamp) -> bool {
        now < self.ends_at && now < self.seen_at.plus(idle)
    }

    /// Whether its use at `now` is to be written down: not each of many, but soon enough for `idle`.
    pub fn is_to_touch(&self, idle: Span, now: Timestamp) -> bool {
        let often = Span(idle.0 / 4).min(Span::seconds(30));
        now.since(self.seen_at) >= often
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("issuer", &self.issuer)
            .field("began_at", &self.began_at)
            .finish_non_exhaustive()
    }
}

/// Which sessions of a tenant are ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sessions {
    /// This one.
    One(String),
    /// Those of an issuer with a subject and a `sid`, as far as it names them.
    Of {
        /// The issuer.
        issuer: String,
        /// The subject.
        subject: Option<String>,
        /// The issuer's name for its session.
        sid: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_itself_when_it_is_left_alone_and_when_it_is_old() {
        let minute = |n: i64| Timestamp(0).plus(Span::minutes(n));
        let session = Session {
            id: "00".to_owned(),
            issuer: "https://issuer.example".to_owned(),
            subject: "lane".to_owned(),
            sid: None,
            claims: "{}".to_owned(),
            key: [0; 32],
            began_at: minute(0),
            seen_at: minute(50),
            ends_at: minute(60),
        };
        let idle = Span::minutes(15);
        assert!(session.is_live(idle, minute(59)));
        assert!(!session.is_live(idle, minute(60)), "it is old");
        assert!(
            !session.is_live(Span::minutes(5), minute(55)),
            "it was left alone"
        );
        assert!(session.is_to_touch(idle, minute(51)));
        assert!(!session.is_to_touch(idle, minute(50).plus(Span::seconds(29))));
        assert!(session.is_to_touch(Span::seconds(40), minute(50).plus(Span::seconds(10))));
        assert!(!format!("{session:?}").contains("lane"));
    }
}
