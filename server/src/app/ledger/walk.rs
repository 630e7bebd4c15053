//! Going through a tenant's sealed audit from one leaf to another, each with its row, a page at a time: for a check and for an
//! export. Judges nothing.

use std::collections::VecDeque;

use handoff_domain::ids::TenantId;
use handoff_domain::ledger::{Leaf, Placed};
use handoff_domain::ports::{self, Read, Store, StoreError};

/// How many leaves, and how many rows, are read at once.
const PAGE: u32 = 2_000;

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A leaf, with its row where there is one.
    Leaf(Leaf, Option<Placed>),
    /// A row that has no leaf, though later ones have.
    Stray(i64),
}

/// Where a walk is.
///
/// Both leaves and rows are read in their own order and laid side by side by the numbers of the rows, so that whatever is stored, a
/// step is made with each leaf and each row, and the walk ends.
#[derive(Debug, Clone)]
pub struct Walk {
    tenant: TenantId,
    /// The next position, and the one after the last.
    position: u64,
    until: u64,
    leaves: VecDeque<Leaf>,
    /// The number of the last row that was read.
    read_to: i64,
    rows: VecDeque<Placed>,
    rows_ended: bool,
}

impl Walk {
    /// From the leaf after `before` to the one before position `until`: `before` is the last leaf that is passed over.
    pub fn new(tenant: TenantId, before: Option<&Leaf>, until: u64) -> Self {
        Self {
            tenant,
            position: before.map_or(0, |leaf| leaf.position.saturating_add(1)),
            until,
            leaves: VecDeque::new(),
            read_to: before.map_or(i64::MIN, |leaf| leaf.sequence),
            rows: VecDeque::new(),
            rows_ended: false,
        }
    }

    /// The next steps; none at the end.
    pub async fn page(mut self, store: &dyn Store) -> Result<(Self, Vec<Step>), StoreError> {
        ports::read(store, move |read| {
            let steps = self.steps(read)?;
            Ok((self, steps))
        })
        .await
    }

    fn steps(&mut self, read: &mut dyn Read) -> Result<Vec<Step>, StoreError> {
        if self.leaves.is_empty() {
            let leaves = read.leaves(&self.tenant, self.position, self.until, PAGE)?;
            self.leaves = leaves.into();
        }
        let mut steps = Vec::with_capacity(self.leaves.len());
        while let Some(leaf) = self.leaves.front() {
            let (position, sequence) = (leaf.position, leaf.sequence);
            let row = match self.beside(read, sequence)? {
                // However many there are, they don't come all at once.
                Beside::Stray(_) if steps.len() >= PAGE as usize => break,
                Beside::Stray(stray) => {
                    self.rows.pop_front();
                    steps.push(Step::Stray(stray));
                    continue;
                }
                Beside::Row => self.rows.pop_front(),
                Beside::Nothing => None,
            };
            if let Some(leaf) = self.leaves.pop_front() {
                self.position = position.saturating_add(1);
                steps.push(Step::Leaf(leaf, row));
            }
        }
        Ok(steps)
    }

    /// What lies beside the leaf of the row `sequence`.
    fn beside(&mut self, read: &mut dyn Read, sequence: i64) -> Result<Beside, StoreError> {
        if self.rows.is_empty() && !self.rows_ended {
            let rows = read.placed_entries(&self.tenant, self.read_to, i64::MAX, PAGE)?;
            self.rows_ended = rows.len() < PAGE as usize;
            self.read_to = rows.last().map_or(self.read_to, |row| row.entry.sequence);
            self.rows = rows.into();
        }
        let next = self.rows.front().map(|row| row.entry.sequence);
        Ok(match next {
            Some(next) if next < sequence => Beside::Stray(next),
            Some(next) if next == sequence => Beside::Row,
            _ => Beside::Nothing,
        })
    }
}

enum Beside {
    Stray(i64),
    Row,
    Nothing,
}
