//! JSON text to a tree of values, once and strictly (RFC 8259): what follows the value, a repeated property, a lone
//! surrogate or too deep a nesting is an error. Knows nothing of FHIR.
//!
//! `serde_json` itself keeps the last of repeated properties and takes `{"$serde_json::private::Number": …}` for a
//! number, so it is not used to read; its `Value` is what comes out.

use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

/// Why a text is not JSON that we take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonError {
    /// What is wrong; holds nothing of the text.
    pub(crate) text: &'static str,
    /// Byte offset at which it shows.
    pub(crate) offset: usize,
    /// The properties and indices that lead there.
    pub(crate) path: Vec<Step>,
}

/// One step from the root to a place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Property(String),
    Index(usize),
}

/// A number is refused beyond this many characters: no measurement is that exact.
const MAX_NUMBER: usize = 80;

/// A text of more values than this is refused: each takes many times its length in memory. A Bundle of 500 entries
/// has some ten thousand.
const MAX_VALUES: usize = 500_000;

/// The one value that `bytes` hold. A leading UTF-8 byte order mark is ignored.
pub(crate) fn read(bytes: &[u8], max_depth: usize) -> Result<Value, JsonError> {
    let body = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = match std::str::from_utf8(body) {
        Ok(text) => Reader {
            text,
            bytes: body,
            at: 0,
            room: max_depth,
            values_left: MAX_VALUES,
            path: Vec::new(),
        },
        Err(error) => {
            return Err(JsonError {
                text: "the text is not UTF-8",
                offset: error.valid_up_to(),
                path: Vec::new(),
            });
        }
    };
    reader.space();
    let value = reader.value()?;
    reader.space();
    if reader.at < reader.bytes.len() {
        return Err(reader.error("something follows the end of the JSON value"));
    }
    Ok(value)
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// How many more levels may open.
    room: usize,
    /// How many more values may come.
    values_left: usize,
    path: Vec<Step>,
}

