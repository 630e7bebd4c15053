//! What subscribers will be told, written in the transaction of the change it tells of.
//! Nothing here is ever sent before it is committed; no secret is ever in it.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A topic (`https://handoff.example/fhir/SubscriptionTopic/{name}`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// A Task came to be, changed its status, or ended.
    TaskStatusChanged,
    /// A Task has another owner.
    TaskAssigned,
    /// A grant was issued, bound, suspended, resumed, exhausted, expired or revoked.
    GrantLifecycle,
    /// A document was replaced or its content changed.
    DocumentSuperseded,
    /// A redemption began or ended.
    Redemption,
    /// Somebody took emergency access: the alert.
    BreakGlass,
}

impl Topic {
    /// The name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TaskStatusChanged => "task-status-changed",
            Self::TaskAssigned => "task-assigned",
            Self::GrantLifecycle => "grant-lifecycle",
            Self::DocumentSuperseded => "document-superseded",
            Self::Redemption => "redemption",
            Self::BreakGlass => "break-glass",
        }
    }
}

/// One event to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicEvent {
    /// The topic.
    pub topic: Topic,
    /// What it is about, as a relative reference: `Task/1`.
    pub focus: String,
    /// The version of the focus that shows the change.
    pub version: i64,
    /// What happened, in the words of the topic: a status, a grant state.
    pub change: String,
    /// The grant concerned, where there is one.
    pub grant: Option<String>,
    /// When.
    pub at: Timestamp,
}
