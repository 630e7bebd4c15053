//! `handoff revoke`: emergency blocks at the database, for when the API or the operators' issuer can't be used, and for
//! all tenants at once. Servers that run see them within a second.

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::{ArgGroup, Args};
use handoff_domain::audit::{Agent, AuditRow, Context, Event, Outcome};
use handoff_domain::ids::{ActorRef, BlockId, CorrelationId, TenantId};
use handoff_domain::ports::{self, Clock, Entropy, Store};
use handoff_domain::reason::Reason;
use handoff_domain::standing::{Block, Target, is_note};
use handoff_store::StoreConfig;
use secrecy::ExposeSecret;

use super::{ConfigFile, Failed, block_on, say};
use crate::adapters::{OsEntropy, SystemClock};
use crate::app::AppError;
use crate::app::standing::{Act, MOST_BLOCKS, about_block, lift, place};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub(crate) struct RevokeFlags {
    #[command(flatten)]
    file: ConfigFile,
    /// The tenant
    #[arg(long, value_name = "TENANT", default_value = "default")]
    tenant: String,
    /// Every tenant that the configuration names
    #[arg(long, conflicts_with = "tenant")]
    all_tenants: bool,
    /// Block a person or system: `Practitioner/7`
    #[arg(long, value_name = "REFERENCE", group = "what", group = "target")]
    actor: Option<String>,
    /// Block an OAuth client
    #[arg(long, value_name = "CLIENT", group = "what", group = "target")]
    client: Option<String>,
    /// Block everything about a patient: `Patient/7`
    #[arg(long, value_name = "REFERENCE", group = "what", group = "target")]
    patient: Option<String>,
    /// Block a document: `DocumentReference/7`
    #[arg(long, value_name = "REFERENCE", group = "what", group = "target")]
    document: Option<String>,
    /// Block a Task: `Task/7`
    #[arg(long, value_name = "REFERENCE", group = "what", group = "target")]
    task: Option<String>,
    /// Block whoever comes with a token of an issuer
    #[arg(long, value_name = "URL", group = "what", group = "target")]
    issuer: Option<String>,
    /// Block everything
    #[arg(long, group = "what", group = "target")]
    all: bool,
    /// Lift a block
    #[arg(long, value_name = "ID", group = "what")]
    lift: Option<String>,
    /// List the blocks that stand
    #[arg(long, group = "what")]
    list: bool,
    /// Why, for the audit: 1 to 500 characters
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["lift", "list"])]
    reason: Option<String>,
}

impl RevokeFlags {
    fn target(&self) -> Result<Option<Target>, Failed> {
        let named = [
            ("actor", self.actor.as_deref()),
            ("client", self.client.as_deref()),
            ("patient", self.patient.as_deref()),
            ("document", self.document.as_deref()),
            ("task", self.task.as_deref()),
            ("issuer", self.issuer.as_deref()),
            ("all", self.all.then_some("")),
        ];
        let Some((kind, value)) = named.iter().find_map(|(kind, value)| value.map(|v| (*kind, v))) else {
            return Ok(None);
        };
        Target::parse(kind, value)
            .map(Some)
            .map_err(|error| Failed(format!("--{kind}: {error}")))
    }
}

/// Places, lifts or lists.
pub(super) fn run(flags: &RevokeFlags) -> Result<(), Failed> {
    let target = flags.target()?;
    let note = flags.reason.clone().unwrap_or_default();
    if target.is_some() && !is_note(&note) {
        return Err(Failed("--reason: say why, in 1 to 500 characters".to_owned()));
    }
    let config = flags.file.load()?;
    crate::telemetry::start(&config.log, None)?;
    let known: BTreeSet<TenantId> = config
        .issuers
        .iter()
        .map(|issuer| issuer.tenant.clone())
        .collect();
    let tenants: Vec<TenantId> = if flags.all_tenants {
        known.into_iter().collect()
    } else {
        let named = known.into_iter().find(|tenant| tenant.as_str() == flags.tenant);
        vec![named.ok_or_else(|| {
            Failed(format!(
                "no issuer is configured for the tenant `{}`",
                flags.tenant
            ))
        })?]
    };
    if let Some(Target::Issuer(name)) = &target
        && !config.issuers.iter().any(|issuer| issuer.issuer == *name)
    {
        return Err(Failed(format!("--issuer: no issuer `{name}` is configured")));
    }
    let store = StoreConfig::new(config.database.url.expose_secret());
    let missing = handoff_store::pending(&store)?;
    if !missing.is_empty() {
        return Err(Failed(
            "the database is not up to date; run `handoff migrate` first".to_owned(),
        ));
    }
    block_on(async {
        let hand = Hand {
            store: handoff_store::open(&store).await?,
            entropy: OsEntropy::new(),
        };
        let mut lifted = false;
        for tenant in &tenants {
            match (&target, &flags.lift) {
                (Some(target), _) => hand.place(tenant, target.clone(), &note).await?,
                (None, Some(id)) => lifted |= hand.lift(tenant, id).await?,
                (None, None) => hand.list(tenant).await?,
            }
        }
        match &flags.lift {
            Some(id) if !lifted => Err(Failed(format!(
                "there is no block `{id}`; `--list` shows those that stand"
            ))),
            _ => Ok(()),
        }
    })
}