impl Reader<'_> {
    fn error(&self, text: &'static str) -> JsonError {
        JsonError {
            text,
            offset: self.at,
            path: self.path.clone(),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8, text: &'static str) -> Result<(), JsonError> {
        if self.peek() == Some(byte) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.error(text))
        }
    }

    fn value(&mut self) -> Result<Value, JsonError> {
        self.values_left = match self.values_left.checked_sub(1) {
            Some(left) => left,
            None => return Err(self.error("the JSON holds too many values")),
        };
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => self.string().map(Value::String),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(self.error("no JSON value starts like this")),
            None => Err(self.error("the JSON ends too early")),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, JsonError>) -> Result<Value, JsonError> {
        self.room = match self.room.checked_sub(1) {
            Some(room) => room,
            None => return Err(self.error("the JSON is nested too deeply")),
        };
        self.at += 1;
        let value = read(self)?;
        self.room += 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Value, JsonError> {
        let mut map = Map::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(map));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.error("a property name in quotes is expected"));
            }
            let name = self.string()?;
            self.path.push(Step::Property(name));
            self.space();
            self.expect(b':', "a colon is expected after the property name")?;
            self.space();
            let value = self.value()?;
            let Some(Step::Property(name)) = self.path.pop() else {
                return Err(self.error("the JSON reader lost its place"));
            };
            match map.entry(name) {
                Entry::Vacant(place) => {
                    place.insert(value);
                }
                Entry::Occupied(first) => {
                    self.path.push(Step::Property(first.key().clone()));
                    return Err(self.error("the property is given twice"));
                }
            }
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Value::Object(map));
                }
                _ => return Err(self.error("a comma or the end of the object is expected")),
            }
        }
    }

    fn array(&mut self) -> Result<Value, JsonError> {
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            self.space();
            self.path.push(Step::Index(items.len()));
            items.push(self.value()?);
            self.path.pop();
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::Array(items));
                }
                _ => return Err(self.error("a comma or the end of the array is expected")),
            }
        }
    }

    fn word(&mut self, word: &'static str, value: Value) -> Result<Value, JsonError> {
        if self
            .bytes
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word.as_bytes()))
        {
            self.at += word.len();
            Ok(value)
        } else {
            Err(self.error("no JSON value starts like this"))
        }
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.error("a digit is expected"));
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.error("a number may not start with a zero"));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        if self.at - start > MAX_NUMBER {
            return Err(self.error("a number is written with too many digits"));
        }
        let written = self.text.get(start..self.at).unwrap_or_default();
        written
            .parse::<Number>()
            .map(Value::Number)
            .map_err(|_| self.error("a number cannot be read"))
    }

    /// A string; most hold no escape and are copied once.
    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut built = String::new();
        loop {
            let start = self.at;
            let rest = self.bytes.get(start..).unwrap_or_default();
            let run = rest.iter().position(|b| *b == b'"' || *b == b'\\' || *b < 0x20);
            let Some(run) = run else {
                self.at = self.bytes.len();
                return Err(self.error("the JSON ends within a string"));
            };
            self.at = start + run;
            let plain = self.text.get(start..self.at).unwrap_or_default();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    if built.is_empty() {
                        return Ok(plain.to_owned());
                    }
                    built.push_str(plain);
                    return Ok(built);
                }
                Some(b'\\') => {
                    built.push_str(plain);
                    self.at += 1;
                    built.push(self.escape()?);
                }
                _ => return Err(self.error("a control character must be escaped in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let simple = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.error("an escape in a string is unknown")),
        };
        self.at += 1;
        Ok(simple)
    }

    fn unicode(&mut self) -> Result<char, JsonError> {
        let first = self.hex()?;
        let code = match first {
            0xd800..=0xdbff => {
                if self.bytes.get(self.at..self.at + 2) != Some(b"\\u") {
                    return Err(self.error("a surrogate in a string has no partner"));
                }
                self.at += 2;
                match self.hex()? {
                    low @ 0xdc00..=0xdfff => 0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00),
                    _ => return Err(self.error("a surrogate in a string has no partner")),
                }
            }
            other => other,
        };
        char::from_u32(code).ok_or_else(|| self.error("a surrogate in a string has no partner"))
    }

    fn hex(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.get(self.at..self.at + 4);
        let code = digits
            .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|d| u32::from_str_radix(d, 16).ok());
        match code {
            Some(code) => {
                self.at += 4;
                Ok(code)
            }
            None => Err(self.error("four hexadecimal digits are expected in an escape")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serde_json_writes_is_read_back() {
        let text = r#"{"a":[1,2.50,-0.0,1e5,1E-7,true,false,null],"b":{"c":"x\"\\/\b\f\n\r\té😀"}}"#;
        let ours = read(text.as_bytes(), 8).unwrap();
        assert_eq!(ours, serde_json::from_str::<Value>(text).unwrap());
        assert!(ours.to_string().contains("2.50"), "decimals keep their digits");
    }

    #[test]
    fn a_byte_order_mark_is_ignored() {
        assert_eq!(read(b"\xef\xbb\xbf {} ", 1).unwrap(), Value::Object(Map::new()));
    }

    #[test]
    fn an_escaped_pair_of_surrogates_is_one_character() {
        assert_eq!(read(br#""\ud83d\ude00""#, 1).unwrap(), Value::String("😀".into()));
    }

    #[test]
    fn what_is_not_strict_json_is_refused_where_it_shows() {
        for (text, message) in [
            ("", "the JSON ends too early"),
            ("{} x", "something follows the end of the JSON value"),
            ("{}{}", "something follows the end of the JSON value"),
            (r#"{"a":1,"a":2}"#, "the property is given twice"),
            (r#"{"a":1,"\u0061":2}"#, "the property is given twice"),
            (r#"{"a":1,}"#, "a property name in quotes is expected"),
            (r#"{"a" 1}"#, "a colon is expected after the property name"),
            ("{a:1}", "a property name in quotes is expected"),
            ("[1,]", "no JSON value starts like this"),
            ("[1 2]", "a comma or the end of the array is expected"),
            ("[01]", "a number may not start with a zero"),
            ("[1.]", "a digit is expected"),
            ("[.5]", "no JSON value starts like this"),
            ("[+5]", "no JSON value starts like this"),
            ("[1e]", "a digit is expected"),
            ("[NaN]", "no JSON value starts like this"),
            ("[nul]", "no JSON value starts like this"),
            ("[\"a\u{1}\"]", "a control character must be escaped in a string"),
            ("[\"a\nb\"]", "a control character must be escaped in a string"),
            (r#"["\x"]"#, "an escape in a string is unknown"),
            (r#"["\u12"]"#, "four hexadecimal digits are expected in an escape"),
            (
                r#"["\u+123"]"#,
                "four hexadecimal digits are expected in an escape",
            ),
            (r#"["\ud800"]"#, "a surrogate in a string has no partner"),
            (r#"["\ud800\u0041"]"#, "a surrogate in a string has no partner"),
            (r#"["\udc00"]"#, "a surrogate in a string has no partner"),
            (r#"["abc"#, "the JSON ends within a string"),
            ("// x\n{}", "no JSON value starts like this"),
            ("[[[[[1]]]]]", "the JSON is nested too deeply"),
        ] {
            assert_eq!(read(text.as_bytes(), 4).unwrap_err().text, message, "{text}");
        }
        assert_eq!(read(b"\"\xff\"", 4).unwrap_err().text, "the text is not UTF-8");
        let long = format!("[{}]", "1".repeat(100));
        assert_eq!(
            read(long.as_bytes(), 4).unwrap_err().text,
            "a number is written with too many digits"
        );
    }

    #[test]
    fn the_place_of_an_error_is_told() {
        let error = read(br#"{"a":[0,{"b":1,"b":2}]}"#, 9).unwrap_err();
        let path = [
            Step::Property("a".into()),
            Step::Index(1),
            Step::Property("b".into()),
        ];
        assert_eq!(error.path, path);
    }

    #[test]
    fn a_very_deep_text_is_refused_and_does_not_overflow() {
        let deep = "[".repeat(1_000_000);
        assert_eq!(
            read(deep.as_bytes(), 64).unwrap_err().text,
            "the JSON is nested too deeply"
        );
    }
}
