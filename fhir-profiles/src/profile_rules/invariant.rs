//! The little of `FHIRPath` in which the invariants of our profiles are written:
//! `path.exists()`, `path.empty()`, `path = 'text'`, joined by `and`, `or`, `implies` and parentheses.
//! Anything else does not parse, and a test holds that every invariant does.

use serde_json::Value;

/// Far more than any invariant of ours needs; keeps the parser's recursion bounded.
const MAX_DEPTH: usize = 16;

/// A condition on one element.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expression {
    Exists(Vec<String>),
    Empty(Vec<String>),
    Equals(Vec<String>, String),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Implies(Box<Expression>, Box<Expression>),
}

impl Expression {
    /// The expression, if it is in the part of the language that is spoken here.
    pub fn parse(source: &str) -> Option<Self> {
        let tokens = tokens(source)?;
        let mut parser = Parser { tokens: &tokens };
        let expression = parser.implies(0)?;
        parser.tokens.is_empty().then_some(expression)
    }

    /// Whether the condition is met by the element `value`. What is missing equals nothing.
    pub fn holds(&self, value: &Value) -> bool {
        match self {
            Self::Exists(path) => !select(value, path).is_empty(),
            Self::Empty(path) => select(value, path).is_empty(),
            Self::Equals(path, text) => {
                matches!(select(value, path).as_slice(), [Value::String(found)] if found == text)
            }
            Self::And(left, right) => left.holds(value) && right.holds(value),
            Self::Or(left, right) => left.holds(value) || right.holds(value),
            Self::Implies(left, right) => !left.holds(value) || right.holds(value),
        }
    }
}

fn select<'v>(value: &'v Value, path: &[String]) -> Vec<&'v Value> {
    let mut found = vec![value];
    for name in path {
        let below = found
            .iter()
            .filter_map(|value| value.get(name).or_else(|| value.get(format!("_{name}"))));
        found = below
            .flat_map(|value| {
                value
                    .as_array()
                    .map_or(vec![value], |items| items.iter().collect())
            })
            .collect();
    }
    found
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Mark(char),
}

fn tokens(source: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = source.trim_start();
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_alphabetic() {
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric())
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at_checked(end)?;
            tokens.push(Token::Word(word.to_owned()));
            rest = after;
        } else if first == '\'' {
            let (text, after) = rest.strip_prefix('\'')?.split_once('\'')?;
            tokens.push(Token::Text(text.to_owned()));
            rest = after;
        } else if matches!(first, '.' | '(' | ')' | '=') {
            tokens.push(Token::Mark(first));
            rest = rest.strip_prefix(first)?;
        } else {
            return None;
        }
        rest = rest.trim_start();
    }
    Some(tokens)
}

struct Parser<'t> {
    tokens: &'t [Token],
}

impl Parser<'_> {
    fn implies(&mut self, depth: usize) -> Option<Expression> {
        let mut left = self.or(depth)?;
        while self.word("implies") {
            left = Expression::Implies(Box::new(left), Box::new(self.or(depth)?));
        }
        Some(left)
    }

    fn or(&mut self, depth: usize) -> Option<Expression> {
        let mut left = self.and(depth)?;
        while self.word("or") {
            left = Expression::Or(Box::new(left), Box::new(self.and(depth)?));
        }
        Some(left)
    }

    fn and(&mut self, depth: usize) -> Option<Expression> {
        let mut left = self.term(depth)?;
        while self.word("and") {
            left = Expression::And(Box::new(left), Box::new(self.term(depth)?));
        }
        Some(left)
    }

    fn term(&mut self, depth: usize) -> Option<Expression> {
        if self.mark('(') {
            let inner = if depth < MAX_DEPTH {
                self.implies(depth + 1)?
            } else {
                return None;
            };
            return self.mark(')').then_some(inner);
        }
        let mut path = vec![self.any_word()?];
        while self.mark('.') {
            path.push(self.any_word()?);
        }
        if self.mark('=') {
            return match self.next()? {
                Token::Text(text) => Some(Expression::Equals(path, text.clone())),
                _ => None,
            };
        }
        let function = path.pop()?;
        if path.is_empty() || !self.mark('(') || !self.mark(')') {
            return None;
        }
        match function.as_str() {
            "exists" => Some(Expression::Exists(path)),
            "empty" => Some(Expression::Empty(path)),
            _ => None,
        }
    }

    fn next(&mut self) -> Option<&Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn any_word(&mut self) -> Option<String> {
        match self.next()? {
            Token::Word(word) => Some(word.clone()),
            _ => None,
        }
    }

    fn word(&mut self, expected: &str) -> bool {
        let is_next = matches!(self.tokens.first(), Some(Token::Word(word)) if word == expected);
        is_next && self.next().is_some()
    }

    fn mark(&mut self, expected: char) -> bool {
        let is_next = matches!(self.tokens.first(), Some(Token::Mark(mark)) if *mark == expected);
        is_next && self.next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(expression: &str, value: &Value) -> bool {
        Expression::parse(expression).unwrap().holds(value)
    }

    #[test]
    fn a_condition_looks_at_what_is_there() {
        let value = json!({"a": [{"b": 1}, {}], "c": "x", "_d": {"id": "1"}});
        assert!(holds("a.exists()", &value));
        assert!(holds("a.b.exists() and z.empty()", &value));
        assert!(holds("c = 'x'", &value));
        assert!(holds("d.exists()", &value));
        assert!(!holds("c = 'y' or z.exists()", &value));
        assert!(!holds("z = 'y'", &value));
    }

    #[test]
    fn and_binds_before_or_and_both_before_implies() {
        let value = json!({"a": 1});
        assert!(holds("a.exists() or a.exists() and z.exists()", &value));
        assert!(!holds("(a.exists() or a.exists()) and z.exists()", &value));
        assert!(holds("z.exists() implies z.exists()", &value));
        assert!(!holds("a.exists() or z.exists() implies z.exists()", &value));
    }

    #[test]
    fn what_is_not_spoken_here_does_not_parse() {
        for foreign in [
            "",
            "a",
            "a.count() > 1",
            "a.exists(b)",
            "a.exists() and",
            "(a.exists()",
            "a = 1",
            "a = 'x",
            "a.exists() b",
        ] {
            assert_eq!(Expression::parse(foreign), None, "{foreign}");
        }
        assert_eq!(Expression::parse(&"(".repeat(100_000)), None);
    }
}
