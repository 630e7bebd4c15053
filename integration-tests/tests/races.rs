//! Races between two server processes. `integration-tests/races` runs more of them, against the release build.

use std::time::Duration;

use handoff_integration_tests::races::Pair;

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
    let cuts = pair.cancels_against_downloads(40).await;
    println!("since the cancel was sent: {}", cuts.since_asked);
    assert!(cuts.since_asked.percentile(99) < SOON, "{}", cuts.since_asked);
}
