//! The parameters that steer a search instead of narrowing it, and those that are refused because leaving them
//! out would answer with more than was asked for. Knows nothing of resource types.

use handoff_domain::reason::Reason;

use crate::app::{AppError, Class};

/// How many results a page holds where `_count` does not say.
pub const DEFAULT_COUNT: u32 = 50;
/// The most results of a page, whatever `_count` says.
pub const MAX_COUNT: u32 = 500;
/// The most parameters of one search.
const MAX_PARAMETERS: usize = 50;
/// How much of a parameter's name is repeated in an answer.
const SHOWN_NAME: usize = 64;

/// Parameters of the R4 search page that narrow or join in ways not offered here.
const REFUSED: [&str; 9] = [
    "_has",
    "_include",
    "_revinclude",
    "_filter",
    "_query",
    "_list",
    "_text",
    "_content",
    "_containedType",
];

/// Name and value of a parameter.
pub type Pair<'p> = (&'p str, &'p str);

/// What the steering parameters of one search said.
#[derive(Debug, Clone, Default)]
pub struct Controls {
    /// `_count`, already brought down to the limit.
    pub count: Option<u32>,
    /// `_sort`.
    pub sort: Option<String>,
    /// `_total=accurate` or `estimate`: whether to count all.
    pub total: bool,
    /// `_summary=count`.
    pub only_count: bool,
    /// `_page`, the cursor.
    pub page: Option<String>,
    /// Those that took effect, but for the cursor.
    pub used: Vec<(String, String)>,
    /// Names of parameters without effect.
    pub ignored: Vec<String>,
    seen: Vec<&'static str>,
}

impl Controls {
    /// Takes the steering parameters out of `pairs` and answers the others, or says what is refused.
    pub fn split(pairs: &[(String, String)]) -> Result<(Self, Vec<Pair<'_>>), AppError> {
        if pairs.len() > MAX_PARAMETERS {
            return Err(AppError::bad(format!(
                "a search has at most {MAX_PARAMETERS} parameters"
            )));
        }
        let mut controls = Self::default();
        let mut rest = Vec::new();
        for (name, value) in pairs {
            if !controls.take(name, value)? {
                rest.push((name.as_str(), value.as_str()));
            }
        }
        Ok((controls, rest))
    }

    /// How many results the page holds.
    pub fn limit(&self) -> u32 {
        if self.only_count {
            0
        } else {
            self.count.unwrap_or(DEFAULT_COUNT)
        }
    }

    /// Notes a parameter that is not known, which strict handling refuses.
    pub fn ignore(&mut self, name: &str) {
        self.ignored.push(shown(name));
    }

    /// Refuses parameters without effect where the client asked for that (`Prefer: handling=strict`).
    pub fn settle(&self, strict: bool) -> Result<(), AppError> {
        match self.ignored.first() {
            Some(name) if strict => Err(not_supported(format!(
                "the search parameter `{name}` is not supported; see `metadata`"
            ))),
            _ => Ok(()),
        }
    }

    fn take(&mut self, name: &str, value: &str) -> Result<bool, AppError> {
        match name {
            "_count" => {
                self.once("_count")?;
                let count: u32 = Some(value)
                    .filter(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()))
                    .map(|v| v.parse().unwrap_or(u32::MAX))
                    .ok_or_else(|| AppError::bad("`_count` is a whole number from 0 on"))?;
                let count = count.min(MAX_COUNT);
                self.count = Some(count);
                self.used.push((name.to_owned(), count.to_string()));
            }
            "_sort" => {
                self.once("_sort")?;
                self.sort = Some(value.to_owned());
                self.used.push((name.to_owned(), value.to_owned()));
            }
            "_total" => {
                self.once("_total")?;
                self.total = match value {
                    "none" => false,
                    "estimate" | "accurate" => true,
                    _ => return Err(AppError::bad("`_total` is `none`, `estimate` or `accurate`")),
                };
                self.used.push((name.to_owned(), value.to_owned()));
            }
            "_summary" => {
                self.once("_summary")?;
                match value {
                    "count" => {
                        self.only_count = true;
                        self.used.push((name.to_owned(), value.to_owned()));
                    }
                    "false" => self.used.push((name.to_owned(), value.to_owned())),
                    "true" | "text" | "data" => self.ignore(name),
                    _ => {
                        return Err(AppError::bad(
                            "`_summary` is `true`, `text`, `data`, `count` or `false`",
                        ));
                    }
                }
            }
            "_page" => {
                self.once("_page")?;
                self.page = Some(value.to_owned());
            }
            "_format" | "_pretty" => self.used.push((name.to_owned(), value.to_owned())),
            "_elements" => self.ignore(name),
            "_contained" if value == "false" => self.used.push((name.to_owned(), value.to_owned())),
            "_contained" => return Err(not_supported("contained resources can't be searched")),
            _ => {
                let plain = name.split([':', '.']).next().unwrap_or_default();
                if REFUSED.contains(&plain) {
                    return Err(not_supported(format!(
                        "`{plain}` is not supported; see `metadata`"
                    )));
                }
                if name.contains('.') {
                    return Err(not_supported(
                        "chained search parameters are not supported; see `metadata`",
                    ));
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn once(&mut self, name: &'static str) -> Result<(), AppError> {
        if self.seen.contains(&name) {
            return Err(AppError::bad(format!("`{name}` may be given once only")));
        }
        self.seen.push(name);
        Ok(())
    }
}

/// Something of FHIR that is not done here.
pub fn not_supported(text: impl Into<String>) -> AppError {
    AppError::new(Class::Invalid, Reason::NotSupported, text)
}

/// A parameter's name as far as it may stand in an answer or a log.
pub fn shown(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_ascii_alphanumeric() || "_-:.".contains(*c))
        .take(SHOWN_NAME)
        .collect()
}
