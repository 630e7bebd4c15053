//! Random damage to valid resources, and what must hold whatever comes in. Shared by the test and by the long run
//! in `examples/fuzz_ingress.rs`. The same seed gives the same inputs.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests; a panic here is a fault of the harness"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use handoff_fhir_model::outcome::{Details, outcome};
use handoff_fhir_model::{
    ParseOptions, Resource, binary, bundle, document_facts, from_value, parameters, parse, payload,
    search_index, task_facts,
};
use serde_json::{Map, Value, json};

/// The resources that are damaged.
pub const SEEDS: &[&str] = &[
    include_str!("../fixtures/task.json"),
    include_str!("../fixtures/document-reference.json"),
    include_str!("../fixtures/binary.json"),
    include_str!("../fixtures/transaction.json"),
    include_str!("../fixtures/subscription.json"),
    include_str!("../fixtures/audit-event.json"),
    include_str!("../fixtures/parameters.json"),
];

/// xorshift64*: small, fast, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator; zero is no seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % n.max(1)
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// One damaged input.
pub fn input(random: &mut Random) -> Vec<u8> {
    let seed = *random.pick(SEEDS);
    match random.below(4) {
        0 => bytes(random, seed.as_bytes().to_vec()),
        1 | 2 => {
            let mut value: Value = serde_json::from_str(seed).unwrap();
            for _ in 0..=random.below(3) {
                tree(random, &mut value);
            }
            value.to_string().into_bytes()
        }
        _ => {
            let mut value: Value = serde_json::from_str(seed).unwrap();
            tree(random, &mut value);
            bytes(random, value.to_string().into_bytes())
        }
    }
}

const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "1e999",
    "-",
    "0",
    "\u{feff}",
    "\u{0}",
    "_",
    "\"_status\":",
    "\"resourceType\":\"Task\",",
    "\"extension\":[",
    "\n",
    "é",
    "😀",
    "//",
    "#",
    "\"id\":\"a\",",
];

fn bytes(random: &mut Random, mut data: Vec<u8>) -> Vec<u8> {
    for _ in 0..=random.below(4) {
        let at = random.below(data.len());
        let len = random.below(24).min(data.len() - at);
        match random.below(8) {
            0 if !data.is_empty() => data[at] ^= 1 << random.below(8),
            1 => {
                let byte = random.below(256);
                data.insert(at, u8::try_from(byte).unwrap_or(0));
            }
            2 => drop(data.drain(at..at + len)),
            3 => {
                let piece = data[at..at + len].to_vec();
                let to = random.below(data.len());
                data.splice(to..to, piece);
            }
            4 => data.truncate(at),
            5 => {
                let token = *random.pick(TOKENS);
                data.splice(at..at, token.bytes());
            }
            6 => {
                let other = random.pick(SEEDS).as_bytes();
                let from = random.below(other.len());
                let piece = &other[from..(from + 200).min(other.len())];
                data.splice(at..at, piece.iter().copied());
            }
            _ => {
                let token = random.pick(TOKENS).as_bytes().repeat(random.below(100));
                data.splice(at..at, token);
            }
        }
    }
    data
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// The nth value of a tree, in the order of writing.
fn nth<'a>(value: &'a mut Value, n: &mut usize) -> Option<&'a mut Value> {
    if *n == 0 {
        return Some(value);
    }
    *n -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, n)),
        Value::Object(map) => map.values_mut().find_map(|item| nth(item, n)),
        _ => None,
    }
}

fn scalar(random: &mut Random) -> Value {
    match random.below(22) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(0),
        3 => json!(-1),
        4 => serde_json::from_str("1.0100").unwrap(),
        5 => serde_json::from_str("1e30").unwrap(),
        6 => serde_json::from_str("123456789012345678901234567890").unwrap(),
        7 => json!(""),
        8 => json!("a"),
        9 => json!("\u{0}"),
        10 => json!("2026-02-30"),
        11 => json!("2026-03-01T12:00:00Z"),
        12 => json!("Task/1"),
        13 => json!("#a"),
        14 => json!("urn:uuid:c757873d-ec9a-4326-a141-556f43239520"),
        15 => json!("<div xmlns=\"http://www.w3.org/1999/xhtml\"><a href='x'>b</a></div>"),
        16 => json!("AAAA"),
        17 => json!("é".repeat(random.below(5000))),
        18 => json!([]),
        19 => json!({}),
        20 => json!({"reference": "Patient/1"}),
        _ => json!([{"url": "http://x/e", "valueCode": "a"}]),
    }
}

