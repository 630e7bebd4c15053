//! Checking a tenant's ledger where it is stored: each row against its leaf and the columns by which it is found, the leaves against
//! the stored nodes and the checkpoints, and the checkpoints against those that somebody kept.

use handoff_domain::ids::TenantId;
use handoff_domain::ledger::{Leaf as StoredLeaf, Node, Placed, SignedCheckpoint};
use handoff_domain::ports::{self, Store, StoreError};
use handoff_domain::time::Timestamp;
use handoff_ledger::tree::STORED_EVERY;
use handoff_ledger::{Finding, Frontier, Hash, Held, Leaf, Note, Report, Start, Verifier, VerifierKey};

use super::seal::recorded;
use super::walk::{Step, Walk};
use super::{LedgerError, commitment_of};

/// How many nodes are read at once.
const NODES: u32 = 2_000;
/// How many rows that are not sealed yet are counted.
const MOST_WAITING: u32 = 10_000;

/// What a check came to.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What was found.
    pub report: Report,
    /// How many of the checkpoints that it was held against are stored beside it.
    pub stored: u64,
    /// How many rows wait to be sealed, at most 10,000, and since when.
    pub waiting: usize,
    /// When the oldest of them says that it was recorded.
    pub waiting_since: Option<Timestamp>,
}

/// Checks a tenant's ledger. `origin` and `keys`, the newest first, are those of its log; `kept` are checkpoints that were kept
/// elsewhere.
pub async fn check(
    store: &dyn Store,
    tenant: &TenantId,
    (origin, keys): (&str, &[VerifierKey]),
    kept: &[Note],
) -> Result<Checked, LedgerError> {
    let (stored, of_hours) = checkpoints(store, tenant).await?;
    let mut unreadable = Vec::new();
    let mut kept = kept.to_vec();
    let given = kept.len();
    let newest = stored.as_ref().map_or(0, |(size, _)| *size);
    // What was signed since the newest was read is looked at the next time.
    for (size, text) in of_hours.into_iter().filter(|(size, _)| *size <= newest) {
        match Note::parse(text) {
            // One whose row says another size was put there by somebody.
            Ok(note) if note.checkpoint().size == size => kept.push(note),
            Ok(_) => unreadable.push((size, "it is of another size than it is kept under".to_owned())),
            Err(error) => unreadable.push((size, error.to_string())),
        }
    }
    let last = stored.as_ref().map(|(size, text)| (*size, Note::parse(text)));
    let note = last.as_ref().and_then(|(_, note)| note.as_ref().ok());
    let until = note.map(|note| note.checkpoint().size);
    let mut verifier = Verifier::new(Start {
        tenant: tenant.as_str(),
        origin,
        from: Frontier::new(),
        keys,
        kept: &kept,
        until,
        stored_nodes: true,
    });
    if let Some((size, Err(error))) = &last {
        unreadable.push((*size, error.to_string()));
    }
    for (size, why) in unreadable {
        verifier.found(Finding::CheckpointInvalid { size, why });
    }
    let mut nodes = StoredNodes::new(tenant.clone());
    // Whatever is beyond the last checkpoint is not sealed yet, or not by us.
    let mut walk = Walk::new(tenant.clone(), None, until.unwrap_or(u64::MAX));
    loop {
        let (next, steps) = walk.page(store).await?;
        walk = next;
        if steps.is_empty() {
            break;
        }
        for step in &steps {
            take(&mut verifier, step);
        }
        nodes.hold_against(&mut verifier, store).await?;
    }
    let beyond = nodes.beyond(store).await?;
    let tail = tail(store, tenant).await?;
    // Whoever puts a node where the tree comes to later stops the seal.
    for node in beyond {
        if node.index >= tail.leaves >> node.level {
            verifier.found(Finding::NodeSurplus {
                level: node.level,
                index: node.index,
            });
        }
    }
    if tail.leaves > tail.signed {
        verifier.found(Finding::RowsBeyond {
            size: tail.signed,
            found: tail.leaves,
        });
    }
    if stored.is_none() && tail.leaves > 0 {
        verifier.found(Finding::CheckpointMissing);
    }
    Ok(Checked {
        stored: u64::try_from(kept.len().saturating_sub(given)).unwrap_or(u64::MAX),
        report: verifier.finish(note),
        waiting: tail.waiting,
        waiting_since: tail.waiting_since,
    })
}

/// A checkpoint as it is stored: its size and its text.
type Stored = (u64, String);

