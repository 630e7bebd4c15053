//! A tree of JSON values against the table of R4 elements: names, cardinalities, JSON types, primitive formats,
//! required codes, references. What several elements must agree on is in [`crate::invariants`].
//! Knows the table and nothing of what Handoff does with a resource.

use std::collections::HashMap;

use handoff_fhir_profiles::elements::{Element, Key, Primitive, Shape, Table, Type, table};
use serde_json::{Map, Value};

use crate::formats;
use crate::invariants;
use crate::issue::{Issue, IssueType};
use crate::narrative;
use crate::path::{Path, may_be_shown};
use crate::references::Target;

/// Everything that is wrong with a resource, at most `max_issues`.
pub(crate) fn check(resource: &Map<String, Value>, max_issues: usize) -> Vec<Issue> {
    let mut checker = Checker {
        table: table(),
        path: Path::default(),
        issues: Vec::new(),
        max_issues,
        contained: Vec::new(),
    };
    checker.resource(resource, Place::Top);
    checker.issues
}

/// Where a resource stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The body itself.
    Top,
    /// In a Bundle entry or a parameter.
    Inside,
    /// In `contained`.
    Contained,
}

pub(crate) struct Checker<'v> {
    table: &'static Table,
    path: Path,
    issues: Vec<Issue>,
    max_issues: usize,
    /// Id and type of what the resources around this place contain, innermost last.
    contained: Vec<HashMap<&'v str, &'v str>>,
}

/// What an object is the JSON of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A resource.
    Resource,
    /// A datatype, a backbone element, or the companion of a primitive without value.
    Element,
    /// The companion of a primitive that has a value.
    BesideValue,
}

impl<'v> Checker<'v> {
    pub(crate) fn report(&mut self, code: IssueType, text: impl Into<String>) {
        if !self.is_full() {
            self.issues.push(Issue::at(code, self.path.to_string(), text));
        }
    }

    /// As [`Self::report`], about a child of this place.
    pub(crate) fn report_child(&mut self, child: &str, code: IssueType, text: impl Into<String>) {
        if !self.is_full() {
            self.issues.push(Issue::at(code, self.path.child(child), text));
        }
    }

    fn is_full(&self) -> bool {
        self.issues.len() >= self.max_issues
    }

    fn resource(&mut self, map: &'v Map<String, Value>, place: Place) {
        let kind = match map.get("resourceType") {
            Some(Value::String(name)) => self.table.resource(name),
            Some(_) | None => {
                return self.report_child(
                    "resourceType",
                    IssueType::Structure,
                    "`resourceType` must be given, as text",
                );
            }
        };
        let Some(kind) = kind else {
            let text = "`resourceType` is not a resource type of FHIR R4";
            return self.report_child("resourceType", IssueType::Structure, text);
        };
        if place == Place::Top {
            self.path.push(kind.name);
        }
        if place == Place::Contained {
            invariants::contained(self, map);
        } else {
            let inner = self.contained_in(map);
            self.contained.push(inner);
        }
        self.object(map, kind, Role::Resource);
        if place != Place::Contained {
            self.contained.pop();
        }
        if place == Place::Top {
            self.path.pop();
        }
    }

    /// The type of each contained resource by its id.
    fn contained_in(&mut self, map: &'v Map<String, Value>) -> HashMap<&'v str, &'v str> {
        let mut found = HashMap::new();
        let items = map
            .get("contained")
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        for (index, item) in items.iter().enumerate() {
            let text = |name| item.get(name).and_then(Value::as_str);
            let Some(id) = text("id") else { continue };
            if found
                .insert(id, text("resourceType").unwrap_or_default())
                .is_some()
            {
                let at = format!("contained[{index}].id");
                self.report_child(
                    &at,
                    IssueType::Invariant,
                    "two contained resources have the same id",
                );
            }
        }
        found
    }

