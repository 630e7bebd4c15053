//! The accounting of disclosures (45 CFR 164.528): what of one patient left in a period, when, to whom, and for what. It is read
//! off the audit, and that it was is in the audit.
//!
//! A disclosure is a redemption of which at least one byte left, or a notification that told a whole resource. Those for treatment,
//! payment and operations, which the rule excepts, are there too: each says what for, as far as its caller said.

use std::collections::{HashMap, HashSet};

use handoff_domain::audit::{About, AuditRow, Event, Outcome};
use handoff_domain::ids::{DocumentId, TenantId};
use handoff_domain::ports::{AuditSearch, Read, RecordedRow};
use handoff_domain::scopes::Interaction;
use handoff_domain::time::{Span, Timestamp};

use super::finish::ENDS;
use super::{App, AppError, Caller};

/// Where it begins unless it is told: six years back, as the rule has it.
const LOOK_BACK: Span = Span::hours(-24 * (6 * 365 + 2));
/// The most disclosures of one accounting.
const MOST: usize = 10_000;
/// The most rows of the audit that one accounting looks at.
const MOST_ROWS: usize = 100_000;
/// How many rows are read at once.
const PAGE: u32 = 1_000;

/// How long before a period the glass may have been broken for what was fetched in it.
const BEFORE: Span = Span::hours(-48);

/// What rows tell of disclosures, beside the ends of redemptions.
const BEGINNINGS: [Event; 3] = [
    Event::RedemptionAuthorized,
    Event::SubscriptionDelivered,
    Event::BreakGlass,
];

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// `Patient/{id}`, or the URL of another server's.
    pub patient: String,
    /// From when on.
    pub from: Option<Timestamp>,
    /// Until when, exclusive.
    pub until: Option<Timestamp>,
}

/// Who received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// FHIR reference of the person, organization or device.
    pub actor: Option<String>,
    /// `iss` and `sub` of its token.
    pub identifier: Option<(String, String)>,
    /// The application.
    pub client: Option<String>,
    /// Where it was sent: a network address. A subscriber's is in its Subscription.
    pub address: Option<String>,
}

/// How much of it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// A part of it.
    Part,
    /// Not known: it is under way, or was when its process died.
    Unknown,
}

impl Extent {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Part => "part",
            Self::Unknown => "unknown",
        }
    }
}

/// One disclosure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disclosure {
    /// When it began.
    pub at: Timestamp,
    /// When the last byte left, where that is known.
    pub ended: Option<Timestamp>,
    /// To whom.
    pub recipient: Recipient,
    /// What: the versions are those of that instant.
    pub about: About,
    /// The class of the document, as it is by now.
    pub class: Option<String>,
    /// Bytes that left; `None` for notifications and where it is not known.
    pub bytes: Option<u64>,
    /// How much of it left.
    pub extent: Extent,
    /// A code of v3-PurposeOfUse, where the recipient said one or broke the glass.
    pub purpose: Option<String>,
    /// The AuditEvent that it began with.
    pub event: String,
}

/// All disclosures of a patient in a period, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounting {
    /// Of whom.
    pub patient: String,
    /// From when on.
    pub from: Timestamp,
    /// Until when, exclusive.
    pub until: Timestamp,
    /// The disclosures.
    pub disclosures: Vec<Disclosure>,
}

impl App {
    /// The accounting of disclosures for whoever may read the whole audit.
    pub async fn account_for(&self, caller: &Caller, period: Period) -> Result<Accounting, AppError> {
        let now = self.clock.now();
        let until = period.until.unwrap_or(now).min(now);
        let from = period.from.unwrap_or_else(|| until.plus(LOOK_BACK));
        if from > until {
            return Err(AppError::rule("from", "the period has not begun yet"));
        }
        let patient = period.patient;
        let about = About {
            patient: Some(patient.clone()),
            ..About::default()
        };
        self.read_recorded(caller, Interaction::Search, about, move |read, tenant| {
            let mut found = Found::default();
            gather(read, tenant, &patient, from, until, &mut found)?;
            let disclosures = found.disclosures(read, tenant)?;
            let count = disclosures.len().to_string();
            let accounting = Accounting {
                patient,
                from,
                until,
                disclosures,
            };
            Ok((accounting, ("disclosures", count)))
        })
        .await
    }
}

