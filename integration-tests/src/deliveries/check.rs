//! The judgement: what each subscriber was sent against what happened. Pure functions, so that they can be tried on planted
//! faults.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use handoff_domain::time::Timestamp;

use super::arrivals::{Arrival, Told};
use super::truth::{Change, Course, Store, Truth};
use crate::chaos::record::Micros;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Every change is told.
    Missing,
    /// Nothing is told that did not happen, or that was not asked for.
    Invented,
    /// Numbers count from 1 without a gap, and come in their order.
    Numbers,
    /// The changes of a Task come in their order.
    Order,
    /// What comes again is the same bytes under the same id.
    Repeats,
    /// No notification holds more than was asked for.
    Size,
    /// Every notification is signed.
    Signature,
    /// The outbox holds every change once, and nothing waits in it.
    Outbox,
    /// The store has counted every event, and knows which were delivered.
    Counts,
    /// Every delivery is in the audit.
    Audit,
}

/// Something that does not hold.
pub type Violation = crate::trial::Violation<Rule>;

/// What a subscriber asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// What it is called in findings.
    pub name: &'a str,
    /// The status that it asked for alone.
    pub status: Option<&'a str>,
    /// The most events that it takes at once.
    pub most: usize,
    /// Whether it ever says that it has something.
    pub answers: bool,
}

/// What one subscriber came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Different events that it has.
    pub events: usize,
    /// Events that it has got again.
    pub duplicates: usize,
    /// The longest time from an event to its first arrival.
    pub longest: Micros,
    /// Half of them took no longer.
    pub median: Micros,
}

/// Judges what one subscriber was sent.
pub fn check(asked: &Asked<'_>, truth: &Truth, arrivals: &[Arrival], found: &mut Vec<Violation>) -> Figures {
    let mut add = |rule, what: String| {
        found.push(Violation {
            rule,
            what: format!("`{}`: {what}", asked.name),
        });
    };
    repeats(arrivals, &mut add);
    let mut wanted: BTreeMap<&str, Vec<&Change>> = BTreeMap::new();
    for (task, changes) in &truth.tasks {
        let changes = changes
            .iter()
            .filter(|change| asked.status.is_none_or(|status| change.status == status));
        wanted.insert(task, changes.collect());
    }
    let mut figures = Figures::default();
    let mut delays = Vec::new();
    let mut had: BTreeSet<i64> = BTreeSet::new();
    let mut next: HashMap<&str, usize> = HashMap::new();
    for arrival in arrivals {
        if !arrival.is_signed {
            add(
                Rule::Signature,
                format!("{} is not signed with its key", arrival.id),
            );
        }
        if arrival.told.len() > asked.most {
            add(
                Rule::Size,
                format!("{} holds {} events", arrival.id, arrival.told.len()),
            );
        }
        if !arrival.had {
            continue;
        }
        for told in &arrival.told {
            if had.contains(&told.number) {
                figures.duplicates += 1;
                continue;
            }
            let last = had.last().copied().unwrap_or(0);
            if told.number != last + 1 {
                add(Rule::Numbers, format!("{} comes after {last}", told.number));
            }
            had.insert(told.number);
            let changes = wanted.get(told.task.as_str()).map_or(&[][..], Vec::as_slice);
            let place = next.entry(told.task.as_str()).or_default();
            match changes.iter().position(|change| is_about(told, change)) {
                Some(at) if at == *place => *place += 1,
                Some(at) => {
                    let now = *place;
                    *place = at + 1;
                    let what = format!(
                        "{} tells change {} of Task {} where {} is next",
                        told.number,
                        at + 1,
                        told.task,
                        now + 1
                    );
                    add(Rule::Order, what);
                }
                None => add(Rule::Invented, format!("{} tells {told:?}", told.number)),
            }
            if let Some(at) = Timestamp::parse_instant(&told.at) {
                delays.push(arrival.at - at.0);
            }
        }
    }
    if asked.answers {
        let told: BTreeSet<(&str, &str)> = arrivals
            .iter()
            .filter(|arrival| arrival.had)
            .flat_map(|arrival| &arrival.told)
            .map(|told| (told.task.as_str(), told.at.as_str()))
            .collect();
        for (task, changes) in &wanted {
            for change in changes
                .iter()
                .filter(|change| !told.contains(&(*task, change.at.as_str())))
            {
                add(
                    Rule::Missing,
                    format!("version {} of Task {task} is not told", change.version),
                );
            }
        }
    }
    delays.sort_unstable();
    figures.events = had.len();
    figures.longest = delays.last().copied().unwrap_or(0);
    figures.median = delays.get(delays.len() / 2).copied().unwrap_or(0);
    figures
}

