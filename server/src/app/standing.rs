//! Emergency revocation: blocks that stand until they are lifted. Each process keeps in sight what is blocked, so that
//! nothing is issued meanwhile and its own streams stop at once; the gate itself asks the store. What a transaction that
//! had begun before still issued is taken back by [`sweep`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use handoff_domain::access::{Action, Object, Relation};
use handoff_domain::audit::{About, AuditRow, Event, Outcome};
use handoff_domain::ids::{ActorRef, BlockId, TaskId, TenantId};
use handoff_domain::ports::{self, Store, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::scopes::Interaction;
use handoff_domain::standing::{Block, Standing, Target, is_note};
use handoff_domain::time::{Span, Timestamp};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::caps::Reach;
use super::expiry::settle_one;
use super::finish::server_itself;
use super::told::ToldFacts;
use super::{App, AppError, Caller, Class, Cuts, Scope};

/// The most blocks that stand in a tenant.
pub const MOST_BLOCKS: u32 = 1000;
/// How many Tasks are looked for at once.
const BATCH: u32 = 200;
/// How long one process sweeps before another may.
const TURN: Span = Span::seconds(10);

/// How long after a change everything blocked is swept in each turn, and how often at other times: in that time every
/// transaction that did not know of the change has ended.
const AFTER_CHANGE: Duration = Duration::from_mins(1);
const SWEPT_EVERY: Duration = Duration::from_secs(30);

type ByTenant = HashMap<TenantId, Arc<Standing>>;

/// What is blocked, as this process last saw it.
#[derive(Debug, Default)]
pub struct KnownBlocks {
    blocked: ArcSwap<ByTenant>,
    /// One look at a time, so that none overtakes a later one.
    looking: Mutex<Pace>,
}

#[derive(Debug, Default)]
struct Pace {
    changed: Option<Instant>,
    swept: Option<Instant>,
    /// What operators have blocked, as it was last read.
    blocks: HashMap<TenantId, Standing>,
    told: ToldFacts,
}

impl KnownBlocks {
    /// What is blocked in a tenant.
    pub fn of(&self, tenant: &TenantId) -> Arc<Standing> {
        self.blocked.load().get(tenant).cloned().unwrap_or_default()
    }

    /// Sees what the store holds now.
    async fn look(&self, store: &dyn Store, now: Timestamp) -> Result<Arc<ByTenant>, AppError> {
        let mut pace = self.looking.lock().await;
        let since = pace.told.since();
        let (blocks, facts) = ports::watch(store, move |read| {
            Ok::<_, AppError>((read.standing_everywhere()?, read.facts_changed(since)?))
        })
        .await?;
        let news = pace.told.learn(facts, now);
        if pace.blocks != blocks {
            pace.changed = Some(Instant::now());
            pace.blocks = blocks;
        } else if !news {
            return Ok(self.blocked.load_full());
        }
        let mut seen: ByTenant = HashMap::new();
        for (tenant, facts) in pace.told.by_tenant() {
            let blocks = pace.blocks.get(tenant).cloned().unwrap_or_default();
            seen.insert(tenant.clone(), Arc::new(blocks.knowing(Arc::clone(facts))));
        }
        for (tenant, blocks) in &pace.blocks {
            let plain = || Arc::new(blocks.clone());
            seen.entry(tenant.clone()).or_insert_with(plain);
        }
        self.blocked.store(Arc::new(seen));
        Ok(self.blocked.load_full())
    }

    /// Of what facts that were told lately something may still be open.
    async fn told_lately(&self) -> Vec<(TenantId, Target)> {
        self.looking.lock().await.told.lately(AFTER_CHANGE)
    }

    /// Everything that is blocked, where it is time to sweep it.
    async fn to_sweep(&self) -> Option<Arc<ByTenant>> {
        let mut pace = self.looking.lock().await;
        let lately = |at: Option<Instant>, within| at.is_some_and(|at| at.elapsed() < within);
        if lately(pace.swept, SWEPT_EVERY) && !lately(pace.changed, AFTER_CHANGE) {
            return None;
        }
        pace.swept = Some(Instant::now());
        let blocked = self.blocked.load_full();
        (!blocked.is_empty()).then_some(blocked)
    }
}

/// How long the answer to a new block waits for everything to be taken back. Nothing of it opens meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// A block just placed.
#[derive(Debug)]
pub struct Placed {
    /// The block.
    pub block: Block,
    /// From how many Tasks grants and open redemptions were taken back; `None` while that goes on.
    pub tasks: Option<usize>,
}

impl App {
    /// Places a block and takes back what it concerns. It stands once this is committed, whatever comes after.
    pub async fn place_block(&self, caller: &Caller, target: Target, note: &str) -> Result<Placed, AppError> {
        let note = note_of(note)?;
        let scope = self.scope(caller);
        let block = Block {
            id: BlockId::parse(scope.ordered_id()).map_err(|e| AppError::bad(e.to_string()))?,
            target,
            note,
            placed_at: scope.now(),
            placed_by: caller.principal.actor.clone(),
            lifted: None,
        };
        let placed = block.clone();
        self.write(caller.tenant(), move |tx| {
            may_administer(&scope)?;
            if let Some(reason) = blocks_caller(tx, &scope)? {
                return Err(while_blocked(&scope, reason));
            }
            let row = about_block(administers(&scope), &placed, Act::Placed);
            place(tx, scope.tenant(), &placed, row)
        })
        .await?;
        // It stands. What follows is done by the watch and the sweep where it fails here.
        self.see_change().await;
        let (app, tenant, target) = (self.clone(), caller.tenant().clone(), block.target.clone());
        let taking = self.to_the_end(async move { take_back(&app, &tenant, &target).await });
        let tasks = match timeout(PATIENCE, taking).await {
            Ok(Ok(tasks)) => Some(tasks),
            Ok(Err(_)) | Err(_) => None,
        };
        Ok(Placed { block, tasks })
    }

    /// The blocks that stand, newest first. Who is blocked sees those that they placed.
    pub async fn blocks(&self, caller: &Caller) -> Result<Vec<Block>, AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            may_administer(&scope)?;
            let mut blocks = tx.blocks(scope.tenant(), MOST_BLOCKS)?;
            if blocks_caller(tx, &scope)?.is_some() {
                blocks.retain(|block| block.placed_by == scope.caller.principal.actor);
            }
            Ok((blocks, Cuts::none()))
        })
        .await
    }

    /// Lifts a block. Doing so again is no error. What it took back stays so: grants have to be asked for again. Who is
    /// blocked lifts what they placed, so that nobody locks themselves out, and nothing that stops them.
    pub async fn lift_block(&self, caller: &Caller, id: BlockId) -> Result<(), AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            may_administer(&scope)?;
            let by = &scope.caller.principal.actor;
            let placed_by_others = tx
                .block(scope.tenant(), &id)?
                .is_some_and(|block| block.placed_by != *by);
            if placed_by_others && let Some(reason) = blocks_caller(tx, &scope)? {
                return Err(while_blocked(&scope, reason));
            }
            lift(tx, scope.tenant(), &id, by, administers(&scope))
        })
        .await?;
        self.see_change().await;
        Ok(())
    }

    /// Looks at what has just changed; the watch does where that fails.
    pub(super) async fn see_change(&self) {
        if let Err(error) = self.look_at_blocks().await {
            tracing::error!(cause = ?error.cause, "a change of blocks is not seen yet");
        }
    }

    /// Brings what this process has in sight to what the store holds, and stops the streams that are blocked.
    pub async fn look_at_blocks(&self) -> Result<(), AppError> {
        let blocked = self.standing.look(self.store.as_ref(), self.clock.now()).await?;
        if !blocked.is_empty() {
            for entry in self.streams.all() {
                entry.cut_if_blocked(blocked.get(entry.tenant()).map(Arc::as_ref));
            }
        }
        Ok(())
    }
}

