//! The grant: leave for one grantee to download one document version under one Task, a bounded number of times.
//! Each transition consumes the grant and gives the next, or an error naming both ends.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::document::Sha256;
use crate::ids::{ActorRef, BinaryId, DocumentId, GrantId, Handle, TaskId};
use crate::reason::Reason;
use crate::time::{Span, Timestamp};

/// To whom a grant is bound, and until when it may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The one who may use it.
    pub grantee: ActorRef,
    /// When it was bound.
    pub bound_at: Timestamp,
    /// When it stops opening anything.
    pub expires_at: Timestamp,
}

/// Where a grant is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantState {
    /// It can be seen, and used by nobody yet.
    Issued,
    /// Its grantee may use it.
    Bound(Binding),
    /// Its Task pauses; bound again when the Task comes back in time.
    Suspended(Binding, Reason),
    /// Every use was taken. Terminal.
    Exhausted(Binding, Timestamp),
    /// Its time ran out. Terminal.
    Expired(Option<Binding>, Timestamp),
    /// Its reason to exist ended. Terminal.
    Revoked(Option<Binding>, Timestamp, Reason),
}

/// How a grant came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// By the Task's own movement.
    Automatic,
    /// Asked for by the placer or an operator.
    Requested,
    /// Asked for by the grantee herself.
    SelfService,
    /// Issued anew by the workflow when one expired.
    Reissue,
}

impl Origin {
    /// The word for it in store and audit.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Requested => "requested",
            Self::SelfService => "self-service",
            Self::Reissue => "reissue",
        }
    }

    /// The origin that a word names.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Automatic, Self::Requested, Self::SelfService, Self::Reissue]
            .into_iter()
            .find(|o| o.as_str() == word)
    }
}

/// What a redemption must also satisfy. Empty lists ask nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Constraints {
    /// Address ranges (CIDR) one of which the caller's address must be in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip: Vec<String>,
    /// OAuth clients one of which must ask.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub client: Vec<String>,
    /// Media types one of which the content must have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub content_type: Vec<String>,
    /// The thumbprint of the key that the caller's token must be bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its id; opens nothing.
    pub id: GrantId,
    /// Finds it from a link; opens nothing.
    pub handle: Handle,
    /// SHA-256 of the link's secret, where a link was asked for.
    pub secret_hash: Option<[u8; 32]>,
    /// The Task that justifies it.
    pub task: TaskId,
    /// The document that it is for.
    pub document: DocumentId,
    /// The content version that it was issued for.
    pub content_version: i64,
    /// The bytes that it opens.
    pub binary: BinaryId,
    /// SHA-256 of those bytes.
    pub sha256: Sha256,
    /// How it came to be.
    pub origin: Origin,
    /// How often it may be used.
    pub max_uses: u32,
    /// How often it was used.
    pub uses: u32,
    /// How long it may be used once bound.
    pub window: Span,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// What a redemption must also satisfy.
    pub constraints: Constraints,
    /// Where it is in its life.
    pub state: GrantState,
    /// Counts its changes; every write names the one it saw.
    pub revision: i64,
}

/// A transition that a grant's life does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a grant that is `{from}` cannot become `{to}`")]
pub struct GrantError {
    /// The state it is in.
    pub from: &'static str,
    /// The state that was asked for.
    pub to: &'static str,
}

impl GrantState {
    /// The code (CodeSystem `grant-status`).
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Bound(_) => "bound",
            Self::Suspended(..) => "suspended",
            Self::Exhausted(..) => "exhausted",
            Self::Expired(..) => "expired",
            Self::Revoked(..) => "revoked",
        }
    }

    /// Whether it can still come to be used: issued, bound or suspended.
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Issued | Self::Bound(_) | Self::Suspended(..))
    }

    /// To whom it is or was bound.
    pub const fn binding(&self) -> Option<&Binding> {
        match self {
            Self::Issued => None,
            Self::Bound(b) | Self::Suspended(b, _) | Self::Exhausted(b, _) => Some(b),
            Self::Expired(b, _) | Self::Revoked(b, ..) => b.as_ref(),
        }
    }

    /// Why it is not usable; `None` while it is bound.
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Issued => Some(Reason::NotBound),
            Self::Bound(_) => None,
            Self::Suspended(_, reason) | Self::Revoked(_, _, reason) => Some(*reason),
            Self::Exhausted(..) => Some(Reason::Exhausted),
            Self::Expired(..) => Some(Reason::Expired),
        }
    }

    /// When it ended; `None` while it is open.
    pub const fn ended_at(&self) -> Option<Timestamp> {
        match self {
            Self::Issued | Self::Bound(_) | Self::Suspended(..) => None,
            Self::Exhausted(_, at) | Self::Expired(_, at) | Self::Revoked(_, at, _) => Some(*at),
        }
    }
}

