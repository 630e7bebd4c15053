//! The search rows of a resource: written when it is stored, and only those that say something new. Knows
//! nothing of how they are searched.

use std::collections::BTreeSet;

use handoff_domain::TenantId;
use handoff_domain::ports::{Kind, SearchIndex, StoreError};
use serde::{Deserialize, Serialize};

use crate::dialect::{Bulk, Column, Table};
use crate::error::unreadable;
use crate::statement::Value;

static TOKENS: Table = Table {
    name: "search_tokens",
    columns: &[
        ("tenant", Column::Text),
        ("kind", Column::Text),
        ("name", Column::Text),
        ("code", Column::Text),
        ("id", Column::Text),
        ("system", Column::Text),
    ],
};

static REFERENCES: Table = Table {
    name: "search_references",
    columns: &[
        ("tenant", Column::Text),
        ("kind", Column::Text),
        ("name", Column::Text),
        ("bare", Column::Text),
        ("id", Column::Text),
        ("target", Column::Text),
    ],
};

static DATES: Table = Table {
    name: "search_dates",
    columns: &[
        ("tenant", Column::Text),
        ("kind", Column::Text),
        ("name", Column::Text),
        ("first_at", Column::Int),
        ("last_at", Column::Int),
        ("id", Column::Text),
    ],
};

static STRINGS: Table = Table {
    name: "search_strings",
    columns: &[
        ("tenant", Column::Text),
        ("kind", Column::Text),
        ("name", Column::Text),
        ("value", Column::Text),
        ("id", Column::Text),
    ],
};

/// The longest text that is kept for search: keys of a database index can't be of any length.
const LONGEST: usize = 500;

/// A text as it is kept for search.
pub(super) fn cut(text: &str) -> &str {
    text.char_indices()
        .nth(LONGEST)
        .and_then(|(end, _)| text.get(..end))
        .unwrap_or(text)
}

/// What a reference without its type is found by: the id of a relative one, the whole of any other.
pub(super) fn bare(target: &str) -> &str {
    match target.split_once('/') {
        Some((kind, id)) if !kind.is_empty() && !kind.contains(':') && !id.contains('/') => id,
        _ => target,
    }
}

/// The first reference under the first of these names that has one.
pub(crate) fn first_reference(index: &SearchIndex, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        index
            .references
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, target)| cut(target).to_owned())
    })
}

/// The parameter that every resource has once, under one code system, in a column of its own: it changes with every
/// move, and a row of it would have to be replaced each time.
pub(super) const STATUS: &str = "status";

/// The search rows of a resource, without what all of them share. They are also kept beside the resource, so that those
/// that no longer hold can be named, and need not be found by the resource's id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Indexed {
    /// Name, code, system.
    tokens: BTreeSet<(String, String, String)>,
    /// Name, target.
    references: BTreeSet<(String, String)>,
    /// Name, first and last instant.
    dates: BTreeSet<(String, i64, i64)>,
    /// Name, text.
    strings: BTreeSet<(String, String)>,
}

impl Indexed {
    /// The rows that this index makes.
    pub(crate) fn of(index: &SearchIndex) -> Self {
        let kept = |text: &str| cut(text).to_owned();
        Self {
            tokens: index
                .tokens
                .iter()
                .filter(|(name, ..)| name != STATUS)
                .map(|(name, system, code)| (name.clone(), kept(code), kept(system)))
                .collect(),
            references: index
                .references
                .iter()
                .map(|(name, target)| (name.clone(), kept(target)))
                .collect(),
            dates: index
                .dates
                .iter()
                .map(|(name, first, last)| (name.clone(), first.0, last.0))
                .collect(),
            strings: index
                .strings
                .iter()
                .map(|(name, text)| (name.clone(), kept(text)))
                .collect(),
        }
    }

    /// As it is stored.
    pub(crate) fn to_text(&self) -> Result<String, StoreError> {
        serde_json::to_string(self).map_err(|_| StoreError::Broken("an index can't be stored".to_owned()))
    }

    /// What a stored text holds.
    pub(crate) fn parse(text: &str) -> Result<Self, StoreError> {
        serde_json::from_str(text).map_err(|_| unreadable("index"))
    }

    /// Hands out the rows that these have and `other` has not.
    fn beyond(&self, other: &Self, of: &Resource<'_>, mut give: impl FnMut(&'static Table, Vec<Value>)) {
        let id = || of.id.into();
        for (name, code, system) in self.tokens.difference(&other.tokens) {
            let rest = [code.as_str().into(), id(), system.as_str().into()];
            give(&TOKENS, of.row(name, rest));
        }
        for (name, target) in self.references.difference(&other.references) {
            let rest = [bare(target).into(), id(), target.as_str().into()];
            give(&REFERENCES, of.row(name, rest));
        }
        for (name, first, last) in self.dates.difference(&other.dates) {
            give(&DATES, of.row(name, [(*first).into(), (*last).into(), id()]));
        }
        for (name, text) in self.strings.difference(&other.strings) {
            give(&STRINGS, of.row(name, [text.as_str().into(), id()]));
        }
    }
}

/// Whose rows.
pub(crate) struct Resource<'r> {
    /// Its tenant.
    pub(crate) tenant: &'r TenantId,
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its id.
    pub(crate) id: &'r str,
}

impl Resource<'_> {
    fn row<const N: usize>(&self, name: &str, rest: [Value; N]) -> Vec<Value> {
        let shared = [
            self.tenant.as_str().into(),
            self.kind.as_str().into(),
            name.into(),
        ];
        shared.into_iter().chain(rest).collect()
    }
}

/// Writes the rows that were not there before, and removes those that hold no longer.
pub(crate) fn replace(bulk: &mut Bulk, of: &Resource<'_>, before: &Indexed, now: &Indexed) {
    before.beyond(now, of, |table, row| bulk.remove(table, row));
    now.beyond(before, of, |table, row| bulk.add(table, row));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_relative_reference_is_found_without_its_type() {
        assert_eq!(bare("Patient/ada"), "ada");
        for whole in [
            "https://other.example/Patient/ada",
            "urn:uuid:1",
            "ada",
            "#p1",
            "Patient/ada/_history/2",
        ] {
            assert_eq!(bare(whole), whole);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut(&"ä".repeat(600)), "ä".repeat(500));
        assert_eq!(cut("short"), "short");
    }
}
