//! What is secret in Subscriptions: sealed before it is stored, each for its own Subscription.

use handoff_domain::ids::SubscriptionId;
use handoff_domain::reason::Reason;
use handoff_domain::subscription::SubscriptionSecrets;

use super::{App, AppError, Class, Scope};

fn purpose(tenant: &str, id: &SubscriptionId) -> String {
    format!("subscription {tenant}/{id}")
}

/// The secrets as they are stored.
pub fn seal(
    app: &App,
    scope: &Scope,
    id: &SubscriptionId,
    secrets: &SubscriptionSecrets,
) -> Result<Vec<u8>, AppError> {
    let plain = serde_json::to_vec(secrets).map_err(|e| AppError::bad(e.to_string()))?;
    app.vault
        .seal(&purpose(scope.tenant().as_str(), id), &plain)
        .ok_or_else(|| {
            AppError {
                reason: Reason::NotSupported,
                ..AppError::rule(
                    "Subscription.channel.type",
                    "this server has no key for the secrets of a rest-hook; its operator sets `subscriptions.key_file`",
                )
            }
        })
}

/// The secrets of what is stored; a fault of this server where they can't be read.
pub fn open_secrets(
    app: &App,
    scope: &Scope,
    id: &SubscriptionId,
    sealed: &[u8],
) -> Result<SubscriptionSecrets, AppError> {
    app.open_subscription_secrets(scope.tenant().as_str(), id, sealed)
        .ok_or_else(|| {
            AppError::new(
                Class::Internal,
                Reason::StorageUnavailable,
                "an internal error; nothing was changed, tell support the correlation id",
            )
            .because(
                "the secrets of a subscription can't be opened: `subscriptions.key` is another than before",
            )
        })
}

impl App {
    /// The secrets of a Subscription; `None` where the key to them is another by now.
    pub fn open_subscription_secrets(
        &self,
        tenant: &str,
        id: &SubscriptionId,
        sealed: &[u8],
    ) -> Option<SubscriptionSecrets> {
        if sealed.is_empty() {
            return Some(SubscriptionSecrets::default());
        }
        let plain = self.vault.open(&purpose(tenant, id), sealed)?;
        serde_json::from_slice(&plain).ok()
    }

    /// A fresh key to sign notifications with, as subscribers are told it (Standard Webhooks).
    pub(super) fn fresh_signing_secret(&self) -> String {
        use base64::Engine as _;
        let mut bytes = [0_u8; 32];
        self.entropy.fill(&mut bytes);
        format!(
            "whsec_{}",
            base64::engine::general_purpose::STANDARD.encode(bytes)
        )
    }
}
