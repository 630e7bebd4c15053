//! The judgement: what the mirror holds against what the source holds. Pure functions, so that they can be tried on planted
//! faults.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Every Task of the source has a mirror.
    Missing,
    /// It has one, and the mirror has no others.
    Invented,
    /// The mirror's status is that of the newest version that it may take.
    Status,
    /// So is its owner.
    Owner,
    /// So is everything else.
    Content,
    /// No version is applied after a later one.
    Back,
    /// No version is applied twice.
    Twice,
    /// The quarantine holds what is illegal at the mirror, each version once, and nothing else.
    Quarantine,
    /// Every event of every subscription was told or asked for.
    Feed,
    /// Nothing waits.
    Waiting,
}

/// Something that does not hold.
pub type Violation = crate::trial::Violation<Rule>;

/// A version of a Task, on either side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its number on its side.
    pub number: i64,
    /// `status`.
    pub status: String,
    /// `owner.reference`.
    pub owner: String,
    /// The mark of the change at the source that made it.
    pub mark: String,
    /// All the rest that a mirror has to keep.
    pub rest: Value,
}

/// A version at the source: the Task, and its number.
pub type Named = (String, i64);

/// How a subscription stands on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// Its reference.
    pub subscription: String,
    /// The events that the source has counted.
    pub counted: i64,
    /// The number that the mirror was told last.
    pub told: i64,
    /// Stretches that the mirror misses, as it keeps them.
    pub missing: String,
}

/// Both sides as they stand.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Every version of every Task of the source, oldest first.
    pub source: BTreeMap<String, Vec<Version>>,
    /// Those of its mirrors, by the Task at the source.
    pub mirror: BTreeMap<String, Vec<Version>>,
    /// Tasks of the mirror that are a second of one at the source, or of none.
    pub others: Vec<String>,
    /// What is quarantined.
    pub quarantine: Vec<Named>,
    /// The subscriptions.
    pub feeds: Vec<Feed>,
    /// How much waits to be applied.
    pub waiting: usize,
}

/// What is known beforehand.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Versions of the source that the mirror may not take.
    pub illegal: BTreeSet<Named>,
    /// Tasks that a user of the mirror moved there, and to which status.
    pub moved_there: BTreeMap<String, String>,
}

/// Judges both sides.
pub fn check(seen: &Seen, expected: &Expected) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut add = |rule, what: String| found.push(Violation { rule, what });
    for task in &seen.others {
        add(
            Rule::Invented,
            format!("Task {task} at the mirror is one too many"),
        );
    }
    for (task, source) in &seen.source {
        match seen.mirror.get(task) {
            Some(mirror) => {
                newest(task, source, mirror, expected, &mut add);
                course(task, source, mirror, expected, &mut add);
            }
            None => add(Rule::Missing, format!("Task {task} has no mirror")),
        }
    }
    quarantine(seen, expected, &mut add);
    for feed in &seen.feeds {
        if feed.told != feed.counted || feed.missing != "[]" {
            add(Rule::Feed, format!("{feed:?}"));
        }
    }
    if seen.waiting > 0 {
        add(Rule::Waiting, format!("{} notices wait", seen.waiting));
    }
    found
}

/// The mirror as it stands against the newest version that it may take.
fn newest(
    task: &str,
    source: &[Version],
    mirror: &[Version],
    expected: &Expected,
    add: &mut impl FnMut(Rule, String),
) {
    let legal: Vec<&Version> = source
        .iter()
        .filter(|one| !expected.illegal.contains(&(task.to_owned(), one.number)))
        .collect();
    let (Some(newest), Some(is)) = (legal.last(), mirror.last()) else {
        add(Rule::Missing, format!("Task {task} has no version"));
        return;
    };
    // Nobody is told of a version that changes neither status nor owner: the mirror may have it or the one before.
    let wanted = legal
        .iter()
        .rev()
        .take_while(|one| one.status == newest.status && one.owner == newest.owner)
        .find(|one| one.mark == is.mark)
        .unwrap_or(newest);
    // What its user did there stands for as long as nothing that is legal came after it.
    let by_user = is.mark == wanted.mark
        && mirror.len() > 1
        && mirror[mirror.len() - 2].mark == is.mark
        && expected.moved_there.get(task) == Some(&is.status);
    if is.status != wanted.status && !by_user {
        let what = format!("Task {task} is `{}` and should be `{}`", is.status, wanted.status);
        add(Rule::Status, what);
    }
    if is.owner != wanted.owner {
        let what = format!(
            "Task {task} is owned by {} and should be by {}",
            is.owner, wanted.owner
        );
        add(Rule::Owner, what);
    }
    if is.mark != wanted.mark || is.rest != wanted.rest {
        let what = format!(
            "Task {task} is as of `{}` and should be as of `{}`",
            is.mark, wanted.mark
        );
        add(Rule::Content, what);
    }
}

/// The versions of the mirror in the order in which they were applied.
fn course(
    task: &str,
    source: &[Version],
    mirror: &[Version],
    expected: &Expected,
    add: &mut impl FnMut(Rule, String),
) {
    let known: HashMap<&str, &Version> = source.iter().map(|one| (one.mark.as_str(), one)).collect();
    let mut moved_there = expected.moved_there.get(task);
    let mut last = 0;
    for one in mirror {
        let Some(theirs) = known.get(one.mark.as_str()) else {
            add(
                Rule::Invented,
                format!("Task {task} has `{}` at the mirror alone", one.mark),
            );
            continue;
        };
        if theirs.number == last {
            if moved_there == Some(&one.status) && theirs.status != one.status {
                moved_there = None;
                continue;
            }
            add(
                Rule::Twice,
                format!("version {last} of Task {task} is applied twice"),
            );
        } else if theirs.number < last {
            add(
                Rule::Back,
                format!("version {} of Task {task} is applied after {last}", theirs.number),
            );
        } else if expected.illegal.contains(&(task.to_owned(), theirs.number)) {
            add(
                Rule::Quarantine,
                format!("version {} of Task {task} is applied, and illegal", theirs.number),
            );
        }
        last = last.max(theirs.number);
    }
}

fn quarantine(seen: &Seen, expected: &Expected, add: &mut impl FnMut(Rule, String)) {
    let mut held = BTreeSet::new();
    for (task, version) in &seen.quarantine {
        let one = (task.clone(), *version);
        if !expected.illegal.contains(&one) {
            add(
                Rule::Quarantine,
                format!("version {version} of Task {task} is held, and legal"),
            );
        }
        if !held.insert(one) {
            add(
                Rule::Quarantine,
                format!("version {version} of Task {task} is held twice"),
            );
        }
    }
    for (task, version) in expected.illegal.difference(&held) {
        add(
            Rule::Quarantine,
            format!("version {version} of Task {task} is illegal, and not held"),
        );
    }
}