/// Whoever works at the command line.
struct Hand {
    store: Arc<dyn Store>,
    entropy: OsEntropy,
}

impl Hand {
    async fn place(&self, tenant: &TenantId, target: Target, note: &str) -> Result<(), Failed> {
        let block = Block {
            id: BlockId::parse(self.entropy.ordered_id(SystemClock.now()))?,
            target,
            note: note.trim().to_owned(),
            placed_at: SystemClock.now(),
            placed_by: actor()?,
            lifted: None,
        };
        let row = about_block(self.row(tenant)?, &block, Act::Placed);
        let (of, placed) = (tenant.clone(), block.clone());
        self.write(move |tx| place(tx, &of, &placed, row.clone()).map(drop))
            .await
            .map_err(told)?;
        say(&format!("tenant {tenant}: block {} stands", block.id))
    }

    /// Answers whether there is such a block.
    async fn lift(&self, tenant: &TenantId, id: &str) -> Result<bool, Failed> {
        let block = BlockId::parse(id)?;
        let (row, by, of) = (self.row(tenant)?, actor()?, tenant.clone());
        let lifted = self
            .write(move |tx| lift(tx, &of, &block, &by, row.clone()).map(drop))
            .await;
        match lifted {
            Ok(()) => say(&format!("tenant {tenant}: block {id} stands no more")).map(|()| true),
            Err(error) if error.reason == Reason::NotFound => Ok(false),
            Err(error) => Err(told(error)),
        }
    }

    async fn list(&self, tenant: &TenantId) -> Result<(), Failed> {
        let of = tenant.clone();
        let blocks: Vec<Block> = ports::read(self.store.as_ref(), move |read| {
            Ok::<_, AppError>(read.blocks(&of, MOST_BLOCKS)?)
        })
        .await
        .map_err(told)?;
        if blocks.is_empty() {
            return say(&format!("tenant {tenant}: no block stands"));
        }
        for block in blocks {
            say(&format!(
                "tenant {tenant}: {} on {} {} since {} by {}: {}",
                block.id,
                block.target.kind(),
                block.target.reference(),
                block.placed_at.to_instant(),
                block.placed_by,
                block.note,
            ))?;
        }
        Ok(())
    }

    async fn write(
        &self,
        work: impl Fn(&mut dyn ports::Tx) -> Result<(), AppError> + Send + 'static,
    ) -> Result<(), AppError> {
        ports::write(self.store.as_ref(), work).await
    }

    fn row(&self, tenant: &TenantId) -> Result<AuditRow, Failed> {
        let now = SystemClock.now();
        let context = Context {
            tenant: tenant.clone(),
            correlation: CorrelationId::parse(self.entropy.ordered_id(now))?,
            now,
            agent: Arc::new(Agent {
                actor: Some(actor()?.to_string()),
                ..Agent::default()
            }),
        };
        Ok(context
            .row(Event::AdminAction, Outcome::Success, Reason::Permitted)
            .detail("by", "command line"))
    }
}

fn actor() -> Result<ActorRef, Failed> {
    Ok(ActorRef::parse("Device/handoff")?)
}

fn told(error: AppError) -> Failed {
    Failed(error.cause.unwrap_or(error.text))
}
