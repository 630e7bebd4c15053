//! The search rows of a resource: written when it is stored, and only those that say something new. Knows
//! nothing of how they are searched.

use std::collections::{BTreeMap, BTreeSet};

use handoff_domain::TenantId;
use handoff_domain::ports::{Kind, SearchIndex, StoreError, bare};

use crate::dialect::{Bulk, Column, Removal, Table};
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

/// What the search rows of a resource say, in short: a digest per table and parameter name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Digest(BTreeMap<String, u64>);

impl Digest {
    /// The digest as it is stored.
    pub(crate) fn to_text(&self) -> Result<String, StoreError> {
        serde_json::to_string(&self.0).map_err(|_| StoreError::Broken("an index can't be stored".to_owned()))
    }

    /// The digest that a stored text holds.
    pub(crate) fn parse(text: &str) -> Result<Self, StoreError> {
        serde_json::from_str(text)
            .map(Self)
            .map_err(|_| unreadable("index"))
    }

    fn fold(&mut self, row: &Row) {
        // FNV-1a: the same on every machine and in every version, and nobody gains by a collision.
        let digest = self.0.entry(row.key()).or_insert(0xcbf2_9ce4_8422_2325);
        let mut eat = |bytes: &[u8]| {
            for byte in bytes {
                *digest = (*digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        for value in &row.values {
            match value {
                Value::Text(text) => eat(text.as_deref().unwrap_or_default().as_bytes()),
                Value::Int(number) => eat(&number.unwrap_or_default().to_le_bytes()),
                Value::Bytes(_) | Value::Flag(_) => {}
            }
            eat(&[0xff]);
        }
    }
}

/// A row of an index table, without the columns that all of a resource's rows share at the front.
struct Row {
    table: &'static Table,
    values: Vec<Value>,
    name: String,
}

impl Row {
    fn key(&self) -> String {
        format!("{}:{}", self.table.name, self.name)
    }
}

/// The parameter that every resource has once, under one code system, in a column of its own: it changes with every
/// move, and a row of it would have to be replaced each time.
pub(super) const STATUS: &str = "status";

/// The rows of an index, equal ones once.
fn rows(id: &str, index: &SearchIndex) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut put = |table: &'static Table, name: &str, rest: Vec<Value>| {
        let mut values: Vec<Value> = vec![name.into()];
        values.extend(rest);
        rows.push(Row {
            table,
            values,
            name: name.to_owned(),
        });
    };
    // Equal as they are kept: of two long texts what tells them apart may be cut off.
    let tokens = index.tokens.iter().filter(|(name, ..)| name != STATUS);
    let tokens = tokens.map(|(name, system, code)| (name.as_str(), cut(system), cut(code)));
    for (name, system, code) in tokens.collect::<BTreeSet<_>>() {
        put(&TOKENS, name, vec![code.into(), id.into(), system.into()]);
    }
    let references = index
        .references
        .iter()
        .map(|(name, target)| (name.as_str(), cut(target)));
    for (name, target) in references.collect::<BTreeSet<_>>() {
        put(
            &REFERENCES,
            name,
            vec![bare(target).into(), id.into(), target.into()],
        );
    }
    for (name, first, last) in index.dates.iter().collect::<BTreeSet<_>>() {
        put(&DATES, name, vec![first.0.into(), last.0.into(), id.into()]);
    }
    let texts = index
        .strings
        .iter()
        .map(|(name, text)| (name.as_str(), cut(text)));
    for (name, text) in texts.collect::<BTreeSet<_>>() {
        put(&STRINGS, name, vec![text.into(), id.into()]);
    }
    rows
}

/// Writes the rows of an index where they differ from those that were written before; answers what they say now.
pub(crate) fn replace(
    bulk: &mut Bulk,
    tenant: &TenantId,
    kind: Kind,
    id: &str,
    index: &SearchIndex,
    before: &Digest,
) -> Digest {
    let rows = rows(id, index);
    let mut now = Digest::default();
    for row in &rows {
        now.fold(row);
    }
    let changed = |key: &String| now.0.get(key) != before.0.get(key);
    for table in TABLES {
        let names: Vec<String> = before
            .0
            .keys()
            .filter(|key| changed(key))
            .filter_map(|key| key.strip_prefix(table.name)?.strip_prefix(':').map(str::to_owned))
            .collect();
        if !names.is_empty() {
            bulk.remove(Removal {
                names,
                ..removal(table, tenant, kind, id)
            });
        }
    }
    for row in rows {
        if changed(&row.key()) {
            let mut values: Vec<Value> = vec![tenant.as_str().into(), kind.as_str().into()];
            values.extend(row.values);
            bulk.add(row.table, values);
        }
    }
    now
}

/// Removes the index rows of a resource.
pub(crate) fn remove(bulk: &mut Bulk, tenant: &TenantId, kind: Kind, id: &str) {
    for table in TABLES {
        bulk.remove(removal(table, tenant, kind, id));
    }
}

static TABLES: [&Table; 4] = [&TOKENS, &REFERENCES, &DATES, &STRINGS];

fn removal(table: &'static Table, tenant: &TenantId, kind: Kind, id: &str) -> Removal {
    let key = vec![
        ("tenant", tenant.as_str().into()),
        ("kind", kind.as_str().into()),
        ("id", id.into()),
    ];
    Removal {
        table: table.name,
        key,
        names: Vec::new(),
    }
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
