//! The plain model of the promise: what may be fetched, by whom, and which downloads may go on.
//! It knows nothing of grants, plans and gates, and shares no rule with them.

use std::collections::BTreeMap;

use handoff_domain::Reason;
use handoff_domain::document::DocumentStatus;
use handoff_domain::task::TaskStatus;

use crate::world::{CLINIC, KIM, LANE, OTIS};

pub const PEOPLE: [&str; 3] = [LANE, OTIS, KIM];
pub const OWNERS: [Option<&str>; 5] = [None, Some(LANE), Some(OTIS), Some(KIM), Some(CLINIC)];
pub const CONTENTS: u8 = 3;
pub const WINDOW: i64 = 900;

/// Every combination of person, document and content.
pub fn everyone() -> impl Iterator<Item = (usize, usize, u8)> {
    (0..PEOPLE.len()).flat_map(|w| (0..2).flat_map(move |d| (0..CONTENTS).map(move |c| (w, d, c))))
}

/// Leave for one person to fetch one content, as the model sees it.
#[derive(Debug, Clone)]
pub struct Leave {
    pub expires: i64,
    pub uses: u32,
    pub most: u32,
    pub own: bool,
    pub ended: Option<Reason>,
}

/// How a download was stopped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stop {
    No,
    ByHold,
    ForGood,
}

#[derive(Debug, Clone)]
pub struct Download {
    pub who: usize,
    pub document: usize,
    pub content: u8,
    /// Which of the person's leaves for the content it used.
    pub turn: usize,
    pub opened: i64,
    pub sent: u64,
    pub streams: u32,
    pub stop: Stop,
    pub done: bool,
}

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Paper {
    pub listed: bool,
    pub status: DocumentStatus,
    pub superseded: bool,
    pub deleted: bool,
    pub same_patient: bool,
    pub contents: Vec<u8>,
}

/// The plain model.
#[derive(Debug, Clone)]
pub struct Model {
    pub now: i64,
    pub status: TaskStatus,
    pub owner: Option<&'static str>,
    pub kim_receives: bool,
    pub deleted: bool,
    pub due: Option<i64>,
    pub barred: [bool; 3],
    pub papers: [Paper; 2],
    pub most: u32,
    pub self_reissue: usize,
    pub leaves: BTreeMap<(usize, u8, usize), Vec<Leave>>,
    pub downloads: Vec<Download>,
}

impl Model {
    pub fn holds(&self, who: usize) -> bool {
        self.owner == Some(PEOPLE[who]) || (PEOPLE[who] == KIM && self.kim_receives)
    }

    pub fn is_past_due(&self) -> bool {
        self.due.is_some_and(|due| due <= self.now)
    }

    pub fn is_actionable(&self) -> bool {
        matches!(
            self.status,
            TaskStatus::Ready | TaskStatus::Accepted | TaskStatus::InProgress
        ) && !self.deleted
            && !self.is_past_due()
    }

    pub fn has_ended(&self) -> bool {
        use TaskStatus::{Cancelled, Completed, EnteredInError, Failed, Rejected};
        self.deleted
            || matches!(
                self.status,
                Cancelled | Completed | EnteredInError | Failed | Rejected
            )
    }

    pub fn is_released(&self, document: usize) -> bool {
        let p = &self.papers[document];
        p.listed && !p.deleted && !p.superseded && p.same_patient && p.status == DocumentStatus::Current
    }

    pub fn has(&self, document: usize, content: u8) -> bool {
        self.is_released(document) && self.papers[document].contents.contains(&content)
    }

    /// Why leave for this ends now, whatever its uses.
    pub fn loses(&self, (document, content, who): (usize, u8, usize)) -> Option<Reason> {
        if self.has_ended() || !self.has(document, content) {
            Some(Reason::Revoked)
        } else if self.is_past_due() {
            Some(Reason::Expired)
        } else if self.barred[who] {
            Some(Reason::Revoked)
        } else if !self.holds(who) {
            Some(Reason::Reassigned)
        } else {
            None
        }
    }

