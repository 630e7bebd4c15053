//! The outside world behind the domain's small ports: the one place that reads the clock and the system's
//! randomness. Decides nothing.

mod clock;
mod entropy;
mod measured_blobs;
mod measured_store;
mod measured_tx;
mod sealed;
pub mod secret_place;
mod source_server;
mod traced_outbound;

pub use clock::SystemClock;
pub use entropy::OsEntropy;
pub use measured_blobs::MeasuredBlobs;
pub use measured_store::MeasuredStore;
pub use sealed::{SealedVault, VaultKey};
pub use source_server::SourcesOverHttp;
pub use traced_outbound::TracedOutbound;
