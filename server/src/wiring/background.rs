//! Where work goes on that must outlive the request which began it, like writing down how a stream ended.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{Instant, sleep};

/// How long the last work may take once the server has ended.
const LAST_WORK: Duration = Duration::from_secs(5);

/// A small runtime of its own. Dropping it abandons what is left, which is why there is [`Background::settle`].
pub(super) struct Background {
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Background {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("handoff-background")
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits until nothing is left to do, or for as long as that is worth.
    pub(super) async fn settle(&self) {
        let deadline = Instant::now() + LAST_WORK;
        while self.handle.metrics().num_alive_tasks() > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The plain drop would wait, which is not allowed on a thread that runs futures.
            runtime.shutdown_background();
        }
    }
}
