//! A log to try things on.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;

use crate::export::{Header, write_checkpoint, write_header, write_row};
use crate::tree::STORED_EVERY;
use crate::{
    Checkpoint, Commitment, Content, Frontier, Hash, Nodes, Note, Row, SigningKey, VerifierKey, commit,
    empty_hash, leaf_of, node_hash,
};

pub(super) const TENANT: &str = "north";
pub(super) const ORIGIN: &str = "handoff.example/audit/north";

/// A key made of one byte.
pub(super) fn key(seed: u8) -> SigningKey {
    named_key(ORIGIN, seed)
}

pub(super) fn named_key(name: &str, seed: u8) -> SigningKey {
    let mut der = vec![
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ];
    der.extend([seed; 32]);
    SigningKey::from_pkcs8(name, &der).unwrap()
}

pub(super) fn keys(seeds: &[u8]) -> Vec<VerifierKey> {
    seeds.iter().map(|seed| key(*seed).verifier()).collect()
}

/// The definition of the root (RFC 9162, section 2.1.1), word for word.
pub(super) fn root_of(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => empty_hash(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&root_of(left), &root_of(right))
        }
    }
}

/// Leaves, with the nodes that a caller stores.
#[derive(Debug, Default, Clone)]
pub(super) struct Tree {
    pub(super) leaves: Vec<Hash>,
    pub(super) stored: BTreeMap<(u8, u64), Hash>,
    pub(super) frontier: Frontier,
    /// How many hashes were read.
    pub(super) read: usize,
}

impl Tree {
    pub(super) fn of(leaves: impl IntoIterator<Item = Hash>) -> Self {
        let mut tree = Self::default();
        leaves.into_iter().for_each(|leaf| tree.push(leaf));
        tree
    }

    /// A tree of leaves that differ.
    pub(super) fn sized(size: u64) -> Self {
        Self::of((0..size).map(|n| crate::leaf_hash(&n.to_be_bytes())))
    }

    pub(super) fn push(&mut self, leaf: Hash) {
        self.leaves.push(leaf);
        let stored = &mut self.stored;
        self.frontier.push(leaf, &mut |level, index, hash| {
            if level % STORED_EVERY == 0 {
                stored.insert((level, index), hash);
            }
        });
    }
}

pub(super) fn at(place: u64) -> usize {
    usize::try_from(place).unwrap()
}

impl Nodes for Tree {
    type Error = Infallible;

    fn leaves(&mut self, from: u64, until: u64) -> Result<Vec<Hash>, Infallible> {
        assert!(until - from <= 256);
        self.read += at(until - from);
        Ok(self.leaves.get(at(from)..at(until)).unwrap_or_default().to_vec())
    }

    fn stored(&mut self, level: u8, from: u64, until: u64) -> Result<Vec<Hash>, Infallible> {
        assert!(until - from <= 256 && level > 0 && level.is_multiple_of(8));
        self.read += at(until - from);
        Ok((from..until)
            .filter_map(|index| self.stored.get(&(level, index)).copied())
            .collect())
    }
}

/// The audit of a tenant.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) rows: Vec<Row<'static>>,
    pub(super) tree: Tree,
}

impl Log {
    /// `size` rows, with holes between their numbers; each tenth is erased.
    pub(super) fn new(size: u64) -> Self {
        let mut log = Self {
            rows: Vec::new(),
            tree: Tree::default(),
        };
        for position in 0..size {
            let sequence = i64::try_from(position * 3 + 5).unwrap();
            let salt = [u8::try_from(position % 251).unwrap(); 32];
            let entry = format!(r#"{{"resourceType":"AuditEvent","action":"R","id":"{position}"}}"#);
            let content = if position % 10 == 7 {
                Content::Erased(commit(&salt, entry.as_bytes()))
            } else {
                let entry = Cow::Owned(entry);
                Content::Present {
                    salt,
                    entry,
                    commitment: None,
                }
            };
            log.push(Row {
                position,
                sequence,
                content,
            });
        }
        log
    }

    pub(super) fn push(&mut self, row: Row<'static>) {
        self.tree
            .push(leaf_of(TENANT, row.sequence, &row.content.commitment()));
        self.rows.push(row);
    }

    pub(super) fn commitment(&self, position: u64) -> Commitment {
        self.rows[at(position)].content.commitment()
    }

    pub(super) fn checkpoint(&self, size: u64) -> Checkpoint {
        Checkpoint {
            origin: ORIGIN.to_owned(),
            size,
            root: root_of(&self.tree.leaves[..at(size)]),
            extensions: Vec::new(),
        }
    }

    /// The checkpoint of `size`, signed by the key of `seed`.
    pub(super) fn note(&self, size: u64, seed: u8) -> Note {
        Note::parse(key(seed).sign(&self.checkpoint(size)).unwrap()).unwrap()
    }

    pub(super) fn frontier(&self, size: u64) -> Frontier {
        Tree::of(self.tree.leaves[..at(size)].iter().copied()).frontier
    }

    /// The lines of the export of the rows `from` to `until`, signed by the key 1.
    pub(super) fn export(&self, from: u64, until: u64) -> Vec<String> {
        let mut out = Vec::new();
        let header = Header::new(TENANT, ORIGIN, &self.frontier(from), until);
        write_header(&mut out, &header).unwrap();
        for row in &self.rows[at(from)..at(until)] {
            write_row(&mut out, row).unwrap();
        }
        write_checkpoint(&mut out, &self.note(until, 1)).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with('\n'));
        text.lines().map(str::to_owned).collect()
    }
}

/// Lines as a file.
pub(super) fn file(lines: &[String]) -> String {
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}
