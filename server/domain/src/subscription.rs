//! Subscriptions: who is to be told of which changes, over which channel, and how a subscription lives (FHIR R4
//! Subscription; Subscriptions R5 Backport 1.1.0). Knows no HTTP and no FHIR syntax.

mod course;

use serde::{Deserialize, Serialize};

use crate::access::Principal;
use crate::ids::{ActorRef, SubscriptionId, TenantId};
use crate::outbox::{DELETED, Topic, TopicEvent};
use crate::ports::{Filter, Kind, Subject};
use crate::time::Timestamp;

pub use course::{AfterFailure, Course, Failure, back_off};

/// `Subscription.status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubscriptionStatus {
    /// Asked for; its handshake is to come.
    Requested,
    /// Notifications are sent.
    Active,
    /// The subscriber could not be reached; events are still counted and kept.
    Error,
    /// Ended, by either side.
    Off,
}

impl SubscriptionStatus {
    /// The code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Active => "active",
            Self::Error => "error",
            Self::Off => "off",
        }
    }

    /// The status that a code means.
    pub fn parse(code: &str) -> Option<Self> {
        [Self::Requested, Self::Active, Self::Error, Self::Off]
            .into_iter()
            .find(|status| status.as_str() == code)
    }
}

/// What a topic is about and what it can be filtered by, beyond the search parameters of its resource.
#[derive(Debug)]
pub struct TopicKind {
    /// The topic.
    pub topic: Topic,
    /// The type of the focus.
    pub focus: Kind,
    /// The name of the filter on what happened, and the words it may have.
    pub change: Option<(&'static str, &'static [&'static str])>,
    /// What it tells, for people.
    pub description: &'static str,
}

/// The topics that can be subscribed to.
pub static TOPICS: [TopicKind; 6] = [
    TopicKind {
        topic: Topic::TaskStatusChanged,
        focus: Kind::Task,
        change: None,
        description: "A Task came to be, changed its status or business status, or was deleted.",
    },
    TopicKind {
        topic: Topic::TaskAssigned,
        focus: Kind::Task,
        change: None,
        description: "A Task has another owner.",
    },
    TopicKind {
        topic: Topic::GrantLifecycle,
        focus: Kind::Task,
        change: Some((
            "grant-status",
            &["issued", "bound", "suspended", "expired", "revoked"],
        )),
        description: "A grant under a Task was issued, bound, suspended, bound again, expired or revoked.",
    },
    TopicKind {
        topic: Topic::DocumentSuperseded,
        focus: Kind::Document,
        change: None,
        description: "A document was replaced, or has other content.",
    },
    TopicKind {
        topic: Topic::Redemption,
        focus: Kind::Task,
        change: Some((
            "redemption-status",
            &[
                "authorized",
                "streaming",
                "completed",
                "interrupted",
                "cut-off",
                "integrity-failed",
            ],
        )),
        description: "A document of a Task began to be fetched, or that ended.",
    },
    TopicKind {
        topic: Topic::BreakGlass,
        focus: Kind::Task,
        change: None,
        description: "Somebody took emergency access; the Task was made for it.",
    },
];

/// The topic of a name, where it can be subscribed to.
pub fn topic_kind(name: &str) -> Option<&'static TopicKind> {
    TOPICS.iter().find(|known| known.topic.as_str() == name)
}

/// What sets a subscription off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// Events of a topic.
    Topic(Topic),
    /// Every new version of a resource (criteria of base R4). Deletions are none.
    Version,
}

/// Which changes a subscriber is told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Criteria {
    /// What sets it off.
    pub trigger: Trigger,
    /// The type of the focus.
    pub focus: Kind,
    /// All must hold of the version of the focus that shows the change; of the last one before a deletion.
    pub filters: Vec<Filter>,
    /// Words for what happened, one of which it must be; empty for any.
    pub changes: Vec<String>,
}

impl Criteria {
    /// Whether it is about events like this one, whatever their focus says.
    pub fn listens_to(&self, event: &TopicEvent) -> bool {
        let triggered = match self.trigger {
            Trigger::Topic(topic) => topic == event.topic,
            Trigger::Version => match (event.topic, self.focus) {
                (Topic::TaskStatusChanged, Kind::Task) => event.change != DELETED,
                (Topic::TaskVersion, Kind::Task) | (Topic::DocumentVersion, Kind::Document) => true,
                _ => false,
            },
        };
        triggered && (self.changes.is_empty() || self.changes.contains(&event.change))
    }

    /// Whether the focus is one of those asked for.
    pub fn holds(&self, focus: Subject<'_>) -> bool {
        self.filters.iter().all(|filter| filter.holds(focus))
    }
}

/// How much a notification holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Payload {
    /// Base R4 without a payload: a POST without a body.
    Bare,
    /// Base R4 with a payload: a PUT of the resource.
    Resource,
    /// A Bundle that says that something happened.
    Empty,
    /// A Bundle with references.
    IdOnly,
    /// A Bundle with the resources.
    FullResource,
}

impl Payload {
    /// The code of `backport-payload-content`; `None` for base R4.
    pub const fn content(self) -> Option<&'static str> {
        match self {
            Self::Bare | Self::Resource => None,
            Self::Empty => Some("empty"),
            Self::IdOnly => Some("id-only"),
            Self::FullResource => Some("full-resource"),
        }
    }

    /// Whether the resources themselves are told.
    pub const fn is_whole(self) -> bool {
        matches!(self, Self::Resource | Self::FullResource)
    }

    /// The content that a code of `backport-payload-content` means.
    pub fn parse_content(code: &str) -> Option<Self> {
        [Self::Empty, Self::IdOnly, Self::FullResource]
            .into_iter()
            .find(|payload| payload.content() == Some(code))
    }
}

