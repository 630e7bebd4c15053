//! What the emulator can't show, asked of a storage account that is made up here: that reads are pinned by version
//! id and `ETag` alike, and what becomes of answers that are lost or cut.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod support;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::TryStreamExt as _;
use handoff_blobs::{AzureConfig, AzureCredential, BlobConfig, open};
use handoff_domain::ports::{BlobError, BlobPin, BlobStore, Uploaded};
use support::{NO_LIMIT, chunks, content, len};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

const VERSION: &str = "2026-07-01T10:00:00.0000000Z";

#[derive(Debug, Clone)]
struct Seen {
    method: String,
    path: String,
    query: HashMap<String, String>,
    headers: HashMap<String, String>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// First byte asked for.
    fn from(&self) -> usize {
        let range = self.header("x-ms-range").unwrap().strip_prefix("bytes=").unwrap();
        range.split_once('-').unwrap().0.parse().unwrap()
    }
}

enum Answer {
    /// Status, further headers, and a body of which only so many bytes are sent before the connection is cut.
    Reply {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
        sent: usize,
    },
    /// The connection is closed without a word.
    Silence,
}

fn reply(status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Answer {
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    Answer::Reply {
        status,
        headers,
        sent: body.len(),
        body: body.to_vec(),
    }
}

/// A storage account that answers as it is told and remembers what it was asked.
struct Double {
    url: Url,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Double {
    async fn start(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/acct", listener.local_addr().unwrap())).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                tokio::spawn(async move {
                    let (stream, request) = receive(stream).await;
                    log.lock().unwrap().push(request.clone());
                    send(stream, answer(&request)).await;
                });
            }
        });
        Self { url, seen }
    }

    async fn store(&self, credential: AzureCredential) -> Arc<dyn BlobStore> {
        let config = AzureConfig {
            account_url: self.url.clone(),
            container: "handoff".to_owned(),
            credential,
            create_container: false,
        };
        open(&BlobConfig::Azure(config)).await.unwrap()
    }

    async fn keyed(&self) -> Arc<dyn BlobStore> {
        self.store(AzureCredential::Key("c2VjcmV0".into())).await
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn receive(mut stream: TcpStream) -> (TcpStream, Seen) {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        assert!(
            stream.read_buf(&mut bytes).await.unwrap() > 0,
            "the request's head ended early"
        );
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap().split(' ');
    let method = first.next().unwrap().to_owned();
    let url = Url::parse(&format!("http://double{}", first.next().unwrap())).unwrap();
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let body: usize = headers.get("content-length").map_or(0, |n| n.parse().unwrap());
    while bytes.len() < head_end + 4 + body {
        assert!(
            stream.read_buf(&mut bytes).await.unwrap() > 0,
            "the request's body ended early"
        );
    }
    let query = url.query_pairs().into_owned().collect();
    (
        stream,
        Seen {
            method,
            path: url.path().to_owned(),
            query,
            headers,
        },
    )
}

async fn send(mut stream: TcpStream, answer: Answer) {
    let Answer::Reply {
        status,
        headers,
        body,
        sent,
    } = answer
    else {
        return;
    };
    let mut head = format!(
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\nDate: Wed, 01 Jul 2026 10:00:00 GMT\r\n\
         Last-Modified: Wed, 01 Jul 2026 10:00:00 GMT\r\nx-ms-creation-time: Wed, 01 Jul 2026 10:00:00 GMT\r\n\
         x-ms-request-id: 00000000-0000-4000-8000-000000000000\r\nx-ms-blob-type: BlockBlob\r\n\
         x-ms-server-encrypted: true\r\nx-ms-request-server-encrypted: true\r\nx-ms-delete-type-permanent: false\r\n",
        body.len()
    );
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body[..sent]).await.unwrap();
    stream.shutdown().await.unwrap();
}

async fn put(store: &Arc<dyn BlobStore>, size: usize) -> Result<Uploaded, BlobError> {
    store
        .put(
            "north/b",
            "application/pdf",
            chunks(&content(size), 1 << 20),
            NO_LIMIT,
        )
        .await
}

async fn get(
    store: &Arc<dyn BlobStore>,
    pin: &BlobPin,
    range: std::ops::Range<u64>,
) -> Result<Vec<u8>, BlobError> {
    let stream = store.get(pin, range).await?;
    stream
        .try_fold(Vec::new(), |all, chunk| async move {
            Ok([all, chunk.to_vec()].concat())
        })
        .await
}

fn pinned() -> BlobPin {
    BlobPin {
        key: "north/b".to_owned(),
        version_id: Some(VERSION.to_owned()),
        etag: "\"0x8D\"".to_owned(),
    }
}