const NAMES: &[&str] = &[
    "id",
    "_id",
    "url",
    "_url",
    "extension",
    "modifierExtension",
    "contained",
    "resourceType",
    "value",
    "valueString",
    "_valueString",
    "valueReference",
    "valueAttachment",
    "valueDecimal",
    "valueInteger",
    "reference",
    "status",
    "_status",
    "text",
    "div",
    "_div",
    "meta",
    "data",
    "contentType",
    "input",
    "entry",
    "resource",
    "part",
    "given",
    "_given",
    "instance",
    "provision",
    "filterBy",
    "$serde_json::private::Number",
    "$serde_json::private::RawValue",
    "$fhirbolt_serde::private::Decimal",
    "",
];

fn tree(random: &mut Random, value: &mut Value) {
    let total = count(value);
    let other = nth(&mut value.clone(), &mut random.below(total))
        .cloned()
        .unwrap_or_default();
    let Some(place) = nth(value, &mut random.below(total)) else {
        return;
    };
    match random.below(9) {
        0 => *place = scalar(random),
        1 => *place = other,
        2 => *place = Value::Array(vec![place.take()]),
        3 => {
            let levels = random.below(80);
            for _ in 0..levels {
                *place = if random.below(2) == 0 {
                    Value::Array(vec![place.take()])
                } else {
                    json!({"extension": [place.take()]})
                };
            }
        }
        4 => {
            if let Value::String(text) = place {
                *place = text
                    .parse::<i64>()
                    .map_or_else(|_| json!(text.len()), |n| json!(n));
            } else if !place.is_object() && !place.is_array() {
                *place = json!(place.to_string());
            }
        }
        5 => {
            if let Value::Array(items) = place {
                match random.below(3) {
                    0 => items.clear(),
                    1 => items.push(other),
                    _ => items.push(Value::Null),
                }
            }
        }
        6 => {
            if let Value::Object(map) = place {
                let content = if random.below(2) == 0 {
                    scalar(random)
                } else {
                    other
                };
                map.insert((*random.pick(NAMES)).to_owned(), content);
            }
        }
        7 => {
            if let Value::Object(map) = place {
                let names: Vec<String> = map.keys().cloned().collect();
                if !names.is_empty() {
                    let name = random.pick(&names).clone();
                    let content = map.shift_remove(&name).unwrap_or_default();
                    match random.below(3) {
                        0 => {}
                        1 => drop(map.insert(format!("_{name}"), content)),
                        _ => drop(map.insert((*random.pick(NAMES)).to_owned(), content)),
                    }
                }
            }
        }
        _ => {
            if let Value::Object(map) = place {
                let mut entries: Vec<(String, Value)> = std::mem::take(map).into_iter().collect();
                entries.reverse();
                *map = entries.into_iter().collect::<Map<_, _>>();
            }
        }
    }
}

/// What must hold of any input. `Ok` says whether it was taken; `Err` what did not hold.
pub fn holds(data: &[u8]) -> Result<bool, String> {
    catch_unwind(AssertUnwindSafe(|| check(data))).unwrap_or_else(|_| Err("a panic".to_owned()))
}

fn check(data: &[u8]) -> Result<bool, String> {
    let options = ParseOptions::default();
    let mut resource = match parse(data, &options) {
        Ok(resource) => resource,
        Err(issues) => {
            if issues.is_empty()
                || issues.len() > options.max_issues
                || issues.iter().any(|i| i.text.is_empty())
            {
                return Err("a refusal must give its reasons, within the limit".to_owned());
            }
            let told = outcome(&issues, Details::default());
            return from_value(told, &options)
                .map(|_| false)
                .map_err(|e| format!("a refusal must be a valid OperationOutcome: {e:?}"));
        }
    };
    let written = resource.to_json();
    let again =
        parse(&written, &options).map_err(|e| format!("what was written must be taken again: {e:?}"))?;
    if again != resource || again.to_json() != written {
        return Err("what was written must read as the same".to_owned());
    }
    if serde_json::from_slice::<Value>(&written).ok().as_ref() != Some(resource.value()) {
        return Err("serde_json must read what was written as the same".to_owned());
    }
    use_it(&resource);
    let before = resource.clone();
    resource.visit_references_mut(&mut |_, _, _| {});
    if resource != before {
        return Err("looking at links must not change them".to_owned());
    }
    resource.set_id("a");
    resource.stamp_meta("1", "2026-03-01T12:00:00.000Z");
    parse(&resource.to_json(), &options).map_err(|e| format!("a stamped resource must stay valid: {e:?}"))?;
    Ok(true)
}

/// Every reader of a taken resource; none may panic.
fn use_it(resource: &Resource) {
    let _ = payload::elsewhere(resource);
    let _ = task_facts(resource);
    let _ = document_facts(resource);
    let _ = search_index(resource, "https://here.example/fhir");
    let _ = binary(resource);
    let _ = parameters(resource);
    let _ = bundle(resource.clone());
    let _ = resource.profiles();
}
