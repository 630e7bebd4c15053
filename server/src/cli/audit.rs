//! `handoff audit`: exporting the audit, checking it, and proving single rows. Checking an export needs no database and no
//! configuration, only the verifier's key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use handoff_domain::ids::TenantId;
use handoff_domain::ports::{self, Store, StoreError};
use handoff_ledger::prove::{CONSISTENCY_FORMAT, Consistency, Proof};
use handoff_ledger::{Content, Hash, Note, Report, VerifierKey, verify_export};
use handoff_store::StoreConfig;
use secrecy::ExposeSecret;

use super::{ConfigFile, Failed, block_on, say};
use crate::app::ledger::check::{Checked, check};
use crate::app::ledger::export::Export;
use crate::app::ledger::seal::SealKey;
use crate::app::ledger::{LedgerError, prove};
use crate::config::Config;

/// How many findings are printed.
const SHOWN: usize = 50;
/// The longest checkpoint or proof that is read.
const MOST_FILE: u64 = 16 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Print the verifier's key, to be kept where the database's operators can't change it
    #[command(after_help = "Example: handoff audit key --config handoff.toml > audit.vkey")]
    Key(Whose),
    /// Write the sealed audit as NDJSON, with the signed checkpoint of all of it at the end
    #[command(
        after_help = "Examples:\n  handoff audit export --config handoff.toml --output audit.ndjson\n  handoff audit export --config handoff.toml --from 120000 --output since.ndjson"
    )]
    Export(ExportFlags),
    /// Prove that nothing was removed, altered, reordered or cut off; 1 and the places where it was not so otherwise
    #[command(
        after_help = "Examples:\n  handoff audit verify --config handoff.toml --checkpoint kept.txt\n  handoff audit verify --export audit.ndjson --key \"$(cat audit.vkey)\" --checkpoint kept.txt\n  handoff audit verify --proof row.json --key \"$(cat audit.vkey)\""
    )]
    Verify(VerifyFlags),
    /// Write the proof that one row is in the audit, or that the audit goes on from a kept checkpoint
    #[command(
        after_help = "Examples:\n  handoff audit prove --config handoff.toml --event 4711 --output row.json\n  handoff audit prove --config handoff.toml --since kept.txt"
    )]
    Prove(ProveFlags),
}

#[derive(Debug, Args)]
pub(super) struct Whose {
    #[command(flatten)]
    file: ConfigFile,
    /// Whose audit
    #[arg(long, value_name = "TENANT", default_value = "default")]
    tenant: String,
}

#[derive(Debug, Args)]
pub(super) struct ExportFlags {
    #[command(flatten)]
    whose: Whose,
    /// How many rows to leave out at the beginning
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    from: u64,
    /// The file to write, readable by this user alone; standard output where none is named
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct VerifyFlags {
    #[command(flatten)]
    whose: Whose,
    /// An export, instead of the database; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "proof"])]
    export: Option<PathBuf>,
    /// A document that `prove` or the server gave, instead of the database
    #[arg(long, value_name = "FILE", conflicts_with = "config", requires = "key")]
    proof: Option<PathBuf>,
    /// A checkpoint that was kept elsewhere; may be repeated
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// A verifier's key as `handoff audit key` printed it, the newest first; may be repeated. From the configuration where none is given
    #[arg(
        long,
        value_name = "NAME+ID+KEY",
        required_unless_present = "config",
        allow_hyphen_values = true
    )]
    key: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ProveFlags {
    #[command(flatten)]
    whose: Whose,
    /// The row: the id of its AuditEvent
    #[arg(
        long,
        value_name = "ID",
        required_unless_present = "since",
        conflicts_with = "since"
    )]
    event: Option<i64>,
    /// A kept checkpoint
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// The file to write; standard output where none is named
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(command: &AuditCommand) -> Result<(), Failed> {
    match command {
        AuditCommand::Key(whose) => key(whose),
        AuditCommand::Export(flags) => export(flags),
        AuditCommand::Verify(flags) => verify(flags),
        AuditCommand::Prove(flags) => prove_one(flags),
    }
}

/// A configuration with the tenant of it that is meant.
struct Opened {
    config: Config,
    tenant: TenantId,
}

impl Whose {
    fn open(&self) -> Result<Opened, Failed> {
        let config = self.file.load()?;
        crate::telemetry::start(&config.log, None)?;
        let known = config.issuers.iter().map(|issuer| &issuer.tenant);
        let tenant = known
            .into_iter()
            .find(|tenant| tenant.as_str() == self.tenant)
            .cloned();
        let tenant = tenant.ok_or_else(|| {
            Failed(format!(
                "no issuer is configured for the tenant `{}`",
                self.tenant
            ))
        })?;
        Ok(Opened { config, tenant })
    }
}