/// The newest checkpoint, and those that were the last of their hour.
async fn checkpoints(
    store: &dyn Store,
    tenant: &TenantId,
) -> Result<(Option<Stored>, Vec<Stored>), StoreError> {
    const PAGE: u32 = 1_000;
    let of = tenant.clone();
    ports::read(store, move |read| {
        let stored = |one: SignedCheckpoint| (one.size, one.note);
        let newest = read.last_checkpoint(&of)?.map(stored);
        let (mut below, mut all) = (u64::MAX, Vec::new());
        loop {
            let page = read.checkpoints(&of, below, PAGE)?;
            let smallest = page.iter().map(|one| one.size).min();
            all.extend(page.into_iter().map(stored));
            match smallest {
                Some(smallest) if smallest < below => below = smallest,
                _ => break,
            }
        }
        Ok((newest, all))
    })
    .await
}

fn take(verifier: &mut Verifier<'_>, step: &Step) {
    let (leaf, row) = match step {
        Step::Stray(sequence) => return verifier.found(Finding::RowUnsealed { sequence: *sequence }),
        Step::Leaf(leaf, row) => (leaf, row),
    };
    verifier.leaf(&Leaf {
        position: leaf.position,
        sequence: leaf.sequence,
        held: held(leaf, row.as_ref()),
    });
    if row.as_ref().is_some_and(|row| !row.agrees) {
        verifier.found(Finding::RowMisfiled {
            position: leaf.position,
            sequence: leaf.sequence,
        });
    }
}

fn held<'a>(leaf: &'a StoredLeaf, row: Option<&'a Placed>) -> Held<'a> {
    let commitment = commitment_of(leaf);
    match (row, &leaf.salt) {
        (Some(row), Some(salt)) => Held::Present {
            commitment: Some(commitment),
            salt,
            entry: row.entry.text.as_bytes(),
        },
        // Nothing erases rows by rule yet.
        (None, None) => Held::Erased {
            commitment,
            allowed: false,
        },
        (None, Some(_)) => Held::Missing { commitment },
        // Without its salt nothing proves that the row is the one that was sealed.
        (Some(row), None) => Held::Present {
            commitment: Some(commitment),
            salt: &[0; 32],
            entry: row.entry.text.as_bytes(),
        },
    }
}

/// The stored nodes, each level as far as the leaves under it went by.
struct StoredNodes {
    tenant: TenantId,
    /// The next index of each level.
    next: Vec<(u8, u64)>,
}

impl StoredNodes {
    fn new(tenant: TenantId) -> Self {
        let levels = (STORED_EVERY..64).step_by(usize::from(STORED_EVERY));
        Self {
            tenant,
            next: levels.map(|level| (level, 0)).collect(),
        }
    }

    /// Nodes after those that the leaves went by.
    async fn beyond(&self, store: &dyn Store) -> Result<Vec<Node>, StoreError> {
        let (of, next) = (self.tenant.clone(), self.next.clone());
        ports::read(store, move |read| {
            let mut found = Vec::new();
            for (level, from) in next {
                found.extend(read.ledger_nodes(&of, level, from, u64::MAX, NODES)?);
            }
            Ok(found)
        })
        .await
    }

    async fn hold_against(
        &mut self,
        verifier: &mut Verifier<'_>,
        store: &dyn Store,
    ) -> Result<(), StoreError> {
        let size = verifier.position();
        for (level, next) in &mut self.next {
            let until = size >> *level;
            while *next < until {
                let (of, level, from) = (self.tenant.clone(), *level, *next);
                let nodes = ports::read(store, move |read| {
                    read.ledger_nodes(&of, level, from, until, NODES)
                })
                .await?;
                *next = match nodes.last() {
                    Some(last) if nodes.len() >= NODES as usize => last.index.saturating_add(1),
                    _ => until,
                };
                for node in nodes {
                    verifier.stored_node(node.level, node.index, Hash(node.hash));
                }
            }
        }
        Ok(())
    }
}

/// What is behind the last leaf.
struct Tail {
    leaves: u64,
    signed: u64,
    waiting: usize,
    waiting_since: Option<Timestamp>,
}

async fn tail(store: &dyn Store, tenant: &TenantId) -> Result<Tail, StoreError> {
    let of = tenant.clone();
    ports::read(store, move |read| {
        // In this order: a checkpoint is never behind the leaves that were there before it was read.
        let leaf = read.last_leaf(&of)?;
        let signed = read.last_checkpoint(&of)?.map_or(0, |one| one.size);
        let after = leaf.as_ref().map_or(i64::MIN, |leaf| leaf.sequence);
        let waiting = read.audit_entries(&of, after, i64::MAX, MOST_WAITING)?;
        Ok(Tail {
            leaves: leaf.map_or(0, |leaf| leaf.position.saturating_add(1)),
            signed,
            waiting: waiting.len(),
            waiting_since: waiting.first().and_then(recorded),
        })
    })
    .await
}
