//! Searches of Tasks and documents, and their histories: parameters in, Bundles of stored bytes out.
//! Knows R4 search syntax; who may see what is decided behind it.

pub mod answer;
pub mod control;
pub mod history;
pub mod link;
pub mod parameters;
pub mod rows;
pub mod values;

#[cfg(test)]
mod tests;

use handoff_domain::ports::{Filter, Kind, Sort};
use handoff_domain::time::Timestamp;
use handoff_fhir_model::search_values::fold;
use handoff_fhir_profiles::elements::table;

pub use answer::searchset;
use control::{Controls, not_supported, shown};
pub use history::{HistoryPage, history_bundle, parse_history};
use link::{Check, Cursor};
use parameters::{Parameter, Values};

use crate::app::AppError;
use crate::app::read::Query;

/// How much of a text the index keeps; no more of a query can match.
const INDEXED_TEXT: usize = 256;

/// A search as it was understood.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// What to look for.
    pub query: Query,
    /// The parameters that took effect, as the link `self` lists them.
    pub used: Vec<(String, String)>,
    /// Names of parameters without effect.
    pub ignored: Vec<String>,
    /// What ties cursors to this search.
    pub check: Check,
}

/// The search that `pairs` (decoded names and values) ask for. `strict` refuses what would be ignored; `base` is
/// our own FHIR base with its trailing slash.
///
/// Fails with 400: malformed values and unknown modifiers as `invalid`; chains, `_has`, `_include` and other
/// things that R4 knows and this server does not as `not-supported`.
pub fn parse(kind: Kind, pairs: &[(String, String)], strict: bool, base: &str) -> Result<Parsed, AppError> {
    if kind == Kind::Binary {
        return Err(not_supported("Binary can't be searched"));
    }
    let (mut controls, rest) = Controls::split(pairs)?;
    let mut filters = Vec::new();
    let mut asked = Vec::new();
    for (written, value) in rest {
        let (name, modifier) = match written.split_once(':') {
            Some((name, modifier)) => (name, Some(modifier)),
            None => (written, None),
        };
        match parameters::of(kind).find(|parameter| parameter.name == name) {
            Some(parameter) => {
                filters.push(filter(parameter, modifier, value, base)?);
                asked.push((written.to_owned(), value.to_owned()));
            }
            None => controls.ignore(written),
        }
    }
    controls.settle(strict)?;
    let sort = match controls.sort.as_deref() {
        None | Some("-_lastUpdated") => Sort::NewestFirst,
        Some("_lastUpdated") => Sort::OldestFirst,
        Some("_id") => Sort::ById,
        Some(_) => {
            return Err(not_supported(
                "results can be sorted by `_lastUpdated`, `-_lastUpdated` or `_id`",
            ));
        }
    };
    let mut used = asked;
    used.append(&mut controls.used);
    let check = link::check(kind.as_str(), &used);
    let after = match &controls.page {
        Some(page) => Some(Cursor::decode(page, check)?),
        None => None,
    };
    let limit = controls.limit();
    let query = Query {
        kind,
        filters,
        sort,
        limit,
        after: after.map(|cursor| (Timestamp(cursor.at), cursor.id)),
        total: controls.total || limit == 0,
        asked: link::query(&used, controls.page.as_deref()),
    };
    Ok(Parsed {
        query,
        used,
        ignored: controls.ignored,
        check,
    })
}

/// The filters of a scope's constraints. `None` where one is no search parameter of `kind` that is understood as
/// written, or is one that shapes an answer and not what it is about.
pub fn constraints(kind: Kind, pairs: &[(String, String)], base: &str) -> Option<Vec<Filter>> {
    let mut filters = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        let parameter = parameters::of(kind).find(|parameter| parameter.name == name)?;
        // Searches compare no more of a value, and what differs behind that must not be reached.
        if value.chars().count() > INDEXED_TEXT {
            return None;
        }
        filters.push(filter(parameter, None, value, base).ok()?);
    }
    Some(filters)
}

