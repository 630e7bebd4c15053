//! What was measured, as a table for people and as JSON. A row that is judged ends in `ok` or `MISS`; no other line
//! has either word in it, so that both can be counted.

use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// What a figure is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// Nothing: the figure stands for itself.
    None,
}

impl Budget {
    fn holds(self, figure: f64) -> Option<bool> {
        match self {
            Self::AtMost(most) => Some(figure <= most),
            Self::AtLeast(least) => Some(figure >= least),
            Self::None => None,
        }
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {}", with_unit(most, unit)),
            Self::AtLeast(least) => format!("≥ {}", with_unit(least, unit)),
            Self::None => "no budget".to_owned(),
        }
    }

    fn number(self) -> Value {
        match self {
            Self::AtMost(bound) | Self::AtLeast(bound) => json!(bound),
            Self::None => Value::Null,
        }
    }
}

/// One budget and what was measured of it.
#[derive(Debug, Clone)]
pub struct Row {
    id: &'static str,
    what: String,
    outcome: Outcome,
    unit: &'static str,
    budget: Budget,
    stretch: Option<f64>,
    detail: String,
    more: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    Figure(f64),
    NotMeasured(String),
    Failed(String),
}

impl Row {
    /// A figure in `unit` for the budget that is known as `id`.
    pub fn new(
        id: &'static str,
        what: impl Into<String>,
        figure: f64,
        unit: &'static str,
        budget: Budget,
    ) -> Self {
        Self {
            id,
            what: what.into(),
            outcome: Outcome::Figure(figure),
            unit,
            budget,
            stretch: None,
            detail: String::new(),
            more: Map::new(),
        }
    }

    /// A budget whose subject does not exist, or was not looked at.
    pub fn not_measured(id: &'static str, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            outcome: Outcome::NotMeasured(why.into()),
            ..Self::new(id, what, 0.0, "", Budget::None)
        }
    }

    /// A budget whose measurement failed.
    pub fn failed(id: &'static str, what: impl Into<String>, why: &Failure) -> Self {
        Self {
            outcome: Outcome::Failed(why.to_string()),
            ..Self::new(id, what, 0.0, "", Budget::None)
        }
    }

    /// With the goal beyond the budget.
    #[must_use]
    pub fn stretch(mut self, stretch: f64) -> Self {
        self.stretch = Some(stretch);
        self
    }

    /// With what the figure is made of, in words.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// With a number that stands in the JSON alone.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// Whether the measurement failed.
    pub const fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }

    fn verdict(&self) -> Option<&'static str> {
        match self.outcome {
            Outcome::Figure(figure) => self
                .budget
                .holds(figure)
                .map(|holds| if holds { "ok" } else { "MISS" }),
            Outcome::NotMeasured(_) | Outcome::Failed(_) => None,
        }
    }

    fn figure(&self) -> String {
        match &self.outcome {
            Outcome::Figure(figure) if self.detail.is_empty() => with_unit(*figure, self.unit),
            Outcome::Figure(figure) => format!("{} ({})", with_unit(*figure, self.unit), self.detail),
            Outcome::NotMeasured(why) => format!("not measured: {why}"),
            Outcome::Failed(why) => format!("failed: {why}"),
        }
    }

    fn bound(&self) -> String {
        if !matches!(self.outcome, Outcome::Figure(_)) {
            return String::new();
        }
        let bound = self.budget.text(self.unit);
        match self.stretch {
            Some(stretch) => format!("{bound} [{}]", plain(stretch)),
            None => bound,
        }
    }

    fn json(&self) -> Value {
        let mut row = json!({"id": self.id, "what": self.what, "shown": self.figure()});
        let verdict = match &self.outcome {
            Outcome::Figure(figure) => {
                row["figure"] = json!(figure);
                row["unit"] = json!(self.unit);
                row["budget"] = self.budget.number();
                row["stretch"] = json!(self.stretch);
                self.verdict().unwrap_or("no budget")
            }
            Outcome::NotMeasured(_) => "not measured",
            Outcome::Failed(_) => "failed",
        };
        row["verdict"] = json!(verdict);
        if let Some(object) = row.as_object_mut() {
            object.extend(self.more.clone());
        }
        row
    }
}

/// All rows of a run, and what else is to be known of it.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    facts: Vec<(String, String)>,
    /// A smoke run measures nothing, so nothing is judged.
    unjudged: bool,
}

impl Report {
    /// An empty report of a run whose figures mean nothing.
    pub fn unjudged() -> Self {
        Self {
            unjudged: true,
            ..Self::default()
        }
    }

    /// Adds a row.
    pub fn add(&mut self, mut row: Row) {
        if self.unjudged {
            row.budget = Budget::None;
            row.stretch = None;
        }
        self.rows.push(row);
    }

    /// Adds what is to be known beside the rows: the machine, a reference.
    pub fn fact(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.facts.push((name.into(), value.into()));
    }

    /// Whether any measurement failed.
    pub fn has_failures(&self) -> bool {
        self.rows.iter().any(Row::has_failed)
    }

