//! Binding tokens: who holds one may hear certain Subscriptions over one web socket (Subscriptions R5 Backport 1.1.0,
//! channels). Good once and for a short time. Knows nothing of sockets, nor the token itself.

use crate::ids::{ActorRef, SubscriptionId};
use crate::time::{Span, Timestamp};

/// How long a token is good.
pub const LASTS: Span = Span::seconds(60);

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Who asked for it.
    pub creator: ActorRef,
    /// What may be heard with it.
    pub subscriptions: Vec<SubscriptionId>,
    /// From when it is good no more.
    pub expires_at: Timestamp,
}

impl Binding {
    /// Whether it is still good.
    pub fn is_good(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }
}
