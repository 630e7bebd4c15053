//! `handoff sources`: the servers that may send us notifications, and with whose rights. Servers that run see a change at the
//! next notification.

mod proof;

use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use handoff_domain::audit::{Agent, AuditRow, Context, Event, Outcome};
use handoff_domain::ids::{ActorRef, CorrelationId, SourceId, TenantId};
use handoff_domain::inbox::FeedSubscription;
use handoff_domain::ports::{self, Clock, Entropy, Store};
use handoff_domain::reason::Reason;
use handoff_domain::source::{
    ContentRule, Credentials, Feed, FeedType, Proof, SecretPlace, Settings, Source, Trust,
};
use handoff_store::StoreConfig;
use secrecy::ExposeSecret;

use super::{ConfigFile, Failed, block_on, say};
use crate::adapters::{OsEntropy, SourcesOverHttp, SystemClock, secret_place};
use crate::app::subscribe::subscribe;
use crate::app::{AppError, Class, sources};
use crate::config::{Config, Subscriptions, is_loopback};
use crate::wiring::outbound;

use proof::{ProofFlags, absolute};

#[derive(Debug, Subcommand)]
pub(crate) enum SourcesCommand {
    /// Let a server send notifications
    #[command(
        after_help = "Examples:\n  handoff sources add ehr --config handoff.toml --acts-as Organization/clinic --mint-secret\n  handoff sources add ehr --config handoff.toml --acts-as Organization/clinic --base https://ehr.example/fhir \\\n      --trust re-read --signing-key-file /run/secrets/ehr-key --client-id handoff --key-file /run/secrets/handoff.pem"
    )]
    Add(Box<AddFlags>),
    /// Show the servers that may send notifications, without secrets
    #[command(after_help = "Example: handoff sources list --config handoff.toml")]
    List(ListFlags),
    /// Take a server's leave to send notifications away
    #[command(after_help = "Example: handoff sources remove ehr --config handoff.toml")]
    Remove(RemoveFlags),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TrustFlag {
    /// A resource that comes with a notification is applied
    AsSent,
    /// It is read from the source instead
    ReRead,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ContentFlag {
    /// The address of content at the source is kept; nothing of it is released from here
    Keep,
    /// Content is fetched from the source and governed here
    Fetch,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("private-key").requires("client_id"))]