    fn object(&mut self, map: &'v Map<String, Value>, kind: &'static Type, role: Role) {
        if map.is_empty() {
            return self.report(IssueType::Structure, "an object may not be empty");
        }
        if role == Role::Element && map.len() == 1 && map.contains_key("id") {
            return self.report(IssueType::Invariant, "ele-1: an element needs more than its id");
        }
        let mut seen = 0u128;
        let mut chosen: Vec<(&str, u16)> = Vec::new();
        for (name, value) in map {
            if self.is_full() {
                return;
            }
            if role == Role::Resource && name == "resourceType" {
                continue;
            }
            let (plain, is_companion) = match name.strip_prefix('_') {
                Some(plain) => (plain, true),
                None => (name.as_str(), false),
            };
            let known = kind.key(plain).and_then(|key| Some((key, kind.element(key)?)));
            let Some((key, element)) = known.filter(|(key, _)| !is_companion || has_companion(kind, key))
            else {
                self.unknown(name);
                continue;
            };
            seen |= 1u128.checked_shl(u32::from(key.element)).unwrap_or(0);
            if element.choice {
                if chosen
                    .iter()
                    .any(|(other, at)| *at == key.element && *other != plain)
                {
                    let text = "only one type of this element may be given";
                    self.report_child(element.name, IssueType::Structure, text);
                }
                chosen.push((plain, key.element));
            }
            self.path.push(element.name);
            match (is_companion, key.shape) {
                // The value and its companion are looked at together, once.
                (true, _) if map.contains_key(plain) => {}
                (true, _) => self.primitive(None, Some(value), key, element),
                (false, Shape::Primitive(_)) => {
                    let companion = has_companion(kind, key)
                        .then(|| map.get(&format!("_{plain}")))
                        .flatten();
                    self.primitive(Some(value), companion, key, element);
                }
                (false, _) => self.complex(value, key, element),
            }
            self.path.pop();
        }
        for (position, element) in kind.elements.iter().enumerate() {
            let bit = u32::try_from(position)
                .ok()
                .and_then(|p| 1u128.checked_shl(p))
                .unwrap_or(0);
            if element.required && seen & bit == 0 {
                self.report_child(element.name, IssueType::Required, "the element must be given");
            }
        }
        invariants::object(self, kind.name, map);
    }

    fn unknown(&mut self, name: &str) {
        if may_be_shown(name) {
            self.report(
                IssueType::Structure,
                format!("`{name}` is not an element of this"),
            );
        } else {
            self.report(IssueType::Structure, "a property here is not an element of this");
        }
    }

    fn complex(&mut self, value: &'v Value, key: &'static Key, element: &'static Element) {
        match (value, element.repeats) {
            (Value::Array(items), true) => {
                if items.is_empty() {
                    self.report(IssueType::Structure, "an array may not be empty");
                }
                for (index, item) in items.iter().enumerate() {
                    self.path.push_index(index);
                    self.complex_one(item, key);
                    self.path.pop();
                }
            }
            (_, true) => self.report(IssueType::Structure, "the element repeats: an array is expected"),
            (Value::Array(_), false) => self.report(
                IssueType::Structure,
                "the element does not repeat: no array is expected",
            ),
            (one, false) => self.complex_one(one, key),
        }
    }

    fn complex_one(&mut self, value: &'v Value, key: &'static Key) {
        let Value::Object(map) = value else {
            return self.report(IssueType::Structure, "an object is expected");
        };
        match key.shape {
            Shape::Resource if key.name == "contained" => self.resource(map, Place::Contained),
            Shape::Resource => self.resource(map, Place::Inside),
            Shape::Complex(id) => {
                if let Some(kind) = self.table.type_at(id) {
                    self.object(map, kind, Role::Element);
                    if kind.name == "Reference" {
                        self.reference(map, &key.targets);
                    }
                }
            }
            Shape::Primitive(_) => {}
        }
    }

