//! Whether the blob store holds what the records say, and nothing else. Now and then one process lists all content and holds it against the
//! records. What differs is kept, recorded and told, and by itself nothing is removed: after the database was put back to an
//! earlier state, everything newer looks as if nobody needed it.

use std::collections::HashMap;

use handoff_domain::access::Action;
use handoff_domain::audit::{About, AuditRow, Event, Outcome};
use handoff_domain::drift::{self, Drift, DriftKind, Look, SETTLED_AFTER};
use handoff_domain::ids::TenantId;
use handoff_domain::ports::{BlobError, Listed, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::time::{Span, Timestamp};

use super::finish::server_itself;
use super::holds::may;
use super::{App, AppError, Caller, Cuts, Scope};
use crate::telemetry::{drift as measured, metrics};

/// How many records are read at once.
const RECORDS: u32 = 1000;
/// How many differences one transaction keeps, and an answer tells.
const BATCH: usize = 200;
/// How long one process looks before another may, unless it goes on. A page of a listing takes its time.
const TURN: Span = Span::minutes(5);
/// The name of the lease.
const LEASE: &str = "drift";

/// When content is held against the records, and what becomes of what nobody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconciling {
    /// How long after one look the next begins.
    pub every: Span,
    /// For how long content that no record needs was known as that before it is removed; it never is where `None`.
    pub remove_after: Option<Span>,
    /// What is younger is not told.
    pub settled_after: Span,
}

impl Default for Reconciling {
    fn default() -> Self {
        Self {
            every: Span::hours(24),
            remove_after: None,
            settled_after: SETTLED_AFTER,
        }
    }
}

/// Looks at the content of those tenants whose time has come. One process at a time does it.
pub async fn run_once(app: &App, tenants: &[TenantId], how: Reconciling) -> Result<(), AppError> {
    let mut failed = None;
    for tenant in tenants {
        let of = tenant.clone();
        let last = app.read(move |read| Ok(read.last_look(&of)?)).await?;
        let is_due = last.is_none_or(|last| last.is_over(how.every, app.clock.now()));
        if is_due && is_ours(app).await? {
            let looking = Looking {
                app,
                tenant,
                how,
                began: app.clock.now(),
            };
            // What is wrong with one tenant's content keeps nobody from looking at another's.
            failed = looking.look().await.err().or(failed);
        }
    }
    measure(app, tenants).await?;
    failed.map_or(Ok(()), Err)
}

/// Whether it is this process's turn.
async fn is_ours(app: &App) -> Result<bool, AppError> {
    Ok(app.store.lease(LEASE, &app.settings.process, TURN).await?)
}

async fn measure(app: &App, tenants: &[TenantId]) -> Result<(), AppError> {
    let of = tenants.to_vec();
    let (counts, looks) = app
        .read(move |read| {
            let mut looks = Vec::new();
            for tenant in &of {
                looks.push(read.last_look(tenant)?);
            }
            Ok((read.drift_counts(None)?, looks))
        })
        .await?;
    let oldest = looks
        .iter()
        .flatten()
        .map(|look| app.clock.now().since(look.ended))
        .max_by_key(|age| age.0);
    measured::drift(&counts, oldest);
    Ok(())
}

/// One look at a tenant's content.
struct Looking<'a> {
    app: &'a App,
    tenant: &'a TenantId,
    how: Reconciling,
    began: Timestamp,
}

