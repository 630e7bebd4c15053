//! Taking in what a source tells: each event once, durably, before anybody is answered. Nothing is applied here.

use std::collections::BTreeMap;

use handoff_domain::audit::{Event, Outcome};
use handoff_domain::ids::{NoticeId, SourceId};
use handoff_domain::inbox::{Age, FeedSubscription, Matter, Notice, NoticeState, Numbered, SourceVersion};
use handoff_domain::ports::{NoticeSearch, Tx};
use handoff_domain::reason::Reason;
use handoff_domain::source::Source;
use handoff_domain::time::{Span, Timestamp};

use super::{App, AppError, Caller, Class, Cuts, Scope};
use crate::telemetry::metrics;

/// The most subscriptions of a source that are known at once.
const MOST_SUBSCRIPTIONS: usize = 100;
/// The most notices of a source that wait.
const MOST_WAITING: u64 = 20_000;
/// How many events may be missing at once.
const MOST_AHEAD: i64 = 1_000_000;
/// How long what is settled is remembered.
const REMEMBERED: Span = Span::hours(30 * 24);

/// What one request told.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// By which subscription, where it was one of the Backport IG.
    pub heard: Option<Heard>,
    /// Whether the source said it by itself, rather than in answer to us.
    pub is_unasked: bool,
    /// What of, in the order in which it is to be applied.
    pub items: Vec<Item>,
}

/// What a notification says of its subscription.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The subscription, as the source names it.
    pub reference: String,
    /// Its status.
    pub status: String,
    /// Its topic, where it is named.
    pub topic: Option<String>,
    /// Whether it tells of no events: a sign of life.
    pub is_alone: bool,
    /// How many events it has counted, where that is said.
    pub counted: Option<i64>,
    /// Whether it is a handshake: the subscription begins, perhaps anew.
    pub begins: bool,
}

/// One resource that was told of.
#[derive(Clone)]
pub struct Item {
    /// The number of the event, and which of its resources.
    pub numbered: Option<(i64, i64)>,
    /// What it is about.
    pub matter: Matter,
    /// Which version.
    pub version: SourceVersion,
    /// The resource, where it was sent.
    pub body: Vec<u8>,
    /// Whether it was deleted.
    pub gone: bool,
}

impl Item {
    /// Whatever changed.
    pub fn changes() -> Self {
        Self {
            numbered: None,
            matter: Matter::Changes,
            version: SourceVersion::default(),
            body: Vec::new(),
            gone: false,
        }
    }
}

/// Prints nothing that may be about a patient.
impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Item")
            .field("numbered", &self.numbered)
            .finish_non_exhaustive()
    }
}

impl App {
    /// Takes in what a source told; answers the notices that are to be applied. Committed when this returns.
    pub async fn take_in(
        &self,
        caller: &Caller,
        source: SourceId,
        told: Told,
    ) -> Result<Vec<NoticeId>, AppError> {
        let scope = self.scope(caller);
        self.write(caller.tenant(), move |tx| {
            take_in(tx, &scope, &source, &told).map(|ids| (ids, Cuts::none()))
        })
        .await
    }
}

