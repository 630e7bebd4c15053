//! What every blob store must do, asked of both adapters: a directory, and Azure Blob Storage as the emulator
//! at `HANDOFF_TEST_AZURITE_URL` plays it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use handoff_blobs::{BlobConfig, open};
use handoff_domain::document::BLOCK_SIZE;
use handoff_domain::ids::TenantId;
use handoff_domain::ports::{BlobError, BlobPin, Listed, Listing};
use handoff_domain::time::Span;
use support::{NO_LIMIT, Subject, assert_described, chunks, content, len};

macro_rules! conformance {
    ($($name:ident),+ $(,)?) => {
        mod directory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Subject::directory().await).await;
            })+
        }
        mod azure {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Subject::azure().await).await;
            })+
        }
    };
}

conformance! {
    content_of_any_size_comes_back_as_it_went_in,
    every_range_is_cut_exactly,
    a_range_past_the_end_is_not_of_this_object,
    a_key_is_used_once,
    uploads_of_one_key_at_the_same_time_leave_one_whole_object,
    a_source_that_breaks_off_leaves_nothing_visible,
    content_over_the_limit_leaves_nothing_visible,
    content_at_the_limit_is_stored,
    an_upload_that_its_caller_drops_leaves_nothing_visible,
    an_object_replaced_behind_our_back_is_noticed,
    an_object_removed_behind_our_back_is_noticed,
    a_deleted_object_is_gone_and_deleting_it_again_is_no_error,
    a_replaced_object_is_not_deleted_in_place_of_ours,
    a_key_that_climbs_out_is_no_key,
    a_listing_tells_each_object_of_a_tenant_once,
    a_listing_goes_on_where_its_page_ended,
    a_listed_object_is_removed_while_it_is_the_same,
    a_store_that_was_taken_away_is_unavailable,
    a_store_in_order_is_ready,
}

async fn content_of_any_size_comes_back_as_it_went_in(subject: Subject) {
    let sizes = [
        0,
        1,
        BLOCK_SIZE - 1,
        BLOCK_SIZE,
        BLOCK_SIZE + 1,
        4 << 20,
        (4 << 20) + 1,
        (8 << 20) + 3,
        40 << 20,
    ];
    for size in sizes {
        let content = content(size);
        let uploaded = subject
            .put(&format!("north/b-{size}"), &content, 60_000)
            .await
            .unwrap();
        assert_described(&uploaded, &content);
        let back = subject.get(&uploaded.pin, 0..len(&content)).await.unwrap();
        assert!(back == content, "{size} bytes differ");
    }
    assert_eq!(subject.visible().await.len(), sizes.len());
}

async fn every_range_is_cut_exactly(subject: Subject) {
    let content = content((8 << 20) + 3);
    let uploaded = subject.put("north/ranged", &content, 1 << 20).await.unwrap();
    let size = len(&content);
    let block = BLOCK_SIZE as u64;
    let stage = 4 << 20;
    for (start, end) in [
        (0, 0),
        (size, size),
        (0, 1),
        (size - 1, size),
        (0, block),
        (block - 1, block + 1),
        (block, 3 * block + 7),
        (stage - 1, stage + 1),
        (17, stage + 17),
        (17, stage + 16),
        (1, size - 1),
        (stage, size),
        (0, size),
    ] {
        let back = subject.get(&uploaded.pin, start..end).await.unwrap();
        let (from, to) = (usize::try_from(start).unwrap(), usize::try_from(end).unwrap());
        assert!(back == content[from..to], "{start}..{end}");
    }
}

async fn a_range_past_the_end_is_not_of_this_object(subject: Subject) {
    let uploaded = subject.put("north/short", &content(10), 10).await.unwrap();
    assert_eq!(
        subject.get(&uploaded.pin, 5..11).await.unwrap_err(),
        BlobError::Changed
    );
    assert_eq!(
        subject.get(&uploaded.pin, 10..11).await.unwrap_err(),
        BlobError::Changed
    );
}

async fn a_key_is_used_once(subject: Subject) {
    for size in [10, (8 << 20) + 3] {
        let key = format!("north/once-{size}");
        let first = content(size);
        let uploaded = subject.put(&key, &first, 1 << 20).await.unwrap();
        let second = Bytes::from_static(b"another");
        assert_eq!(
            subject.put(&key, &second, 3).await.unwrap_err(),
            BlobError::Changed
        );
        assert_eq!(
            subject.put(&key, &content(5 << 20), 1 << 20).await.unwrap_err(),
            BlobError::Changed
        );
        assert!(subject.get(&uploaded.pin, 0..len(&first)).await.unwrap() == first);
    }
}