#[tokio::test]
async fn an_upload_is_pinned_by_the_version_and_etag_of_its_last_request() {
    let double = Double::start(|seen| {
        let commits = seen.query.get("comp").map(String::as_str) != Some("block");
        let headers: &[_] = if commits {
            &[("ETag", "\"0x8D\""), ("x-ms-version-id", VERSION)]
        } else {
            &[]
        };
        reply(201, headers, b"")
    })
    .await;
    let store = double.keyed().await;
    for size in [10, (9 << 20) + 1] {
        assert_eq!(put(&store, size).await.unwrap().pin, pinned());
    }
    let seen = double.seen();
    let comps: Vec<_> = seen
        .iter()
        .map(|s| s.query.get("comp").map(String::as_str))
        .collect();
    assert_eq!(
        comps,
        [
            None,
            Some("block"),
            Some("block"),
            Some("block"),
            Some("blocklist")
        ]
    );
    for commit in [&seen[0], &seen[4]] {
        assert_eq!(commit.header("if-none-match"), Some("*"));
        assert_eq!(commit.header("x-ms-blob-content-type"), Some("application/pdf"));
        assert_eq!(commit.path, "/acct/handoff/north/b");
    }
}

#[tokio::test]
async fn every_read_names_version_and_etag_and_the_last_byte() {
    let double = Double::start(|seen| {
        let body: &[u8] = if seen.method == "HEAD" { b"" } else { b"hello" };
        reply(
            if body.is_empty() { 200 } else { 206 },
            &[("ETag", "\"0x8D\"")],
            body,
        )
    })
    .await;
    let store = double.keyed().await;
    assert_eq!(get(&store, &pinned(), 3..8).await.unwrap(), b"hello");
    assert_eq!(get(&store, &pinned(), 0..0).await.unwrap(), b"");
    let seen = double.seen();
    assert_eq!(seen.len(), 2);
    for read in &seen {
        assert_eq!(read.query.get("versionid").map(String::as_str), Some(VERSION));
        assert_eq!(read.header("if-match"), Some("\"0x8D\""));
    }
    assert_eq!(seen[0].header("x-ms-range"), Some("bytes=3-7"));
    assert_eq!(seen[0].header("x-ms-range-get-content-crc64"), None);
}

#[tokio::test]
async fn deleting_takes_the_version_along() {
    let double = Double::start(|seen| {
        // The blob itself was already replaced; only our version is left.
        if seen.query.contains_key("versionid") {
            reply(202, &[], b"")
        } else {
            reply(412, &[], b"")
        }
    })
    .await;
    double.keyed().await.delete(&pinned()).await.unwrap();
    let seen = double.seen();
    assert!(seen.iter().all(|s| s.method == "DELETE"));
    assert_eq!(seen[0].header("if-match"), Some("\"0x8D\""));
    assert_eq!(seen[1].query.get("versionid").map(String::as_str), Some(VERSION));
}

#[tokio::test]
async fn an_upload_whose_last_answer_was_lost_is_found_again() {
    let marks = Mutex::new(Vec::<String>::new());
    let double = Double::start(move |seen| {
        let mut marks = marks.lock().unwrap();
        match (seen.method.as_str(), marks.first()) {
            ("PUT", None) => {
                marks.push(seen.header("x-ms-meta-upload").unwrap().to_owned());
                Answer::Silence
            }
            ("PUT", Some(_)) => reply(409, &[("x-ms-error-code", "BlobAlreadyExists")], b""),
            (_, mark) => reply(
                200,
                &[
                    ("ETag", "\"0x8D\""),
                    ("x-ms-version-id", VERSION),
                    ("x-ms-meta-upload", mark.map_or("", String::as_str)),
                ],
                b"",
            ),
        }
    })
    .await;
    assert_eq!(put(&double.keyed().await, 10).await.unwrap().pin, pinned());
}

#[tokio::test]
async fn a_key_that_another_upload_took_is_not_ours() {
    let double = Double::start(|seen| match seen.method.as_str() {
        "PUT" => reply(409, &[("x-ms-error-code", "BlobAlreadyExists")], b""),
        _ => reply(200, &[("ETag", "\"0x8D\""), ("x-ms-meta-upload", "another")], b""),
    })
    .await;
    assert_eq!(
        put(&double.keyed().await, 10).await.unwrap_err(),
        BlobError::Changed
    );
}

#[tokio::test]
async fn a_download_whose_connection_breaks_goes_on_where_it_stopped() {
    let whole = content(300_000);
    let served = whole.clone();
    let double = Double::start(move |seen| {
        let rest = served[seen.from()..].to_vec();
        let sent = rest.len().min(100_000);
        Answer::Reply {
            status: 206,
            headers: vec![("ETag", "\"0x8D\"".to_owned())],
            body: rest,
            sent,
        }
    })
    .await;
    let store = double.keyed().await;
    assert!(get(&store, &pinned(), 0..len(&whole)).await.unwrap() == whole);
    let seen = double.seen();
    assert!(seen.len() >= 3, "{seen:?}");
    assert!(seen.iter().all(|s| s.header("if-match") == Some("\"0x8D\"")));
}

#[tokio::test]
async fn a_download_that_brings_nothing_more_ends_in_an_error() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let double = Double::start(move |seen| {
        counted.fetch_add(1, Ordering::SeqCst);
        let sent = if seen.from() == 0 { 10 } else { 0 };
        Answer::Reply {
            status: 206,
            headers: vec![("ETag", "\"0x8D\"".to_owned())],
            body: vec![7; 1000],
            sent,
        }
    })
    .await;
    let error = get(&double.keyed().await, &pinned(), 0..1000).await.unwrap_err();
    assert!(matches!(error, BlobError::Unavailable(_)), "{error:?}");
    assert_eq!(
        requests.load(Ordering::SeqCst),
        3,
        "one that brought bytes, and two that did not"
    );
}