fn take_in(tx: &mut dyn Tx, scope: &Scope, id: &SourceId, told: &Told) -> Result<Vec<NoticeId>, AppError> {
    let tenant = scope.tenant().clone();
    // One request of a source at a time: two with the same event must not both find it new.
    let Some(mut source) = tx.lock_source(&tenant, id)? else {
        return Err(AppError::not_found());
    };
    check_topic(scope, &source, told)?;
    let now = scope.now();
    let mut known = match &told.heard {
        Some(heard) => Some(subscription(tx, scope, &source, heard, now)?),
        None => None,
    };
    let (waiting, asking) = tx.backlog(&tenant, id)?;
    if waiting >= MOST_WAITING {
        return Err(AppError::new(
            Class::RateLimited { seconds: 60 },
            Reason::RateLimited,
            "too much of what this source told waits to be applied; try again later",
        ));
    }
    if let (Some(known), Some(heard)) = (&known, &told.heard) {
        check_count(known, heard, &told.items)?;
    }
    let mut asks = asking > 0;
    let (mut taken, mut repeated) = (Vec::new(), 0_u32);
    // All resources of an event are new, or none.
    let mut fresh: BTreeMap<i64, bool> = BTreeMap::new();
    for item in &told.items {
        let numbered = match (&mut known, item.numbered) {
            (Some(known), Some((event, part))) => {
                let new = *fresh.entry(event).or_insert_with(|| !known.is_repeated(event));
                if !new && !is_news(tx, scope, &source, item)? {
                    repeated = repeated.saturating_add(1);
                    continue;
                }
                Some(Numbered {
                    subscription: known.reference.clone(),
                    event,
                    part,
                })
            }
            _ => None,
        };
        if item.matter == Matter::Changes {
            // The source is asked once for everything that changed, however often it says so.
            if asks {
                continue;
            }
            asks = true;
        }
        let notice = notice(scope, &mut source, numbered, item)?;
        tx.insert_notice(&tenant, &notice)?;
        taken.push(notice.id);
    }
    if let (Some(known), Some(heard)) = (&mut known, &told.heard) {
        match heard.counted {
            Some(counted) if heard.begins || heard.is_alone && known.seems_begun_anew(counted) => {
                known.began_with(counted);
            }
            Some(counted) => known.counted(counted),
            None => {}
        }
        known.status.clone_from(&heard.status);
        known.heard_at = now;
        if !known.missing.is_empty() && source.settings.base.is_some() && !asks {
            let notice = notice(scope, &mut source, None, &Item::changes())?;
            tx.insert_notice(&tenant, &notice)?;
            taken.push(notice.id);
        }
        tx.put_feed_subscription(&tenant, known)?;
    }
    source.feed.heard_at = Some(now);
    tx.update_source(&tenant, &source)?;
    let row = scope
        .row(Event::NoticeReceived, Outcome::Success, Reason::Permitted)
        .detail("source", id.as_str())
        .detail("taken", taken.len().to_string())
        .detail("repeated", repeated.to_string());
    tx.record(&tenant, row);
    Ok(taken)
}

