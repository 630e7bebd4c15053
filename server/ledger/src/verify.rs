//! The check of a log, leaf by leaf, in memory that does not grow with it: of an export as of what a database holds. Each
//! checkpoint that somebody kept is held against the tree when it has grown to that size, so that what was changed lies between two
//! of them.

mod export;
mod stored;

pub use export::verify_export;

use crate::finding::{Finding, Report};
use crate::hash::{Commitment, Hash, commit, leaf_of};
use crate::key::VerifierKey;
use crate::note::{Checkpoint, Note};
use crate::tree::Frontier;
use stored::StoredNodes;

/// What a check starts from.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// Whose audit it is.
    pub tenant: &'a str,
    /// The log, as its checkpoints name it.
    pub origin: &'a str,
    /// The tree before the first leaf that will come.
    pub from: Frontier,
    /// The keys that sign for the log, the newest first.
    pub keys: &'a [VerifierKey],
    /// Checkpoints that were kept, in any order.
    pub kept: &'a [Note],
    /// The size that the last checkpoint is of, where leaves may follow those.
    pub until: Option<u64>,
    /// Whether stored nodes will come with the leaves, through [`Verifier::stored_node`].
    pub stored_nodes: bool,
}

/// A leaf as it is kept.
#[derive(Debug, Clone, Copy)]
pub struct Leaf<'a> {
    /// Its place, counted from 0.
    pub position: u64,
    /// The number of its row.
    pub sequence: i64,
    /// What there is of the row.
    pub held: Held<'a>,
}

/// What there is of a row.
#[derive(Debug, Clone, Copy)]
pub enum Held<'a> {
    /// The row.
    Present {
        /// What the leaf says the row commits to; nothing in an export, which leaves it to who reads it.
        commitment: Option<Commitment>,
        /// What the entry is sealed with.
        salt: &'a [u8; 32],
        /// The exact bytes of the entry.
        entry: &'a [u8],
    },
    /// It was erased.
    Erased {
        /// What it had committed to.
        commitment: Commitment,
        /// Whether the rules allow that, as far as the caller can tell.
        allowed: bool,
    },
    /// It is gone.
    Missing {
        /// What it had committed to.
        commitment: Commitment,
    },
}

/// Checks a log while its leaves go by.
#[derive(Debug)]
pub struct Verifier<'a> {
    tenant: &'a str,
    origin: &'a str,
    keys: &'a [VerifierKey],
    frontier: Frontier,
    /// Whether each leaf so far followed the one before it.
    whole: bool,
    sequence: Option<i64>,
    /// Checkpoints that are still to come, the smallest last.
    kept: Vec<Signed>,
    /// What was signed, by which key.
    signed: Vec<Signed>,
    until: Option<u64>,
    until_root: Option<Hash>,
    last_good_size: Option<u64>,
    /// Whether the tree was not the one of the last checkpoint it was held against.
    differs: bool,
    nodes: Option<StoredNodes>,
    report: Report,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signed {
    size: u64,
    root: Hash,
    /// The place of its key in the list.
    key: usize,
}

impl<'a> Verifier<'a> {
    /// Starts a check.
    pub fn new(start: Start<'a>) -> Self {
        let from = start.from.size();
        let mut verifier = Self {
            tenant: start.tenant,
            origin: start.origin,
            keys: start.keys,
            frontier: start.from,
            whole: true,
            sequence: None,
            kept: Vec::new(),
            signed: Vec::new(),
            until: start.until,
            until_root: None,
            last_good_size: None,
            differs: false,
            nodes: start.stored_nodes.then(|| StoredNodes::new(from)),
            report: Report::new(from),
        };
        for note in start.kept {
            match verifier.vouched(note) {
                Ok(signed) => verifier.kept.push(signed),
                Err(invalid) => verifier.report.add(invalid),
            }
        }
        verifier.keep_in_order(from);
        verifier.reached();
        verifier
    }

