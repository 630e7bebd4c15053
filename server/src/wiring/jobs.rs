//! What runs beside requests: expiry, cuts of other processes, and cleaning up. Each goes on after a failure.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix_web::rt;
use handoff_domain::ids::TenantId;
use handoff_domain::time::Span;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::Instrument as _;

use crate::app::drift::Reconciling;
use crate::app::ledger::seal::{self, SealKey, Sealer};
use crate::app::{self, App, AppError};
use crate::config::Sink;
use crate::telemetry::{forwarding, metrics, spans};

/// A grant has to be ended within a second of its time, database and all.
const EXPIRY_EVERY: Duration = Duration::from_millis(200);
/// What slips past a block while it is placed opens nothing; it should not look as if it did for long.
const BLOCKS_EVERY: Duration = Duration::from_millis(500);
const SWEEP_EVERY: Duration = Duration::from_secs(2);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);
/// What a source tells is applied at once; this is for what could not be.
const INBOX_EVERY: Duration = Duration::from_secs(1);
/// Until then a row could be changed by whoever writes to the database.
const SEAL_EVERY: Duration = Duration::from_secs(1);
const DEPTH_EVERY: Duration = Duration::from_secs(5);
const FEED_WATCH_EVERY: Duration = Duration::from_secs(5);
const FORGET_EVERY: Duration = Duration::from_hours(1);
/// What is withheld from an instant on may be fetched for no longer than this.
const AVAILABILITY_EVERY: Duration = Duration::from_millis(500);
const DISPOSAL_EVERY: Duration = Duration::from_mins(1);
/// Whether it is time to look; a look itself comes once a day.
const DRIFT_EVERY: Duration = Duration::from_secs(10);
const SESSIONS_EVERY: Duration = Duration::from_mins(5);
const BINDINGS_EVERY: Duration = Duration::from_mins(5);
const BLOB_SWEEP_EVERY: Duration = Duration::from_mins(10);
/// An upload that has been silent for longer than any limit allows was broken off.
const BROKEN_OFF_AFTER_SECONDS: u64 = 6 * 3600;

