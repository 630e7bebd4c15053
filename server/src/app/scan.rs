//! Content and malware: what is to be scanned and by whom, what was found and what follows from it, each in one transaction. Knows
//! no scanner. The gate asks what stands here (`redemption_scene`); a document whose content is infected says so itself, so that a
//! Task's move finds it where it looks anyway.

use futures_util::{StreamExt as _, stream};
use handoff_domain::audit::{About, AuditRow, Event, Outcome};
use handoff_domain::document::{Document, StoredBinary};
use handoff_domain::ids::{BinaryId, TenantId};
use handoff_domain::ports::{BlobError, ByteStream, StoreError, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::scan::{Finding, Found, Scan, ScanRule, Verdict, Withheld};
use handoff_domain::time::Span;

use super::content::{ContentError, verified};
use super::documents::{lock_with_tasks, settle_tasks};
use super::finish::server_itself;
use super::{App, AppError, Cuts, Scope, binaries, documents};

/// How long a claim lasts that is not renewed.
pub const TERM: Span = Span::seconds(30);
/// How many Binaries are enrolled in one transaction.
const PAGE: u32 = 500;
/// How long one process enrols before another may.
const TURN: Span = Span::minutes(1);

/// A Binary that this process has in hand.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// Its tenant.
    pub tenant: TenantId,
    /// Its record.
    pub binary: StoredBinary,
}

/// What a scan came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// What is known now.
    pub scan: Scan,
    /// Whether malware was found that was not known of.
    pub alarm: bool,
}

/// Why content is withheld, for the person who meets it, and what to do next.
pub(super) const fn explain(why: Withheld) -> &'static str {
    match why {
        Withheld::Waiting => "the document is being checked for malware; try again in a minute",
        Withheld::Stale => "the document has to be checked for malware once more; try again in a minute",
        Withheld::Failed => {
            "the document could not be checked for malware, so it is not released; it will be checked again, and if this \
             lasts, ask the sender"
        }
        Withheld::TooLarge => {
            "the document is too large to be checked for malware, so it is not released; ask the sender"
        }
        Withheld::Infected => {
            "malware was found in the document, so nobody can open it; ask the sender for a clean copy"
        }
    }
}

/// Whether malware is known to be in content that a document begins to name. It stays so until that is committed.
pub(super) fn is_infected(tx: &mut dyn Tx, scope: &Scope, binary: &BinaryId) -> Result<bool, AppError> {
    if scope.settings.scan.is_none() {
        return Ok(false);
    }
    let known = tx.hold_scan(scope.tenant(), binary)?;
    Ok(known.is_some_and(|scan| scan.verdict == Verdict::Infected))
}

impl App {
    /// Takes content in hand that is to be scanned by now, at most so many.
    pub async fn claim_scans(&self, most: u32) -> Result<Vec<Claimed>, AppError> {
        let now = self.clock.now();
        let due = self.read(move |read| Ok(read.due_scans(now, most)?)).await?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let process = self.settings.process.clone();
        self.write(&TenantId::default_tenant(), move |tx| {
            let mut ours = Vec::with_capacity(due.len());
            for (tenant, id) in &due {
                if !tx.claim_scan(tenant, id, &process, TERM, now)? {
                    continue;
                }
                match tx.binary(tenant, id)?.filter(|binary| !binary.deleted) {
                    Some(binary) => ours.push(Claimed {
                        tenant: tenant.clone(),
                        binary,
                    }),
                    None => tx.forget_scan(tenant, id)?,
                }
            }
            Ok((ours, Cuts::none()))
        })
        .await
    }

    /// Keeps content in hand; answers whether it is still ours.
    pub async fn renew_scan(&self, claimed: &Claimed) -> Result<bool, AppError> {
        let (id, process) = (claimed.binary.id.clone(), self.settings.process.clone());
        let (tenant, now) = (claimed.tenant.clone(), self.clock.now());
        self.write(&claimed.tenant, move |tx| {
            Ok((tx.claim_scan(&tenant, &id, &process, TERM, now)?, Cuts::none()))
        })
        .await
    }