/// Somebody's newest grant for a content, among those of one Task, oldest first.
pub fn newest_of<'g>(grants: &'g [Grant], holder: &ActorRef, content: Sha256) -> Option<&'g Grant> {
    grants
        .iter()
        .rfind(|grant| grant.sha256 == content && grant.grantee() == Some(holder))
}

impl Grant {
    /// The one who may use it, or could.
    pub fn grantee(&self) -> Option<&ActorRef> {
        self.state.binding().map(|b| &b.grantee)
    }

    /// When it stops opening anything; `None` until it is bound.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.state.binding().map(|b| b.expires_at)
    }

    /// Whether it is bound and its window open, so that it may be used now.
    pub fn is_live(&self, now: Timestamp) -> bool {
        matches!(self.state, GrantState::Bound(_)) && self.expires_at().is_some_and(|at| at > now)
    }

    /// Issued → bound: its window starts.
    pub fn bind(self, grantee: ActorRef, now: Timestamp) -> Result<Self, GrantError> {
        match self.state {
            GrantState::Issued => {
                let binding = Binding {
                    grantee,
                    bound_at: now,
                    expires_at: now.plus(self.window),
                };
                Ok(self.into_state(GrantState::Bound(binding)))
            }
            _ => Err(self.refuse("bound")),
        }
    }

    /// Bound → suspended.
    pub fn suspend(self, reason: Reason) -> Result<Self, GrantError> {
        match self.state.clone() {
            GrantState::Bound(binding) => Ok(self.into_state(GrantState::Suspended(binding, reason))),
            _ => Err(self.refuse("suspended")),
        }
    }

    /// Suspended → bound, or expired where its window closed meanwhile.
    pub fn resume(self, now: Timestamp) -> Result<Self, GrantError> {
        match self.state.clone() {
            GrantState::Suspended(binding, _) if binding.expires_at > now => {
                Ok(self.into_state(GrantState::Bound(binding)))
            }
            GrantState::Suspended(binding, _) => Ok(self.into_state(GrantState::Expired(Some(binding), now))),
            _ => Err(self.refuse("bound")),
        }
    }

    /// Bound → bound with one use more, or exhausted with the last.
    pub fn take_use(self, now: Timestamp) -> Result<Self, GrantError> {
        match self.state.clone() {
            GrantState::Bound(binding) if binding.expires_at > now && self.uses < self.max_uses => {
                let uses = self.uses.saturating_add(1);
                let state = if uses >= self.max_uses {
                    GrantState::Exhausted(binding, now)
                } else {
                    GrantState::Bound(binding)
                };
                Ok(Self { uses, ..self }.into_state(state))
            }
            _ => Err(self.refuse("used")),
        }
    }

    /// Gives back a use of which no byte was sent. A grant that this use had exhausted is bound again: it was
    /// exhausted only on the strength of the use that did not happen. Any other end stays. Its Task may have moved
    /// on meanwhile: reconcile afterwards, in the same transaction.
    pub fn give_back_use(self) -> Result<Self, GrantError> {
        let uses = self.uses.checked_sub(1).ok_or_else(|| self.refuse("unused"))?;
        let state = match self.state.clone() {
            GrantState::Exhausted(binding, _) => GrantState::Bound(binding),
            other => other,
        };
        Ok(Self { uses, ..self }.into_state(state))
    }

    /// Any open state → expired.
    pub fn expire(self, now: Timestamp) -> Result<Self, GrantError> {
        if self.state.is_open() {
            let binding = self.state.binding().cloned();
            Ok(self.into_state(GrantState::Expired(binding, now)))
        } else {
            Err(self.refuse("expired"))
        }
    }

    /// Any open state → revoked.
    pub fn revoke(self, now: Timestamp, reason: Reason) -> Result<Self, GrantError> {
        if self.state.is_open() {
            let binding = self.state.binding().cloned();
            Ok(self.into_state(GrantState::Revoked(binding, now, reason)))
        } else {
            Err(self.refuse("revoked"))
        }
    }

    fn into_state(self, state: GrantState) -> Self {
        Self {
            state,
            revision: self.revision.saturating_add(1),
            ..self
        }
    }

    const fn refuse(&self, to: &'static str) -> GrantError {
        GrantError {
            from: self.state.code(),
            to,
        }
    }
}
