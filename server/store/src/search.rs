//! Search: the statement that a search becomes. Knows parameters by name only, not what they mean in FHIR.

mod index;

use diesel::RunQueryDsl;
use diesel::sql_types::{BigInt, Binary, Text};
use handoff_domain::ports::{Filter, Found, Kind, Search, Sort, StoreError, Visibility, bare};
use handoff_domain::{TenantId, Timestamp};

use crate::dialect::AnyConnection;
use crate::error::OrRefused;
use crate::statement::Statement;
use crate::tasks::team_viewer;

pub(crate) use index::{Digest, first_reference, remove, replace};
use index::{STATUS, cut};

/// Resources that match.
pub(crate) fn search(
    connection: &mut AnyConnection,
    tenant: &TenantId,
    search: &Search,
) -> Result<Found, StoreError> {
    let Some(asked) = Asked::new(tenant, search) else {
        return Err(StoreError::Broken("Binary can't be searched".to_owned()));
    };
    let mut found = Found::default();
    if search.total {
        let count = Statement::<BigInt>::new("SELECT count(*)").and_then(&asked.matching());
        let count: i64 = count.get_result(connection).or_refused()?;
        found.total = u64::try_from(count).ok();
    }
    if search.limit > 0 {
        let rows: Vec<(String, i64, Vec<u8>)> = asked.page().load(connection).or_refused()?;
        let limit = usize::try_from(search.limit).unwrap_or(usize::MAX);
        found.more = rows.len() > limit;
        found.resources = rows
            .into_iter()
            .take(limit)
            .map(|(id, at, body)| (id, Timestamp(at), body))
            .collect();
    }
    Ok(found)
}

/// A search on its way to a statement. In the text, `r` is the resource's row.
struct Asked<'s> {
    tenant: &'s TenantId,
    search: &'s Search,
    table: &'static str,
    kind: &'static str,
}

type Sql = Statement<()>;

impl<'s> Asked<'s> {
    fn new(tenant: &'s TenantId, search: &'s Search) -> Option<Self> {
        let table = match search.kind {
            Kind::Task => "tasks",
            Kind::Document => "documents",
            Kind::Subscription => "subscriptions",
            Kind::Binary => return None,
        };
        Some(Self {
            tenant,
            search,
            table,
            kind: search.kind.as_str(),
        })
    }

    fn page(&self) -> Statement<(Text, BigInt, Binary)> {
        let (after, order) = match self.search.sort {
            Sort::NewestFirst => (
                " AND (r.last_updated, r.id) < (",
                " ORDER BY r.last_updated DESC, r.id DESC",
            ),
            Sort::OldestFirst => (
                " AND (r.last_updated, r.id) > (",
                " ORDER BY r.last_updated, r.id",
            ),
            Sort::ById => (" AND r.id > ", " ORDER BY r.id"),
        };
        let mut statement = Statement::new("SELECT r.id, r.last_updated, v.body").and_then(&self.matching());
        if let Some((at, id)) = &self.search.after {
            statement = match self.search.sort {
                Sort::ById => statement.sql(after).bind(id.as_str()),
                Sort::NewestFirst | Sort::OldestFirst => statement
                    .sql(after)
                    .bind(at.0)
                    .sql(", ")
                    .bind(id.as_str())
                    .sql(")"),
            };
        }
        statement
            .sql(order)
            .sql(" LIMIT ")
            .bind(i64::from(self.search.limit).saturating_add(1))
    }

    /// From FROM to the end of WHERE.
    fn matching(&self) -> Sql {
        let mut sql = Sql::new(" FROM ")
            .sql(self.table)
            .sql(" r JOIN resource_versions v ON v.tenant = r.tenant AND v.kind = '")
            .sql(self.kind)
            .sql("' AND v.id = r.id AND v.version = r.version WHERE r.tenant = ")
            .bind(self.tenant.as_str())
            .sql(" AND NOT r.deleted");
        for filter in &self.search.filters {
            sql = self.filter(sql.sql(" AND "), filter);
        }
        match &self.search.visibility {
            Visibility::Tenant => sql,
            Visibility::Actor { actor, .. } if self.implies_visible(actor.as_str()) => sql,
            Visibility::Actor {
                actor,
                teams,
                created,
            } => {
                let viewers: Vec<String> = std::iter::once(actor.as_str().to_owned())
                    .chain(teams.iter().map(|team| team_viewer(team)))
                    .collect();
                self.visible(sql.sql(" AND "), created.then(|| actor.as_str()), viewers)
            }
        }
    }