    /// Lets go of content, for whoever comes next.
    pub async fn release_scan(&self, claimed: &Claimed) -> Result<(), AppError> {
        let (id, process) = (claimed.binary.id.clone(), self.settings.process.clone());
        let tenant = claimed.tenant.clone();
        self.write(&claimed.tenant, move |tx| {
            tx.release_scan(&tenant, &id, &process)?;
            Ok(((), Cuts::none()))
        })
        .await
    }

    /// Lets go of content whose verdict somebody else is still to give, until it is time to ask again.
    pub async fn put_off_scan(&self, claimed: &Claimed) -> Result<(), AppError> {
        let (id, process) = (claimed.binary.id.clone(), self.settings.process.clone());
        let (tenant, now) = (claimed.tenant.clone(), self.clock.now());
        self.write(&claimed.tenant, move |tx| {
            if let Some(scan) = tx.scan(&tenant, &id)? {
                tx.keep_scan(&tenant, &scan.put_off(now), &process)?;
            }
            Ok(((), Cuts::none()))
        })
        .await
    }

    /// Keeps what was found in content, with its row in the audit. Where that is malware, everything that was granted of the content
    /// is taken back in the same transaction. `None` where another process has the content in hand meanwhile.
    pub async fn keep_finding(
        &self,
        claimed: &Claimed,
        finding: Finding,
        rule: ScanRule,
    ) -> Result<Option<Scanned>, AppError> {
        let scope = self.scope(&server_itself(self, &claimed.tenant)?);
        let id = claimed.binary.id.clone();
        self.write(&claimed.tenant, move |tx| keep(tx, &scope, &id, &finding, rule))
            .await
    }

    /// The bytes of content, each block verified, and none read before it is asked for.
    pub fn bytes_to_scan(&self, claimed: &Claimed) -> ByteStream {
        let (app, tenant, binary) = (self.clone(), claimed.tenant.clone(), claimed.binary.clone());
        let size = binary.size;
        let opened = stream::once(verified(app, tenant, binary, 0, size));
        let bytes = opened.flat_map(|opened| match opened {
            Ok(blocks) => blocks.flat_map(|block| stream::iter(pieces(block))).boxed(),
            Err(error) if error.reason == Reason::IntegrityFailed => {
                stream::iter([Err(BlobError::Changed)]).boxed()
            }
            Err(error) => {
                let cause = error.cause.unwrap_or_else(|| error.reason.to_string());
                stream::iter([Err(BlobError::Unavailable(cause))]).boxed()
            }
        });
        Box::pin(bytes)
    }

    /// Enrols all content of which nothing is known: what was there before scans were asked for. No verdict is left for longer than
    /// the rule has it, which may have been another. One process at a time; answers how many Binaries came.
    pub async fn enrol_scans(&self, rule: ScanRule) -> Result<usize, AppError> {
        let mut count: usize = 0;
        let mut after: Option<(TenantId, BinaryId)> = None;
        loop {
            if !self
                .store
                .lease("scan-enrolment", &self.settings.process, TURN)
                .await?
            {
                return Ok(count);
            }
            let (from, now) = (after.take(), self.clock.now());
            let page = self
                .write(&TenantId::default_tenant(), move |tx| {
                    let found = tx.never_enrolled(from.as_ref(), PAGE)?;
                    for (tenant, id, sha256) in &found {
                        tx.enrol_scan(tenant, &Scan::of_new(id.clone(), *sha256, now))?;
                    }
                    if from.is_none() {
                        tx.rescan_within(rule.rescan_after())?;
                    }
                    Ok((found, Cuts::none()))
                })
                .await?;
            count = count.saturating_add(page.len());
            match page.into_iter().next_back() {
                Some((tenant, id, _)) => after = Some((tenant, id)),
                None => return Ok(count),
            }
        }
    }