/// By which way notifications go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// To this URL.
    RestHook(String),
    /// To whoever has bound the subscription to a web socket.
    WebSocket,
}

/// `Subscription.channel`, without what is secret in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// The way.
    pub route: Route,
    /// The media type of notifications (`channel.payload`), as the subscriber wrote it.
    pub media_type: Option<String>,
    /// How much they hold.
    pub payload: Payload,
    /// Seconds without any notification after which a heartbeat is sent.
    pub heartbeat: Option<u32>,
    /// Seconds that one attempt may take.
    pub timeout: u32,
    /// The most events in one notification.
    pub max_count: u32,
}

/// A Subscription as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// `meta.versionId`.
    pub version: i64,
    /// `meta.lastUpdated`.
    pub last_updated: Timestamp,
    /// Who created it, and alone may see and change it.
    pub created_by: ActorRef,
    /// By whose rights notifications are sent: those of the token that created it or last changed it.
    pub subscriber: Principal,
    /// `status`.
    pub status: SubscriptionStatus,
    /// Which changes.
    pub criteria: Criteria,
    /// Which way.
    pub channel: Channel,
    /// When it ends by itself.
    pub end: Option<Timestamp>,
    /// The version in which criteria or channel last changed: notifications of one shape are repeated byte by byte.
    pub shape: i64,
    /// Whether it has been active, or in error, since it was last off.
    #[serde(default)]
    pub begun: bool,
    /// Whether it was deleted.
    pub deleted: bool,
}

impl Subscription {
    /// Whether events are counted: also while the subscriber can't be reached (Backport, errors), and while it asks to be
    /// told again and its handshake is to come. Nothing of what it misses meanwhile is lost.
    pub const fn counts(&self) -> bool {
        !self.deleted
            && match self.status {
                SubscriptionStatus::Active | SubscriptionStatus::Error => true,
                SubscriptionStatus::Requested => self.begun,
                SubscriptionStatus::Off => false,
            }
    }

    /// Whether it has begun, once it has this status.
    pub const fn begun_at(&self, status: SubscriptionStatus) -> bool {
        match status {
            SubscriptionStatus::Active | SubscriptionStatus::Error => true,
            SubscriptionStatus::Requested => {
                self.begun
                    || matches!(
                        self.status,
                        SubscriptionStatus::Active | SubscriptionStatus::Error
                    )
            }
            SubscriptionStatus::Off => false,
        }
    }
}

/// What of a Subscription nobody but its server reads: kept sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionSecrets {
    /// The key that notifications are signed with, as the subscriber was told it (`whsec_…`).
    pub signing: String,
    /// `channel.header`, line by line.
    pub headers: Vec<String>,
}

impl Channel {
    /// Whether notifications are sent to the subscriber, and not fetched by a connection of its own.
    pub const fn is_pushed(&self) -> bool {
        matches!(self.route, Route::RestHook(_))
    }
}

/// How many shards the work of delivering is divided into; each is one process's at a time.
pub const SHARDS: u8 = 16;

/// The shard that a subscription belongs to.
pub fn shard_of(tenant: &TenantId, id: &SubscriptionId) -> u8 {
    // FNV-1a: the same on every machine and in every version.
    let digest = tenant
        .as_str()
        .bytes()
        .chain([0])
        .chain(id.as_str().bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
            (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    u8::try_from(digest % u64::from(SHARDS)).unwrap_or(0)
}

/// One event as a subscription counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedEvent {
    /// Counted from 1, without gaps.
    pub number: i64,
    /// The event.
    pub event: TopicEvent,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(topic: Topic, change: &str) -> TopicEvent {
        TopicEvent {
            topic,
            focus: "Task/1".to_owned(),
            version: 2,
            change: change.to_owned(),
            grant: None,
            correlation: "c".to_owned(),
            trace: None,
            at: Timestamp(0),
        }
    }

    fn criteria(trigger: Trigger, changes: &[&str]) -> Criteria {
        Criteria {
            trigger,
            focus: Kind::Task,
            filters: Vec::new(),
            changes: changes.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    #[test]
    fn every_version_of_a_task_sets_off_base_criteria_once_and_a_deletion_never() {
        let base = criteria(Trigger::Version, &[]);
        assert!(base.listens_to(&event(Topic::TaskStatusChanged, "ready")));
        assert!(base.listens_to(&event(Topic::TaskVersion, "updated")));
        assert!(!base.listens_to(&event(Topic::TaskStatusChanged, DELETED)));
        assert!(!base.listens_to(&event(Topic::TaskAssigned, "assigned")));
        assert!(!base.listens_to(&event(Topic::DocumentVersion, "updated")));
    }

    #[test]
    fn a_topic_is_set_off_by_its_own_events_and_by_the_words_that_were_asked_for() {
        let grants = criteria(Trigger::Topic(Topic::GrantLifecycle), &["revoked"]);
        assert!(grants.listens_to(&event(Topic::GrantLifecycle, "revoked")));
        assert!(!grants.listens_to(&event(Topic::GrantLifecycle, "bound")));
        assert!(!grants.listens_to(&event(Topic::Redemption, "revoked")));
    }

    #[test]
    fn every_topic_is_found_by_its_name() {
        for kind in &TOPICS {
            assert_eq!(topic_kind(kind.topic.as_str()).unwrap().topic, kind.topic);
        }
        assert!(topic_kind("task-version").is_none());
    }
}