/// Reads the rows of a patient: those of the period, with a break of the glass shortly before it; then the ends of what was under way
/// when it ended.
fn gather(
    read: &mut dyn Read,
    tenant: &TenantId,
    patient: &str,
    from: Timestamp,
    until: Timestamp,
    found: &mut Found,
) -> Result<(), AppError> {
    let mut search = AuditSearch {
        events: codes(BEGINNINGS.iter().chain(&ENDS)),
        patient: Some(patient.to_owned()),
        recorded: Some((from.plus(BEFORE), until)),
        oldest_first: true,
        limit: PAGE,
        ..AuditSearch::default()
    };
    let (mut looked_at, mut in_period) = (0_usize, true);
    loop {
        let page = read.audit(tenant, &search)?;
        looked_at = looked_at.saturating_add(page.len());
        search.after = page.last().map(|last| last.sequence);
        let ended = page.len() < PAGE as usize;
        for row in page {
            found.take(row, from);
        }
        match (ended, in_period) {
            (true, true) => {
                in_period = false;
                looked_at = 0;
                search.events = codes(ENDS.iter());
                search.recorded = Some((until, Timestamp(i64::MAX)));
                search.after = None;
            }
            (true, false) => return Ok(()),
            // Of what ends so much later it is said that it is not known.
            (false, false) if looked_at >= MOST_ROWS => return Ok(()),
            (false, true) if found.begun.len() > MOST || looked_at >= MOST_ROWS => {
                return Err(AppError::rule(
                    "from",
                    "there are too many disclosures for one accounting; ask for a shorter period",
                ));
            }
            _ => {}
        }
        if !in_period && found.begun.iter().all(|one| one.ended.is_some()) {
            return Ok(());
        }
    }
}

fn codes<'a>(events: impl Iterator<Item = &'a Event>) -> Vec<String> {
    events.map(|event| event.as_str().to_owned()).collect()
}

/// What the rows say, as they come in.
#[derive(Default)]
struct Found {
    begun: Vec<Disclosure>,
    /// Where in `begun` each redemption is.
    redemptions: HashMap<String, usize>,
    /// The Tasks by which somebody broke the glass.
    emergencies: HashSet<String>,
}

impl Found {
    fn take(&mut self, recorded: RecordedRow, from: Timestamp) {
        let row = &recorded.row;
        match row.event {
            Event::BreakGlass => {
                if let (Outcome::Success, Some(task)) = (row.outcome, &row.about.task) {
                    self.emergencies.insert(task.clone());
                }
            }
            Event::RedemptionAuthorized if row.recorded >= from => {
                if let Some(id) = row.about.redemption.clone() {
                    self.redemptions.insert(id, self.begun.len());
                    self.begun.push(begun(recorded, Extent::Unknown));
                }
            }
            Event::SubscriptionDelivered if row.recorded >= from => {
                let mut told = begun(recorded, Extent::Whole);
                told.ended = Some(told.at);
                self.begun.push(told);
            }
            event if ENDS.contains(&event) => {
                let place = row
                    .about
                    .redemption
                    .as_ref()
                    .and_then(|id| self.redemptions.get(id));
                if let Some(disclosure) = place.and_then(|at| self.begun.get_mut(*at)) {
                    disclosure.end(row);
                }
            }
            _ => {}
        }
    }

    fn disclosures(mut self, read: &mut dyn Read, tenant: &TenantId) -> Result<Vec<Disclosure>, AppError> {
        // Nothing left.
        self.begun.retain(|one| one.bytes != Some(0));
        let mut classes: HashMap<String, Option<String>> = HashMap::new();
        for one in &mut self.begun {
            let emergency = one
                .about
                .task
                .as_ref()
                .is_some_and(|task| self.emergencies.contains(task));
            if emergency {
                one.purpose = Some("BTG".to_owned());
            }
            let Some(reference) = &one.about.document else {
                continue;
            };
            if !classes.contains_key(reference) {
                let class = class_of(read, tenant, reference)?;
                classes.insert(reference.clone(), class);
            }
            one.class = classes.get(reference).cloned().flatten();
        }
        Ok(self.begun)
    }
}

fn class_of(read: &mut dyn Read, tenant: &TenantId, reference: &str) -> Result<Option<String>, AppError> {
    let id = reference.rsplit('/').next().unwrap_or_default();
    let Ok(id) = DocumentId::parse(id) else {
        return Ok(None);
    };
    Ok(read.document(tenant, &id)?.and_then(|document| document.class))
}

fn begun(recorded: RecordedRow, extent: Extent) -> Disclosure {
    let AuditRow {
        recorded: at,
        agent,
        about,
        mut detail,
        ..
    } = recorded.row;
    // What the server itself sent to somebody.
    let sent_to = detail.remove("to");
    let recipient = match sent_to {
        Some(subscriber) => Recipient {
            actor: Some(subscriber),
            identifier: None,
            client: None,
            address: None,
        },
        None => Recipient {
            actor: agent.actor,
            identifier: agent.issuer.zip(agent.subject),
            client: agent.client,
            address: agent.address,
        },
    };
    Disclosure {
        at,
        ended: None,
        recipient,
        about,
        class: None,
        bytes: None,
        extent,
        purpose: agent.purpose,
        event: recorded.id,
    }
}

impl Disclosure {
    /// What a row about the end of one of its streams adds.
    fn end(&mut self, row: &AuditRow) {
        let sent = row.detail.get("bytes").and_then(|text| text.parse::<u64>().ok());
        let before = if self.ended.is_none() { Some(0) } else { self.bytes };
        self.bytes = before.zip(sent).map(|(before, more)| before.saturating_add(more));
        self.ended = Some(row.recorded);
        self.extent = match (row.event, self.bytes) {
            (Event::RedemptionCompleted, _) => Extent::Whole,
            (_, Some(_)) => Extent::Part,
            (_, None) => Extent::Unknown,
        };
    }
}
