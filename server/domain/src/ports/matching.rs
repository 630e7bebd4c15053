//! Whether one resource would be found: a search's filters held against the values of a resource in hand, as the store
//! holds them against what it keeps.

use super::store::{Filter, SearchIndex};
use crate::time::Timestamp;

/// A resource in hand, as searches see it.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its id.
    pub id: &'a str,
    /// `meta.lastUpdated`.
    pub last_updated: Timestamp,
    /// Its values.
    pub index: &'a SearchIndex,
}

/// What a reference without its type is found by: the id of a relative one, the whole of any other.
pub fn bare(target: &str) -> &str {
    match target.split_once('/') {
        Some((kind, id)) if !kind.is_empty() && !kind.contains(':') && !id.contains('/') => id,
        _ => target,
    }
}

impl Filter {
    /// Whether a search with this filter would find `subject`.
    pub fn holds(&self, subject: Subject<'_>) -> bool {
        let index = subject.index;
        match self {
            Self::Id(ids) => ids.iter().any(|id| id == subject.id),
            Self::LastUpdated(ranges) => ranges
                .iter()
                .any(|(from, until)| (*from..*until).contains(&subject.last_updated)),
            Self::Token {
                name,
                any_of,
                negated,
            } => {
                let found = index.tokens.iter().any(|(own, system, code)| {
                    own == name
                        && any_of.iter().any(|(wanted_system, wanted_code)| {
                            wanted_system.as_ref().is_none_or(|wanted| wanted == system)
                                && wanted_code.as_ref().is_none_or(|wanted| wanted == code)
                        })
                });
                found != *negated
            }
            Self::Reference { name, any_of } => index.references.iter().any(|(own, target)| {
                own == name
                    && any_of.iter().any(|wanted| match wanted.strip_prefix("*/") {
                        Some(id) => bare(target) == id,
                        None => wanted == target,
                    })
            }),
            Self::Date { name, any_of } => index.dates.iter().any(|(own, first, last)| {
                own == name && any_of.iter().any(|(from, until)| first < until && last >= from)
            }),
            Self::Text { name, any_of, exact } => index.strings.iter().any(|(own, text)| {
                own == name
                    && any_of.iter().any(|wanted| {
                        if *exact {
                            text == wanted
                        } else {
                            text.starts_with(wanted.as_str())
                        }
                    })
            }),
            Self::Missing { name, missing } => {
                let has = index.tokens.iter().any(|(own, ..)| own == name)
                    || index.references.iter().any(|(own, _)| own == name)
                    || index.dates.iter().any(|(own, ..)| own == name)
                    || index.strings.iter().any(|(own, _)| own == name);
                has != *missing
            }
            Self::AnyOf(alternatives) => alternatives
                .iter()
                .any(|all| all.iter().all(|filter| filter.holds(subject))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(system: Option<&str>, code: Option<&str>, negated: bool) -> Filter {
        Filter::Token {
            name: "code".to_owned(),
            any_of: vec![(system.map(str::to_owned), code.map(str::to_owned))],
            negated,
        }
    }

    fn reference(target: &str) -> Filter {
        Filter::Reference {
            name: "patient".to_owned(),
            any_of: vec![target.to_owned()],
        }
    }

    #[test]
    fn each_kind_of_filter_holds_or_not() {
        let index = SearchIndex {
            tokens: vec![("code".to_owned(), "http://s".to_owned(), "fulfill".to_owned())],
            references: vec![("patient".to_owned(), "Patient/1".to_owned())],
            dates: vec![("date".to_owned(), Timestamp(10), Timestamp(19))],
            strings: vec![("description".to_owned(), "discharge letter".to_owned())],
        };
        let subject = Subject {
            id: "7",
            last_updated: Timestamp(5),
            index: &index,
        };
        let text = |text: &str, exact| Filter::Text {
            name: "description".to_owned(),
            any_of: vec![text.to_owned()],
            exact,
        };
        let date = |from, until| Filter::Date {
            name: "date".to_owned(),
            any_of: vec![(Timestamp(from), Timestamp(until))],
        };
        let missing = |name: &str, missing| Filter::Missing {
            name: name.to_owned(),
            missing,
        };
        let cases = [
            (Filter::Id(vec!["7".to_owned()]), true),
            (Filter::Id(vec!["8".to_owned()]), false),
            (Filter::LastUpdated(vec![(Timestamp(5), Timestamp(6))]), true),
            (Filter::LastUpdated(vec![(Timestamp(4), Timestamp(5))]), false),
            (token(None, Some("fulfill"), false), true),
            (token(Some("http://s"), None, false), true),
            (token(Some("http://s"), Some("other"), false), false),
            (token(Some(""), Some("fulfill"), false), false),
            (token(None, Some("fulfill"), true), false),
            (token(None, Some("other"), true), true),
            (reference("Patient/1"), true),
            (reference("*/1"), true),
            (reference("Patient/2"), false),
            (reference("https://other.example/Patient/1"), false),
            (date(19, 30), true),
            (date(20, 30), false),
            (date(0, 10), false),
            (text("discharge", false), true),
            (text("discharge", true), false),
            (text("letter", false), false),
            (missing("code", false), true),
            (missing("code", true), false),
            (missing("owner", true), true),
            (
                Filter::AnyOf(vec![vec![reference("Patient/2")], vec![reference("Patient/1")]]),
                true,
            ),
            (
                Filter::AnyOf(vec![vec![
                    reference("Patient/1"),
                    token(None, Some("other"), false),
                ]]),
                false,
            ),
            (Filter::AnyOf(Vec::new()), false),
        ];
        for (filter, holds) in cases {
            assert_eq!(filter.holds(subject), holds, "{filter:?}");
        }
    }
}