    /// Time and circumstances take their effect.
    pub fn observe(&mut self) {
        let view = self.clone();
        for (key, turns) in &mut self.leaves {
            let newest = turns.len() - 1;
            for (turn, leave) in turns.iter_mut().enumerate() {
                if leave.ended.is_some() || leave.uses >= leave.most {
                    continue;
                }
                let replaced = (turn < newest).then_some(Reason::Reissued);
                let late = (leave.expires <= view.now).then_some(Reason::Expired);
                leave.ended = view.loses(*key).or(replaced).or(late);
            }
        }
        if view.is_actionable() {
            for (document, paper) in view.papers.iter().enumerate() {
                for (content, who) in paper.contents.iter().flat_map(|c| [(*c, 0), (*c, 1), (*c, 2)]) {
                    if view.is_released(document) && view.holds(who) && !view.barred[who] {
                        let expires = view.now + WINDOW;
                        let first = Leave {
                            expires,
                            uses: 0,
                            most: view.most,
                            own: false,
                            ended: None,
                        };
                        self.leaves
                            .entry((document, content, who))
                            .or_insert_with(|| vec![first]);
                    }
                }
            }
        }
        let leaves = &self.leaves;
        for download in self.downloads.iter_mut().filter(|d| !d.done) {
            let key = (download.document, download.content, download.who);
            let replaced = leaves[&key][download.turn].ended == Some(Reason::Reissued);
            download.stop = match download.stop {
                Stop::ForGood => Stop::ForGood,
                _ if replaced || view.loses(key).is_some() => Stop::ForGood,
                _ if view.status == TaskStatus::OnHold => Stop::ByHold,
                _ if !view.is_actionable() => Stop::ForGood,
                _ => Stop::No,
            };
        }
    }

    pub fn may_fetch(&self, who: usize, document: usize, content: u8) -> bool {
        let leave = self
            .leaves
            .get(&(document, content, who))
            .and_then(|turns| turns.last());
        self.is_actionable()
            && self.holds(who)
            && self.has(document, content)
            && leave.is_some_and(|l| l.ended.is_none() && l.uses < l.most && self.now < l.expires)
    }

    /// Somebody and some content: what was last fetched, what may be fetched now, or anything.
    pub fn picked(&self, pick: usize) -> (usize, u8, usize) {
        let (kind, pick) = (pick % 4, pick / 4);
        if kind == 0
            && let Some(last) = self.downloads.last()
        {
            return (last.document, last.content, last.who);
        }
        let all: Vec<_> = everyone().collect();
        let mut open = all.clone();
        open.retain(|(who, document, content)| self.may_fetch(*who, *document, *content));
        let choice = if kind == 3 || open.is_empty() { all } else { open };
        let (who, document, content) = choice[pick % choice.len()];
        (document, content, who)
    }

    /// Whether a grant is given to who asks for it by name: how many uses, or a refusal.
    pub fn may_ask(&self, herself: bool, key: (usize, u8, usize), uses: Option<u32>) -> Option<u32> {
        if !self.is_actionable() || self.loses(key).is_some() {
            return None;
        }
        let turns = self.leaves.get(&key).map_or(&[][..], Vec::as_slice);
        let mut most = self.most;
        if herself && let Some(last) = turns.last() {
            let for_cause = last.ended == Some(Reason::Revoked);
            let helped = turns
                .iter()
                .filter(|l| l.uses > 0)
                .skip(1)
                .filter(|l| l.own)
                .count();
            if for_cause || (last.uses > 0 && helped >= self.self_reissue) {
                return None;
            }
            if let Some(given) = turns.iter().rev().find(|l| !l.own) {
                most = most.min(given.most);
            }
        }
        let uses = uses.unwrap_or(most);
        (1..=most).contains(&uses).then_some(uses)
    }
}