impl Opened {
    fn seal(&self) -> Result<&SealKey, Failed> {
        self.config.audit.seal.as_ref().ok_or_else(|| {
            Failed("the audit is not sealed: set `audit.key_file` and `audit.origin`".to_owned())
        })
    }

    async fn store(&self) -> Result<Arc<dyn Store>, Failed> {
        let store = StoreConfig::new(self.config.database.url.expose_secret());
        if !handoff_store::pending(&store)?.is_empty() {
            let text = "the database is not up to date; run `handoff migrate` first";
            return Err(Failed(text.to_owned()));
        }
        Ok(handoff_store::open(&store).await?)
    }
}

fn key(whose: &Whose) -> Result<(), Failed> {
    let opened = whose.open()?;
    let keys = opened.seal()?.verifiers(&opened.tenant)?;
    keys.iter().try_for_each(|key| say(&key.to_string()))
}

/// What is written piece by piece: a new file for this user alone, or standard output.
fn output(path: Option<&Path>) -> Result<Box<dyn Write>, Failed> {
    let Some(path) = path else {
        return Ok(Box::new(io::stdout().lock()));
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let told = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failed(format!(
            "`{}` is there already; name another file",
            path.display()
        )),
        _ => Failed(format!("`{}` can't be written: {error}", path.display())),
    };
    Ok(Box::new(file.map_err(told)?))
}

fn export(flags: &ExportFlags) -> Result<(), Failed> {
    let opened = flags.whose.open()?;
    block_on(async {
        let store = opened.store().await?;
        let mut export = Export::begin(store.as_ref(), &opened.tenant, flags.from).await?;
        let mut out = output(flags.output.as_deref())?;
        loop {
            let Some((next, piece)) = export.next(store.as_ref()).await? else {
                out.flush()?;
                return Ok(());
            };
            export = next;
            out.write_all(&piece)?;
        }
    })
}

/// A file that somebody kept.
fn kept(path: &Path) -> Result<Vec<u8>, Failed> {
    let told = |error: io::Error| Failed(format!("`{}` can't be read: {error}", path.display()));
    if fs::metadata(path).map_err(told)?.len() > MOST_FILE {
        return Err(Failed(format!("`{}` is too long", path.display())));
    }
    fs::read(path).map_err(told)
}

fn note(path: &Path) -> Result<Note, Failed> {
    Note::parse(kept(path)?)
        .map_err(|error| Failed(format!("`{}` is no checkpoint: {error}", path.display())))
}

impl VerifyFlags {
    fn keys(&self) -> Result<Vec<VerifierKey>, Failed> {
        // After a change of key `handoff audit key` prints several lines. What is given may be secret by mistake: it is not repeated.
        let lines = self.key.iter().flat_map(|text| text.lines()).map(str::trim);
        let keys = lines.filter(|line| !line.is_empty()).map(|line| {
            VerifierKey::parse(line)
                .map_err(|error| Failed(format!("--key: {error}; `handoff audit key` prints it")))
        });
        keys.collect()
    }

    fn kept(&self) -> Result<Vec<Note>, Failed> {
        self.checkpoint.iter().map(|path| note(path)).collect()
    }
}

fn verify(flags: &VerifyFlags) -> Result<(), Failed> {
    let (mut keys, notes) = (flags.keys()?, flags.kept()?);
    if let Some(path) = &flags.proof {
        return verify_document(path, &keys, &notes);
    }
    if let Some(path) = &flags.export {
        let input: Box<dyn BufRead> = if path.as_os_str() == "-" {
            Box::new(io::stdin().lock())
        } else {
            let told = |error: io::Error| Failed(format!("`{}` can't be read: {error}", path.display()));
            Box::new(BufReader::with_capacity(1 << 20, File::open(path).map_err(told)?))
        };
        let mut report = verify_export(input, &keys, &notes)?;
        // No version of the server erases rows, and an export can't say why one is.
        let erased = std::mem::take(&mut report.erased_spans);
        for span in &erased {
            say(&format!(
                "rows at positions {} to {} are erased",
                span.first, span.last
            ))?;
        }
        let unproved = report.vouched_size.is_none();
        return conclude(&report, unproved || !erased.is_empty(), (notes.len(), 0));
    }
    let opened = flags.whose.open()?;
    let origin = match (opened.config.audit.seal.as_ref(), keys.first()) {
        (_, Some(key)) => key.name().to_owned(),
        (Some(seal), None) => {
            keys = seal.verifiers(&opened.tenant)?;
            seal.origin(&opened.tenant)
        }
        (None, None) => opened.seal().map(|_| String::new())?,
    };
    let checked: Checked = block_on(async {
        let store = opened.store().await?;
        Ok(check(store.as_ref(), &opened.tenant, (&origin, &keys), &notes).await?)
    })?;
    if checked.report.size == 0 && checked.report.is_clean() && notes.is_empty() {
        return Err(Failed(LedgerError::Unsealed.to_string()));
    }
    if checked.waiting > 0 {
        let since = checked
            .waiting_since
            .map(|at| format!(" since {}", at.to_instant()));
        say(&format!(
            "{} rows wait to be sealed{}: nothing is proved of them yet",
            checked.waiting,
            since.unwrap_or_default()
        ))?;
    }
    conclude(
        &checked.report,
        checked.report.vouched_size.is_none(),
        (notes.len(), checked.stored),
    )
}

