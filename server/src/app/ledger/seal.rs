//! Sealing the audit: what was recorded becomes leaves of its tenant's tree, and each tree is signed. One process at a time does it.
//! Judges no row, and never signs a tree that is not the one signed before with more at its end.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use handoff_domain::audit::AuditRow;
use handoff_domain::ids::TenantId;
use handoff_domain::ledger::{Entry, Leaf, Node, SignedCheckpoint};
use handoff_domain::ports::{Entropy, StoreError};
use handoff_domain::time::{Span, Timestamp};
use handoff_ledger::tree::{self, STORED_EVERY};
use handoff_ledger::{Checkpoint, Frontier, KeyError, Note, SigningKey, VerifierKey, commit};
use secrecy::{ExposeSecret, SecretString};

use super::{LedgerError, StoredTree, hash_of};
use crate::app::{App, AppError, Cuts};
use crate::telemetry::ledger;

/// How many rows are sealed at once.
const BATCH: u32 = 4_000;
/// How long one process seals before another may, unless it goes on.
const TURN: Span = Span::seconds(10);
/// The name of the lease.
const LEASE: &str = "seal";
/// Rows that are older than this when a seal begins were not all of them recorded just now.
const LONG_AGO: Span = Span::hours(1);

/// What the audit is sealed with. Each tenant's log is signed for under a name of its own.
#[derive(Debug, Clone)]
pub struct SealKey {
    pem: SecretString,
    origin: String,
    previous: Vec<VerifierKey>,
}

impl SealKey {
    /// A key in PEM (PKCS#8, Ed25519), the origin of all logs, and the verifiers of keys that signed before it.
    pub fn new(pem: SecretString, origin: String, previous: Vec<VerifierKey>) -> Result<Self, KeyError> {
        // The longest tenant's name follows it.
        SigningKey::from_pem(&format!("{origin}/{}", "t".repeat(64)), pem.expose_secret())?;
        Ok(Self {
            pem,
            origin,
            previous,
        })
    }

    /// The origin of a tenant's log, which is the name of its key as well.
    pub fn origin(&self, tenant: &TenantId) -> String {
        format!("{}/{tenant}", self.origin)
    }

    /// The origin that those of all tenants begin with.
    pub fn log(&self) -> &str {
        &self.origin
    }

    /// The verifiers of keys that signed before this one.
    pub fn previous(&self) -> &[VerifierKey] {
        &self.previous
    }

    fn signer(&self, tenant: &TenantId) -> Result<SigningKey, KeyError> {
        SigningKey::from_pem(&self.origin(tenant), self.pem.expose_secret())
    }

    /// The keys that may have signed a tenant's checkpoints, the newest first.
    pub fn verifiers(&self, tenant: &TenantId) -> Result<Vec<VerifierKey>, KeyError> {
        let signer = self.signer(tenant)?;
        // One key signs for all tenants, whichever of them it was printed for.
        let previous = self.previous.iter().map(|key| key.named(signer.name()));
        std::iter::once(Ok(signer.verifier())).chain(previous).collect()
    }
}

/// How far a tenant's audit is sealed.
#[derive(Debug, Clone)]
struct Reached {
    frontier: Frontier,
    /// The number of the last row that is.
    sequence: i64,
    /// When the last checkpoint was signed.
    at: Timestamp,
}

/// Seals, and remembers how far it came as long as it does so alone.
#[derive(Debug)]
pub struct Sealer {
    key: SealKey,
    reached: Mutex<HashMap<TenantId, Reached>>,
    /// Those that could not be sealed last time, which was told.
    failing: Mutex<HashSet<TenantId>>,
}