/// Takes back what was issued of anything blocked by whoever did not know of it yet. One process at a time.
pub async fn sweep(app: &App) -> Result<(), AppError> {
    let told = app.standing.told_lately().await;
    let blocked = app.standing.to_sweep().await;
    if told.is_empty() && blocked.is_none() {
        return Ok(());
    }
    if !app
        .store
        .lease("standing-blocks", &app.settings.process, TURN)
        .await?
    {
        return Ok(());
    }
    for (tenant, target) in &told {
        take_back(app, tenant, target).await?;
    }
    for (tenant, standing) in blocked.iter().flat_map(|blocked| blocked.iter()) {
        for target in standing.targets() {
            take_back(app, tenant, target).await?;
        }
    }
    Ok(())
}

/// Places a block, recorded by `row`.
pub fn place(
    tx: &mut dyn Tx,
    tenant: &TenantId,
    block: &Block,
    row: AuditRow,
) -> Result<((), Cuts), AppError> {
    let count = tx.blocks(tenant, MOST_BLOCKS)?.len();
    // One on everything is the way out where there are too many.
    if block.target != Target::All && count >= usize::try_from(MOST_BLOCKS).unwrap_or(usize::MAX) {
        return Err(AppError::new(
            Class::Conflict,
            Reason::TooLarge,
            format!("{MOST_BLOCKS} blocks stand already; lift some, or block what they have in common"),
        ));
    }
    tx.place_block(tenant, block)?;
    tx.record(tenant, row);
    Ok(((), Cuts::none()))
}

