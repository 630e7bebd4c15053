//! Cuts that reach a stream from another process, by whichever way is left: the news, asking, or the comparison of
//! everything that runs with what the database holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use handoff::app::finish::sweep_abandoned;
use handoff_domain::ports::Clock;
use handoff_domain::time::Span;
use handoff_integration_tests::figures::Figures;
use handoff_integration_tests::open_transaction::OpenTransaction;
use handoff_integration_tests::races::cancel_against_download;
use handoff_integration_tests::scene::{Referral, document, noise};
use handoff_integration_tests::slow::SlowDownload;
use handoff_integration_tests::{Answer, Backend, Client, TestApp, TurnableClock, eventually, psql_in};
use serde_json::json;
use sha2::{Digest, Sha256};

const MIB: usize = 1024 * 1024;
/// How long a cut may take in a debug build while other tests run. What it does take is printed.
const SOON: Duration = Duration::from_secs(2);

/// Ends the Task by the placer while its download runs elsewhere; answers how long after the request the download was
/// still being sent.
async fn cut(referral: &Referral, download: SlowDownload) -> Duration {
    let mut task = referral.current().await;
    task["status"] = json!("cancelled");
    let watching = tokio::spawn(download.over());
    let asked = Instant::now();
    referral
        .ehr
        .put(&format!("/fhir/Task/{}", referral.task), &task)
        .await
        .expect(200);
    let (over, whole) = watching.await.unwrap();
    assert!(!whole, "the client must see an error, not a short success");
    over.saturating_duration_since(asked)
}

async fn resume(lane: &Client, referral: &Referral, etag: &str, from: usize) -> Answer {
    let request = lane
        .request(reqwest::Method::GET, &referral.content_path())
        .header("range", format!("bytes={from}-"))
        .header("if-range", etag);
    lane.send(request).await
}

/// The redemption that a download is the stream of.
fn redemption(download: &SlowDownload) -> String {
    let place = download.header("content-location").unwrap();
    place
        .trim_end_matches("/content")
        .rsplit('/')
        .next()
        .unwrap()
        .to_owned()
}

/// A change on one replica cuts the stream on the other, whichever tenant it is in, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_on_another_replica_cuts_the_stream() {
    let app = TestApp::start(Backend::Production).await;
    let replica = app.replica().await;
    let (here, there) = (&app.server.base_url, &replica.server.base_url);
    let content = noise(20 * MIB);
    let first = Referral::with_content(&app, &content).await;
    let of_b = async |name: &str| app.client(name).await.at(&format!("{here}/t/b"));
    let owner = (of_b("lane-b").await, "Practitioner/lane-b");
    let second = Referral::between(of_b("ehr-b").await, owner, &content).await;
    let first_lane = first.lane.at(there);
    let second_lane = second.lane.at(&format!("{there}/t/b"));
    let of_first = SlowDownload::start(&first_lane, &first.content_path(), 300_000).await;
    let mut of_second = SlowDownload::start(&second_lane, &second.content_path(), 300_000).await;
    let took = cut(&first, of_first).await;
    assert!(took < SOON, "the cut took {took:?}");
    first_lane
        .get(&first.content_path())
        .await
        .refused(403, "task-cancelled");
    of_second.read_some(MIB).await;
    let took = cut(&second, of_second).await;
    assert!(took < SOON, "the cut took {took:?}");
    eventually("the replica has no stream left", async || {
        replica.server.app.streams.count() == 0
    })
    .await;
}

/// Without LISTEN, as behind a pooler that has none, a replica asks often enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_hears_no_news_cuts_the_stream_all_the_same() {
    let app = TestApp::start_with(Backend::Production, |o| o.store.listen = false).await;
    let replica = app.replica().await;
    let (ehr, lane) = (app.client("ehr").await, app.client("lane").await);
    let document = document(&ehr, &noise(20 * MIB)).await;
    let there = lane.at(&replica.server.base_url);
    let mut figures = Figures::default();
    for trial in 0..10 {
        let cut = cancel_against_download(&ehr, &there, &document, trial).await;
        figures.note(cut.since_asked);
    }
    println!("since the cancel was sent: {figures}");
    assert!(figures.percentile(100) < SOON, "{figures}");
}

