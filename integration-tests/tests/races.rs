//! Races between two server processes. `integration-tests/races` runs more of them, against the release build.

use std::time::Duration;

use handoff_integration_tests::races::{Pair, accepted, content_path};
use handoff_integration_tests::scene::noise;
use handoff_integration_tests::slow::SlowDownload;
use reqwest::Method;
use tokio::time::{Instant, sleep};

/// How long a cut may take in a debug build while other tests run. What it does take is printed.
const SOON: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_that_redeem_one_grant_at_two_servers_at_once_one_is_served() {
    let pair = Pair::start().await;
    let document = pair.document(b"%PDF-1.4 one of a kind").await;
    for _ in 0..20 {
        pair.one_of_many_wins(64, &document).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_at_one_server_cuts_the_download_from_the_other() {
    let pair = Pair::start().await;
    let cuts = pair.cancels_against_downloads(40, false).await;
    println!("since the cancel was sent: {}", cuts.since_asked);
    assert!(cuts.since_asked.percentile(99) < SOON, "{}", cuts.since_asked);
}

/// A machine that stands still is taken for dead and its downloads go on elsewhere. When it wakes, it does not know that,
/// and has everything to go on with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_wakes_after_it_was_taken_for_dead_sends_nothing_more() {
    let pair = Pair::start().await;
    let content = noise(64 * 1024 * 1024);
    let document = pair.document(&content).await;
    let id = accepted(&pair.ehr, &document).await;
    let path = content_path(&document, &id);
    let there = pair.lane.at(&pair.bases[1]);
    let mut download = SlowDownload::start(&there, &path, 100_000).await;
    let got = download.read_some(200_000).await.len();
    let etag = download.header("etag").unwrap();
    pair.programs[1].signal("STOP");
    let deadline = Instant::now() + Duration::from_mins(1);
    while pair.audited(&id, "redemption-interrupted").await == 0 {
        assert!(Instant::now() < deadline, "it is never taken for dead");
        sleep(Duration::from_millis(200)).await;
    }
    let request = pair
        .lane
        .request(Method::GET, &path)
        .header("range", format!("bytes={got}-"))
        .header("if-range", etag);
    let rest = pair.lane.send(request).await.expect(206);
    assert!(rest.body == content[got..]);

    pair.programs[1].signal("CONT");
    let woke = Instant::now().into_std();
    let (over, whole) = download.over().await;
    assert!(!whole, "the client must see an error, not the whole content");
    let took = over.saturating_duration_since(woke);
    assert!(took < SOON, "it went on for {took:?}");
}
