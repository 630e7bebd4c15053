//! Reads `elements.txt` into the table. Knows the file's format, which its own head explains, and nothing else.

use std::borrow::Cow;
use std::collections::HashMap;

use super::{CodeSet, Element, Key, Kind, Primitive, Shape, Table, Type, TypeId};

/// A type as written: its own elements only, types still by name.
struct Block<'a> {
    name: &'static str,
    kind: Kind,
    base: &'a str,
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    required: bool,
    repeats: bool,
    types: &'static str,
    codes: Option<&'static CodeSet>,
}

/// The table in `text`, or `None` where a line is not as it should be.
pub(super) fn table(text: &'static str) -> Option<Table> {
    let (blocks, index) = blocks(text)?;
    let by_name: HashMap<&'static str, TypeId> = index
        .iter()
        .map(|(name, at)| u16::try_from(*at).ok().map(|n| (*name, TypeId(n))))
        .collect::<Option<_>>()?;
    let open = open_types(&blocks, &index)?;
    let types = blocks
        .iter()
        .map(|block| {
            let mut built = Type {
                name: block.name,
                kind: block.kind,
                elements: Vec::new(),
                keys: Vec::new(),
            };
            for row in lineage(block, &blocks, &index)?.into_iter().flat_map(|b| &b.rows) {
                add(&mut built, row, &open, &by_name)?;
            }
            built.keys.sort_by(|a, b| a.name.cmp(&b.name));
            Some(built)
        })
        .collect::<Option<_>>()?;
    Some(Table { types, by_name })
}

fn blocks(text: &'static str) -> Option<(Vec<Block<'static>>, HashMap<&'static str, usize>)> {
    let mut sets: HashMap<&'static str, &'static CodeSet> = HashMap::new();
    let mut blocks: Vec<Block<'static>> = Vec::new();
    let mut index = HashMap::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next().filter(|w| !w.starts_with('#')) else {
            continue;
        };
        if let Some(name) = first.strip_prefix('%') {
            let mut codes: Vec<&'static str> = words.collect();
            codes.sort_unstable();
            // The table lives as long as the process, and so do its code sets.
            sets.insert(name, Box::leak(Box::new(CodeSet { name, codes })));
        } else if let Some(name) = first.strip_prefix('@') {
            let kind = match words.next()? {
                "resource" => Kind::Resource,
                "complex" => Kind::Complex,
                "backbone" => Kind::Backbone,
                _ => return None,
            };
            index.insert(name, blocks.len());
            blocks.push(Block {
                name,
                kind,
                base: words.next()?,
                rows: Vec::new(),
            });
        } else {
            let required = words.next()? != "0";
            let repeats = words.next()? == "*";
            let types = words.next()?;
            let codes = match words.next() {
                Some(set) => Some(*sets.get(set.strip_prefix('%')?)?),
                None => None,
            };
            blocks.last_mut()?.rows.push(Row {
                name: first,
                required,
                repeats,
                types,
                codes,
            });
        }
    }
    Some((blocks, index))
}

/// A type's ancestors and itself, the oldest first.
fn lineage<'b>(
    block: &'b Block<'static>,
    blocks: &'b [Block<'static>],
    index: &HashMap<&'static str, usize>,
) -> Option<Vec<&'b Block<'static>>> {
    let mut line = vec![block];
    let mut base = block.base;
    while base != "-" {
        let parent = blocks.get(*index.get(base)?)?;
        line.push(parent);
        base = parent.base;
    }
    line.reverse();
    Some(line)
}

/// The types behind `*`: those that an extension may have.
fn open_types(blocks: &[Block<'static>], index: &HashMap<&'static str, usize>) -> Option<Vec<&'static str>> {
    let extension = blocks.get(*index.get("Extension")?)?;
    let value = extension.rows.iter().find(|r| r.name == "value[x]")?;
    Some(value.types.split('|').collect())
}

fn add(
    built: &mut Type,
    row: &Row,
    open: &[&'static str],
    by_name: &HashMap<&'static str, TypeId>,
) -> Option<()> {
    let position = u16::try_from(built.elements.len()).ok()?;
    let (name, choice) = match row.name.strip_suffix("[x]") {
        Some(name) => (name, true),
        None => (row.name, false),
    };
    let mut key = |written: &'static str| {
        let (kind, targets) = match written.split_once('(') {
            Some((kind, rest)) => (kind, rest.strip_suffix(')')?.split(',').collect()),
            None => (written, Vec::new()),
        };
        let shape = if kind == "Resource" {
            Shape::Resource
        } else if let Some(primitive) = Primitive::parse(kind) {
            Shape::Primitive(primitive)
        } else {
            Shape::Complex(*by_name.get(kind)?)
        };
        let name = if choice {
            Cow::Owned(property(name, kind))
        } else {
            Cow::Borrowed(name)
        };
        built.keys.push(Key {
            name,
            element: position,
            shape,
            targets,
        });
        Some(())
    };
    if row.types == "*" {
        open.iter().try_for_each(|t| key(t))?;
    } else {
        row.types.split('|').try_for_each(&mut key)?;
    }
    built.elements.push(Element {
        name,
        required: row.required,
        repeats: row.repeats,
        choice,
        codes: row.codes,
    });
    Some(())
}

/// The JSON property of a choice: the element's name and the type's with a capital.
fn property(name: &str, kind: &str) -> String {
    let mut letters = kind.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    name.chars().chain(first).chain(letters).collect()
}
