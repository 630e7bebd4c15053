//! How requests to the storage account are sent: client, credential, retries, deadlines, and what their failures mean.
//! No text that leaves here holds a URL, since a URL may hold a SAS.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use azure_core::auth::Secret;
use azure_core::error::ErrorKind;
use azure_core::headers::RANGE_GET_CONTENT_CRC64;
use azure_core::{
    ClientOptions, Context, FixedRetryOptions, Policy, PolicyResult, Request, RetryOptions, TransportOptions,
};
use azure_storage::StorageCredentials;
use handoff_domain::ports::BlobError;
use secrecy::ExposeSecret as _;
use url::Url;

use super::identity::{LOOK_EVERY, Renewed};
use super::transport::{Reads, Transport};
use crate::config::{AzureCredential, is_loopback};

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
        AzureCredential::WorkloadIdentity => {
            Renewed::new(Box::new(azure_identity::create_credential), LOOK_EVERY)
                .map(|renewed| StorageCredentials::token_credential(Arc::new(renewed)))
                .map_err(|_| unavailable("this workload has no identity to sign in with"))
        }
    }
}

/// Client options: bounded patience, few retries, and a witness for the version id.
pub(super) fn options(account: &Url, reads: Reads) -> ClientOptions {
    let client = Transport::new(is_loopback(account), reads);
    let retry = FixedRetryOptions::default()
        .delay(Duration::from_millis(250))
        .max_retries(3u32)
        .max_total_elapsed(Duration::from_secs(2));
    let mut options =
        ClientOptions::new(TransportOptions::new(Arc::new(client))).retry(RetryOptions::fixed(retry));
    options.per_call_policies_mut().push(Arc::new(VersionWitness));
    options.per_call_policies_mut().push(Arc::new(WithoutChecksum));
    options
}

/// Takes back the checksum that the SDK asks for with every small range: content is held against our own digests, and the
/// emulator can't answer it.
#[derive(Debug)]
struct WithoutChecksum;

#[async_trait::async_trait]
impl Policy for WithoutChecksum {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        if request
            .headers()
            .get_optional_str(&RANGE_GET_CONTENT_CRC64)
            .is_some()
        {
            let mut plain = Request::new(request.url().clone(), *request.method());
            for (name, value) in request.headers().iter() {
                if *name != RANGE_GET_CONTENT_CRC64 {
                    plain.insert_header(name.clone(), value.clone());
                }
            }
            plain.set_body(request.body().clone());
            *request = plain;
        }
        send_on(context, request, next).await
    }
}

/// Hands a request to what comes after a policy.
async fn send_on(context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
    match next.split_first() {
        Some((first, rest)) => first.send(context, request, rest).await,
        None => Err(azure_core::Error::message(
            ErrorKind::Other,
            "nothing sends the request",
        )),
    }
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
        let answer = send_on(context, request, next).await?;
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