    /// For how long the content has waited that has waited longest.
    pub async fn scan_lag(&self) -> Result<Span, AppError> {
        let now = self.clock.now();
        let since = self.read(move |read| Ok(read.unscanned_since(now)?)).await?;
        Ok(since.map_or(Span(0), |since| now.since(since)))
    }
}

fn pieces(
    block: Result<impl IntoIterator<Item = bytes::Bytes>, ContentError>,
) -> Vec<Result<bytes::Bytes, BlobError>> {
    match block {
        Ok(pieces) => pieces.into_iter().map(Ok).collect(),
        Err(ContentError::Integrity) => vec![Err(BlobError::Changed)],
        Err(error) => vec![Err(BlobError::Unavailable(error.to_string()))],
    }
}

fn keep(
    tx: &mut dyn Tx,
    scope: &Scope,
    id: &BinaryId,
    finding: &Finding,
    rule: ScanRule,
) -> Result<(Option<Scanned>, Cuts), AppError> {
    let tenant = scope.tenant();
    let none = Ok((None, Cuts::none()));
    let Some(binary) = tx.binary(tenant, id)? else {
        return none;
    };
    let is_bad = matches!(finding.found, Found::Malware(_));
    let (tasks, document) = match &binary.document {
        // Nothing is granted of it, and no stream of it begins, before this is through.
        Some(document) if is_bad => lock_with_tasks(tx, scope, document)?,
        Some(document) => (Vec::new(), tx.document(tenant, document)?),
        None => (Vec::new(), None),
    };
    let Some(before) = tx.scan(tenant, id)? else {
        return none;
    };
    let known = (before.verdict, before.tries);
    let after = before.after(finding.clone(), rule, scope.now());
    if !tx.keep_scan(tenant, &after, &scope.settings.process)? {
        return none;
    }
    // What fails again and again is news once.
    if after.tries == 0 || known.1 == 0 || known.0 != after.verdict {
        tx.record(tenant, row(scope, &binary, document.as_ref(), finding, &after));
    }
    let alarm = after.verdict == Verdict::Infected && known.0 != Verdict::Infected;
    let scanned = Scanned { scan: after, alarm };
    if !alarm {
        return Ok((Some(scanned), Cuts::none()));
    }
    // A document may have begun to name it before this was written: then that one is looked at too.
    if tx.binary(tenant, id)?.and_then(|binary| binary.document) != binary.document {
        return Err(StoreError::Conflict.into());
    }
    tx.doubt_equals(tenant, &scanned.scan, scope.now())?;
    let Some(document) = document else {
        return Ok((Some(scanned), Cuts::none()));
    };
    tx.restate_document(tenant, &document.with_infected(&scanned.scan.sha256))?;
    let cuts = settle_tasks(tx, scope, &tasks)?;
    Ok((Some(scanned), cuts))
}

/// The row of a scan. It says what was found now, which may be less than what is known.
fn row(
    scope: &Scope,
    binary: &StoredBinary,
    document: Option<&Document>,
    finding: &Finding,
    after: &Scan,
) -> AuditRow {
    let (verdict, outcome, reason) = match finding.found {
        Found::Nothing => (Verdict::Clean, Outcome::Success, Reason::Permitted),
        Found::Malware(_) => (Verdict::Infected, Outcome::Success, Reason::DocumentWithheld),
        Found::Failure => (Verdict::Failed, Outcome::Failed, Reason::DocumentWithheld),
        Found::TooLarge => (Verdict::TooLarge, Outcome::Failed, Reason::TooLarge),
    };
    let of_binary = binaries::about(binary);
    let about = match document {
        Some(document) => About {
            binary: of_binary.binary,
            ..documents::about(document)
        },
        None => of_binary,
    };
    let mut row = scope
        .row(Event::ContentScanned, outcome, reason)
        .about(about)
        .detail("verdict", verdict.as_str())
        .detail("sha256", binary.sha256.to_hex())
        .detail("size", binary.size.to_string());
    for (name, value) in [("signature", &after.signature), ("engine", &after.engine)] {
        if let Some(value) = value {
            row = row.detail(name, value.as_str());
        }
    }
    row
}
