//! What subscribers will be told, written in the transaction of the change it tells of.
//! Nothing here is ever sent before it is committed; no secret is ever in it.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::trace::TraceContext;

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
    /// A Task has a version that changed no status. Nobody subscribes to it by name: with [`Self::TaskStatusChanged`] it
    /// makes up every version of every Task, which criteria of base R4 are held against.
    TaskVersion,
    /// A document has a version. As [`Self::TaskVersion`].
    DocumentVersion,
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
            Self::TaskVersion => "task-version",
            Self::DocumentVersion => "document-version",
        }
    }

    /// The topic that a name means.
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::TaskStatusChanged,
            Self::TaskAssigned,
            Self::GrantLifecycle,
            Self::DocumentSuperseded,
            Self::Redemption,
            Self::BreakGlass,
            Self::TaskVersion,
            Self::DocumentVersion,
        ]
        .into_iter()
        .find(|topic| topic.as_str() == name)
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
    /// The correlation id of the request that caused it.
    pub correlation: String,
    /// The trace of that request, where it is traced.
    pub trace: Option<TraceContext>,
    /// When.
    pub at: Timestamp,
}

/// The change that a [`Topic::TaskStatusChanged`] of a deleted Task tells.
pub const DELETED: &str = "deleted";