    /// The table.
    pub fn table(&self) -> String {
        let width = |texts: Vec<String>| texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
        let measured = || {
            self.rows
                .iter()
                .filter(|row| matches!(row.outcome, Outcome::Figure(_)))
        };
        let what = width(self.rows.iter().map(|row| row.what.clone()).collect());
        let figure = width(measured().map(Row::figure).collect()).max("measured".len());
        let bound = width(measured().map(Row::bound).collect()).max("budget [stretch]".len());
        let mut lines: Vec<String> = self
            .facts
            .iter()
            .map(|(name, value)| unmistakable(&format!("{name}: {value}")))
            .collect();
        lines.push(format!(
            "{:what$}  {:figure$}  {:bound$}",
            "", "measured", "budget [stretch]"
        ));
        for row in &self.rows {
            let line = format!(
                "{:what$}  {:figure$}  {:bound$}",
                row.what,
                row.figure(),
                row.bound()
            );
            lines.push(match row.verdict() {
                Some(verdict) => format!("{}  {verdict}", unmistakable(&line)),
                None => unmistakable(line.trim_end()),
            });
        }
        let mut table = lines
            .iter()
            .map(|line| line.trim_end())
            .collect::<Vec<_>>()
            .join("\n");
        table.push('\n');
        table
    }

    /// The same as JSON.
    pub fn json(&self) -> Value {
        let facts: Map<String, Value> = self
            .facts
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        json!({"facts": facts, "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>()})
    }
}

/// The text without the words that judge, should an error's or a server's text hold one.
pub fn unmistakable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    for c in text.chars().chain(std::iter::once('\n')) {
        if c.is_alphanumeric() || c == '_' {
            word.push(c);
            continue;
        }
        out.push_str(match word.as_str() {
            "ok" => "o.k.",
            "MISS" => "M.I.S.S.",
            other => other,
        });
        word.clear();
        out.push(c);
    }
    out.pop();
    out
}

fn with_unit(number: f64, unit: &str) -> String {
    if unit.is_empty() {
        return plain(number);
    }
    if unit == "×" {
        return format!("{} ×", plain(number));
    }
    format!("{} {unit}", plain(number))
}

/// A number with as many digits as say something, and thousands set apart.
fn plain(number: f64) -> String {
    let digits = match number.abs() {
        n if n >= 100.0 || n.fract() < f64::EPSILON => 0,
        n if n >= 10.0 => 1,
        n if n >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{:.digits$}", number.abs());
    let (whole, rest) = text
        .split_once('.')
        .map_or((text.as_str(), None), |(w, r)| (w, Some(r)));
    let mut grouped = if number < 0.0 { "-" } else { "" }.to_owned();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    match rest {
        Some(rest) => format!("{grouped}.{rest}"),
        None => grouped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        report.fact("server said", "all ok, no MISS");
        report.add(Row::new("a", "Task read", 12_345.6, "/s", Budget::AtLeast(10_000.0)).stretch(20_000.0));
        report.add(Row::new("b", "ok to wait?", 8.25, "ms", Budget::AtMost(8.0)).detail("ok of MISS"));
        report.add(Row::new("c", "Binary up", 99.0, "MiB/s", Budget::None));
        report.add(Row::not_measured("d", "commit → subscriber", "nothing is ok yet"));
        report.add(Row::failed(
            "e",
            "Task create",
            &Failure::new("status 500: \"MISS\" ok"),
        ));
        report
    }

    fn words(line: &str) -> Vec<&str> {
        line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .filter(|word| matches!(*word, "ok" | "MISS"))
            .collect()
    }

    #[test]
    fn judged_rows_end_in_their_verdict_and_neither_word_stands_anywhere_else() {
        let table = report().table();
        let verdicts: Vec<Vec<&str>> = table.lines().map(words).collect();
        let none = Vec::<&str>::new();
        assert_eq!(
            verdicts,
            [
                none.clone(),
                none.clone(),
                vec!["ok"],
                vec!["MISS"],
                none.clone(),
                none.clone(),
                none
            ],
            "{table}"
        );
        let mut lines = table.lines().skip(2);
        assert!(lines.next().is_some_and(|line| line.ends_with("  ok")));
        assert!(lines.next().is_some_and(|line| line.ends_with("  MISS")));
    }

    #[test]
    fn a_smoke_run_judges_nothing() {
        let mut smoke = Report::unjudged();
        for row in report().rows {
            smoke.add(row);
        }
        assert!(smoke.table().lines().all(|line| words(line).is_empty()));
    }

    #[test]
    fn figures_are_readable_and_budgets_stand_beside_them() {
        let table = report().table();
        assert!(table.contains("12,346 /s"), "{table}");
        assert!(table.contains("≥ 10,000 /s [20,000]"), "{table}");
        assert_eq!(plain(0.0123), "0.012");
        assert_eq!(plain(1_234_567.0), "1,234,567");
        assert_eq!(plain(3.0), "3");
        assert_eq!(plain(-0.133), "-0.13");
        assert_eq!(plain(-133.0), "-133");
        assert_eq!(plain(-1_234.0), "-1,234");
    }

    #[test]
    fn the_json_says_the_same_with_numbers() {
        let json = report().json();
        assert_eq!(json["rows"][0]["verdict"], "ok");
        assert_eq!(json["rows"][1]["verdict"], "MISS");
        assert_eq!(json["rows"][1]["budget"].to_string(), "8.0");
        assert_eq!(json["rows"][3]["verdict"], "not measured");
        assert_eq!(json["rows"][4]["verdict"], "failed");
        assert!(report().has_failures());
    }
}