pub(crate) struct AddFlags {
    /// Its name in our URLs: `/notifications/NAME`
    name: String,
    #[command(flatten)]
    file: ConfigFile,
    /// The tenant
    #[arg(long, value_name = "TENANT", default_value = "default")]
    tenant: String,
    /// The placer that it acts as, with that placer's rights and no more
    #[arg(long, value_name = "REFERENCE")]
    acts_as: String,
    /// Its FHIR base, where it is to be asked
    #[arg(long, value_name = "URL")]
    base: Option<String>,
    /// A topic that it may tell of, by canonical URL; any where none is given
    #[arg(long, value_name = "URL")]
    topic: Vec<String>,
    /// A resource type that it may speak of; all where none is given
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Whether what it sends is taken as it stands
    #[arg(long, value_enum, default_value = "as-sent")]
    trust: TrustFlag,
    /// What becomes of content that lies at the source
    #[arg(long, value_enum, default_value = "keep")]
    content: ContentFlag,
    #[command(flatten)]
    proof: ProofFlags,
    /// Our client id at the source (SMART backend services)
    #[arg(long, value_name = "ID", requires = "private-key")]
    client_id: Option<String>,
    /// A file with our private key there, PKCS #8 in PEM: P-384 or RSA
    #[arg(long, value_name = "FILE", group = "private-key")]
    key_file: Option<PathBuf>,
    /// A variable of the server with that key
    #[arg(long, value_name = "NAME", group = "private-key")]
    key_env: Option<String>,
    /// The key's id in the set that we registered there
    #[arg(long, value_name = "ID", requires = "client_id")]
    key_id: Option<String>,
    /// Where tokens are asked for; found by the source's `smart-configuration` where it is not given
    #[arg(long, value_name = "URL", requires = "client_id")]
    token_url: Option<String>,
    /// The scopes to ask for
    #[arg(
        long,
        value_name = "SCOPES",
        default_value = "system/*.rs",
        requires = "client_id"
    )]
    scope: String,
    /// Create the Subscriptions at the source too, one for each `--topic`, and watch over them
    #[arg(long, requires = "base", requires = "topic")]
    subscribe: bool,
    /// Replace all settings of the one of that name by these
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListFlags {
    #[command(flatten)]
    file: ConfigFile,
    /// The tenant; all where it is not given
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveFlags {
    /// Its name
    name: String,
    #[command(flatten)]
    file: ConfigFile,
    /// The tenant
    #[arg(long, value_name = "TENANT", default_value = "default")]
    tenant: String,
}

/// Adds, lists or removes.
pub(super) fn run(command: &SourcesCommand) -> Result<(), Failed> {
    match command {
        SourcesCommand::Add(flags) => add(flags),
        SourcesCommand::List(flags) => list(flags),
        SourcesCommand::Remove(flags) => remove(flags),
    }
}

fn add(flags: &AddFlags) -> Result<(), Failed> {
    let id = named(&flags.name)?;
    let entropy = OsEntropy::new();
    let settings = |proof| settings(flags, proof);
    // Told before anything is made: a key that nobody can use must not be left behind.
    settings(Proof::Bearer { sha256: [0; 32] })?;
    let config = flags.file.load()?;
    check_reach(&config, flags)?;
    let (tenant, store) = open(&config, &flags.tenant)?;
    block_on(async {
        let store = handoff_store::open(&store).await?;
        let known = known(store.as_ref(), &tenant, &id).await?;
        if known.is_none() && flags.replace {
            return Err(Failed(format!(
                "there is no source `{id}` to replace; `list` shows those that are"
            )));
        }
        let proved = flags
            .proof
            .of(known.map(|known| known.settings.proof), &entropy)
            .await?;
        let settings = settings(proved.proof)?;
        let made = settings.clone();
        let row = row(&entropy, &tenant)?;
        let (of, name, replace) = (tenant.clone(), id.clone(), flags.replace);
        write(store.as_ref(), move |tx| {
            sources::add(tx, &of, &name, &settings, replace, row.clone())
        })
        .await?;
        say(&format!(
            "tenant {tenant}: source {id} may send notifications to {}/notifications/{id}",
            base_of(&config, &tenant)
        ))?;
        say(&described(&tenant, &id, &made))?;
        unreadable_keys(&made).await;
        if let Some(minted) = proved.minted {
            say(&format!(
                "{}, which is not shown again:\n{}",
                minted.what,
                minted.secret.expose_secret()
            ))?;
        }
        if flags.subscribe {
            let endpoint = format!("{}/notifications/{id}", base_of(&config, &tenant));
            let source = Source {
                id: id.clone(),
                settings: made,
                added_at: SystemClock.now(),
                feed: Feed::default(),
            };
            let server = way_out(&config)?;
            let made = subscribe(
                store.as_ref(),
                &server,
                &tenant,
                &source,
                &endpoint,
                proved.shared.as_ref(),
                SystemClock.now(),
            );
            let made = made.await.map_err(|error| {
                let Failed(why) = told(error);
                Failed(format!(
                    "{why}\nthe source is added all the same; once that is mended, run this again with `--replace`"
                ))
            })?;
            for reference in made {
                say(&format!("the source has {reference}"))?;
            }
        }
        Ok(())
    })
}

async fn known(store: &dyn Store, tenant: &TenantId, id: &SourceId) -> Result<Option<Source>, Failed> {
    let (tenant, id) = (tenant.clone(), id.clone());
    ports::read(store, move |read| Ok::<_, AppError>(read.source(&tenant, &id)?))
        .await
        .map_err(told)
}

/// All that is set of a source, without secrets.
fn described(tenant: &TenantId, id: &SourceId, settings: &Settings) -> String {
    let types: Vec<&str> = settings.types.iter().map(|kind| kind.as_str()).collect();
    let topics: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
    format!(
        "tenant {tenant}: {id} acts as {}, proves itself by {}, speaks of {} by {}; base {}, {}, content {}, {}",
        settings.acts_as,
        settings.proof.as_str(),
        types.join(" "),
        if topics.is_empty() {
            "any topic".to_owned()
        } else {
            topics.join(" ")
        },
        settings.base.as_deref().unwrap_or("none"),
        match settings.trust {
            Trust::AsSent => "believed as sent",
            Trust::ReRead => "read again",
        },
        match settings.content {
            ContentRule::Keep => "left there",
            ContentRule::Fetch => "fetched",
        },
        settings.credentials.as_ref().map_or_else(
            || "asked without credentials".to_owned(),
            |known| format!("asked as client {}", known.client_id)
        ),
    )
}

/// Keys may lie where only the server can read them; whoever mistyped one wants to know.
async fn unreadable_keys(settings: &Settings) {
    let own = settings
        .credentials
        .as_ref()
        .map(|known| ("our private key there", &known.key));
    let theirs = match &settings.proof {
        Proof::Signature { key } => Some(("the key of its signatures", key)),
        Proof::Bearer { .. } => None,
    };
    for (what, place) in own.into_iter().chain(theirs) {
        if let Err(error) = secret_place::read(place).await {
            eprintln!(
                "handoff: note: {what} can't be read by this command: {error}; the server has to be able to"
            );
        }
    }
}

/// The client for other servers.
fn way_out(config: &Config) -> Result<SourcesOverHttp, Failed> {
    Ok(SourcesOverHttp::new(
        outbound(&reached(config))?,
        Arc::new(SystemClock),
        Arc::new(OsEntropy::new()),
    ))
}

/// What may be reached. A server that is itself on loopback may have sources there.
fn reached(config: &Config) -> Subscriptions {
    let here = url::Url::parse(&config.server.public_url).is_ok_and(|url| is_loopback(&url));
    Subscriptions {
        plain_loopback: here,
        ..config.subscriptions.clone()
    }
}

/// Addresses that the server would never connect to are told of now, not when the first notice comes.
fn check_reach(config: &Config, flags: &AddFlags) -> Result<(), Failed> {
    let named = [("--base", &flags.base), ("--token-url", &flags.token_url)];
    let outbound = outbound(&reached(config))?;
    for (flag, url) in named {
        if let Some(url) = url {
            outbound
                .check(url)
                .map_err(|error| Failed(format!("{flag}: {error}")))?;
        }
    }
    Ok(())
}

fn base_of(config: &Config, tenant: &TenantId) -> String {
    if *tenant == TenantId::default_tenant() {
        config.server.public_url.clone()
    } else {
        format!("{}/t/{tenant}", config.server.public_url)
    }
}

fn settings(flags: &AddFlags, proof: Proof) -> Result<Settings, Failed> {
    let acts_as = ActorRef::parse(flags.acts_as.as_str()).map_err(|_| {
        Failed("--acts-as: not a reference to somebody who can act, like `Organization/7`".to_owned())
    })?;
    let types = flags.types.iter().map(|name| {
        FeedType::parse(name).ok_or_else(|| {
            let known: Vec<&str> = FeedType::ALL.iter().map(|kind| kind.as_str()).collect();
            Failed(format!("--type: `{name}` is none of {}", known.join(", ")))
        })
    });
    let mut types: std::collections::BTreeSet<FeedType> = types.collect::<Result<_, _>>()?;
    if types.is_empty() {
        types = FeedType::ALL.iter().copied().collect();
    }
    let credentials = flags.client_id.as_ref().map(|client_id| Credentials {
        client_id: client_id.clone(),
        token_url: flags.token_url.clone(),
        key: match (&flags.key_file, &flags.key_env) {
            (Some(file), _) => SecretPlace::File(absolute(file)),
            (None, name) => SecretPlace::Environment(name.clone().unwrap_or_default()),
        },
        key_id: flags.key_id.clone(),
        scope: flags.scope.clone(),
    });
    let settings = Settings {
        base: flags
            .base
            .as_deref()
            .map(|base| base.trim_end_matches('/').to_owned()),
        acts_as,
        topics: flags.topic.iter().cloned().collect(),
        types,
        trust: match flags.trust {
            TrustFlag::AsSent => Trust::AsSent,
            TrustFlag::ReRead => Trust::ReRead,
        },
        content: match flags.content {
            ContentFlag::Keep => ContentRule::Keep,
            ContentFlag::Fetch => ContentRule::Fetch,
        },
        proof,
        credentials,
    };
    settings.check()?;
    Ok(settings)
}

fn list(flags: &ListFlags) -> Result<(), Failed> {
    let config = flags.file.load()?;
    let asked = flags.tenant.as_deref().unwrap_or("default");
    let (tenant, store) = open(&config, asked)?;
    let tenant = flags.tenant.is_some().then_some(tenant);
    block_on(async {
        let store = handoff_store::open(&store).await?;
        let found: Vec<(TenantId, Source, Vec<FeedSubscription>)> =
            ports::read(store.as_ref(), move |read| {
                let mut found = Vec::new();
                for (tenant, source) in read.sources(tenant.as_ref())? {
                    let subscriptions = read.feed_subscriptions(&tenant, &source.id)?;
                    found.push((tenant, source, subscriptions));
                }
                Ok::<_, AppError>(found)
            })
            .await
            .map_err(told)?;
        if found.is_empty() {
            return say("no source is configured");
        }
        for (tenant, source, subscriptions) in found {
            let heard = source.feed.heard_at.map_or_else(
                || "not heard of yet".to_owned(),
                |at| format!("heard of at {}", at.to_instant()),
            );
            say(&format!(
                "{}; {heard}",
                described(&tenant, &source.id, &source.settings)
            ))?;
            for known in subscriptions {
                say(&format!(
                    "tenant {tenant}: {} by {}: {}, {} events, {} stretches missing, heard of {}",
                    source.id,
                    known.reference,
                    known.status,
                    known.last_event,
                    known.missing.len(),
                    known.heard_at.to_instant(),
                ))?;
            }
        }
        Ok(())
    })
}

fn remove(flags: &RemoveFlags) -> Result<(), Failed> {
    let id = named(&flags.name)?;
    let config = flags.file.load()?;
    let (tenant, store) = open(&config, &flags.tenant)?;
    block_on(async {
        let store = handoff_store::open(&store).await?;
        let row = row(&OsEntropy::new(), &tenant)?;
        let (of, name) = (tenant.clone(), id.clone());
        let removed = ports::write(store.as_ref(), move |tx| {
            sources::remove(tx, &of, &name, row.clone())
        });
        match removed.await {
            Ok(()) => say(&format!("tenant {tenant}: source {id} is gone")),
            Err(error) if error.class == Class::NotFound => Err(Failed(format!(
                "there is no source `{id}`; `list` shows those that are"
            ))),
            Err(error) => Err(told(error)),
        }
    })
}

fn named(name: &str) -> Result<SourceId, Failed> {
    SourceId::parse(name).map_err(|error| Failed(format!("the name of a source: {error}")))
}

/// The tenant, and the database, which has to be up to date.
fn open(config: &Config, tenant: &str) -> Result<(TenantId, StoreConfig), Failed> {
    crate::telemetry::start(&config.log, None)?;
    let known = config
        .issuers
        .iter()
        .find(|issuer| issuer.tenant.as_str() == tenant);
    let known = known
        .map(|issuer| issuer.tenant.clone())
        .ok_or_else(|| Failed(format!("no issuer is configured for the tenant `{tenant}`")))?;
    let store = StoreConfig::new(config.database.url.expose_secret());
    if handoff_store::pending(&store)?.is_empty() {
        Ok((known, store))
    } else {
        Err(Failed(
            "the database is not up to date; run `handoff migrate` first".to_owned(),
        ))
    }
}

async fn write(
    store: &dyn Store,
    work: impl Fn(&mut dyn ports::Tx) -> Result<(), AppError> + Send + 'static,
) -> Result<(), Failed> {
    ports::write(store, work).await.map_err(told)
}

fn row(entropy: &OsEntropy, tenant: &TenantId) -> Result<AuditRow, Failed> {
    let now = SystemClock.now();
    let context = Context {
        tenant: tenant.clone(),
        correlation: CorrelationId::parse(entropy.ordered_id(now))?,
        now,
        agent: Arc::new(Agent {
            actor: Some("Device/handoff".to_owned()),
            ..Agent::default()
        }),
    };
    Ok(context
        .row(Event::AdminAction, Outcome::Success, Reason::Permitted)
        .detail("by", "command line"))
}

fn told(error: AppError) -> Failed {
    Failed(error.cause.unwrap_or(error.text))
}
