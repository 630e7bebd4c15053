//! What a check of the audit finds, each where it is.

use std::fmt;

use serde::Serialize;

use crate::hash::Hash;

/// How many findings a report has at most; the rest is counted.
pub const MOST_FINDINGS: usize = 1000;
/// How many spans of erased rows a report has at most.
const MOST_SPANS: usize = 1000;

/// Something that is not as the log says. Positions count leaves from 0; sizes are how many leaves a tree has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// The entry is not the one that was sealed.
    RowChanged {
        /// Where its leaf is.
        position: u64,
        /// Its number.
        sequence: i64,
    },
    /// The row is as it was written, and is found by something else than what it says.
    RowMisfiled {
        /// Where its leaf is.
        position: u64,
        /// Its number.
        sequence: i64,
    },
    /// There is a leaf, and no row.
    RowMissing {
        /// Where its leaf is.
        position: u64,
        /// Its number.
        sequence: i64,
    },
    /// There is a row, and no leaf, though later rows have some.
    RowUnsealed {
        /// Its number.
        sequence: i64,
    },
    /// A row was erased that nothing allowed to.
    RowErased {
        /// Where its leaf is.
        position: u64,
        /// Its number.
        sequence: i64,
    },
    /// Leaves are not numbered one after the other.
    PositionGap {
        /// Which position should follow.
        expected: u64,
        /// Which one does.
        found: u64,
    },
    /// Rows are not in the order in which they came.
    SequenceOrder {
        /// Where the leaf of the later one is.
        position: u64,
        /// The number of the row before it.
        before: i64,
        /// Its own number.
        found: i64,
    },
    /// A stored node is not what the leaves under it make.
    NodeChanged {
        /// Its level.
        level: u8,
        /// Its place among those of its level.
        index: u64,
    },
    /// A node is not stored though all leaves under it are there.
    NodeMissing {
        /// Its level.
        level: u8,
        /// Its place among those of its level.
        index: u64,
    },
    /// A node is stored though leaves under it are not there.
    NodeSurplus {
        /// Its level.
        level: u8,
        /// Its place among those of its level.
        index: u64,
    },
    /// The rows do not make the root that was signed. At further sizes they won't either, which is not said again but at the end.
    RootMismatch {
        /// The size it was signed at.
        size: u64,
        /// The last size before at which they made what was signed.
        last_good_size: Option<u64>,
    },
    /// A checkpoint that tells nothing.
    CheckpointInvalid {
        /// What it says its size is.
        size: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A checkpoint that was to come is not there.
    CheckpointMissing,
    /// A key signed that was replaced by then.
    KeyReplaced {
        /// The size it signed.
        size: u64,
        /// A size that the newer key signed before; nothing where the last checkpoint has to be signed by the newest key.
        newer: Option<u64>,
    },
    /// More leaves were signed than there are.
    TreeTruncated {
        /// How many there are.
        size: u64,
        /// How many are known to have been.
        known: u64,
    },
    /// There are leaves after those that the last checkpoint is of.
    RowsBeyond {
        /// The size that the checkpoint is of.
        size: u64,
        /// How many there are.
        found: u64,
    },
    /// Two trees of one size were signed.
    NotConsistent {
        /// That size.
        size: u64,
    },
    /// The header of an export says another size than its checkpoint.
    SizeDiffers {
        /// That of the header.
        header: u64,
        /// That of the checkpoint.
        checkpoint: u64,
    },
    /// A line of an export that can't be read.
    Line {
        /// Which, counted from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RowChanged { position, sequence } => {
                write!(f, "row {sequence} (position {position}) is not as it was written")
            }
            Self::RowMisfiled { position, sequence } => write!(
                f,
                "row {sequence} (position {position}) is as it was written, but the columns by which it is found were changed"
            ),
            Self::RowMissing { position, sequence } => {
                write!(
                    f,
                    "row {sequence} (position {position}) is gone and was not erased by the rules"
                )
            }
            Self::RowUnsealed { sequence } => {
                write!(
                    f,
                    "row {sequence} was put in later: rows after it are in the tree and it is not"
                )
            }
            Self::RowErased { position, sequence } => {
                write!(
                    f,
                    "row {sequence} (position {position}) was erased, and no rule allows it"
                )
            }
            Self::PositionGap { expected, found } => {
                write!(f, "position {expected} should follow, and position {found} does")
            }
            Self::SequenceOrder {
                position,
                before,
                found,
            } => {
                write!(
                    f,
                    "row {found} (position {position}) follows row {before}: rows ascend"
                )
            }
            Self::NodeChanged { level, index } => {
                write!(
                    f,
                    "the stored node {index} of level {level} is not what its rows make"
                )
            }
            Self::NodeMissing { level, index } => {
                write!(f, "the stored node {index} of level {level} is gone")
            }
            Self::NodeSurplus { level, index } => {
                write!(
                    f,
                    "the node {index} of level {level} is stored, and rows under it are not there"
                )
            }
            Self::RootMismatch { size, last_good_size } => {
                write!(f, "the first {size} rows are not those that were signed: ")?;
                match last_good_size {
                    Some(good) => write!(f, "the difference is after the first {good}, which are"),
                    None => f.write_str("no smaller size was held against a checkpoint and was right"),
                }
            }
            Self::CheckpointInvalid { size, why } => {
                write!(f, "the checkpoint of size {size} is not valid: {why}")
            }
            Self::CheckpointMissing => f.write_str("there is no checkpoint at the end"),
            Self::KeyReplaced {
                size,
                newer: Some(newer),
            } => write!(
                f,
                "the checkpoint of size {size} is signed by a key that was replaced by size {newer}"
            ),
            Self::KeyReplaced { size, newer: None } => {
                write!(
                    f,
                    "the last checkpoint, of size {size}, is not signed by the newest key"
                )
            }
            Self::TreeTruncated { size, known } => write!(
                f,
                "there are {size} rows, and {known} were signed: the last {} are cut off",
                known.saturating_sub(*size)
            ),
            Self::RowsBeyond { size, found } => write!(
                f,
                "there are {found} rows, and the last checkpoint is of {size}: nothing vouches for the rest"
            ),
            Self::NotConsistent { size } => {
                write!(
                    f,
                    "two different trees of size {size} were signed: the log was forked"
                )
            }
            Self::SizeDiffers { header, checkpoint } => write!(
                f,
                "the header says that the tree has size {header}, and the checkpoint is of size {checkpoint}"
            ),
            Self::Line { why, .. } => f.write_str(why),
        }
    }
}

