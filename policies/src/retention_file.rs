//! Reads `retention.toml`: how long documents of each class are kept, and may be released.

use handoff_domain::retention::{KeptFrom, Schedule, Schedules};
use handoff_domain::time::Span;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::reading::{FileProblem, Reader, Unit, is_class};

/// The keys that `[default]` and every `[class.…]` may have.
const KEYS: &[&str] = &["keep", "from", "available", "grace"];
const UNITS: &[Unit] = &[Unit::Hour, Unit::Day, Unit::Year];
/// Shorter ones are mistakes: what is disposed of is gone.
const SHORTEST_KEEP: Span = Span::hours(24);
const LONGEST_GRACE: Span = Span::hours(24 * 366);
const LONGEST: Span = Span::hours(24 * 366 * 1000);

/// The schedules that `text` describes, or every problem with it.
///
/// `[default]` changes the server's own, which keeps everything for ever; each `[class.CODE]` starts from `[default]`.
pub fn parse_retention(text: &str) -> Result<Schedules, Vec<FileProblem>> {
    Reader::read(text, Reader::schedules)
}

impl Reader<'_> {
    fn schedules(&mut self, root: &DeTable<'_>) -> Schedules {
        let mut schedules = Schedules::default();
        self.deny_unknown(root, "", &["default", "class"], &[]);
        if let Some(default) = root.get("default") {
            match default.get_ref().as_table() {
                Some(table) => schedules.default = self.schedule(table, "default", &Schedule::default()),
                None => self.wrong_type(default, "default", "a table"),
            }
        }
        let Some(classes) = root.get("class") else {
            return schedules;
        };
        let Some(classes) = classes.get_ref().as_table() else {
            self.wrong_type(classes, "class", "tables, written `[class.CODE]`");
            return schedules;
        };
        for (name, value) in classes {
            let class: &str = name.get_ref();
            let key = format!("class.{class}");
            if !is_class(class) {
                self.problem(name.span(), &key, format!("`{class}` is not a document class"));
            }
            let Some(table) = value.get_ref().as_table() else {
                self.wrong_type(value, &key, "a table");
                continue;
            };
            let schedule = self.schedule(table, &key, &schedules.default);
            schedules.by_class.insert(class.to_owned(), schedule);
        }
        schedules
    }

    fn schedule(&mut self, table: &DeTable<'_>, prefix: &str, base: &Schedule) -> Schedule {
        self.deny_unknown(table, prefix, KEYS, &[]);
        let mut schedule = *base;
        for (name, value) in table {
            let key = format!("{prefix}.{}", name.get_ref());
            match &**name.get_ref() {
                "keep" => self.limit(value, &key, "forever", SHORTEST_KEEP, &mut schedule.keep),
                "available" => self.limit(value, &key, "always", Span::hours(1), &mut schedule.available),
                "from" => match value.get_ref().as_str().and_then(KeptFrom::parse) {
                    Some(from) => schedule.from = from,
                    None => self.problem(value.span(), &key, "must be \"created\" or \"last-changed\""),
                },
                "grace" => match self.duration(value, &key, UNITS) {
                    Some(span) if span > LONGEST_GRACE => {
                        self.problem(value.span(), &key, "must be a year or less");
                    }
                    Some(span) => schedule.grace = span,
                    None => {}
                },
                _ => {}
            }
        }
        schedule
    }

    /// A duration, or the word for none.
    fn limit(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        none: &str,
        shortest: Span,
        slot: &mut Option<Span>,
    ) {
        if value.get_ref().as_str() == Some(none) {
            *slot = None;
            return;
        }
        match self.duration(value, key, UNITS) {
            Some(span) if !(shortest..=LONGEST).contains(&span) => {
                let hours = shortest.whole_seconds().div_euclid(3600);
                self.problem(
                    value.span(),
                    key,
                    format!("must be \"{none}\", or from {hours} h to 1000 years"),
                );
            }
            Some(span) => *slot = Some(span),
            None => {}
        }
    }
}
