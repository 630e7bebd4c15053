//! The elements of every FHIR R4 resource and datatype: names, cardinalities, types, permitted targets, required codes.
//! Facts only, from `elements.txt`; knows nothing of JSON, XML or of what Handoff serves.

mod read;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

static TABLE: LazyLock<Table> =
    LazyLock::new(|| read::table(include_str!("../../elements.txt")).unwrap_or_default());

/// The table, read on first use (a few milliseconds).
pub fn table() -> &'static Table {
    &TABLE
}

/// All types, found by name or by the number that a [`Shape`] carries.
#[derive(Debug, Default)]
pub struct Table {
    types: Vec<Type>,
    by_name: HashMap<&'static str, TypeId>,
}

/// The number of a type in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeId(u16);

/// What a type is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A resource type, `Task`.
    Resource,
    /// A datatype with elements, `Period`.
    Complex,
    /// A part of one resource or datatype, `Task.input`.
    Backbone,
}

/// A resource type, a datatype with elements, or a backbone element.
#[derive(Debug)]
pub struct Type {
    /// `Task`, `Period`, or the path of a backbone element (`Task.input`).
    pub name: &'static str,
    /// What it is for.
    pub kind: Kind,
    /// Its elements, inherited ones first. Never more than 128.
    pub elements: Vec<Element>,
    /// The JSON property names by which its elements go, sorted.
    keys: Vec<Key>,
}

/// One element of a type.
#[derive(Debug, Clone)]
pub struct Element {
    /// The name as in `FHIRPath`: `value` for `value[x]`.
    pub name: &'static str,
    /// Whether it must be present.
    pub required: bool,
    /// Whether it repeats, and is an array in JSON.
    pub repeats: bool,
    /// Whether its JSON property carries the type (`value[x]`).
    pub choice: bool,
    /// The codes of its required binding, where they can be listed.
    pub codes: Option<&'static CodeSet>,
}

/// A JSON property name and what stands behind it.
#[derive(Debug, Clone)]
pub struct Key {
    /// The property, `valueString`.
    pub name: Cow<'static, str>,
    /// Index into [`Type::elements`].
    pub element: u16,
    /// What its value is.
    pub shape: Shape,
    /// The resource types that a Reference may point at; empty where any may be.
    pub targets: Vec<&'static str>,
}

/// What the value of a property is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A primitive.
    Primitive(Primitive),
    /// A datatype or backbone element.
    Complex(TypeId),
    /// Any resource (`contained`, `Bundle.entry.resource`).
    Resource,
}

/// The primitive datatypes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are FHIR's own")]
pub enum Primitive {
    Base64Binary,
    Boolean,
    Canonical,
    Code,
    Date,
    DateTime,
    Decimal,
    Id,
    Instant,
    Integer,
    Markdown,
    Oid,
    PositiveInt,
    String,
    Time,
    UnsignedInt,
    Uri,
    Url,
    Uuid,
    Xhtml,
}

/// The codes that a required binding allows.
#[derive(Debug)]
pub struct CodeSet {
    /// Last part of the value set's URL.
    pub name: &'static str,
    codes: Vec<&'static str>,
}

impl CodeSet {
    /// Whether the value set holds `code`.
    pub fn contains(&self, code: &str) -> bool {
        self.codes.binary_search(&code).is_ok()
    }

    /// The codes, sorted.
    pub fn codes(&self) -> &[&'static str] {
        &self.codes
    }
}

impl Table {
    /// The type of that name, backbone elements and abstract types included.
    pub fn get(&self, name: &str) -> Option<&Type> {
        self.by_name.get(name).and_then(|id| self.type_at(*id))
    }

    /// The resource type of that name, if there is a concrete one.
    pub fn resource(&self, name: &str) -> Option<&Type> {
        let found = self.get(name)?;
        let concrete = !matches!(found.name, "Resource" | "DomainResource");
        (found.kind == Kind::Resource && concrete).then_some(found)
    }

    /// The type that a [`Shape::Complex`] names.
    pub fn type_at(&self, id: TypeId) -> Option<&Type> {
        self.types.get(usize::from(id.0))
    }