async fn uploads_of_one_key_at_the_same_time_leave_one_whole_object(subject: Subject) {
    let one = content(9 << 20);
    let other = one.slice(1..);
    let (a, b) = tokio::join!(
        subject.put("north/race", &one, 1 << 18),
        subject.put("north/race", &other, 1 << 18)
    );
    let (uploaded, expected) = match (a, b) {
        (Ok(uploaded), Err(BlobError::Changed)) => (uploaded, one),
        (Err(BlobError::Changed), Ok(uploaded)) => (uploaded, other),
        both => panic!("exactly one may win: {both:?}"),
    };
    assert_described(&uploaded, &expected);
    assert!(subject.get(&uploaded.pin, 0..len(&expected)).await.unwrap() == expected);
}

async fn a_source_that_breaks_off_leaves_nothing_visible(subject: Subject) {
    for sent in [0, 10, (9 << 20) + 1] {
        let sent = content(sent);
        let broken = chunks(&sent, 1 << 20).chain(stream::iter([Err(BlobError::SourceFailed)]));
        let key = format!("north/broken-{}", sent.len());
        let answer = subject
            .store
            .put(&key, "text/plain", Box::pin(broken), NO_LIMIT)
            .await;
        assert_eq!(answer.unwrap_err(), BlobError::SourceFailed);
    }
    nothing_visible(&subject).await;
}

async fn content_over_the_limit_leaves_nothing_visible(subject: Subject) {
    for (size, limit) in [(1, 0), (11, 10), (9 << 20, (9 << 20) - 1)] {
        let answer = subject
            .store
            .put(
                "north/large",
                "text/plain",
                chunks(&content(size), 1 << 20),
                limit,
            )
            .await;
        assert_eq!(answer.unwrap_err(), BlobError::TooLarge { limit });
    }
    nothing_visible(&subject).await;
}

async fn content_at_the_limit_is_stored(subject: Subject) {
    let content = content(10);
    let uploaded = subject
        .store
        .put("north/fits", "text/plain", chunks(&content, 3), 10)
        .await
        .unwrap();
    assert_described(&uploaded, &content);
}

async fn an_upload_that_its_caller_drops_leaves_nothing_visible(subject: Subject) {
    let content = content(9 << 20);
    let endless = chunks(&content, 1 << 20).chain(stream::pending());
    let upload = subject
        .store
        .put("north/dropped", "text/plain", Box::pin(endless), NO_LIMIT);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), upload)
            .await
            .is_err(),
        "it can't have ended"
    );
    nothing_visible(&subject).await;
    subject
        .put("north/dropped", &content, 1 << 20)
        .await
        .expect("the key is still new");
}

async fn an_object_replaced_behind_our_back_is_noticed(subject: Subject) {
    let uploaded = subject
        .put("north/replaced", &content(100_000), 1 << 20)
        .await
        .unwrap();
    subject.overwrite("north/replaced", b"forged").await;
    for range in [0..100_000, 0..1, 0..0] {
        assert_eq!(
            subject.get(&uploaded.pin, range).await.unwrap_err(),
            BlobError::Changed
        );
    }
}

async fn an_object_removed_behind_our_back_is_noticed(subject: Subject) {
    let uploaded = subject
        .put("north/removed", &content(100_000), 1 << 20)
        .await
        .unwrap();
    subject.remove("north/removed").await;
    for range in [0..100_000, 0..1, 0..0] {
        assert_eq!(
            subject.get(&uploaded.pin, range).await.unwrap_err(),
            BlobError::NotFound
        );
    }
}

async fn a_deleted_object_is_gone_and_deleting_it_again_is_no_error(subject: Subject) {
    let uploaded = subject
        .put("north/deleted", &content(100_000), 1 << 20)
        .await
        .unwrap();
    subject.store.delete(&uploaded.pin).await.unwrap();
    assert_eq!(
        subject.get(&uploaded.pin, 0..1).await.unwrap_err(),
        BlobError::NotFound
    );
    nothing_visible(&subject).await;
    subject.store.delete(&uploaded.pin).await.unwrap();
}

async fn a_replaced_object_is_not_deleted_in_place_of_ours(subject: Subject) {
    let uploaded = subject
        .put("north/other", &content(100_000), 1 << 20)
        .await
        .unwrap();
    subject.overwrite("north/other", b"someone else's").await;
    assert_eq!(subject.store.delete(&uploaded.pin).await, Err(BlobError::Changed));
    assert_eq!(subject.visible().await, ["north/other"]);
}

