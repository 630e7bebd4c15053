//! What happened: the changes of every Task by its history, and what the store says of events and deliveries.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::chaos::stand::{Cell, Stand};

/// A change of a Task's status; its first version is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The version that shows it.
    pub version: i64,
    /// The status that it came to.
    pub status: String,
    /// When, as it is written.
    pub at: String,
}

/// Every change of every Task, in order.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// By logical id.
    pub tasks: BTreeMap<String, Vec<Change>>,
}

impl Truth {
    /// How many changes there were in all, to this status where one is given.
    pub fn count(&self, status: Option<&str>) -> usize {
        let all = self.tasks.values().flatten();
        all.filter(|change| status.is_none_or(|status| change.status == status))
            .count()
    }
}

/// How far a subscription is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Course {
    /// The events that it counted.
    pub events: i64,
    /// Up to which of them it was told.
    pub delivered: i64,
}

/// What the store holds.
#[derive(Debug, Clone, Default)]
pub struct Store {
    /// Events of the topic in the outbox: Task, version, change.
    pub outbox: Vec<(String, i64, String)>,
    /// How many of the outbox were given to nobody yet.
    pub pending: usize,
    /// By subscription.
    pub courses: HashMap<String, Course>,
    /// By subscription: the numbers of the events that the audit says were delivered.
    pub audited: HashMap<String, BTreeSet<i64>>,
}

impl Store {
    /// Reads it, all as of one instant.
    pub fn read(stand: &Stand) -> Self {
        let mut reader = stand.reader();
        let text = |cell: &Value| cell.as_str().unwrap_or_default().to_owned();
        let number = |cell: &Value| cell.as_i64().unwrap_or(-1);
        let outbox = reader.rows(
            &[
                Cell::Plain("focus"),
                Cell::Plain("version"),
                Cell::Plain("change"),
            ],
            "FROM outbox WHERE topic = 'task-status-changed' ORDER BY sequence",
        );
        let pending = reader.rows(&[Cell::Plain("sequence")], "FROM outbox WHERE pending");
        let courses = reader.rows(
            &[
                Cell::Plain("n.subscription"),
                Cell::Plain("n.events"),
                Cell::Plain("c.delivered"),
            ],
            "FROM subscription_counts n JOIN subscription_courses c \
             ON c.tenant = n.tenant AND c.subscription = n.subscription",
        );
        let rows = reader.rows(
            &[Cell::Detail("subscription"), Cell::Detail("event")],
            "FROM audit_log WHERE event = 'subscription-delivered'",
        );
        let mut audited: HashMap<String, BTreeSet<i64>> = HashMap::new();
        for row in &rows {
            let event = row[1].as_str().and_then(|text| text.parse().ok()).unwrap_or(-1);
            audited.entry(text(&row[0])).or_default().insert(event);
        }
        let outbox = outbox.iter().map(|row| {
            let focus = text(&row[0]);
            let task = focus.rsplit('/').next().unwrap_or_default().to_owned();
            (task, number(&row[1]), text(&row[2]))
        });
        let courses = courses.iter().map(|row| {
            let course = Course {
                events: number(&row[1]),
                delivered: number(&row[2]),
            };
            (text(&row[0]), course)
        });
        Self {
            outbox: outbox.collect(),
            pending: pending.len(),
            courses: courses.collect(),
            audited,
        }
    }
}