    /// Sorts what was kept, and finds forks among it.
    fn keep_in_order(&mut self, from: u64) {
        self.kept.sort_by_key(|signed| signed.size);
        let mut forked = None;
        for (one, next) in self.kept.iter().zip(self.kept.iter().skip(1)) {
            if one.size == next.size && one.root != next.root && forked != Some(one.size) {
                forked = Some(one.size);
                self.report.add(Finding::NotConsistent { size: one.size });
            }
        }
        self.signed.clone_from(&self.kept);
        let before = self.kept.partition_point(|signed| signed.size < from);
        self.report.kept_before = u64::try_from(before).unwrap_or(u64::MAX);
        self.kept.drain(..before);
        self.kept.reverse();
    }

    /// The next leaf.
    pub fn leaf(&mut self, leaf: &Leaf<'_>) {
        let &Leaf {
            position, sequence, ..
        } = leaf;
        let expected = self.report.size;
        if position != expected {
            let found = position;
            self.report.add(Finding::PositionGap { expected, found });
            self.whole = false;
        }
        if let Some(before) = self.sequence.replace(sequence)
            && before >= sequence
        {
            self.report.add(Finding::SequenceOrder {
                position,
                before,
                found: sequence,
            });
        }
        self.report.size = position.saturating_add(1);
        self.report.rows += 1;
        let commitment = self.commitment(leaf);
        if self.whole {
            let leaf = leaf_of(self.tenant, sequence, &commitment);
            let (nodes, report) = (&mut self.nodes, &mut self.report);
            self.frontier.push(leaf, &mut |level, index, hash| {
                if let Some(finding) = nodes.as_mut().and_then(|nodes| nodes.made(level, index, hash)) {
                    report.add(finding);
                }
            });
            self.reached();
        }
    }

    /// What a leaf commits to, with what is found about its row.
    fn commitment(&mut self, leaf: &Leaf<'_>) -> Commitment {
        let &Leaf {
            position,
            sequence,
            held,
        } = leaf;
        match held {
            Held::Present {
                commitment,
                salt,
                entry,
            } => {
                let made = commit(salt, entry);
                let said = commitment.unwrap_or(made);
                if said != made {
                    self.report.add(Finding::RowChanged { position, sequence });
                }
                said
            }
            Held::Erased { commitment, allowed } => {
                self.report.add_erased(position);
                if !allowed {
                    self.report.add(Finding::RowErased { position, sequence });
                }
                commitment
            }
            Held::Missing { commitment } => {
                self.report.add(Finding::RowMissing { position, sequence });
                commitment
            }
        }
    }

    /// A node that is stored: before or after the leaves under it. Whether all are there is told at the end.
    pub fn stored_node(&mut self, level: u8, index: u64, hash: Hash) {
        let nodes = self.nodes.as_mut();
        if let Some(finding) = nodes.and_then(|nodes| nodes.stored(level, index, hash)) {
            self.report.add(finding);
        }
    }

    /// Something that the caller found: for one a row that has no leaf, [`Finding::RowUnsealed`].
    pub fn found(&mut self, finding: Finding) {
        self.report.add(finding);
    }

    /// The position that should be next.
    pub fn position(&self) -> u64 {
        self.report.size
    }

    /// Holds the tree against what was signed at its size.
    fn reached(&mut self) {
        let size = self.frontier.size();
        let mut root = None;
        while let Some(signed) = self.kept.pop_if(|signed| signed.size == size) {
            let root = *root.get_or_insert_with(|| self.frontier.root());
            if self.agrees(size, root == signed.root) {
                self.report.kept_agreed += 1;
            }
        }
        if self.until == Some(size) {
            self.until_root = Some(root.unwrap_or_else(|| self.frontier.root()));
        }
    }

    /// Notes whether the tree of `size` is the one that was signed. After one that was not, none will be.
    fn agrees(&mut self, size: u64, agrees: bool) -> bool {
        if agrees {
            self.last_good_size = Some(size);
        } else if !self.differs {
            self.report.add(self.mismatch(size));
        }
        self.differs = !agrees;
        agrees
    }