    /// A primitive: its value, the companion with id and extensions, or both.
    fn primitive(
        &mut self,
        value: Option<&'v Value>,
        companion: Option<&'v Value>,
        key: &'static Key,
        element: &'static Element,
    ) {
        if !element.repeats {
            match value {
                Some(Value::Array(_)) => {
                    self.report(
                        IssueType::Structure,
                        "the element does not repeat: no array is expected",
                    );
                }
                Some(value) => self.primitive_one(value, key, element),
                None => {}
            }
            if let Some(companion) = companion {
                self.companion(companion, value.is_some());
            }
            return;
        }
        let mut lists: [&'v [Value]; 2] = [&[], &[]];
        for (slot, list) in lists.iter_mut().zip([value, companion]) {
            match list {
                Some(Value::Array(items)) if items.is_empty() => {
                    return self.report(IssueType::Structure, "an array may not be empty");
                }
                Some(Value::Array(items)) => *slot = items,
                Some(_) => {
                    return self.report(IssueType::Structure, "the element repeats: an array is expected");
                }
                None => {}
            }
        }
        let [values, companions] = lists;
        if value.is_some() && companion.is_some() && values.len() != companions.len() {
            return self.report(
                IssueType::Structure,
                "the array and its `_` companion must be of one length",
            );
        }
        for index in 0..values.len().max(companions.len()) {
            let value = values.get(index).filter(|v| !v.is_null());
            let companion = companions.get(index).filter(|v| !v.is_null());
            self.path.push_index(index);
            if value.is_none() && companion.is_none() {
                self.report(
                    IssueType::Structure,
                    "null stands only where the `_` companion has an object, and the other way round",
                );
            }
            if let Some(value) = value {
                self.primitive_one(value, key, element);
            }
            if let Some(companion) = companion {
                self.companion(companion, value.is_some());
            }
            self.path.pop();
        }
    }

    /// The object beside a primitive: an id, extensions, or both.
    fn companion(&mut self, value: &'v Value, beside_value: bool) {
        let role = if beside_value {
            Role::BesideValue
        } else {
            Role::Element
        };
        match (value, self.table.get("Element")) {
            (Value::Object(map), Some(kind)) => self.object(map, kind, role),
            _ => self.report(
                IssueType::Structure,
                "an object with `id` or `extension` is expected",
            ),
        }
    }

    fn primitive_one(&mut self, value: &'v Value, key: &'static Key, element: &'static Element) {
        let Shape::Primitive(primitive) = key.shape else {
            return;
        };
        let result = match (value, primitive) {
            (Value::Bool(_), Primitive::Boolean) => Ok(()),
            (Value::Number(number), _) => formats::check_number(primitive, number.as_str()),
            (Value::String(text), _) => return self.text(text, primitive, element),
            (Value::Null, _) => Err("null is not allowed here"),
            (Value::Bool(_), _) => Err("true and false are not allowed here"),
            (Value::Array(_) | Value::Object(_), _) => Err("a single value is expected"),
        };
        if let Err(text) = result {
            let code = if value.is_number() {
                IssueType::Value
            } else {
                IssueType::Structure
            };
            self.report(code, text);
        }
    }

    fn text(&mut self, text: &str, primitive: Primitive, element: &'static Element) {
        if text.is_empty() {
            return self.report(IssueType::Structure, "text may not be empty");
        }
        // Base64 and its like allow no other characters anyway; long data is looked at once.
        let free = matches!(
            primitive,
            Primitive::String | Primitive::Markdown | Primitive::Xhtml
        );
        if free && text.len() > formats::MAX_STRING {
            return self.report(IssueType::TooLong, "text may not be longer than 1 MiB");
        }
        if primitive != Primitive::Base64Binary && !formats::has_only_allowed_characters(text) {
            return self.report(IssueType::Value, "control characters are not allowed in text");
        }
        if let Err(expected) = formats::check_text(primitive, text) {
            let wrong_type = matches!(
                primitive,
                Primitive::Boolean
                    | Primitive::Decimal
                    | Primitive::Integer
                    | Primitive::PositiveInt
                    | Primitive::UnsignedInt
            );
            return self.report(
                if wrong_type {
                    IssueType::Structure
                } else {
                    IssueType::Value
                },
                expected,
            );
        }
        if primitive == Primitive::Xhtml
            && let Err(fault) = narrative::check(text)
        {
            return self.report(IssueType::Invalid, fault);
        }
        if let Some(codes) = element.codes
            && !codes.contains(text)
        {
            const SHOWN: usize = 16;
            let legal = codes.codes();
            let mut message = format!("the code is not in the value set `{}`", codes.name);
            if legal.len() <= SHOWN {
                message = format!("{message}: one of {} is expected", legal.join(", "));
            }
            self.report(IssueType::CodeInvalid, message);
        }
    }

    fn reference(&mut self, map: &'v Map<String, Value>, targets: &'static [&'static str]) {
        let stated = map.get("type").and_then(Value::as_str);
        let Some(text) = map
            .get("reference")
            .and_then(Value::as_str)
            .filter(|t| !t.is_empty())
        else {
            return self.target(stated, targets, "type");
        };
        let Some(target) = Target::parse(text) else {
            let text = "a reference is `Type/id`, `#id`, an http(s) URL, a `urn:uuid:` or `urn:oid:`, or `Type?query`";
            return self.report_child("reference", IssueType::Value, text);
        };
        let kind = match target {
            Target::Contained("") => None,
            Target::Contained(id) => {
                let Some(kind) = self.contained.last().and_then(|around| around.get(id)) else {
                    let text = "no contained resource has this id";
                    return self.report_child("reference", IssueType::Invariant, text);
                };
                Some(*kind)
            }
            other => other.kind(),
        };
        if let (Some(stated), Some(kind)) = (stated, kind)
            && stated != kind
        {
            return self.report_child("type", IssueType::Value, "the type is not that of the reference");
        }
        self.target(kind.or(stated), targets, "reference");
    }

    fn target(&mut self, kind: Option<&str>, targets: &'static [&'static str], child: &str) {
        if let Some(kind) = kind
            && !targets.is_empty()
            && !targets.contains(&kind)
        {
            let text = format!("the target must be one of {}", targets.join(", "));
            self.report_child(child, IssueType::Value, text);
        }
    }
}

/// Whether a primitive may have an id and extensions of its own: not those that are attributes in XML, nor XHTML.
fn has_companion(kind: &Type, key: &Key) -> bool {
    let attribute = key.name == "id" || (kind.name == "Extension" && key.name == "url");
    !attribute && matches!(key.shape, Shape::Primitive(p) if p != Primitive::Xhtml)
}