/// Starts every job on the present thread.
pub(super) fn start(
    app: &App,
    tenants: &BTreeSet<TenantId>,
    seal: Option<SealKey>,
    sinks: &[Sink],
    reconciling: Reconciling,
) -> Vec<JoinHandle<()>> {
    let tenants: Arc<[TenantId]> = tenants.iter().cloned().collect();
    let (of_all, stored_for) = (Arc::clone(&tenants), Arc::clone(&tenants));
    let mut jobs = vec![
        every("availability", AVAILABILITY_EVERY, app, async |app| {
            app::retention::follow_availability(app)
                .await
                .map(drop)
                .map_err(|error| explain(&error))
        }),
        every("disposal", DISPOSAL_EVERY, app, move |app: &App| {
            let (app, tenants) = (app.clone(), Arc::clone(&of_all));
            async move {
                app::disposal::run_once(&app, &tenants)
                    .await
                    .map_err(|error| explain(&error))
            }
        }),
        every_from(DRIFT_EVERY, "drift", DRIFT_EVERY, app, move |app: &App| {
            let (app, tenants) = (app.clone(), Arc::clone(&stored_for));
            async move {
                app::drift::run_once(&app, &tenants, reconciling)
                    .await
                    .map_err(|error| explain(&error))
            }
        }),
        every("forget-events", FORGET_EVERY, app, move |app: &App| {
            let (app, tenants) = (app.clone(), Arc::clone(&tenants));
            async move { app.forget_events(&tenants).await.map_err(|error| explain(&error)) }
        }),
        every("expiry", EXPIRY_EVERY, app, async |app| {
            app::expiry::run_once(app)
                .await
                .map(drop)
                .map_err(|error| explain(&error))
        }),
        every("sweep", SWEEP_EVERY, app, async |app| {
            app::finish::sweep_abandoned(app)
                .await
                .map(drop)
                .map_err(|error| explain(&error))
        }),
        every("standing-blocks", BLOCKS_EVERY, app, async |app| {
            app::standing::sweep(app).await.map_err(|error| explain(&error))
        }),
        every("inbox", INBOX_EVERY, app, async |app| {
            app::apply::run_once(app).await.map_err(|error| explain(&error))
        }),
        every("inbox-depth", DEPTH_EVERY, app, async |app| {
            app::inbox::measure(app).await.map_err(|error| explain(&error))
        }),
        every("feed-watch", FEED_WATCH_EVERY, app, async |app| {
            app::feed_watch::run_once(app)
                .await
                .map_err(|error| explain(&error))
        }),
        every("inbox-forget", FORGET_EVERY, app, async |app| {
            app::inbox::forget_old(app).await.map_err(|error| explain(&error))
        }),
        every("sessions", SESSIONS_EVERY, app, async |app| {
            app::sessions::forget_old(app)
                .await
                .map_err(|error| explain(&error))
        }),
        every("heartbeat", HEARTBEAT_EVERY, app, async |app| {
            let beat = app.store.heartbeat(&app.settings.process);
            beat.await.map_err(|error| error.to_string())
        }),
        every("blob-sweep", BLOB_SWEEP_EVERY, app, async |app| {
            let removed = app
                .blobs
                .sweep(BROKEN_OFF_AFTER_SECONDS)
                .await
                .map_err(|error| error.to_string())?;
            if removed > 0 {
                tracing::info!(removed, "removed what broken uploads had left");
            }
            Ok(())
        }),
        every("binding-tokens", BINDINGS_EVERY, app, async |app| {
            app::bindings::forget_old(app)
                .await
                .map_err(|error| explain(&error))
        }),
        rt::spawn(app::watch::follow_cuts(app.clone())),
        rt::spawn(app::ear::follow_counts(app.clone())),
    ];
    if let Some(key) = seal {
        let sealer = Arc::new(Sealer::new(key));
        jobs.push(every("seal", SEAL_EVERY, app, move |app: &App| {
            let (sealer, app) = (Arc::clone(&sealer), app.clone());
            async move { sealer.run_once(&app).await }
        }));
        jobs.push(every("seal-lag", DEPTH_EVERY, app, async |app| {
            seal::measure(app).await.map_err(|error| explain(&error))
        }));
    }
    if !sinks.is_empty() {
        let sinks: Arc<[Sink]> = sinks.into();
        jobs.push(every("forwarding-lag", DEPTH_EVERY, app, move |app: &App| {
            let (sinks, app) = (Arc::clone(&sinks), app.clone());
            async move {
                measure_forwarding(&app, &sinks)
                    .await
                    .map_err(|error| explain(&error))
            }
        }));
    }
    jobs
}

/// Measures for how long the oldest row has waited for each sink, at every process, so that nobody has to forward for it to be told.
async fn measure_forwarding(app: &App, sinks: &[Sink]) -> Result<(), AppError> {
    for sink in sinks {
        let oldest = app.oldest_unforwarded(&sink.name, sink.start).await?;
        let lag = oldest.map_or(Span(0), |oldest| app.clock.now().since(oldest));
        forwarding::lag(&sink.name, lag);
    }
    Ok(())
}

/// Runs a job again and again. Its failure is told when it begins and when it ends, and counted each time.
fn every<F>(name: &'static str, period: Duration, app: &App, run: F) -> JoinHandle<()>
where
    F: AsyncFn(&App) -> Result<(), String> + 'static,
{
    every_from(Duration::ZERO, name, period, app, run)
}

/// The same, for the first time after a while.
fn every_from<F>(first: Duration, name: &'static str, period: Duration, app: &App, run: F) -> JoinHandle<()>
where
    F: AsyncFn(&App) -> Result<(), String> + 'static,
{
    let app = app.clone();
    rt::spawn(async move {
        let mut ticks = interval_at(Instant::now() + first, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            let span = spans::job(name);
            let ran = run(&app).instrument(span.clone()).await;
            if ran.is_err() {
                spans::note_failure(&span, "failed");
            }
            drop(span);
            match ran {
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!(job = name, "job works again");
                }
                Ok(()) => {}
                Err(cause) => {
                    metrics::job_failure(name);
                    if !failing {
                        failing = true;
                        tracing::error!(job = name, cause, "job fails, and will be tried again");
                    }
                }
            }
        }
    })
}

/// What went wrong, for the log.
pub(super) fn explain(error: &AppError) -> String {
    error
        .cause
        .clone()
        .unwrap_or_else(|| error.reason.as_str().to_owned())
}