fn is_about(told: &Told, change: &Change) -> bool {
    told.at == change.at
        && told.status == change.status
        && told.version.is_none_or(|version| version == change.version)
}

/// The same id is the same bytes, and the same event is under the same id: also in what was refused, which counts as a try.
fn repeats(arrivals: &[Arrival], add: &mut impl FnMut(Rule, String)) {
    let mut bodies: HashMap<&str, &[u8; 32]> = HashMap::new();
    let mut ids: HashMap<i64, &str> = HashMap::new();
    for arrival in arrivals {
        let known = bodies.entry(&arrival.id).or_insert(&arrival.digest);
        if **known != arrival.digest {
            add(Rule::Repeats, format!("{} comes with another body", arrival.id));
        }
        for told in &arrival.told {
            let known = ids.entry(told.number).or_insert(&arrival.id);
            if *known != arrival.id {
                add(
                    Rule::Repeats,
                    format!("{} comes as {} and as {known}", told.number, arrival.id),
                );
                *known = &arrival.id;
            }
        }
    }
}

/// Judges what the store holds of one subscription.
pub fn check_course(
    asked: &Asked<'_>,
    truth: &Truth,
    course: Course,
    audited: Option<&BTreeSet<i64>>,
    found: &mut Vec<Violation>,
) {
    let mut add = |rule, what: String| {
        found.push(Violation {
            rule,
            what: format!("`{}`: {what}", asked.name),
        });
    };
    let events = i64::try_from(truth.count(asked.status)).unwrap_or(i64::MAX);
    if course.events != events {
        add(
            Rule::Counts,
            format!("{} events are counted of {events}", course.events),
        );
    }
    let delivered = if asked.answers { events } else { 0 };
    if course.delivered != delivered {
        add(
            Rule::Counts,
            format!("{} count as delivered instead of {delivered}", course.delivered),
        );
    }
    let none = BTreeSet::new();
    let audited = audited.unwrap_or(&none);
    let missing = (1..=delivered).filter(|number| !audited.contains(number)).count();
    if missing > 0 || audited.iter().any(|number| !(1..=delivered).contains(number)) {
        add(
            Rule::Audit,
            format!(
                "{} deliveries are in the audit of {delivered}, {missing} are not",
                audited.len()
            ),
        );
    }
}

/// Judges the outbox.
pub fn check_outbox(truth: &Truth, store: &Store, found: &mut Vec<Violation>) {
    let mut add = |what: String| {
        found.push(Violation {
            rule: Rule::Outbox,
            what,
        });
    };
    if store.pending > 0 {
        add(format!("{} events were given to nobody", store.pending));
    }
    let mut rows: BTreeMap<&str, Vec<(i64, &str)>> = BTreeMap::new();
    for (task, version, change) in &store.outbox {
        rows.entry(task).or_default().push((*version, change));
    }
    for (task, changes) in &truth.tasks {
        let wanted: Vec<(i64, &str)> = changes
            .iter()
            .map(|one| (one.version, one.status.as_str()))
            .collect();
        let has = rows.remove(task.as_str()).unwrap_or_default();
        if has != wanted {
            add(format!("Task {task} has {has:?} for {wanted:?}"));
        }
    }
    for task in rows.keys() {
        add(format!("it tells of Task {task}, which nobody placed"));
    }
}
