//! The identity of the workload. What proves it, like a federated token in a file, is exchanged for another one every now and then by
//! whoever runs us, and the SDK reads it once and for all: so it is made to look again.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use azure_core::auth::{AccessToken, TokenCredential};

/// A platform leaves a proof in place for some more minutes than this before it expires.
pub(super) const LOOK_EVERY: Duration = Duration::from_mins(10);

type Make = Box<dyn Fn() -> azure_core::Result<Arc<dyn TokenCredential>> + Send + Sync>;

/// A credential that is made anew from what proves it, again and again.
pub(super) struct Renewed {
    make: Make,
    every: Duration,
    present: Mutex<(Instant, Arc<dyn TokenCredential>)>,
}

impl Renewed {
    /// The credential that `make` finds, asked so often.
    pub(super) fn new(make: Make, every: Duration) -> azure_core::Result<Self> {
        let present = Mutex::new((Instant::now(), make()?));
        Ok(Self { make, every, present })
    }

    fn present(&self) -> Arc<dyn TokenCredential> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if present.0.elapsed() >= self.every {
            // Where there is nothing to be found for a moment, what was found before may still do.
            if let Ok(fresh) = (self.make)() {
                *present = (Instant::now(), fresh);
            } else {
                tracing::warn!("the identity of this workload could not be looked up anew");
            }
        }
        Arc::clone(&present.1)
    }
}

impl fmt::Debug for Renewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewed").finish_non_exhaustive()
    }
}

#[async_trait::async_trait]
impl TokenCredential for Renewed {
    async fn get_token(&self, scopes: &[&str]) -> azure_core::Result<AccessToken> {
        self.present().get_token(scopes).await
    }

    async fn clear_cache(&self) -> azure_core::Result<()> {
        self.present().clear_cache().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use azure_core::error::{Error, ErrorKind};

    use super::*;

    /// Knows the proof that it was made of, and no other.
    #[derive(Debug)]
    struct OfProof(usize);

    #[async_trait::async_trait]
    impl TokenCredential for OfProof {
        async fn get_token(&self, _scopes: &[&str]) -> azure_core::Result<AccessToken> {
            let later = std::time::UNIX_EPOCH + Duration::from_hours(1_000_000);
            Ok(AccessToken::new(self.0.to_string(), later.into()))
        }

        async fn clear_cache(&self) -> azure_core::Result<()> {
            Ok(())
        }
    }

    const NONE: usize = 0;

    fn found(proof: &Arc<AtomicUsize>) -> Make {
        let proof = Arc::clone(proof);
        Box::new(move || match proof.load(Ordering::SeqCst) {
            NONE => Err(Error::message(ErrorKind::Credential, "no proof")),
            proof => Ok(Arc::new(OfProof(proof))),
        })
    }

    async fn token(credential: &Renewed) -> String {
        credential.get_token(&[]).await.unwrap().token.secret().to_owned()
    }

    #[tokio::test]
    async fn a_proof_that_was_exchanged_is_found_when_it_is_time_to_look() {
        let proof = Arc::new(AtomicUsize::new(1));
        let patient = Renewed::new(found(&proof), LOOK_EVERY).unwrap();
        let eager = Renewed::new(found(&proof), Duration::ZERO).unwrap();
        proof.store(2, Ordering::SeqCst);
        assert_eq!(
            token(&patient).await,
            "1",
            "it is not looked for with every request"
        );
        assert_eq!(token(&eager).await, "2");
        proof.store(NONE, Ordering::SeqCst);
        assert_eq!(token(&eager).await, "2", "the one before still does");
        proof.store(3, Ordering::SeqCst);
        assert_eq!(token(&eager).await, "3");
    }

    #[test]
    fn a_workload_without_identity_is_told_at_once() {
        assert!(Renewed::new(found(&Arc::new(AtomicUsize::new(NONE))), LOOK_EVERY).is_err());
    }
}