impl Sealer {
    /// With this key.
    pub fn new(key: SealKey) -> Self {
        Self {
            key,
            reached: Mutex::default(),
            failing: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<TenantId, Reached>> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whether a tenant's audit could not be sealed; answers whether that is news.
    fn note(&self, tenant: &TenantId, fails: bool) -> bool {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if fails {
            failing.insert(tenant.clone())
        } else {
            failing.remove(tenant)
        }
    }

    /// Seals what is recorded by now, of every tenant. One that fails keeps no other waiting.
    pub async fn run_once(&self, app: &App) -> Result<(), String> {
        let leased = app.store.lease(LEASE, &app.settings.process, TURN).await;
        if !leased.map_err(|error| error.to_string())? {
            // Whoever seals goes on from where this process does not know.
            self.known().clear();
            return Ok(());
        }
        let sealed = self.seal_all(app).await;
        sealed.map_err(|error| error.to_string())
    }

    async fn seal_all(&self, app: &App) -> Result<(), LedgerError> {
        let (settled, tenants) = app
            .read(|read| Ok((read.settled_sequence()?, read.audited_tenants()?)))
            .await?;
        let Some(settled) = settled else {
            let text =
                "a transaction that writes to the audit is open for long; rows are sealed once it has ended";
            return Err(LedgerError::App(text.to_owned()));
        };
        let (mut failed, mut unsound) = (None, 0_usize);
        for tenant in tenants {
            let sealed = self.seal(app, &tenant, settled).await;
            let is_news = self.note(&tenant, sealed.is_err());
            let Err(error) = sealed else { continue };
            self.known().remove(&tenant);
            if is_news {
                tracing::error!(%tenant, cause = %error, "the audit is not sealed");
            }
            // Another sealer is in the way once; what is in the way again was put there.
            let is_in_the_way = matches!(error, LedgerError::Store(StoreError::Conflict)) && !is_news;
            if is_in_the_way || matches!(error, LedgerError::Differs(_) | LedgerError::Checkpoint(_)) {
                unsound = unsound.saturating_add(1);
            }
            failed.get_or_insert(error);
        }
        ledger::unsound_ledgers(unsound);
        failed.map_or(Ok(()), Err)
    }

    /// Seals a tenant's rows up to a number below which no other can come to be.
    async fn seal(&self, app: &App, tenant: &TenantId, settled: i64) -> Result<(), LedgerError> {
        let known = self.known().get(tenant).cloned();
        let mut reached = match known {
            Some(reached) => reached,
            None => self.begin(app, tenant, settled).await?,
        };
        if settled < reached.sequence {
            // Whatever comes now is recorded below what is sealed, and nobody comes back to it.
            let text = format!(
                "rows up to {} are sealed, and numbers go on from {settled}",
                reached.sequence
            );
            return Err(LedgerError::Differs(text));
        }
        let signer = self.key.signer(tenant)?;
        loop {
            let (of, after) = (tenant.clone(), reached.sequence);
            let entries = app
                .read(move |read| Ok(read.audit_entries(&of, after, settled, BATCH)?))
                .await?;
            let Some(last) = entries.last().map(|entry| entry.sequence) else {
                break;
            };
            let count = entries.len();
            let batch = Batch::of(tenant, &reached, entries, app.entropy.as_ref());
            // No checkpoint looks older than the one before it, whatever the clock does.
            let at = app.clock.now().max(reached.at);
            let note = signer.sign(&Checkpoint {
                origin: signer.name().to_owned(),
                size: batch.frontier.size(),
                root: batch.frontier.root(),
                extensions: Vec::new(),
            })?;
            let checkpoint = SignedCheckpoint {
                size: batch.frontier.size(),
                at,
                note,
            };
            let Batch {
                leaves,
                nodes,
                frontier,
            } = batch;
            let of = tenant.clone();
            app.write(tenant, move |tx| {
                tx.add_leaves(&of, &leaves)?;
                tx.add_ledger_nodes(&of, &nodes)?;
                tx.put_checkpoint(&of, &checkpoint)?;
                Ok(((), Cuts::none()))
            })
            .await?;
            reached = Reached {
                frontier,
                sequence: last,
                at,
            };
            self.known().insert(tenant.clone(), reached.clone());
            ledger::rows_sealed(count);
            if count < BATCH as usize {
                break;
            }
        }
        self.known().insert(tenant.clone(), reached);
        Ok(())
    }

    /// Finds how far a tenant's audit is sealed, and that it is as it was signed.
    async fn begin(&self, app: &App, tenant: &TenantId, settled: i64) -> Result<Reached, LedgerError> {
        let of = tenant.clone();
        let (last, leaf, first) = app
            .read(move |read| {
                let first = read.audit_entries(&of, i64::MIN, settled, 1)?;
                Ok((
                    read.last_checkpoint(&of)?,
                    read.last_leaf(&of)?,
                    first.into_iter().next(),
                ))
            })
            .await?;
        let Some(last) = last else {
            if leaf.is_some() {
                return Err(LedgerError::Differs(
                    "there are leaves, and no checkpoint".to_owned(),
                ));
            }
            warn_of_late_beginning(tenant, first.as_ref(), app.clock.now());
            return Ok(Reached {
                frontier: Frontier::new(),
                sequence: i64::MIN,
                at: Timestamp(0),
            });
        };
        let note = Note::parse(&last.note)?;
        let verifiers = self.key.verifiers(tenant)?;
        let by_older_key = note.verified_by(&verifiers)? > 0;
        let signed = note.checkpoint().clone();
        let of = tenant.clone();
        let size = signed.size;
        let peaks = app
            .read(move |read| {
                let mut tree = StoredTree { read, tenant: &of };
                Ok(tree::peaks(&mut tree, size).map_err(LedgerError::from))
            })
            .await??;
        let frontier =
            Frontier::from_peaks(size, peaks).map_err(|error| LedgerError::Differs(error.to_string()))?;
        let leaves = leaf.as_ref().map_or(0, |leaf| leaf.position.saturating_add(1));
        if leaves != size || last.size != size {
            let text = format!("there are {leaves} leaves, and {size} were signed");
            return Err(LedgerError::Differs(text));
        }
        if frontier.root() != signed.root {
            return Err(LedgerError::Differs("the leaves make another tree".to_owned()));
        }
        if by_older_key {
            // A tenant in which nothing happens is vouched for by the key in use as well.
            let note = self.key.signer(tenant)?.sign(&signed)?;
            let (of, checkpoint) = (tenant.clone(), SignedCheckpoint { note, ..last.clone() });
            app.write(tenant, move |tx| {
                tx.put_checkpoint(&of, &checkpoint)?;
                Ok(((), Cuts::none()))
            })
            .await?;
            tracing::info!(%tenant, size = last.size, "the audit is sealed with another key from here on");
        }
        Ok(Reached {
            frontier,
            sequence: leaf.map_or(i64::MIN, |leaf| leaf.sequence),
            at: last.at,
        })
    }
}

/// Where nothing is sealed yet, rows of long ago mean a server that begins to seal, or a seal that somebody took away. A checkpoint
/// that was kept tells them apart.
fn warn_of_late_beginning(tenant: &TenantId, first: Option<&Entry>, now: Timestamp) {
    let since = first
        .and_then(recorded)
        .filter(|since| now.since(*since) > LONG_AGO);
    if let Some(since) = since {
        tracing::warn!(
            %tenant,
            since = since.to_instant(),
            "the audit is sealed from here on, and was not before; if it was, somebody took the seal away: `handoff audit verify \
             --checkpoint` with a checkpoint that was kept tells",
        );
    }
}

/// When a row says that it was recorded.
pub(super) fn recorded(entry: &Entry) -> Option<Timestamp> {
    let row: AuditRow = serde_json::from_str(&entry.text).ok()?;
    Some(row.recorded)
}

/// Rows that are about to be sealed.
struct Batch {
    leaves: Vec<Leaf>,
    nodes: Vec<Node>,
    /// The tree with them.
    frontier: Frontier,
}

impl Batch {
    fn of(tenant: &TenantId, reached: &Reached, entries: Vec<Entry>, entropy: &dyn Entropy) -> Self {
        let mut frontier = reached.frontier.clone();
        let mut nodes = Vec::new();
        let mut leaves = Vec::with_capacity(entries.len());
        let mut salts = vec![[0_u8; 32]; entries.len()];
        entropy.fill(salts.as_flattened_mut());
        for (entry, salt) in entries.into_iter().zip(salts) {
            let commitment = commit(&salt, entry.text.as_bytes());
            let leaf = Leaf {
                position: frontier.size(),
                sequence: entry.sequence,
                salt: Some(salt),
                commitment: commitment.0.0,
            };
            frontier.push(hash_of(tenant, &leaf), &mut |level, index, hash| {
                if level % STORED_EVERY == 0 {
                    nodes.push(Node {
                        level,
                        index,
                        hash: hash.0,
                    });
                }
            });
            leaves.push(leaf);
        }
        Self {
            leaves,
            nodes,
            frontier,
        }
    }
}

/// Measures for how long the oldest row has waited to be sealed, at every process, so that nobody has to seal for it to be told.
pub async fn measure(app: &App) -> Result<(), AppError> {
    let waiting = app
        .read(|read| {
            let mut waiting = Vec::new();
            for tenant in read.audited_tenants()? {
                let after = read.last_leaf(&tenant)?.map_or(i64::MIN, |leaf| leaf.sequence);
                let oldest = read.audit_entries(&tenant, after, i64::MAX, 1)?;
                // One that does not say when it was recorded is none of ours, and has waited for ever.
                waiting.extend(
                    oldest
                        .first()
                        .map(|oldest| recorded(oldest).unwrap_or(Timestamp(0))),
                );
            }
            Ok(waiting)
        })
        .await?;
    let now = app.clock.now();
    let oldest = waiting.into_iter().min();
    ledger::seal_lag(oldest.map_or(Span(0), |oldest| now.since(oldest)));
    Ok(())
}
