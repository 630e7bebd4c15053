//! Who scans what, and when: each process claims content that is due, as much as it may scan at once, and follows others whose claim
//! lapsed. New content is looked for when it comes. A scanner that does not answer is asked again ever more seldom, and no content
//! is tried meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handoff_domain::ports::{BlobError, Entropy, Scanner, ScannerError};
use handoff_domain::scan::{Finding, Found, ScanRule, pause_while_down};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use crate::app::scan::Claimed;
use crate::app::{App, AppError};
use crate::telemetry::{metrics, scanning as measured};

/// How often it is looked for content without any news.
const LOOKED_EVERY: Duration = Duration::from_secs(1);
/// How often a claim is renewed, of those that last half a minute.
const RENEWED_EVERY: Duration = Duration::from_secs(8);
/// How often it is looked for content that was never enrolled.
const ENROLLED_EVERY: Duration = Duration::from_mins(15);
const MEASURED_EVERY: Duration = Duration::from_secs(5);
/// How long what is under way may take when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The tasks that scan, in this process.
pub struct Scanning {
    tasks: Vec<JoinHandle<()>>,
    stopping: watch::Sender<bool>,
}

impl Scanning {
    /// Ends. What is in hand is let go of, and another process goes on with it.
    pub async fn stop(self) {
        self.stopping.send_replace(true);
        let deadline = Instant::now() + LAST_WORDS;
        for mut task in self.tasks {
            if timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

/// Starts scanning, so many at once, for as long as the process lives.
pub fn start(app: &App, scanner: Arc<dyn Scanner>, rule: ScanRule, at_once: usize) -> Scanning {
    let stopping = watch::Sender::new(false);
    let work = Work {
        app: app.clone(),
        scanner,
        rule,
        at_once,
        places: Arc::new(Semaphore::new(at_once)),
        trouble: Arc::default(),
        stopping: stopping.subscribe(),
    };
    let tasks = vec![
        app.background.spawn(work.clone().look_for_content()),
        app.background.spawn(work.clone().enrol()),
        app.background.spawn(work.measure()),
    ];
    Scanning { tasks, stopping }
}

#[derive(Clone)]
struct Work {
    app: App,
    scanner: Arc<dyn Scanner>,
    rule: ScanRule,
    at_once: usize,
    /// For as much as is scanned at once.
    places: Arc<Semaphore>,
    trouble: Arc<Mutex<Trouble>>,
    stopping: watch::Receiver<bool>,
}

/// What is in the way of all scans.
#[derive(Default)]
struct Trouble {
    failures: u32,
    next_try: Option<Instant>,
}

impl Trouble {
    /// Notes that a try failed; answers whether that is news. What was tried at the same time failed with it.
    fn note(&mut self, entropy: &dyn Entropy) -> bool {
        if self.next_try.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        let mut chance = [0_u8; 1];
        entropy.fill(&mut chance);
        let [chance] = chance;
        let pause = pause_while_down(self.failures, chance);
        let pause = Duration::from_micros(u64::try_from(pause.0).unwrap_or(0));
        self.next_try = Some(Instant::now() + pause);
        self.failures == 1
    }
}

impl Work {
    fn trouble(&self) -> std::sync::MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stops(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits for so long, or until the process ends.
    async fn rest(&self, pause: Duration) {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            () = sleep(pause) => {}
            () = stopped(&mut stopping) => {}
        }
    }

    async fn look_for_content(self) {
        while !self.stops() {
            let pause = match self.round().await {
                Ok(pause) => pause,
                Err(error) => {
                    self.in_trouble("storage", error.cause.as_deref().unwrap_or(error.reason.as_str()));
                    LOOKED_EVERY
                }
            };
            let mut stopping = self.stopping.clone();
            tokio::select! {
                () = sleep(pause) => {}
                () = self.app.came.notified() => {}
                () = stopped(&mut stopping) => return,
            }
        }
    }

    /// Begins with as much as there is room for; answers when to look again.
    async fn round(&self) -> Result<Duration, AppError> {
        let (failing, next_try) = {
            let trouble = self.trouble();
            (trouble.failures > 0, trouble.next_try)
        };
        if let Some(at) = next_try {
            let now = Instant::now();
            if now < at {
                return Ok(at.duration_since(now));
            }
        }
        let free = self.places.available_permits();
        if free == 0 || failing && free < self.at_once {
            return Ok(LOOKED_EVERY);
        }
        if failing && let Err(error) = self.scanner.ready().await {
            self.in_trouble("unreachable", &error.to_string());
            return Ok(Duration::ZERO);
        }
        // After a failure one shows for all whether it goes on.
        let most = if failing { 1 } else { free };
        let claimed = self
            .app
            .claim_scans(u32::try_from(most).unwrap_or(u32::MAX))
            .await?;
        if claimed.is_empty() {
            self.out_of_trouble();
        }
        for claimed in claimed {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                break;
            };
            self.app.background.spawn(self.clone().scan(claimed, place));
        }
        Ok(LOOKED_EVERY)
    }

    /// Scans one, and has it looked for another then.
    async fn scan(self, claimed: Claimed, place: OwnedSemaphorePermit) {
        let kept = match self.ask(&claimed).await {
            Some(Ok(finding)) => self.keep(&claimed, finding).await,
            Some(Err(error)) => self.without_verdict(&claimed, &error).await,
            None => self.app.release_scan(&claimed).await,
        };
        if let Err(error) = kept {
            // The claim lapses, and it is done again.
            self.in_trouble("storage", error.cause.as_deref().unwrap_or(error.reason.as_str()));
        }
        drop(place);
        self.app.came.notify_one();
    }

    /// What the scanner says. `None` where the content is another process's by now, or this one ends.
    async fn ask(&self, claimed: &Claimed) -> Option<Result<Finding, ScannerError>> {
        let bytes = self.app.bytes_to_scan(claimed);
        let asking = self.scanner.scan(&claimed.binary, bytes);
        tokio::pin!(asking);
        let mut stopping = self.stopping.clone();
        loop {
            tokio::select! {
                said = &mut asking => return Some(said),
                () = stopped(&mut stopping) => return None,
                () = sleep(RENEWED_EVERY) => {
                    // Where that can't be asked, whoever keeps the verdict finds out.
                    if let Ok(false) = self.app.renew_scan(claimed).await {
                        return None;
                    }
                }
            }
        }
    }

    async fn keep(&self, claimed: &Claimed, finding: Finding) -> Result<(), AppError> {
        let Some(scanned) = self.app.keep_finding(claimed, finding, self.rule).await? else {
            return Ok(());
        };
        self.out_of_trouble();
        measured::verdict(scanned.scan.verdict);
        if scanned.alarm {
            measured::infected();
            let signature = scanned.scan.signature.as_deref().unwrap_or_default();
            tracing::error!(
                tenant = %claimed.tenant, binary = %claimed.binary.id, signature,
                "malware was found in stored content; it is released to nobody, and what was granted of it is revoked"
            );
        }
        Ok(())
    }

    async fn without_verdict(&self, claimed: &Claimed, error: &ScannerError) -> Result<(), AppError> {
        let kind = match error {
            ScannerError::NotYet => {
                self.out_of_trouble();
                return self.app.put_off_scan(claimed).await;
            }
            ScannerError::Unreachable(cause) => {
                self.in_trouble("unreachable", cause);
                return self.app.release_scan(claimed).await;
            }
            ScannerError::Content(BlobError::Unavailable(cause)) => {
                // This one may be all that can't be read: it waits, and others go on.
                tracing::info!(binary = %claimed.binary.id, cause, "content can't be read, and is scanned later");
                self.in_trouble("storage", cause);
                return self.app.put_off_scan(claimed).await;
            }
            ScannerError::BrokeOff(_) => "broke-off",
            ScannerError::Content(_) => "content",
        };
        measured::failure(kind);
        tracing::warn!(binary = %claimed.binary.id, %error, "content has no verdict; it is withheld, and scanned again");
        let failed = Finding {
            found: Found::Failure,
            engine: None,
        };
        self.keep(claimed, failed).await
    }

    fn in_trouble(&self, kind: &'static str, cause: &str) {
        measured::failure(kind);
        if self.trouble().note(self.app.entropy.as_ref()) {
            tracing::warn!(
                kind,
                cause,
                "content can't be scanned and is withheld; it will be tried again"
            );
        }
    }

    fn out_of_trouble(&self) {
        let before = std::mem::take(&mut *self.trouble());
        if before.failures > 0 {
            tracing::info!("content is scanned again");
        }
    }

    /// Enrols what was there before, at the start and now and then: replicas may begin to scan one after the other.
    async fn enrol(self) {
        while !self.stops() {
            let pause = match self.app.enrol_scans(self.rule).await {
                Ok(0) => ENROLLED_EVERY,
                Ok(count) => {
                    tracing::info!(count, "content that was not scanned yet is scanned from now on");
                    self.app.came.notify_one();
                    ENROLLED_EVERY
                }
                Err(error) => {
                    metrics::job_failure("scan-enrolment");
                    tracing::warn!(cause = ?error.cause, "content could not be enrolled to be scanned; it will be tried again");
                    MEASURED_EVERY
                }
            };
            self.rest(pause).await;
        }
    }

    /// Measures for how long content has waited, at every process, so that nobody has to scan for it to be told.
    async fn measure(self) {
        while !self.stops() {
            match self.app.scan_lag().await {
                Ok(lag) => measured::lag(lag),
                Err(_) => metrics::job_failure("scan-lag"),
            }
            self.rest(MEASURED_EVERY).await;
        }
    }
}

/// Waits until the process ends.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // Where nobody can say so any more, it does.
    drop(stopping.wait_for(|stops| *stops).await);
}