async fn a_key_that_climbs_out_is_no_key(subject: Subject) {
    let etag = subject
        .put("north/there", &content(10), 10)
        .await
        .unwrap()
        .pin
        .etag;
    for key in [
        "../there",
        "north/../north/there",
        "north/..",
        "/etc/passwd",
        "north/%2e%2e",
        ".incoming/x",
        "north",
    ] {
        assert_eq!(
            subject.put(key, &content(10), 10).await.unwrap_err(),
            BlobError::NotFound,
            "{key}"
        );
        let pin = BlobPin {
            key: key.to_owned(),
            version_id: None,
            etag: etag.clone(),
        };
        assert_eq!(
            subject.get(&pin, 0..1).await.unwrap_err(),
            BlobError::NotFound,
            "{key}"
        );
        assert_eq!(
            subject.store.delete(&pin).await,
            Err(BlobError::NotFound),
            "{key}"
        );
    }
    assert_eq!(subject.visible().await, ["north/there"]);
}

async fn a_listing_tells_each_object_of_a_tenant_once(subject: Subject) {
    let (north, south) = (tenant("north"), tenant("south"));
    assert_eq!(subject.store.list(&north, None).await, Ok(Listing::default()));
    for key in ["north/b.2", "north/b-1", "north-west/b-3", "south/b-4"] {
        subject.put(key, &content(10), 10).await.unwrap();
    }
    let last = subject.put("north/c", &content(11), 11).await.unwrap();
    subject.overwrite("north/Ångström", b"none of ours").await;
    let listing = subject.store.list(&north, None).await.unwrap();
    assert_eq!(listing.next, None);
    let told: Vec<_> = listing
        .objects
        .iter()
        .map(|o| (o.name.as_str(), o.size))
        .collect();
    assert_eq!(told, [("b-1", 10), ("b.2", 10), ("c", 11), ("Ångström", 12)]);
    for object in &listing.objects {
        assert!((Span(0)..Span::minutes(5)).contains(&object.age), "{object:?}");
    }
    if let Some(etag) = &listing.objects[2].etag {
        assert_eq!(*etag, last.pin.etag);
    }
    assert_eq!(subject.store.list(&south, None).await.unwrap().objects.len(), 1);
}

async fn a_listing_goes_on_where_its_page_ended(subject: Subject) {
    const COUNT: usize = 5_003;
    let wanted: Vec<String> = (0..COUNT).map(|n| format!("b-{n:05}")).collect();
    subject.fill("north", &wanted).await;
    let (mut told, mut from, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = subject.store.list(&tenant("north"), from).await.unwrap();
        told.extend(page.objects.into_iter().map(|object| object.name));
        pages += 1;
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!(told, wanted);
    assert!(pages > 1, "one page has them all");
}

async fn a_listed_object_is_removed_while_it_is_the_same(subject: Subject) {
    let north = tenant("north");
    for key in ["north/a", "north/b", "north/c"] {
        subject.put(key, &content(10), 10).await.unwrap();
    }
    let listed = subject.store.list(&north, None).await.unwrap().objects;
    subject.overwrite("north/b", b"another").await;
    assert_eq!(subject.store.remove_listed(&north, &listed[0]).await, Ok(()));
    assert_eq!(subject.store.remove_listed(&north, &listed[0]).await, Ok(()));
    let refused = subject.store.remove_listed(&north, &listed[1]).await;
    assert_eq!(refused, Err(BlobError::Changed));
    let left = subject.store.list(&north, None).await.unwrap().objects;
    let left: Vec<_> = left.iter().map(|object| object.name.as_str()).collect();
    assert_eq!(left, ["b", "c"]);
    let strange = Listed {
        name: "../north/c".to_owned(),
        ..listed[2].clone()
    };
    assert_eq!(
        subject.store.remove_listed(&north, &strange).await,
        Err(BlobError::NotFound)
    );
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

async fn a_store_that_was_taken_away_is_unavailable(subject: Subject) {
    let uploaded = subject.put("north/away", &content(10), 10).await.unwrap();
    subject.destroy().await;
    let start = Instant::now();
    is_unavailable(&subject.get(&uploaded.pin, 0..10).await.unwrap_err());
    is_unavailable(&subject.put("north/new", &content(10), 10).await.unwrap_err());
    is_unavailable(&subject.store.ready().await.unwrap_err());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

async fn a_store_in_order_is_ready(subject: Subject) {
    subject.store.ready().await.unwrap();
    nothing_visible(&subject).await;
    assert_eq!(subject.store.sweep(0).await, Ok(0));
}

/// Temporary files may be on their way out on another thread: waits for them, with a deadline.
async fn nothing_visible(subject: &Subject) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let visible = subject.visible().await;
        if visible.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "still visible: {visible:?}");
        tokio::task::yield_now().await;
    }
}