/// Whether something came that is not known, although its event did before: a source that begins its numbers anew need not say
/// so. What only names a resource says nothing old, and what was never heard of is nothing old either.
fn is_news(tx: &mut dyn Tx, scope: &Scope, source: &Source, item: &Item) -> Result<bool, AppError> {
    let Some(reference) = item.matter.reference() else {
        return Ok(false);
    };
    let only_named = item.body.is_empty() && !item.gone;
    let mirror = tx.mirror(scope.tenant(), &source.id, reference)?;
    match mirror.map(|mirror| item.version.against(&mirror.version)) {
        Some(Age::Newer) => Ok(true),
        Some(Age::Same | Age::Older) => Ok(false),
        Some(Age::Untold) if !only_named => Ok(false),
        Some(Age::Untold) | None => {
            for state in ["waiting", "quarantined"] {
                let search = NoticeSearch {
                    state,
                    source: Some(source.id.clone()),
                    about: Some(reference.to_owned()),
                    limit: 1,
                    ..NoticeSearch::default()
                };
                if !tx.notices(scope.tenant(), &search)?.is_empty() {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

/// A source that is limited to topics tells of nothing without naming one of them.
fn check_topic(scope: &Scope, source: &Source, told: &Told) -> Result<(), AppError> {
    let topic = told.heard.as_ref().and_then(|heard| heard.topic.as_deref());
    let tells = told.items.iter().any(|item| item.matter != Matter::Changes);
    let needs_one = topic.is_some() || (told.is_unasked && tells);
    if !needs_one || source.settings.may_tell_of(topic) {
        return Ok(());
    }
    let row = scope
        .row(Event::NoticeReceived, Outcome::Denied, Reason::PolicyDenied)
        .detail("source", source.id.as_str());
    let text = match topic {
        Some(_) => "this source may not tell of that topic; an operator sets which",
        None => {
            "this source is limited to topics, and what it sent names none; an operator sets which, and a source without any \
             may send resources by themselves"
        }
    };
    Err(AppError::new(Class::Forbidden, Reason::PolicyDenied, text).recorded(row))
}

/// What is known of the subscription that a source speaks of.
fn subscription(
    tx: &mut dyn Tx,
    scope: &Scope,
    source: &Source,
    heard: &Heard,
    now: Timestamp,
) -> Result<FeedSubscription, AppError> {
    let known = tx.feed_subscriptions(scope.tenant(), &source.id)?;
    if let Some(known) = known.iter().find(|known| known.reference == heard.reference) {
        return Ok(known.clone());
    }
    // One that its source asked for anew goes by another name: the place of the longest silent one is given to it.
    if known.len() >= MOST_SUBSCRIPTIONS
        && let Some(silent) = known.iter().min_by_key(|known| known.heard_at)
    {
        tx.remove_feed_subscription(scope.tenant(), &source.id, &silent.reference)?;
    }
    Ok(FeedSubscription::new(
        source.id.clone(),
        heard.reference.clone(),
        now,
    ))
}

/// A number that is far beyond all that came before is a mistake: were it believed, everything up to it would count as known.
fn check_count(known: &FeedSubscription, heard: &Heard, items: &[Item]) -> Result<(), AppError> {
    let numbers = items
        .iter()
        .filter_map(|item| item.numbered.map(|(event, _)| event));
    let highest = numbers.chain(heard.counted).max().unwrap_or(0);
    let is_too_far = highest > known.last_event.saturating_add(MOST_AHEAD);
    if known.revision > 0 && !heard.begins && is_too_far {
        return Err(AppError::rule(
            "Bundle.entry[0].resource",
            "the number of events is far beyond the last one that was told; where the subscription began anew, send its handshake",
        ));
    }
    Ok(())
}

fn notice(
    scope: &Scope,
    source: &mut Source,
    numbered: Option<Numbered>,
    item: &Item,
) -> Result<Notice, AppError> {
    source.feed.place = source.feed.place.saturating_add(1);
    let version = item.version.clone().not_ahead(scope.now());
    Ok(Notice {
        id: NoticeId::parse(scope.ordered_id()).map_err(|e| AppError::bad(e.to_string()))?,
        source: source.id.clone(),
        place: source.feed.place,
        numbered,
        matter: item.matter.clone(),
        version,
        body: item.body.clone(),
        gone: item.gone,
        received_at: scope.now(),
        correlation: scope.caller.context.correlation.clone(),
        state: NoticeState::Waiting { due: scope.now() },
        tries: 0,
        revision: 1,
    })
}

/// Counts what waits and what is quarantined, for the metrics.
pub async fn measure(app: &App) -> Result<(), AppError> {
    let depth = app.read(|read| Ok(read.inbox_depth()?)).await?;
    let of = |state: &str| depth.get(state).copied().unwrap_or(0);
    metrics::inbox_depth(of("waiting"), of("quarantined"));
    Ok(())
}

/// Forgets what was settled long ago. Whether an event was taken in is known without it.
pub async fn forget_old(app: &App) -> Result<(), AppError> {
    let until = app.clock.now().plus(Span(-REMEMBERED.0));
    let forgotten: usize = handoff_domain::ports::write(app.store.as_ref(), move |tx| {
        Ok::<_, AppError>(tx.forget_notices(until)?)
    })
    .await?;
    if forgotten > 0 {
        tracing::info!(forgotten, "notices of long ago are forgotten");
    }
    Ok(())
}