/// However many requests wait on locks, with every connection for requests, the watch over streams has its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_requests_hold_every_connection_cuts_the_stream_all_the_same() {
    let app = TestApp::start(Backend::Production).await;
    let replica = app
        .replica_with(|o| {
            o.store.pool_size = 3;
            o.store.pool_wait = Duration::from_millis(300);
        })
        .await;
    let there = &replica.server.base_url;
    let blocked = Referral::set(&app).await;
    let referral = Referral::with_content(&app, &noise(20 * MIB)).await;
    let lane = referral.lane.at(there);
    let download = SlowDownload::start(&lane, &referral.content_path(), 300_000).await;

    let lock = format!("SELECT 1 FROM tasks WHERE id = '{}' FOR UPDATE", blocked.task);
    let held = OpenTransaction::begin(&app.options.store.url, &lock).await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let (lane, path) = (blocked.lane.at(there), blocked.content_path());
            tokio::spawn(async move { lane.get(&path).await.status })
        })
        .collect();
    let exhausted = async || {
        let path = format!("/fhir/Task/{}", referral.task);
        lane.get(&path).await.status == 503
    };
    eventually("every connection is in use", async || exhausted().await).await;
    let took = cut(&referral, download).await;
    assert!(exhausted().await, "the connections were in use all the time");
    assert!(took < SOON, "the cut took {took:?}");

    drop(held);
    let answers = futures_util::future::join_all(waiting).await;
    assert!(answers.iter().all(Result::is_ok));
    eventually("the cut is recorded once there are connections", async || {
        replica.server.app.streams.count() == 0
            && referral
                .audited(&app)
                .await
                .iter()
                .any(|row| row.to_string().contains("redemption-cut-off"))
    })
    .await;
}

/// What nobody told of and asking for cuts does not find, the comparison with the database does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_stream_whose_right_is_gone_from_the_database_ends() {
    let app = TestApp::start(Backend::Production).await;
    let content = noise(6 * MIB);
    let mut streams = Vec::new();
    for change in [
        "DELETE FROM redemptions WHERE id = 'ID'",
        "UPDATE redemptions SET state = 'interrupted', process = NULL, revision = revision + 1 WHERE id = 'ID'",
        "UPDATE redemptions SET process = 'another', revision = revision + 1 WHERE id = 'ID'",
        "UPDATE grants SET status = 'revoked', reason = 'emergency', ended_at = 1, revision = revision + 1 \
         WHERE id = (SELECT grant_id FROM redemptions WHERE id = 'ID')",
    ] {
        let referral = Referral::with_content(&app, &content).await;
        let download = SlowDownload::start(&referral.lane, &referral.content_path(), 100_000).await;
        psql_in(
            &app.options.store.url,
            &change.replace("ID", &redemption(&download)),
        );
        streams.push((change, referral, download));
    }
    let untouched = Referral::with_content(&app, &content).await;
    let mut download = SlowDownload::start(&untouched.lane, &untouched.content_path(), 100_000).await;
    eventually("all the others have ended", async || {
        app.server.app.streams.count() == 1
    })
    .await;
    for (change, referral, mut stream) in streams {
        let (bytes, whole) = stream.read_to_end().await;
        assert!(!whole && bytes.len() < content.len(), "{change}");
        if change.contains("grants") {
            let audit = referral.audited(&app).await;
            assert!(audit.iter().any(|row| {
                let row = row.to_string();
                row.contains("redemption-cut-off") && row.contains("emergency")
            }));
        }
    }
    let (bytes, whole) = download.read_to_end().await;
    assert!(whole && bytes == content, "what may run does");
}

