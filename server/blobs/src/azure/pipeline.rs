//! How requests to the storage account are sent: client, credential, retries, deadlines, and what their failures mean.
//! No text that leaves here holds a URL, since a URL may hold a SAS.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use azure_core::auth::Secret;
use azure_core::error::ErrorKind;
use azure_core::{
    ClientOptions, Context, FixedRetryOptions, Policy, PolicyResult, Request, RetryOptions, TransportOptions,
};
use azure_storage::StorageCredentials;
use handoff_domain::ports::BlobError;
use secrecy::ExposeSecret as _;
use url::Url;

use crate::config::{AzureCredential, is_loopback};

/// To connect at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Until the answer to a request without a body begins, retries included. The caller is waiting for a page.
pub(super) const CONTROL_DEADLINE: Duration = Duration::from_secs(8);
/// Until the answer to a request that carries a block of an upload, retries included.
pub(super) const UPLOAD_DEADLINE: Duration = Duration::from_mins(1);
/// Between two arrivals of bytes in the body of an answer.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A request that did not succeed.
#[derive(Debug)]
pub(super) struct Failure {
    /// What to tell the caller.
    pub(super) error: BlobError,
    /// The service refused because the object is already there, or is another.
    pub(super) conflict: bool,
    /// There was no answer, or none that says what became of the request.
    pub(super) ambiguous: bool,
}

/// Waits for an answer no longer than `deadline`.
pub(super) async fn within<T>(
    deadline: Duration,
    request: impl Future<Output = azure_core::Result<T>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(deadline, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(explain(&error)),
        Err(_) => Err(Failure {
            error: unavailable("no answer in time"),
            conflict: false,
            ambiguous: true,
        }),
    }
}

pub(super) fn unavailable(why: &str) -> BlobError {
    BlobError::Unavailable(why.to_owned())
}

fn explain(error: &azure_core::Error) -> Failure {
    let (message, ambiguous) = match error.kind() {
        ErrorKind::HttpResponse { status, error_code } => {
            return explain_status(u16::from(*status), error_code.as_deref().unwrap_or_default());
        }
        ErrorKind::Io => ("the connection failed", true),
        ErrorKind::Credential => ("no credential could be obtained", false),
        _ => ("the answer is not that of a storage account", true),
    };
    Failure {
        error: unavailable(message),
        conflict: false,
        ambiguous,
    }
}

/// Codes as in "Blob service error codes" and "Common REST API error codes".
fn explain_status(status: u16, code: &str) -> Failure {
    let code: String = code
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(64)
        .collect();
    let error = match (status, code.as_str()) {
        (404, "ContainerNotFound") => unavailable("the container does not exist"),
        (404, _) => BlobError::NotFound,
        (412 | 416, _) => BlobError::Changed,
        (401 | 403, _) => BlobError::Unavailable(format!("our credential is refused: {status} {code}")),
        (409, "BlobArchived" | "BlobBeingRehydrated") => unavailable("the object is in the archive tier"),
        (409, "BlobImmutableDueToPolicy") => {
            unavailable("the object is under a retention policy or legal hold")
        }
        _ => BlobError::Unavailable(format!("status {status} {code}")),
    };
    Failure {
        error,
        conflict: matches!(status, 409 | 412),
        ambiguous: matches!(status, 408 | 500..),
    }
}

/// The SDK's view of a configured credential.
pub(super) fn credentials(
    account: String,
    credential: &AzureCredential,
) -> Result<StorageCredentials, BlobError> {
    match credential {
        AzureCredential::Key(key) => Ok(StorageCredentials::access_key(
            account,
            Secret::new(key.expose_secret().to_owned()),
        )),
        AzureCredential::Sas(sas) => StorageCredentials::sas_token(sas.expose_secret())
            .map_err(|_| unavailable("the SAS can't be read")),
        AzureCredential::WorkloadIdentity => azure_identity::create_credential()
            .map(StorageCredentials::token_credential)
            .map_err(|_| unavailable("this workload has no identity to sign in with")),
    }
}

/// Client options: bounded patience, few retries, and a witness for the version id.
pub(super) fn options(account: &Url) -> Result<ClientOptions, BlobError> {
    let loopback = is_loopback(account);
    let client = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        // An emulator closes a quiet connection after five seconds, the service after minutes.
        .pool_idle_timeout(Duration::from_secs(if loopback { 3 } else { 60 }))
        .pool_max_idle_per_host(16);
    let client = if loopback { client.no_proxy() } else { client };
    let client = client
        .build()
        .map_err(|_| unavailable("no HTTP client can be made"))?;
    let retry = FixedRetryOptions::default()
        .delay(Duration::from_millis(250))
        .max_retries(3u32)
        .max_total_elapsed(Duration::from_secs(2));
    let mut options =
        ClientOptions::new(TransportOptions::new(Arc::new(client))).retry(RetryOptions::fixed(retry));
    options.per_call_policies_mut().push(Arc::new(VersionWitness));
    Ok(options)
}

/// Where the version id of an answer is left, since the SDK's answer types do not carry it.
#[derive(Debug, Clone, Default)]
pub(super) struct VersionSlot(Arc<Mutex<Option<String>>>);

impl VersionSlot {
    /// A context for one request whose answer's version id shall end up here.
    pub(super) fn context(&self) -> Context {
        let mut context = Context::new();
        context.insert(self.clone());
        context
    }

    /// The version id of the last answer, if it had one.
    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[derive(Debug)]
struct VersionWitness;

#[async_trait::async_trait]
impl Policy for VersionWitness {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let Some((first, rest)) = next.split_first() else {
            return Err(azure_core::Error::message(
                ErrorKind::Other,
                "nothing sends the request",
            ));
        };
        let answer = first.send(context, request, rest).await?;
        if let Some(slot) = context.get::<VersionSlot>() {
            let version = answer
                .headers()
                .iter()
                .find(|(name, _)| name.as_str() == "x-ms-version-id");
            *slot.0.lock().unwrap_or_else(PoisonError::into_inner) =
                version.map(|(_, v)| v.as_str().to_owned());
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_mean_what_the_caller_can_do() {
        assert_eq!(explain_status(404, "BlobNotFound").error, BlobError::NotFound);
        assert!(matches!(
            explain_status(404, "ContainerNotFound").error,
            BlobError::Unavailable(_)
        ));
        assert_eq!(explain_status(412, "ConditionNotMet").error, BlobError::Changed);
        assert!(explain_status(409, "BlobAlreadyExists").conflict);
        let refused = explain_status(403, "AuthenticationFailed");
        assert_eq!(
            refused.error,
            BlobError::Unavailable("our credential is refused: 403 AuthenticationFailed".to_owned())
        );
        assert!(!refused.ambiguous);
        assert!(explain_status(503, "ServerBusy").ambiguous);
    }
}