/// Lifts a block, recorded by `row` with what it was on, where it stood until now.
pub fn lift(
    tx: &mut dyn Tx,
    tenant: &TenantId,
    id: &BlockId,
    by: &ActorRef,
    row: AuditRow,
) -> Result<((), Cuts), AppError> {
    let block = tx.block(tenant, id)?.ok_or_else(AppError::not_found)?;
    if tx.lift_block(tenant, id, by, row.recorded)? {
        tx.record(tenant, about_block(row, &block, Act::Lifted));
    }
    Ok(((), Cuts::none()))
}

/// Why something is decided, as it is kept.
pub(super) fn note_of(reason: &str) -> Result<String, AppError> {
    if is_note(reason) {
        return Ok(reason.trim().to_owned());
    }
    Err(AppError::rule(
        "reason",
        "`reason` says why, in 1 to 500 characters of plain text on one line",
    ))
}

/// Operators may, with a token whose scopes are not confined to a part of the Tasks.
pub(super) fn may_administer(scope: &Scope) -> Result<(), AppError> {
    if !matches!(scope.demand("Task", Interaction::Update)?, Reach::All) {
        let row = scope.row(Event::AdminAction, Outcome::Denied, Reason::InsufficientScope);
        return Err(scope.beyond_scope("Task", Interaction::Update).recorded(row));
    }
    scope
        .permit(
            Action::AdminAct,
            Relation::default(),
            Object::Tenant,
            Event::AdminAction,
        )
        .map(drop)
}

/// Why an operator is blocked, by the store: this process may not have seen it yet.
fn blocks_caller(tx: &mut dyn Tx, scope: &Scope) -> Result<Option<Reason>, AppError> {
    Ok(tx.standing(scope.tenant())?.on_caller(&scope.caller.principal))
}

/// The refusal of an operator who is blocked.
fn while_blocked(scope: &Scope, reason: Reason) -> AppError {
    let row = scope.row(Event::AdminAction, Outcome::Denied, reason);
    AppError::forbidden(reason).recorded(row)
}

pub(super) fn administers(scope: &Scope) -> AuditRow {
    scope.row(Event::AdminAction, Outcome::Success, Reason::Permitted)
}

/// What is done to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It stands from now on.
    Placed,
    /// It stands no more.
    Lifted,
}

/// The row with what was done to which block.
#[must_use]
pub fn about_block(row: AuditRow, block: &Block, act: Act) -> AuditRow {
    let named = block.target.reference();
    let mut about = About::default();
    match &block.target {
        Target::Patient(_) => about.patient = Some(named.clone()),
        Target::Document(_) => about.document = Some(named.clone()),
        Target::Task(_) => about.task = Some(named.clone()),
        Target::Actor(_) | Target::Client(_) | Target::Issuer(_) | Target::All => {}
    }
    let (word, reason) = match (act, &block.target) {
        (Act::Lifted, _) => ("block-lifted", Reason::Permitted),
        (Act::Placed, Target::Actor(_)) => ("block-placed", Reason::ActorRevoked),
        (Act::Placed, _) => ("block-placed", Reason::Emergency),
    };
    AuditRow { reason, ..row }
        .about(about)
        .detail("act", word)
        .detail("block", block.id.as_str())
        .detail("kind", block.target.kind())
        .detail("target", named)
        .detail("note", block.note.as_str())
}

/// Settles every Task of which something is open although it is blocked. Answers how many.
pub(super) async fn take_back(app: &App, tenant: &TenantId, target: &Target) -> Result<usize, AppError> {
    let mut count: usize = 0;
    let mut after: Option<TaskId> = None;
    loop {
        let (of, what, from) = (tenant.clone(), target.clone(), after.take());
        let open: Vec<TaskId> = app
            .read(move |read| Ok(read.tasks_with_open(&of, &what, from.as_ref(), BATCH)?))
            .await?;
        let Some(last) = open.last().cloned() else {
            return Ok(count);
        };
        count = count.saturating_add(open.len());
        for task in open {
            let scope = app.scope(&server_itself(app, tenant)?);
            // One Task that fails must not keep the others from being taken back; it is come back to.
            if let Err(error) = app.write(tenant, move |tx| settle_one(tx, &scope, &task)).await {
                tracing::error!(cause = ?error.cause, reason = %error.reason, "a block could not be carried out");
            }
        }
        after = Some(last);
    }
}