/// A hold and its end in one breath: the old stream ends although nothing is held any more, and the new one is not
/// taken for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_news_never_stops_the_stream_that_began_after_it() {
    let app = TestApp::start(Backend::Production).await;
    let replica = app.replica().await;
    let content = noise(8 * MIB);
    let etag = format!("\"{:x}\"", Sha256::digest(&content));
    for round in 0..12 {
        let referral = Referral::with_content(&app, &content).await;
        let there = referral.lane.at(&replica.server.base_url);
        let mut download = SlowDownload::start(&there, &referral.content_path(), 100_000).await;
        referral.move_to(&referral.lane, "on-hold").await.expect(200);
        referral.move_to(&referral.lane, "accepted").await.expect(200);
        // At the process where it ran, or at the other.
        let lane = if round % 2 == 0 { &there } else { &referral.lane };
        let mut rest = None;
        eventually("the download goes on", async || {
            let answer = resume(lane, &referral, &etag, 50_000).await;
            assert!(matches!(answer.status.as_u16(), 206 | 409), "{}", answer.status);
            let resumed = answer.status == 206;
            rest = Some(answer.body);
            resumed
        })
        .await;
        assert!(rest.unwrap() == content[50_000..], "not cut, and the right bytes");
        let (bytes, whole) = download.read_to_end().await;
        assert!(
            !whole && bytes.len() < content.len(),
            "at most one stream at a time"
        );
        assert_eq!(referral.grants().await[0]["uses"], 1);
    }
}

/// A client whose connection is dead comes back, and its requests may arrive anywhere: it need not wait until the
/// server that still sends to it has noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_back_at_another_replica_goes_on_there() {
    let app = TestApp::start(Backend::Production).await;
    let replica = app.replica().await;
    let content = noise(20 * MIB);
    let etag = format!("\"{:x}\"", Sha256::digest(&content));
    let referral = Referral::with_content(&app, &content).await;
    let there = referral.lane.at(&replica.server.base_url);
    let mut forgotten = SlowDownload::start(&there, &referral.content_path(), 300_000).await;
    let rest = resume(&referral.lane, &referral, &etag, 300_000)
        .await
        .expect(206);
    assert!(rest.body == content[300_000..]);
    let (bytes, whole) = forgotten.read_to_end().await;
    assert!(
        !whole && bytes.len() < content.len(),
        "at most one stream at a time"
    );
    eventually("every stream has told its end", async || {
        let told = referral.audited(&app).await;
        let has = |event: &str| told.iter().any(|row| row.to_string().contains(event));
        has("redemption-interrupted") && has("redemption-completed")
    })
    .await;
    assert_eq!(referral.grants().await[0]["uses"], 1);
}

/// A server that died has not told how far it came, and was cut besides: the client may still go on from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_a_hold_cut_at_a_server_which_died_goes_on() {
    let app = TestApp::start(Backend::Production).await;
    let content = noise(6 * MIB);
    let etag = format!("\"{:x}\"", Sha256::digest(&content));
    let referral = Referral::with_content(&app, &content).await;
    let download = SlowDownload::start(&referral.lane, &referral.content_path(), 100_000).await;
    let died = format!(
        "UPDATE redemptions SET process = 'died', revision = revision + 1 WHERE id = '{}'",
        redemption(&download)
    );
    psql_in(&app.options.store.url, &died);
    referral.move_to(&referral.lane, "on-hold").await.expect(200);
    referral.move_to(&referral.lane, "accepted").await.expect(200);
    drop(download);
    let mut rest = None;
    eventually("the download goes on", async || {
        let answer = resume(&referral.lane, &referral, &etag, 100_000).await;
        assert!(matches!(answer.status.as_u16(), 206 | 409), "{}", answer.status);
        let resumed = answer.status == 206;
        rest = Some(answer.body);
        resumed
    })
    .await;
    assert!(rest.unwrap() == content[100_000..]);
}

/// Clocks of machines differ; who lives is judged by the one clock that all share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_clock_is_wrong_is_not_taken_for_dead() {
    let app = TestApp::start(Backend::Production).await;
    for skew in [Span::seconds(-50), Span::seconds(50)] {
        let clock = Arc::new(TurnableClock::default());
        clock.advance(skew);
        let replica = app
            .replica_with(|o| o.clock = Some(Arc::clone(&clock) as Arc<dyn Clock>))
            .await;
        let content = noise(6 * MIB);
        let referral = Referral::with_content(&app, &content).await;
        let there = referral.lane.at(&replica.server.base_url);
        let mut download = SlowDownload::start(&there, &referral.content_path(), 100_000).await;
        for server in [&app.server, &replica.server] {
            assert_eq!(sweep_abandoned(&server.app).await.unwrap(), 0, "{skew:?}");
        }
        let (bytes, whole) = download.read_to_end().await;
        assert!(whole && bytes == content, "{skew:?}");
    }
}
