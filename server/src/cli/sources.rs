//! `handoff sources`: the servers that may send us notifications, and with whose rights. Servers that run see a change at the
//! next notification.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
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
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

use super::{ConfigFile, Failed, block_on, say};
use crate::adapters::{OsEntropy, SourcesOverHttp, SystemClock, secret_place};
use crate::app::subscribe::subscribe;
use crate::app::{AppError, sources};
use crate::config::{Config, Subscriptions, is_loopback};
use crate::notifications::is_signing_key;
use crate::wiring::outbound;

/// The shortest shared secret that is taken, in bytes.
const SHORTEST_SECRET: usize = 24;

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
#[command(
    group = ArgGroup::new("proof").required(true),
    group = ArgGroup::new("private-key").requires("client_id")
)]
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
    /// Make a shared secret and print it, once
    #[arg(long, group = "proof")]
    mint_secret: bool,
    /// A file with the shared secret; no more than its digest is kept
    #[arg(long, value_name = "FILE", group = "proof")]
    secret_file: Option<PathBuf>,
    /// A variable with the shared secret
    #[arg(long, value_name = "NAME", group = "proof")]
    secret_env: Option<String>,
    /// A file with the key of its signatures (Standard Webhooks), read at each; made and printed once where there is none
    #[arg(long, value_name = "FILE", group = "proof")]
    signing_key_file: Option<PathBuf>,
    /// A variable of the server with that key
    #[arg(long, value_name = "NAME", group = "proof")]
    signing_key_env: Option<String>,
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
    /// Change the one of that name
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

/// What an operator is told once.
struct Minted {
    what: &'static str,
    secret: SecretString,
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
        let (proof, minted, shared) = proof(flags, &entropy).await?;
        let settings = settings(proof)?;
        let made = settings.clone();
        let store = handoff_store::open(&store).await?;
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
        if let Some(minted) = minted {
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
                shared.as_ref(),
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

/// The server that reads it may run in another folder.
fn absolute(file: &Path) -> String {
    std::path::absolute(file)
        .unwrap_or_else(|_| file.to_owned())
        .to_string_lossy()
        .into_owned()
}

/// How it proves itself, what an operator is told of that, and the secret that it will send where that is known here.
type Proved = (Proof, Option<Minted>, Option<SecretString>);

async fn proof(flags: &AddFlags, entropy: &OsEntropy) -> Result<Proved, Failed> {
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes);
    if flags.mint_secret {
        let secret = SecretString::from(URL_SAFE_NO_PAD.encode(bytes));
        let minted = Minted {
            what: "Its shared secret",
            secret: secret.clone(),
        };
        return Ok((bearer(&secret), Some(minted), Some(secret)));
    }
    let shared = match (&flags.secret_file, &flags.secret_env) {
        (Some(file), _) => Some(("--secret-file", SecretPlace::File(absolute(file)))),
        (None, Some(name)) => Some(("--secret-env", SecretPlace::Environment(name.clone()))),
        (None, None) => None,
    };
    if let Some((flag, place)) = shared {
        let secret = secret_place::read(&place)
            .await
            .map_err(|error| Failed(format!("{flag}: {error}")))?;
        if secret.expose_secret().len() < SHORTEST_SECRET {
            return Err(Failed(format!(
                "{flag}: a shared secret has at least {SHORTEST_SECRET} characters; `--mint-secret` makes one"
            )));
        }
        return Ok((bearer(&secret), None, Some(secret)));
    }
    if let Some(name) = &flags.signing_key_env {
        let key = SecretPlace::Environment(name.clone());
        return Ok((Proof::Signature { key }, None, None));
    }
    let Some(file) = &flags.signing_key_file else {
        return Err(Failed("say how the source proves itself".to_owned()));
    };
    let place = SecretPlace::File(absolute(file));
    let minted = if file.exists() {
        let key = secret_place::read(&place)
            .await
            .map_err(|error| Failed(format!("--signing-key-file: {error}")))?;
        if !is_signing_key(key.expose_secret()) {
            return Err(Failed(
                "--signing-key-file: not a key: `whsec_` and the base64 of 24 to 64 bytes".to_owned(),
            ));
        }
        None
    } else {
        let key = format!("whsec_{}", STANDARD.encode(bytes));
        let mut made = std::fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(file)?;
        writeln!(made, "{key}")?;
        Some(Minted {
            what: "The key of its signatures",
            secret: SecretString::from(key),
        })
    };
    Ok((Proof::Signature { key: place }, minted, None))
}

fn bearer(secret: &SecretString) -> Proof {
    Proof::Bearer {
        sha256: Sha256::digest(secret.expose_secret()).into(),
    }
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
            let settings = &source.settings;
            let types: Vec<&str> = settings.types.iter().map(|kind| kind.as_str()).collect();
            say(&format!(
                "tenant {tenant}: {} acts as {}, proves itself by {}, speaks of {}, base {}, heard of {}",
                source.id,
                settings.acts_as,
                settings.proof.as_str(),
                types.join(" "),
                settings.base.as_deref().unwrap_or("none"),
                source
                    .feed
                    .heard_at
                    .map_or_else(|| "never".to_owned(), handoff_domain::Timestamp::to_instant),
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
        let removed = write(store.as_ref(), move |tx| {
            sources::remove(tx, &of, &name, row.clone())
        });
        match removed.await {
            Ok(()) => say(&format!("tenant {tenant}: source {id} is gone")),
            Err(_) => Err(Failed(format!(
                "there is no source `{id}`; `list` shows those that are"
            ))),
        }
    })
}

fn named(name: &str) -> Result<SourceId, Failed> {
    SourceId::parse(name).map_err(|error| Failed(format!("the name of a source: {error}")))
}

/// The tenant, and the database, which has to be up to date.
fn open(config: &Config, tenant: &str) -> Result<(TenantId, StoreConfig), Failed> {
    crate::telemetry::start(&config.log);
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
