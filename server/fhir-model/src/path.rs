//! Where in a resource a walk is: names and indices, written out as `FHIRPath` only when something is to be said.

use std::fmt::{self, Write as _};

use crate::json::Step;

/// The place a walk has come to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Path {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Name(&'static str),
    Index(usize),
}

impl Path {
    pub(crate) fn push(&mut self, name: &'static str) {
        self.parts.push(Part::Name(name));
    }

    pub(crate) fn push_index(&mut self, index: usize) {
        self.parts.push(Part::Index(index));
    }

    pub(crate) fn pop(&mut self) {
        self.parts.pop();
    }

    /// The path of a child, without going there.
    pub(crate) fn child(&self, name: &str) -> String {
        if self.parts.is_empty() {
            name.to_owned()
        } else {
            format!("{self}.{name}")
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.parts.iter().enumerate() {
            match part {
                Part::Name(name) if i == 0 => f.write_str(name)?,
                Part::Name(name) => write!(f, ".{name}")?,
                Part::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Whether a property name may be repeated to the sender: element names are letters, and nothing else is shown.
pub(crate) fn may_be_shown(name: &str) -> bool {
    let letters = name.strip_prefix('_').unwrap_or(name);
    (1..=40).contains(&letters.len()) && letters.bytes().all(|b| b.is_ascii_alphabetic())
}

/// The path of a JSON reader as `FHIRPath` under `root`; ends where a name cannot be shown.
pub(crate) fn written(root: &str, steps: &[Step]) -> String {
    let mut text = root.to_owned();
    for step in steps {
        match step {
            Step::Property(name) if may_be_shown(name) => {
                text.push('.');
                text.push_str(name.strip_prefix('_').unwrap_or(name));
            }
            Step::Property(_) => break,
            Step::Index(index) => {
                // Writing to a `String` cannot fail.
                let _ = write!(text, "[{index}]");
            }
        }
    }
    text
}