fn is_unavailable(error: &BlobError) {
    assert!(matches!(error, BlobError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn a_container_that_is_open_to_the_public_is_not_ready() {
    let subject = Subject::azure().await;
    subject.publish().await;
    let error = subject.store.ready().await.unwrap_err();
    assert!(error.to_string().contains("open to the public"), "{error}");
}

#[tokio::test]
async fn a_storage_account_that_refuses_connections_is_unavailable_at_once() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    unavailable_within(gone.port(), Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_storage_account_that_never_answers_is_unavailable_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    unavailable_within(silent.local_addr().unwrap().port(), Duration::from_secs(10)).await;
}

async fn unavailable_within(port: u16, limit: Duration) {
    let BlobConfig::Azure(mut config) =
        BlobConfig::parse(&format!("http://127.0.0.1:{port}/devstoreaccount1/handoff")).unwrap()
    else {
        panic!("an Azure store")
    };
    config.create_container = false;
    let store = open(&BlobConfig::Azure(config)).await.unwrap();
    let pin = BlobPin {
        key: "north/b".to_owned(),
        version_id: None,
        etag: "\"0x1\"".to_owned(),
    };
    let start = Instant::now();
    let (get, ready) = tokio::join!(store.get(&pin, 0..10), store.ready());
    is_unavailable(&get.err().unwrap());
    is_unavailable(&ready.unwrap_err());
    assert!(start.elapsed() < limit, "{:?}", start.elapsed());
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;

    let subject = Subject::directory().await;
    subject.put("north/private", &content(10), 10).await.unwrap();
    let support::Raw::Folder { root, .. } = &subject.raw else {
        panic!("a folder")
    };
    for (path, mode) in [
        ("", 0o700),
        (".incoming", 0o700),
        ("north", 0o700),
        ("north/private", 0o600),
    ] {
        let found = std::fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path}");
    }
}

#[tokio::test]
async fn sweeping_takes_old_remains_and_leaves_young_ones() {
    let subject = Subject::directory().await;
    let support::Raw::Folder { root, .. } = &subject.raw else {
        panic!("a folder")
    };
    let (old, young) = (root.join(".incoming/old"), root.join(".incoming/young"));
    std::fs::write(&young, "x").unwrap();
    let file = std::fs::File::create(&old).unwrap();
    let now = file.metadata().unwrap().modified().unwrap();
    file.set_modified(now - Duration::from_hours(2)).unwrap();
    assert_eq!(subject.store.sweep(3600).await, Ok(1));
    assert!(!old.exists());
    assert!(young.exists());
}

#[tokio::test]
async fn a_file_cut_while_it_is_read_ends_in_an_error() {
    let subject = Subject::directory().await;
    let content = content(1 << 20);
    let uploaded = subject.put("north/cut", &content, 1 << 20).await.unwrap();
    let mut stream = subject.store.get(&uploaded.pin, 0..len(&content)).await.unwrap();
    stream.next().await.unwrap().unwrap();
    subject.overwrite("north/cut", b"short").await;
    assert_eq!(stream.next().await.unwrap().unwrap_err(), BlobError::Changed);
}

#[cfg(unix)]
#[tokio::test]
async fn links_that_lead_nowhere_are_no_word_on_other_files() {
    let subject = Subject::directory().await;
    subject.put("north/a", &content(10), 10).await.unwrap();
    let support::Raw::Folder { root, .. } = &subject.raw else {
        panic!("a folder")
    };
    let north = root.join("north");
    for (name, target) in [
        ("loop", north.join("loop")),
        ("nowhere", north.join("none")),
        ("through-a-file", north.join("a/b")),
    ] {
        std::os::unix::fs::symlink(target, north.join(name)).unwrap();
    }
    let listed = subject.store.list(&tenant("north"), None).await.unwrap().objects;
    let names: Vec<_> = listed.iter().map(|object| object.name.as_str()).collect();
    assert_eq!(names, ["a"]);
}