/// Prints what a check came to; fails where it is not proved that all is as it was.
///
/// `given` is how many kept checkpoints were given, `stored` how many were beside the ledger.
fn conclude(report: &Report, is_doubtful: bool, (given, stored): (usize, u64)) -> Result<(), Failed> {
    for finding in report.findings.iter().take(SHOWN) {
        say(&format!("finding: {finding}"))?;
    }
    let more = report.findings.len().saturating_sub(SHOWN);
    let more = u64::try_from(more)
        .unwrap_or(u64::MAX)
        .saturating_add(report.more_findings);
    if more > 0 {
        say(&format!("and {more} more findings"))?;
    }
    if !report.is_clean() || is_doubtful {
        return Err(Failed(format!(
            "of {} rows it is not proved that they are what was recorded",
            report.rows
        )));
    }
    let agree = report.kept_agreed.saturating_sub(stored);
    if agree < u64::try_from(given).unwrap_or(u64::MAX) {
        return Err(Failed(format!(
            "{given} checkpoints were given, and the rows could be held against {agree} of them: those before position {} take an \
             export from the beginning",
            report.from
        )));
    }
    let root = report.root.map(Hash::to_base64).unwrap_or_default();
    say(&format!(
        "{} rows verified, positions {} to {}; root {root}",
        report.rows,
        report.from,
        report.size.saturating_sub(1)
    ))?;
    match given {
        0 => say(
            "no checkpoint kept elsewhere was given: that nothing was cut off at the end is proved with `--checkpoint` alone",
        ),
        _ => say(&format!("{agree} of {given} given checkpoints agree")),
    }
}

/// Checks a proof; a proof of consistency against each kept checkpoint.
fn verify_document(path: &Path, keys: &[VerifierKey], notes: &[Note]) -> Result<(), Failed> {
    let text = String::from_utf8(kept(path)?).map_err(|_| Failed("the proof is no text".to_owned()))?;
    if !text.contains(CONSISTENCY_FORMAT) {
        let proof = Proof::parse(&text)?;
        let proved = proof.check(keys)?;
        if !notes.is_empty() {
            let text = "the proof of a row is held against no other checkpoint than its own: leave `--checkpoint` out";
            return Err(Failed(text.to_owned()));
        }
        if matches!(proof.row.content, Content::Erased(_)) {
            return Err(Failed(format!(
                "row {} was in the audit and was erased: nothing is proved of what it said",
                proof.row.sequence
            )));
        }
        return say(&format!(
            "row {} of tenant {} is in the audit, at position {} of {}",
            proof.row.sequence, proof.tenant, proof.row.position, proved.checkpoint.size
        ));
    }
    let proof = Consistency::parse(&text)?;
    if notes.is_empty() {
        let text = "name the earlier checkpoint with `--checkpoint`";
        return Err(Failed(text.to_owned()));
    }
    for note in notes {
        let proved = proof.check(note, keys)?;
        say(&format!(
            "the audit of {} rows goes on from that of {}",
            proved.checkpoint.size,
            note.checkpoint().size
        ))?;
    }
    Ok(())
}

fn prove_one(flags: &ProveFlags) -> Result<(), Failed> {
    let opened = flags.whose.open()?;
    let earlier = flags.since.as_deref().map(note).transpose()?;
    let document = block_on(async {
        let store = opened.store().await?;
        let (of, event) = (opened.tenant.clone(), flags.event);
        let document = ports::read(store.as_ref(), move |read| {
            Ok::<_, StoreError>(match (&earlier, event) {
                (Some(note), _) => prove::consistency(read, &of, note.checkpoint().size),
                (None, Some(event)) => prove::row(read, &of, event),
                (None, None) => Err(LedgerError::NotThere("nothing was asked for".to_owned())),
            })
        });
        Ok(document.await??)
    })?;
    let mut out = output(flags.output.as_deref())?;
    writeln!(out, "{document}")?;
    Ok(out.flush()?)
}