    /// Whether a filter finds only what this actor may see anyway.
    fn implies_visible(&self, actor: &str) -> bool {
        self.search.kind == Kind::Task
            && self.search.filters.iter().any(|filter| {
                matches!(filter, Filter::Reference { name, any_of }
                    if matches!(name.as_str(), "owner" | "requester") && any_of.as_slice() == [actor])
            })
    }

    /// Results that some of `viewers` see, or that `creator` created.
    fn visible(&self, sql: Sql, creator: Option<&str>, viewers: Vec<String>) -> Sql {
        let seen = |sql: Sql, what: &'static str| {
            sql.sql(what)
                .sql(" WHERE w.tenant = ")
                .bind(self.tenant.as_str())
                .sql(" AND w.viewer")
                .one_of(viewers)
        };
        if self.search.kind == Kind::Subscription {
            return match creator {
                Some(creator) => sql.sql("r.created_by = ").bind(creator),
                None => sql.sql("1 = 0"),
            };
        }
        if self.search.kind == Kind::Task {
            return seen(sql, "r.id IN (SELECT w.task FROM task_viewers w").sql(")");
        }
        let sql = match creator {
            Some(creator) => sql.sql("(r.created_by = ").bind(creator).sql(" OR "),
            None => sql.sql("("),
        };
        seen(
            sql,
            "r.id IN (SELECT d.document FROM task_viewers w JOIN task_documents d \
             ON d.tenant = w.tenant AND d.task = w.task",
        )
        .sql("))")
    }

    fn filter(&self, sql: Sql, filter: &Filter) -> Sql {
        match filter {
            Filter::Id(ids) => sql.sql("r.id").one_of(ids.iter().map(String::as_str)),
            Filter::LastUpdated(ranges) => any(sql, ranges, |sql, (from, until)| {
                sql.sql("r.last_updated >= ")
                    .bind(from.0)
                    .sql(" AND r.last_updated < ")
                    .bind(until.0)
            }),
            Filter::Token {
                name,
                any_of,
                negated: false,
            } => self.tokens(sql, name, any_of),
            Filter::Token {
                name,
                any_of,
                negated: true,
            } => self.tokens(sql.sql("NOT ("), name, any_of).sql(")"),
            Filter::Reference { name, any_of } => self.references(sql, name, any_of),
            Filter::Date { name, any_of } => {
                let sql = self.among(sql, "search_dates", name).sql(" AND ");
                any(sql, any_of, |sql, (from, until)| {
                    sql.sql("s.first_at < ")
                        .bind(until.0)
                        .sql(" AND s.last_at >= ")
                        .bind(from.0)
                })
                .sql(")")
                .uncached()
            }
            Filter::Text { name, any_of, exact } => {
                let sql = self.among(sql, "search_strings", name).sql(" AND ");
                any(sql, any_of, |sql, text| {
                    let text = cut(text);
                    if *exact {
                        return sql.sql("s.value = ").bind(text);
                    }
                    // All texts that begin so, as a range: bytes compare as the code points that they encode.
                    sql.sql("s.value >= ")
                        .bind(text)
                        .sql(" AND s.value < ")
                        .bind(format!("{text}\u{10ffff}"))
                })
                .sql(")")
                .uncached()
            }
            Filter::Missing { name, missing } => self.missing(sql, name, *missing),
            Filter::AnyOf(alternatives) => any(sql, alternatives, |mut sql, all| {
                sql = sql.sql("1 = 1");
                for filter in all {
                    sql = self.filter(sql.sql(" AND "), filter);
                }
                sql
            })
            .uncached(),
        }
    }

    /// Tokens. What has a column of its own is compared there: an index ends with it in the order of results.
    fn tokens(&self, sql: Sql, name: &str, any_of: &[(Option<String>, Option<String>)]) -> Sql {
        if name == STATUS {
            return self.statuses(sql, any_of);
        }
        let sql = self.among(sql, "search_tokens", name).sql(" AND ");
        any(sql, any_of, |sql, (system, code)| match (system, code) {
            (None, None) => sql.sql("1 = 1"),
            (Some(system), None) => sql.sql("s.system = ").bind(cut(system)),
            (None, Some(code)) => sql.sql("s.code = ").bind(cut(code)),
            (Some(system), Some(code)) => sql
                .sql("s.code = ")
                .bind(cut(code))
                .sql(" AND s.system = ")
                .bind(cut(system)),
        })
        .sql(")")
        .uncached()
    }

    /// Statuses, all of which are codes of one system.
    fn statuses(&self, sql: Sql, any_of: &[(Option<String>, Option<String>)]) -> Sql {
        let ours = self.search.kind.status_system();
        let meant: Vec<Option<&str>> = any_of
            .iter()
            .filter(|(system, _)| system.as_deref().is_none_or(|system| Some(system) == ours))
            .map(|(_, code)| code.as_deref())
            .collect();
        match meant.iter().copied().collect::<Option<Vec<&str>>>() {
            Some(codes) if codes.is_empty() => sql.sql("1 = 0"),
            Some(codes) => sql.sql("r.status").one_of(codes),
            // The system alone, which is that of every one.
            None => sql.sql("1 = 1"),
        }
    }

    fn references(&self, sql: Sql, name: &str, any_of: &[String]) -> Sql {
        let column = match (self.search.kind, name) {
            (Kind::Task, "owner") => Some("r.owner"),
            (_, "patient" | "subject") => Some("r.patient"),
            _ => None,
        };
        if let Some(column) = column
            && any_of.iter().all(|target| !target.starts_with("*/"))
        {
            return sql.sql(column).one_of(any_of.iter().map(|target| cut(target)));
        }
        let sql = self.among(sql, "search_references", name).sql(" AND ");
        any(sql, any_of, |sql, target| match target.strip_prefix("*/") {
            Some(id) => sql.sql("s.bare = ").bind(id),
            None => sql
                .sql("s.bare = ")
                .bind(bare(cut(target)))
                .sql(" AND s.target = ")
                .bind(cut(target)),
        })
        .sql(")")
        .uncached()
    }

    fn missing(&self, sql: Sql, name: &str, missing: bool) -> Sql {
        if name == STATUS {
            return sql.sql(if missing { "1 = 0" } else { "1 = 1" });
        }
        let mut sql = sql.sql(if missing { "NOT (" } else { "(" });
        let tables = [
            "search_tokens",
            "search_references",
            "search_dates",
            "search_strings",
        ];
        for (number, table) in tables.into_iter().enumerate() {
            sql = sql
                .sql(if number == 0 { "" } else { " OR " })
                .sql("EXISTS (SELECT 1 FROM ")
                .sql(table)
                .sql(" s WHERE s.tenant = r.tenant AND s.kind = '")
                .sql(self.kind)
                .sql("' AND s.id = r.id AND s.name = ")
                .bind(name)
                .sql(")");
        }
        sql.sql(")").uncached()
    }

    /// `r.id` is among those with a value under this name for which … holds; the caller closes the bracket.
    fn among(&self, sql: Sql, table: &'static str, name: &str) -> Sql {
        sql.sql("r.id IN (SELECT s.id FROM ")
            .sql(table)
            .sql(" s WHERE s.tenant = ")
            .bind(self.tenant.as_str())
            .sql(" AND s.kind = '")
            .sql(self.kind)
            .sql("' AND s.name = ")
            .bind(name)
    }
}

/// The alternatives, joined by OR; none of them matches nothing.
fn any<'a, T>(sql: Sql, alternatives: &'a [T], one: impl Fn(Sql, &'a T) -> Sql) -> Sql {
    let mut sql = sql.sql("(");
    if alternatives.is_empty() {
        sql = sql.sql("1 = 0");
    }
    for (number, alternative) in alternatives.iter().enumerate() {
        sql = one(sql.sql(if number == 0 { "(" } else { " OR (" }), alternative).sql(")");
    }
    let sql = sql.sql(")");
    if alternatives.len() > 1 {
        sql.uncached()
    } else {
        sql
    }
}
