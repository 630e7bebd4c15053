//! What can be told of a rule by its text and by its expression alone.

use serde_json::Value;

use crate::facts::Mentioned;

/// How long a rule may be, in bytes, and how deep its brackets may be nested.
const LONGEST: usize = 8 << 10;
const DEEPEST_BRACKETS: usize = 50;

/// Whether every rule is of a length and a depth that can be read without harm.
pub(crate) fn within_limits(text: &str) -> Result<(), String> {
    let (mut depth, mut length) = (0usize, 0usize);
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        length = length.saturating_add(1);
        match byte {
            b'"' => {
                // To its end, which an escaped quote is not.
                while let Some(inner) = bytes.next() {
                    length = length.saturating_add(1);
                    match inner {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            b'/' if bytes.peek() == Some(&b'/') => {
                let comment = bytes.by_ref().take_while(|byte| *byte != b'\n');
                comment.for_each(drop);
            }
            b'(' | b'[' | b'{' => depth = depth.saturating_add(1),
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b';' => length = 0,
            _ => {}
        }
        if length > LONGEST {
            return Err(format!("a rule is longer than {LONGEST} bytes; use several"));
        }
        if depth > DEEPEST_BRACKETS {
            return Err(format!("brackets are nested more than {DEEPEST_BRACKETS} deep"));
        }
    }
    Ok(())
}

/// How deep a value is nested.
pub(crate) fn depth(json: &Value) -> usize {
    let mut deepest = 0;
    let mut rest = vec![(json, 1usize)];
    while let Some((value, level)) = rest.pop() {
        deepest = deepest.max(level);
        let below = level.saturating_add(1);
        match value {
            Value::Object(object) => rest.extend(object.values().map(|value| (value, below))),
            Value::Array(all) => rest.extend(all.iter().map(|value| (value, below))),
            _ => {}
        }
    }
    deepest
}

/// Every text and every member's name in a rule: whatever attribute it asks for, in whatever form, is among them.
pub(crate) fn mentions(json: &Value, found: &mut Mentioned) {
    match json {
        Value::Object(object) => {
            for (name, value) in object {
                found.insert(name.clone());
                mentions(value, found);
            }
        }
        Value::Array(all) => all.iter().for_each(|value| mentions(value, found)),
        Value::String(text) => {
            found.insert(text.clone());
        }
        _ => {}
    }
}

pub(crate) fn mentions_relation(json: &Value) -> bool {
    let mut found = Mentioned::new();
    mentions(json, &mut found);
    found.contains("relation")
}

/// Whether a rule that permits goes by relations so that more of them never mean less: then what each of them opens alone
/// is what a search may find.
pub(crate) fn is_monotone(rule: &Value) -> bool {
    let conditions = rule.get("conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().all(|condition| {
        let body = condition.get("body").unwrap_or(&Value::Null);
        match condition.get("kind").and_then(Value::as_str) {
            Some("when") => grows(body),
            _ => !mentions_relation(body),
        }
    })
}

/// Whether an expression that holds goes on to hold when more relations do.
fn grows(expression: &Value) -> bool {
    let sides = |name: &str| {
        let operands = expression.get(name)?;
        Some((operands.get("left")?, operands.get("right")?))
    };
    if let Some((left, right)) = sides("&&").or_else(|| sides("||")) {
        return grows(left) && grows(right);
    }
    let one_fact = expression
        .get(".")
        .and_then(|of| of.get("left")?.get("."))
        .is_some_and(|of| {
            of.get("attr") == Some(&Value::from("relation"))
                && of.get("left").and_then(|left| left.get("Var")) == Some(&Value::from("context"))
        });
    one_fact || !mentions_relation(expression)
}

/// The attributes that an expression asks for of the resource, and whether it uses the resource as such.
pub(crate) fn mentions_of_resource(json: &Value, found: &mut Mentioned) {
    match json {
        Value::Object(object) => {
            let of_resource =
                object.get("left").and_then(|left| left.get("Var")) == Some(&Value::from("resource"));
            if of_resource && let Some(attribute) = object.get("attr") {
                // Of a path (`resource has task.codes`) its first step.
                let name = attribute
                    .as_array()
                    .and_then(|path| path.first())
                    .unwrap_or(attribute);
                found.insert(name.as_str().unwrap_or("resource").to_owned());
                return;
            }
            if object.get("Var") == Some(&Value::from("resource")) {
                found.insert("resource".to_owned());
            }
            object
                .iter()
                // Whose scope it is says nothing of the one resource.
                .filter(|(key, _)| !matches!(key.as_str(), "principal" | "action" | "resource"))
                .for_each(|(_, value)| mentions_of_resource(value, found));
        }
        Value::Array(all) => all.iter().for_each(|value| mentions_of_resource(value, found)),
        _ => {}
    }
}