    fn mismatch(&self, size: u64) -> Finding {
        Finding::RootMismatch {
            size,
            last_good_size: self.last_good_size,
        }
    }

    /// What `note` says, where somebody known signed it for this log.
    fn vouched(&self, note: &Note) -> Result<Signed, Finding> {
        let &Checkpoint { size, root, .. } = note.checkpoint();
        let why = match note.verified_by(self.keys) {
            Ok(key) if note.checkpoint().origin == self.origin => return Ok(Signed { size, root, key }),
            Ok(_) => "it is of another log".to_owned(),
            Err(e) => e.to_string(),
        };
        Err(Finding::CheckpointInvalid { size, why })
    }

    /// What all came to. `last` is the newest checkpoint, of these leaves or the first of them.
    pub fn finish(mut self, last: Option<&Note>) -> Report {
        let vouched = last.map(|note| self.vouched(note));
        let size = self.report.size;
        let known = self.kept.first().map(|signed| signed.size);
        let known = known.max(last.map(|note| note.checkpoint().size));
        if let Some(known) = known.filter(|known| *known > size) {
            self.report.add(Finding::TreeTruncated { size, known });
        }
        // After a gap there is no tree to hold against these.
        if let Some(signed) = self.kept.last().filter(|signed| signed.size <= size) {
            self.agrees(signed.size, false);
        }
        if let Some(last) = last {
            self.hold_against(last.checkpoint(), matches!(vouched, Some(Ok(_))));
        }
        match vouched {
            Some(Ok(signed)) => self.last_signed(signed),
            Some(Err(invalid)) => self.report.add(invalid),
            None => {}
        }
        self.keys_in_order();
        if self.whole {
            self.report.root = Some(self.frontier.root());
            let left = self.nodes.take().map(StoredNodes::left);
            left.into_iter()
                .flatten()
                .for_each(|finding| self.report.add(finding));
        }
        self.report
    }

    /// Holds the leaves against the last checkpoint.
    fn hold_against(&mut self, last: &Checkpoint, vouched: bool) {
        let size = last.size;
        let root = if self.whole && size == self.frontier.size() {
            Some(self.frontier.root())
        } else {
            self.until_root.filter(|_| self.until == Some(size))
        };
        match root {
            Some(root) if root == last.root => self.report.vouched_size = vouched.then_some(size),
            None if size > self.report.size => {}
            None if self.whole || size < self.report.from => self.report.add(Finding::CheckpointInvalid {
                size,
                why: "its tree is not one that the rows were held against".to_owned(),
            }),
            // Told again only where it was told of another size.
            _ => {
                let mismatch = self.mismatch(size);
                if !self.report.findings.contains(&mismatch) {
                    self.report.add(mismatch);
                }
            }
        }
    }

    /// Holds the last checkpoint against those that were kept.
    fn last_signed(&mut self, last: Signed) {
        let Signed { size, root, key } = last;
        if self
            .signed
            .iter()
            .any(|kept| kept.size == size && kept.root != root)
        {
            self.report.add(Finding::NotConsistent { size });
        }
        if key != 0 {
            self.report.vouched_size = None;
            self.report.add(Finding::KeyReplaced { size, newer: None });
        }
        self.signed.push(last);
    }

    /// A key that was replaced signs nothing that is larger than what its successors have signed.
    fn keys_in_order(&mut self) {
        let smallest = |key: usize| {
            let by_newer = self.signed.iter().filter(move |signed| signed.key < key);
            by_newer.map(|signed| signed.size).min()
        };
        let limits: Vec<Option<u64>> = (0..self.keys.len()).map(smallest).collect();
        for &Signed { size, key, .. } in &self.signed {
            let newer = limits.get(key).copied().flatten();
            if newer.is_some_and(|newer| size > newer) {
                self.report.add(Finding::KeyReplaced { size, newer });
            }
        }
    }
}