    /// Every type.
    pub fn types(&self) -> &[Type] {
        &self.types
    }
}

impl Type {
    /// The property of that name, without the leading `_` of a primitive's companion.
    pub fn key(&self, name: &str) -> Option<&Key> {
        let at = self
            .keys
            .binary_search_by(|key| key.name.as_ref().cmp(name))
            .ok()?;
        self.keys.get(at)
    }

    /// The element behind a property of this type.
    pub fn element(&self, key: &Key) -> Option<&Element> {
        self.elements.get(usize::from(key.element))
    }

    /// Every property, sorted by name.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }
}

impl Primitive {
    /// The datatype's name in FHIR.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Base64Binary => "base64Binary",
            Self::Boolean => "boolean",
            Self::Canonical => "canonical",
            Self::Code => "code",
            Self::Date => "date",
            Self::DateTime => "dateTime",
            Self::Decimal => "decimal",
            Self::Id => "id",
            Self::Instant => "instant",
            Self::Integer => "integer",
            Self::Markdown => "markdown",
            Self::Oid => "oid",
            Self::PositiveInt => "positiveInt",
            Self::String => "string",
            Self::Time => "time",
            Self::UnsignedInt => "unsignedInt",
            Self::Uri => "uri",
            Self::Url => "url",
            Self::Uuid => "uuid",
            Self::Xhtml => "xhtml",
        }
    }

    /// The primitive datatype of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Base64Binary,
            Self::Boolean,
            Self::Canonical,
            Self::Code,
            Self::Date,
            Self::DateTime,
            Self::Decimal,
            Self::Id,
            Self::Instant,
            Self::Integer,
            Self::Markdown,
            Self::Oid,
            Self::PositiveInt,
            Self::String,
            Self::Time,
            Self::UnsignedInt,
            Self::Uri,
            Self::Url,
            Self::Uuid,
            Self::Xhtml,
        ]
        .into_iter()
        .find(|p| p.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_every_resource_type_of_r4() {
        let table = read::table(include_str!("../../elements.txt")).expect("elements.txt can be read");
        let concrete = table
            .types()
            .iter()
            .filter(|t| table.resource(t.name).is_some())
            .count();
        assert_eq!(concrete, 146);
        assert!(
            table.types().iter().all(|t| t.elements.len() <= 128),
            "a bit set of 128 holds them"
        );
        assert!(table.resource("DomainResource").is_none());
        assert!(table.resource("Period").is_none());
    }

    #[test]
    fn an_element_is_found_by_its_json_property() {
        let task = table().resource("Task").unwrap();
        let status = task.key("status").unwrap();
        assert_eq!(status.shape, Shape::Primitive(Primitive::Code));
        let element = task.element(status).unwrap();
        assert!(element.required && !element.repeats);
        assert!(element.codes.unwrap().contains("in-progress"));
        assert!(!element.codes.unwrap().contains("done"));
        assert!(task.key("owner").unwrap().targets.contains(&"CareTeam"));
        assert!(task.key("contained").is_some_and(|k| k.shape == Shape::Resource));
        assert!(task.key("_status").is_none());
    }

    #[test]
    fn a_choice_has_one_property_per_type() {
        let input = table().get("Task.input").unwrap();
        let value = input.key("valueReference").unwrap();
        let element = input.element(value).unwrap();
        assert_eq!(
            (element.name, element.choice, element.required),
            ("value", true, true)
        );
        assert!(input.key("valueBase64Binary").is_some());
        assert!(input.key("value").is_none());
        assert_eq!(
            input.keys().iter().filter(|k| k.element == value.element).count(),
            50
        );
    }

    #[test]
    fn elements_are_inherited_and_referred_to() {
        let part = table().get("Parameters.parameter").unwrap();
        let Shape::Complex(id) = part.key("part").unwrap().shape else {
            panic!("part is complex")
        };
        assert_eq!(table().type_at(id).unwrap().name, "Parameters.parameter");
        assert!(table().get("Age").unwrap().key("comparator").is_some());
        assert!(table().get("Age").unwrap().key("extension").is_some());
        assert!(table().resource("Binary").unwrap().key("extension").is_none());
    }
}
