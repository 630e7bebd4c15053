//! Search.
use handoff_domain::ports::{Filter, Kind, Search, Sort, Visibility};

pub fn all(kind: Kind) -> Search {
    Search {
        kind,
        filters: vec![],
        visibility: Visibility::Tenant,
        sort: Sort::NewestFirst,
        limit: 100,
        after: None,
        total: false,
    }
}

pub fn for_code(code: &str) -> Search {
    let filter = Filter::Token {
        name: "code".to_owned(),
        any_of: vec![(None, Some(code.to_owned()))],
        negated: false,
    };
    Search { filters: vec![filter], ..all(Kind::Task) }
}