impl Looking<'_> {
    async fn look(&self) -> Result<(), AppError> {
        let (mut objects, mut bytes) = (0_u64, 0_u64);
        let mut after: Option<String> = None;
        let mut from = None;
        loop {
            if !is_ours(self.app).await? {
                return Ok(());
            }
            let page = self.app.blobs.list(self.tenant, from).await?;
            let (first, last) = (page.objects.first(), page.objects.last());
            if first.is_some_and(|first| after.as_ref().is_some_and(|after| first.name <= *after)) {
                // Held against the records, these would say that half of the content is missing.
                return Err(BlobError::Unavailable("the listing is not in order".to_owned()).into());
            }
            for object in &page.objects {
                objects = objects.saturating_add(1);
                bytes = bytes.saturating_add(object.size);
            }
            // Behind the last object may be more records.
            let until = last.filter(|_| page.next.is_some()).map(|last| last.name.clone());
            if until.is_some() || page.next.is_none() {
                self.compare(&page.objects, after, until.clone()).await?;
                after = until;
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        let look = Look {
            began: self.began,
            ended: self.app.clock.now(),
            objects,
            bytes,
            asked: None,
        };
        self.settle(look).await
    }

    /// Holds objects against the records between two names.
    async fn compare(
        &self,
        mut objects: &[Listed],
        mut after: Option<String>,
        until: Option<String>,
    ) -> Result<(), AppError> {
        loop {
            let (of, from, to) = (self.tenant.clone(), after, until.clone());
            let records = self
                .app
                .read(move |read| Ok(read.shelved(&of, from.as_deref(), to.as_deref(), RECORDS)?))
                .await?;
            let is_full = records.len() >= RECORDS as usize;
            let bound = match records.last().filter(|_| is_full) {
                Some(last) => Some(last.id.to_string()),
                None => until.clone(),
            };
            let split = bound.as_deref().map_or(objects.len(), |bound| {
                objects.partition_point(|object| object.name.as_str() <= bound)
            });
            let (these, others) = objects.split_at_checked(split).unwrap_or((objects, &[]));
            let now = self.app.clock.now();
            let found = drift::compare(these, &records, now, self.how.settled_after);
            for found in found.chunks(BATCH) {
                let known = self.keep(found.to_vec()).await?;
                self.remove(&known, these).await?;
            }
            if !is_full {
                return Ok(());
            }
            (objects, after) = (others, bound);
        }
    }

    fn scope(&self) -> Result<Scope, AppError> {
        Ok(self.app.scope(&server_itself(self.app, self.tenant)?))
    }

    /// Keeps differences; answers them with when each was first seen.
    async fn keep(&self, found: Vec<Drift>) -> Result<Vec<Drift>, AppError> {
        let (scope, began) = (self.scope()?, self.began);
        let kept = self.app.write(self.tenant, move |tx| {
            let names: Vec<String> = found.iter().map(|drift| drift.name.clone()).collect();
            let known: HashMap<String, Drift> = tx
                .drift_of(scope.tenant(), &names)?
                .into_iter()
                .map(|drift| (drift.name.clone(), drift))
                .collect();
            let mut kept = Vec::with_capacity(found.len());
            let mut fresh = Vec::new();
            for drift in &found {
                let mut drift = drift.clone();
                if let Some(known) = known.get(&drift.name).filter(|known| known.kind == drift.kind) {
                    drift.found = known.found;
                } else {
                    tx.record(scope.tenant(), row(&scope, &drift, "found"));
                    fresh.push(drift.clone());
                }
                tx.note_drift(scope.tenant(), &drift, began)?;
                kept.push(drift);
            }
            Ok(((kept, fresh), Cuts::none()))
        });
        let (kept, fresh) = kept.await?;
        for drift in &fresh {
            tell(drift);
        }
        Ok(kept)
    }

    /// Removes content that was known for long enough to be needed by nobody.
    async fn remove(&self, known: &[Drift], objects: &[Listed]) -> Result<(), AppError> {
        let Some(after) = self.how.remove_after else {
            return Ok(());
        };
        let now = self.app.clock.now();
        let is_over = |drift: &&Drift| drift.kind.is_needless() && now.since(drift.found) >= after;
        for drift in known.iter().filter(is_over) {
            let Some(object) = objects.iter().find(|object| object.name == drift.name) else {
                continue;
            };
            // One that fails keeps no other from being removed.
            if let Err(error) = self.remove_one(drift, object).await {
                metrics::job_failure("drift");
                tracing::error!(kind = drift.kind.as_str(), cause = ?error.cause, reason = %error.reason, "content that nobody needs could not be removed, and will be tried again");
            }
        }
        Ok(())
    }

    async fn remove_one(&self, drift: &Drift, object: &Listed) -> Result<(), AppError> {
        let (scope, of) = (self.scope()?, drift.clone());
        let may_go = self.app.write(self.tenant, move |tx| {
            let may_go = !is_needed(tx, &scope, &of)?;
            if may_go {
                tx.record(scope.tenant(), row(&scope, &of, "removing"));
            }
            Ok((may_go, Cuts::none()))
        });
        if !may_go.await? {
            return Ok(());
        }
        self.app.blobs.remove_listed(self.tenant, object).await?;
        let (scope, of) = (self.scope()?, drift.clone());
        let done = self.app.write(self.tenant, move |tx| {
            tx.forget_drift(scope.tenant(), &of.name)?;
            tx.record(scope.tenant(), row(&scope, &of, "removed"));
            Ok(((), Cuts::none()))
        });
        done.await
    }

    /// What this look has not seen any more differs no longer.
    async fn settle(&self, look: Look) -> Result<(), AppError> {
        loop {
            let (scope, look) = (self.scope()?, look.clone());
            let left = self.app.write(self.tenant, move |tx| {
                let limit = u32::try_from(BATCH).unwrap_or(u32::MAX);
                let resolved = tx.drift_unseen(scope.tenant(), look.began, limit)?;
                for drift in &resolved {
                    tx.forget_drift(scope.tenant(), &drift.name)?;
                    tx.record(scope.tenant(), row(&scope, drift, "resolved"));
                }
                if resolved.len() < BATCH {
                    tx.keep_look(scope.tenant(), &look)?;
                }
                Ok((resolved.len() >= BATCH, Cuts::none()))
            });
            if !left.await? {
                return Ok(());
            }
        }
    }
}

/// Whether a record needs content after all.
fn is_needed(tx: &mut dyn Tx, scope: &Scope, drift: &Drift) -> Result<bool, AppError> {
    let Some(id) = drift.binary() else {
        return Ok(true);
    };
    Ok(match drift.kind {
        DriftKind::Orphaned => tx.binary(scope.tenant(), &id)?.is_some(),
        // What is gone stays so.
        DriftKind::Lingering => false,
        DriftKind::Foreign | DriftKind::Missing | DriftKind::Altered => true,
    })
}

fn row(scope: &Scope, drift: &Drift, act: &str) -> AuditRow {
    let outcome = match drift.kind {
        DriftKind::Missing | DriftKind::Altered if act == "found" => Outcome::Failed,
        _ => Outcome::Success,
    };
    let reason = match outcome {
        Outcome::Failed => Reason::IntegrityFailed,
        _ => Reason::Permitted,
    };
    let row = scope
        .row(Event::ContentDrifted, outcome, reason)
        .detail("act", act)
        .detail("kind", drift.kind.as_str())
        .detail("bytes", drift.size.to_string())
        .detail("found", drift.found.to_instant());
    // A name that is none of ours may say anything.
    match drift.binary() {
        Some(id) => row.about(About {
            binary: Some(format!("Binary/{id}")),
            ..About::default()
        }),
        None => row,
    }
}

fn tell(drift: &Drift) {
    let binary = drift.binary().map(|id| id.to_string());
    match drift.kind {
        DriftKind::Missing | DriftKind::Altered => {
            tracing::error!(
                binary,
                kind = drift.kind.as_str(),
                "stored content is not what it should be"
            );
        }
        DriftKind::Orphaned | DriftKind::Foreign | DriftKind::Lingering => {
            tracing::warn!(
                binary,
                kind = drift.kind.as_str(),
                "the blob store holds what no record needs"
            );
        }
    }
}

/// What is known of differences.
#[derive(Debug, Clone)]
pub struct Known {
    /// The last complete look.
    pub look: Option<Look>,
    /// How many there are of each kind, and of how many bytes.
    pub counts: Vec<(DriftKind, u64, u64)>,
    /// Some of them, in the order of their names.
    pub drift: Vec<Drift>,
    /// Whether there are more.
    pub more: bool,
}

impl App {
    /// What is known of differences between content and records, after a name.
    pub async fn known_drift(&self, caller: &Caller, after: Option<String>) -> Result<Known, AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            may(&scope, Action::RecordsRead, Event::RecordsRead)?;
            let limit = u32::try_from(BATCH).unwrap_or(u32::MAX).saturating_add(1);
            let mut drift = tx.drift(scope.tenant(), after.as_deref(), limit)?;
            let more = drift.len() > BATCH;
            drift.truncate(BATCH);
            let known = Known {
                look: tx.last_look(scope.tenant())?,
                counts: tx.drift_counts(Some(scope.tenant()))?,
                drift,
                more,
            };
            let row = scope
                .row(Event::RecordsRead, Outcome::Success, Reason::Permitted)
                .detail("drift", known.drift.len().to_string());
            tx.record(scope.tenant(), row);
            Ok((known, Cuts::none()))
        })
        .await
    }

    /// Has all content be looked at soon, whenever that was done last.
    pub async fn look_soon(&self, caller: &Caller) -> Result<(), AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            may(&scope, Action::RecordsRead, Event::RecordsRead)?;
            tx.ask_for_look(scope.tenant(), scope.now())?;
            let row = scope
                .row(Event::RecordsRead, Outcome::Success, Reason::Permitted)
                .detail("drift", "asked for");
            tx.record(scope.tenant(), row);
            Ok(((), Cuts::none()))
        })
        .await
    }
}