/// Positions that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many rows were looked at.
    pub rows: u64,
    /// How many of them were erased.
    pub erased: u64,
    /// Where those are, as far as 1000 spans go.
    pub erased_spans: Vec<Span>,
    /// How many leaves were before the first row that was looked at.
    pub from: u64,
    /// How many leaves there are up to the last one.
    pub size: u64,
    /// The root of their tree; nothing where leaves were missing in between.
    pub root: Option<Hash>,
    /// The size of the last checkpoint, where it is valid and its root is that of the rows.
    pub vouched_size: Option<u64>,
    /// How many kept checkpoints the rows were held against and agree with.
    pub kept_agreed: u64,
    /// How many kept checkpoints are of trees smaller than `from`, and tell nothing of these rows.
    pub kept_before: u64,
    /// What was found, at most [`MOST_FINDINGS`].
    pub findings: Vec<Finding>,
    /// How many findings there are beside those.
    pub more_findings: u64,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.more_findings == 0
    }

    pub(crate) fn new(from: u64) -> Self {
        Self {
            rows: 0,
            erased: 0,
            erased_spans: Vec::new(),
            from,
            size: from,
            root: None,
            vouched_size: None,
            kept_agreed: 0,
            kept_before: 0,
            findings: Vec::new(),
            more_findings: 0,
        }
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(finding);
        } else {
            self.more_findings = self.more_findings.saturating_add(1);
        }
    }

    pub(crate) fn add_erased(&mut self, position: u64) {
        self.erased += 1;
        let spans = self.erased_spans.len();
        match self.erased_spans.last_mut() {
            Some(span) if span.last.checked_add(1) == Some(position) => span.last = position,
            _ if spans < MOST_SPANS => self.erased_spans.push(Span {
                first: position,
                last: position,
            }),
            _ => {}
        }
    }
}