#[tokio::test]
async fn a_busy_account_is_asked_again_and_then_unavailable() {
    let double = Double::start(|_| reply(503, &[("x-ms-error-code", "ServerBusy")], b"")).await;
    let error = get(&double.keyed().await, &pinned(), 0..10).await.unwrap_err();
    assert_eq!(error, BlobError::Unavailable("status 503 ServerBusy".to_owned()));
    assert!((2..=4).contains(&double.seen().len()));
}

#[tokio::test]
async fn no_error_shows_the_sas_or_the_address() {
    let double = Double::start(|seen| {
        assert_eq!(seen.query.get("sig").map(String::as_str), Some("s3cret"));
        match seen.method.as_str() {
            "GET" => reply(403, &[("x-ms-error-code", "AuthenticationFailed")], b""),
            _ => Answer::Silence,
        }
    })
    .await;
    let store = double
        .store(AzureCredential::Sas("?sv=2022-11-02&sig=s3cret".into()))
        .await;
    let errors = [
        get(&store, &pinned(), 0..10).await.unwrap_err(),
        put(&store, 10).await.unwrap_err(),
        store.ready().await.unwrap_err(),
    ];
    assert_eq!(
        errors[0],
        BlobError::Unavailable("our credential is refused: 403 AuthenticationFailed".to_owned())
    );
    for error in errors {
        let shown = format!("{error} {error:?}");
        assert!(
            !shown.contains("s3cret") && !shown.contains("127.0.0.1"),
            "{shown}"
        );
    }
}

const TAGS: &[u8] = b"\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"utf-8\"?><Tags><TagSet><Tag><Key>Malware Scanning scan result</Key>\
    <Value>No threats found</Value></Tag><Tag><Key>Malware Scanning scan time UTC</Key><Value>2026-07-01 10:00:00Z</Value></Tag>\
    </TagSet></Tags>";
const NO_TAGS: &[u8] = b"<?xml version=\"1.0\" encoding=\"utf-8\"?><Tags><TagSet /></Tags>";

#[tokio::test]
async fn tags_are_those_of_the_pinned_version_and_of_no_other_object() {
    let double = Double::start(|seen| match seen.query.get("comp").map(String::as_str) {
        Some("tags") => reply(200, &[("Content-Type", "application/xml")], TAGS),
        _ => reply(200, &[("ETag", "\"0x8D\"")], b""),
    })
    .await;
    let tags = double.keyed().await.tags(&pinned()).await.unwrap();
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        tags,
        [
            tag("Malware Scanning scan result", "No threats found"),
            tag("Malware Scanning scan time UTC", "2026-07-01 10:00:00Z"),
        ]
    );
    let seen = double.seen();
    assert_eq!(seen.len(), 2);
    for one in &seen {
        assert_eq!(one.query.get("versionid").map(String::as_str), Some(VERSION));
    }
    assert_eq!(
        (seen[0].method.as_str(), seen[0].path.as_str()),
        ("GET", "/acct/handoff/north/b")
    );
    assert_eq!(
        (seen[1].method.as_str(), seen[1].header("if-match")),
        ("HEAD", Some("\"0x8D\""))
    );
}

#[tokio::test]
async fn a_blob_without_tags_has_none_and_tags_of_another_object_count_for_nothing() {
    let double = Double::start(|seen| match seen.query.get("comp").map(String::as_str) {
        Some("tags") => reply(200, &[("Content-Type", "application/xml")], NO_TAGS),
        _ => reply(200, &[("ETag", "\"0x8D\"")], b""),
    })
    .await;
    assert_eq!(double.keyed().await.tags(&pinned()).await, Ok(Vec::new()));

    let unversioned = BlobPin {
        version_id: None,
        ..pinned()
    };
    let replaced = Double::start(|seen| {
        match (
            seen.query.get("comp").map(String::as_str),
            seen.header("if-match"),
        ) {
            (Some("tags"), _) => reply(200, &[("Content-Type", "application/xml")], TAGS),
            (_, Some(_)) => reply(412, &[], b""),
            _ => reply(200, &[("ETag", "\"0x8E\"")], b""),
        }
    })
    .await;
    let tags = replaced.keyed().await.tags(&unversioned).await;
    assert_eq!(tags, Err(BlobError::Changed));

    let gone = Double::start(|_| reply(404, &[("x-ms-error-code", "BlobNotFound")], b"")).await;
    assert_eq!(gone.keyed().await.tags(&pinned()).await, Err(BlobError::NotFound));
    let denied = Double::start(|_| reply(403, &[], b"")).await;
    let tags = denied.keyed().await.tags(&pinned()).await;
    assert!(matches!(tags, Err(BlobError::Unavailable(_))), "{tags:?}");
}