/// The filters of a Subscription's criteria. Fails, with words for its subscriber, where one would have no effect.
pub fn criteria(kind: Kind, pairs: &[(String, String)], base: &str) -> Result<Vec<Filter>, AppError> {
    pairs
        .iter()
        .map(|(written, value)| {
            let (name, modifier) = match written.split_once(':') {
                Some((name, modifier)) => (name, Some(modifier)),
                None => (written.as_str(), None),
            };
            let known = parameters::of(kind).find(|parameter| parameter.name == name);
            let parameter = known.ok_or_else(|| {
                let names: Vec<&str> = parameters::of(kind).map(|known| known.name).collect();
                not_supported(format!(
                    "a parameter that {} can't be filtered by; there are {}",
                    kind.as_str(),
                    names.join(", ")
                ))
            })?;
            if value.chars().count() > INDEXED_TEXT {
                return Err(not_supported(format!("the value of `{name}` is too long")));
            }
            if modifier != Some("missing") {
                check_codes(kind, name, value)?;
            }
            filter(parameter, modifier, value, base)
        })
        .collect()
}

/// A code that R4 does not have is one that nothing will ever have: a mistake, which nobody would notice.
fn check_codes(kind: Kind, name: &str, value: &str) -> Result<(), AppError> {
    let codes = table().resource(kind.as_str()).and_then(|resource| {
        let element = resource.element(resource.key(name)?)?;
        element.codes
    });
    let Some(codes) = codes else { return Ok(()) };
    let is_code = |written: &str| codes.contains(written.rsplit('|').next().unwrap_or(written));
    if value.split(',').all(is_code) {
        return Ok(());
    }
    Err(not_supported(format!(
        "`{name}` is of {}",
        codes.codes().join(", ")
    )))
}

fn filter(
    parameter: &Parameter,
    modifier: Option<&str>,
    value: &str,
    base: &str,
) -> Result<Filter, AppError> {
    let name = parameter.name;
    if modifier == Some("missing") && !matches!(parameter.values, Values::Id | Values::LastUpdated) {
        let missing = match value {
            "true" => true,
            "false" => false,
            _ => return Err(AppError::bad(format!("`{name}:missing` is `true` or `false`"))),
        };
        return Ok(Filter::Missing {
            name: name.to_owned(),
            missing,
        });
    }
    let parts = values::alternatives(name, value)?;
    let owned = name.to_owned();
    match (parameter.values, modifier) {
        (Values::Id, None) => Ok(Filter::Id(parts.into_iter().map(values::unescape).collect())),
        (Values::LastUpdated, None) => Ok(Filter::LastUpdated(dates(name, &parts)?)),
        (Values::Date, None) => Ok(Filter::Date {
            name: owned,
            any_of: dates(name, &parts)?,
        }),
        (Values::Token, None | Some("not")) => Ok(Filter::Token {
            name: owned,
            any_of: parts
                .into_iter()
                .map(|part| values::token(name, part))
                .collect::<Result<_, _>>()?,
            negated: modifier.is_some(),
        }),
        (Values::Reference(only), None) => references(name, &parts, base, only),
        (Values::Reference(only), Some(kind)) if table().resource(kind).is_some() => {
            if only.is_some_and(|only| only != kind) {
                return Err(AppError::bad(format!("`{name}` never refers to that type")));
            }
            references(name, &parts, base, Some(kind))
        }
        (Values::Text, None | Some("exact")) => {
            let folded = parts.into_iter().map(|part| fold(&values::unescape(part)));
            let any_of = folded
                .map(|text| text.chars().take(INDEXED_TEXT).collect())
                .collect();
            Ok(Filter::Text {
                name: owned,
                any_of,
                exact: modifier.is_some(),
            })
        }
        (Values::Uri, None) => {
            let local = |uri: String| uri.strip_prefix(base).map(str::to_owned).unwrap_or(uri);
            let any_of = parts
                .into_iter()
                .map(|part| local(values::unescape(part)))
                .collect();
            Ok(Filter::Text {
                name: owned,
                any_of,
                exact: true,
            })
        }
        (_, Some(modifier)) => Err(not_supported(format!(
            "the modifier `:{}` is not supported for `{name}`",
            shown(modifier)
        ))),
    }
}

fn references(name: &str, parts: &[&str], base: &str, only: Option<&str>) -> Result<Filter, AppError> {
    let any_of = parts.iter().map(|part| values::reference(name, part, base, only));
    Ok(Filter::Reference {
        name: name.to_owned(),
        any_of: any_of.collect::<Result<_, _>>()?,
    })
}

fn dates(name: &str, parts: &[&str]) -> Result<Vec<values::Range>, AppError> {
    let ranges = parts
        .iter()
        .map(|part| values::date(name, part))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(ranges.into_iter().flatten().collect())
}
