//! The scan gate, with ClamAV: nothing leaves before it was found clean, and nothing stays out once it was found infected.

use std::io::Write as _;
use std::time::{Duration, Instant};

use handoff::config::{Scan, ScannerAddress, ScannerKind};
use handoff::wiring::Identity;
use handoff_domain::ids::{BinaryId, TenantId};
use handoff_domain::time::Span;
use handoff_integration_tests::provider::Provider;
use handoff_integration_tests::proxy::Proxy;
use handoff_integration_tests::scene::{ADA, Referral, noise, task, upload};
use handoff_integration_tests::slow::SlowDownload;
use handoff_integration_tests::visitor::Visitor;
use handoff_integration_tests::{
    Answer, Backend, Client, TestApp, eventually, free_address, needed, on_both,
};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The EICAR test file, in two parts, so that no scanner takes this source for it.
const EICAR: [&str; 2] = [
    r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-",
    "ANTIVIRUS-TEST-FILE!$H+H*",
];
const WITHHELD: &str = "document-withheld";
/// How long a verdict may take in a debug build while other tests run.
const SOON: Duration = Duration::from_secs(5);

fn eicar() -> Vec<u8> {
    EICAR.concat().into_bytes()
}

fn clamd() -> String {
    needed("HANDOFF_TEST_CLAMD_ADDRESS")
}

/// The daemon at an address, whose verdicts are good for so long, for content up to a size.
fn scanned_at(address: &str, max_age: Duration, max_size: u64) -> Scan {
    Scan {
        kind: ScannerKind::ClamAv {
            address: ScannerAddress::Tcp(address.parse().expect("an address")),
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_mins(1),
            max_size,
        },
        max_age,
        at_once: 4,
    }
}

fn scanned() -> Scan {
    scanned_at(&clamd(), Duration::from_hours(1), 32 << 20)
}

async fn start(backend: Backend, scan: Scan) -> TestApp {
    TestApp::start_with(backend, |options| options.scan = Some(scan)).await
}

/// What the audit holds of scans of a Binary, oldest first.
async fn scans_of(app: &TestApp, binary: &str) -> Vec<Value> {
    scans_shown_to(&app.client("auditor").await, binary).await
}

async fn scans_shown_to(auditor: &Client, binary: &str) -> Vec<Value> {
    let path = format!("/fhir/AuditEvent?entity=Binary/{binary}&subtype=content-scanned&_count=50");
    let found = auditor.get(&path).await.expect(200).json();
    let mut rows: Vec<Value> = found["entry"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| entry["resource"].clone())
        .collect();
    rows.reverse();
    rows
}

/// Waits until the content may be fetched. Until then it is withheld, and nothing else.
async fn until_released(referral: &Referral) {
    let path = referral.content_path();
    eventually("the content is released", async || {
        referral.lane.head(&path).await.expect_one_of(&[200, 403]).status == 200
    })
    .await;
}

async fn until_found_infected(app: &TestApp, binary: &str) -> Value {
    eventually("malware is found", async || {
        scans_of(app, binary)
            .await
            .iter()
            .any(|row| row.to_string().contains("\"infected\""))
    })
    .await;
    scans_of(app, binary).await.pop().expect("its row")
}

async fn ask_for_link(referral: &Referral) -> Answer {
    let ask = json!({"task": format!("Task/{}", referral.task), "actor": {"reference": "Practitioner/lane"}});
    let path = format!("/files/{}/access-grants", referral.document.id);
    referral.ehr.post_plain(&path, &ask).await
}

async fn open_link(client: &Client, link: &str) -> Answer {
    let (page, secret) = link.split_once('#').expect("a secret");
    client.post_plain(page, &json!({"secret": secret})).await
}

fn text_of(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

async fn break_glass(app: &TestApp, binary: &str) -> Answer {
    let glass = app.client("glass").await;
    let request = glass
        .request(Method::GET, &format!("/fhir/Binary/{binary}"))
        .header("x-break-glass-reason", "cardiac arrest");
    glass.send(request).await
}

async fn resume(referral: &Referral) -> Answer {
    let digest = Sha256::digest(&referral.document.content);
    let etag = digest
        .iter()
        .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let request = referral
        .lane
        .request(Method::GET, &referral.content_path())
        .header("range", "bytes=1000-")
        .header("if-range", format!("\"{etag}\""));
    referral.lane.send(request).await
}

/// Asks the daemon by itself.
async fn ask_clamd(command: &[u8], content: Option<&[u8]>) -> String {
    let mut link = TcpStream::connect(clamd()).await.expect("clamd listens");
    link.write_all(command).await.expect("it reads");
    if let Some(content) = content {
        for chunk in content.chunks(1 << 20) {
            let length = u32::try_from(chunk.len()).expect("a length");
            link.write_all(&length.to_be_bytes()).await.expect("it reads");
            link.write_all(chunk).await.expect("it reads");
        }
        link.write_all(&[0; 4]).await.expect("it reads");
    }
    let mut said = String::new();
    link.read_to_string(&mut said).await.expect("it answers");
    said
}

/// Teaches the daemon that this content is malware, and waits until it knows.
async fn teach(content: &[u8]) {
    let digest = Sha256::digest(content);
    let digest = digest
        .iter()
        .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let folder = needed("HANDOFF_TEST_CLAMD_SIGNATURES");
    let mut file = std::fs::File::create(format!("{folder}/{digest}.hsb")).expect("a signature");
    writeln!(file, "{digest}:{}:Handoff.Test.Turned", content.len()).expect("it is written");
    drop(file);
    ask_clamd(b"zRELOAD\0", None).await;
    eventually("clamd knows the signature", async || {
        ask_clamd(b"zINSTREAM\0", Some(content)).await.contains("FOUND")
    })
    .await;
}

on_both! {
    async fn clean_content_is_released_within_a_moment_and_infected_content_never(backend) {
        let proxy = Proxy::before(&clamd()).await;
        let address = proxy.address.to_string();
        let app = start(backend, scanned_at(&address, Duration::from_hours(1), 32 << 20)).await;
        let before = app.metric("handoff_scan_infected_total").await;
        let clean = Referral::set(&app).await;
        let uploaded = Instant::now();
        until_released(&clean).await;
        let took = uploaded.elapsed();
        assert!(took < SOON, "{took:?}");
        assert_eq!(clean.fetch(&clean.lane).await.expect(200).body, clean.document.content);

        // Not before its document and its Task are there.
        proxy.refuse();
        let bad = Referral::with_content(&app, &eicar()).await;
        proxy.forward();
        let binary = bad.document.binary.clone();
        let row = until_found_infected(&app, &binary).await;
        // What was found in what, and whom it is about.
        let told = row.to_string();
        for said in ["Handoff.Test.Eicar.UNOFFICIAL", "ClamAV", ADA, &bad.document.id, "Device/handoff"] {
            assert!(told.contains(said), "{said}: {told}");
        }
        for path in [
            bad.content_path(),
            format!("/fhir/Binary/{binary}"),
            format!("/fhir/Binary/{binary}/_history/1"),
        ] {
            let refused = bad.lane.get(&path).await.refused(403, WITHHELD);
            assert!(text_of(&refused).contains("malware was found"), "{}", text_of(&refused));
            bad.lane.head(&path).await.expect(403);
            let wrapped = bad.lane.request(Method::GET, &path).header("accept", "application/fhir+json");
            bad.lane.send(wrapped).await.refused(403, WITHHELD);
        }
        break_glass(&app, &binary).await.refused(403, WITHHELD);
        ask_for_link(&bad).await.refused(409, WITHHELD);
        let ends: Vec<_> = bad.grants().await.iter().map(|g| (g["status"].clone(), g["reason"].clone())).collect();
        assert_eq!(ends, [(json!("revoked"), json!(WITHHELD))]);

        // Nothing is granted of it again: not by another Task, nor by an update that names the same content.
        let another = task("accepted", &bad.document.id, Some("Practitioner/lane"));
        bad.ehr.post("/fhir/Task", &another).await.expect(201);
        let path = format!("/fhir/DocumentReference/{}", bad.document.id);
        let mut same = bad.ehr.get(&path).await.expect(200).json();
        same["description"] = json!("The same letter");
        bad.ehr.put(&path, &same).await.expect(200);
        bad.move_to(&bad.ehr, "ready").await.expect(200);
        assert_eq!(bad.grants().await.len(), 1);

        // Nor of the same bytes under another name.
        let again = Referral::with_content(&app, &eicar()).await;
        until_found_infected(&app, &again.document.binary).await;
        again.fetch(&again.lane).await.refused(403, WITHHELD);
        assert!(app.metric("handoff_scan_infected_total").await >= before + 2.0);
        assert!(app.metric("handoff_scans_total{verdict=\"clean\"}").await >= 1.0);
    }

    async fn while_the_scanner_is_down_nothing_is_released_and_nothing_is_lost(backend) {
        let proxy = Proxy::before(&clamd()).await;
        proxy.refuse();
        let address = proxy.address.to_string();
        let app = start(backend, scanned_at(&address, Duration::from_hours(1), 32 << 20)).await;
        let (clean, bad) = (Referral::set(&app).await, Referral::with_content(&app, &eicar()).await);
        let mut links = Vec::new();
        for referral in [&clean, &bad] {
            // The link is given; what it leads to waits.
            let issued = ask_for_link(referral).await.expect(201).json();
            links.push(issued["link"].as_str().unwrap().to_owned());
        }
        eventually("the scanner is missed", async || {
            app.metric("handoff_scan_failures_total{kind=\"unreachable\"}").await >= 1.0
        })
        .await;
        for (referral, link) in [(&clean, &links[0]), (&bad, &links[1])] {
            referral.fetch(&referral.lane).await.refused(403, WITHHELD);
            break_glass(&app, &referral.document.binary).await.refused(403, WITHHELD);
            let told = open_link(&referral.lane, link).await.refused(403, WITHHELD);
            assert!(text_of(&told).contains("being checked for malware"), "{}", text_of(&told));
        }
        eventually("the wait is measured", async || app.metric("handoff_scan_lag_seconds").await > 0.0).await;
        let ready = reqwest::get(format!("{}/health/ready", app.server.admin_url)).await.unwrap();
        assert_eq!(ready.status(), 200, "readiness is no matter of the scanner");

        proxy.forward();
        until_released(&clean).await;
        let opened = open_link(&clean.lane, &links[0]).await.expect(303);
        let content = opened.header("location").unwrap().to_owned();
        assert_eq!(clean.lane.get(&content).await.expect(200).body, clean.document.content);
        until_found_infected(&app, &bad.document.binary).await;
        let told = open_link(&bad.lane, &links[1]).await.refused(403, WITHHELD);
        assert!(text_of(&told).contains("malware was found"), "{}", text_of(&told));
    }

    /// A person with a link is told in plain words why it does not open, and that asking for another would not help.
    async fn the_page_of_a_link_says_that_the_document_is_checked_and_what_came_of_it(backend) {
        let proxy = Proxy::before(&clamd()).await;
        proxy.refuse();
        let listen = free_address();
        let provider = Provider::for_pages(&format!("http://{listen}")).await;
        let app = TestApp::start_with(backend, |options| {
            options.listen = listen;
            options.identity = Identity::Issuers(vec![provider.with_sign_in()]);
            options.scan = Some(scanned_at(&proxy.address.to_string(), Duration::from_hours(1), 32 << 20));
        })
        .await;
        let (ehr, lane) = (provider.client(&app, "ehr").await, provider.client(&app, "lane").await);
        let referral = Referral::between(ehr, (lane, "Practitioner/lane"), &eicar()).await;
        let issued = ask_for_link(&referral).await.expect(201).json();
        let (page, secret) = issued["link"].as_str().unwrap().split_once('#').unwrap();
        let page = Url::parse(page).unwrap();
        let document = Url::parse(&format!("{page}/document")).unwrap();

        let mut lane = Visitor::default();
        let shell = lane.get(&page).await.says(200, "one document for one person").text;
        let href = shell.split("href=\"").find(|part| part.contains("/sign-in?")).unwrap();
        let href = href.split('"').next().unwrap().replace("&amp;", "&");
        let begun = lane.get(&Url::parse(&href).unwrap()).await.to.unwrap();
        let back = lane.sign_in_at(&provider.issuer, begun, "lane").await;
        lane.get(&back).await;
        let form = lane.get(&page).await.says(200, "Signed in as").field("form");
        let fields = [("form", form.as_str()), ("secret", secret)];
        let waits = lane.post(&document, &fields).await;
        let waits = waits.says(403, "The document is being checked for malware; try again in a minute.");
        assert!(!waits.text.contains("Ask for a fresh link"), "{}", waits.text);
        proxy.forward();
        let auditor = provider.client(&app, "auditor").await;
        eventually("it is scanned", async || {
            !scans_shown_to(&auditor, &referral.document.binary).await.is_empty()
        })
        .await;
        let told = lane.post(&document, &fields).await.says(
            403,
            "Malware was found in the document, so nobody can open it; ask the sender for a clean copy.",
        );
        assert!(!told.text.contains("Ask for a fresh link"), "{}", told.text);
    }

    async fn a_stale_verdict_releases_nothing_before_the_content_was_scanned_again(backend) {
        let proxy = Proxy::before(&clamd()).await;
        let address = proxy.address.to_string();
        let app = start(backend, scanned_at(&address, Duration::from_secs(80), 32 << 20)).await;
        let referral = Referral::set(&app).await;
        until_released(&referral).await;
        assert_eq!(scans_of(&app, &referral.document.binary).await.len(), 1);
        proxy.refuse();
        app.clock.advance(Span::seconds(81));
        let told = referral.fetch(&referral.lane).await.refused(403, WITHHELD);
        assert!(text_of(&told).contains("once more"), "{}", text_of(&told));
        proxy.forward();
        until_released(&referral).await;
        referral.fetch(&referral.lane).await.expect(200);
        let rows = scans_of(&app, &referral.document.binary).await;
        assert_eq!(rows.len(), 2, "{rows:#?}");
    }

    /// A rescan with newer signatures finds what the first did not.
    async fn a_verdict_that_turns_cuts_the_download_and_takes_back_what_was_granted(backend) {
        let app = start(backend, scanned_at(&clamd(), Duration::from_secs(80), 32 << 20)).await;
        let replica = match backend {
            Backend::Production => Some(app.replica().await),
            Backend::Embedded => None,
        };
        let mut content = noise(20 * 1024 * 1024);
        content.extend_from_slice(format!("{backend:?} {}", std::process::id()).as_bytes());
        let mut referral = Referral::with_content(&app, &content).await;
        until_released(&referral).await;
        teach(&content).await;
        if let Some(replica) = &replica {
            referral.lane = referral.lane.at(&replica.server.base_url);
        }
        let download = SlowDownload::start(&referral.lane, &referral.content_path(), 300_000).await;
        let watching = tokio::spawn(download.over());
        let turned = Instant::now();
        app.clock.advance(Span::seconds(75));
        let (over, whole) = watching.await.unwrap();
        assert!(!whole, "the client must see an error");
        let took = over.saturating_duration_since(turned);
        assert!(took < SOON, "{took:?}");
        let row = until_found_infected(&app, &referral.document.binary).await;
        assert!(row.to_string().contains("Handoff.Test.Turned.UNOFFICIAL"), "{row}");

        resume(&referral).await.refused(403, WITHHELD);
        referral.fetch(&referral.lane).await.refused(403, WITHHELD);
        break_glass(&app, &referral.document.binary).await.refused(403, WITHHELD);
        ask_for_link(&referral).await.refused(409, WITHHELD);
        eventually("the cut is recorded", async || {
            let rows = referral.audited(&app).await;
            rows.iter().any(|row| {
                let text = row.to_string();
                text.contains("redemption-cut-off") && text.contains(WITHHELD)
            })
        })
        .await;
        let verdicts: Vec<bool> = scans_of(&app, &referral.document.binary)
            .await
            .iter()
            .map(|row| row.to_string().contains("\"infected\""))
            .collect();
        assert_eq!(verdicts, [false, true]);
    }

    async fn content_larger_than_what_is_scanned_is_withheld(backend) {
        let app = start(backend, scanned_at(&clamd(), Duration::from_hours(1), 1000)).await;
        let fits = Referral::with_content(&app, &noise(1000)).await;
        let beyond = Referral::with_content(&app, &noise(1001)).await;
        until_released(&fits).await;
        eventually("it is known to be too large", async || {
            !scans_of(&app, &beyond.document.binary).await.is_empty()
        })
        .await;
        let told = beyond.fetch(&beyond.lane).await.refused(403, WITHHELD);
        assert!(text_of(&told).contains("too large"), "{}", text_of(&told));
    }

    /// What the store holds under the name of the content is not scanned in its place.
    async fn content_that_was_replaced_behind_the_server_has_no_verdict(backend) {
        let proxy = Proxy::before(&clamd()).await;
        proxy.refuse();
        let address = proxy.address.to_string();
        let app = start(backend, scanned_at(&address, Duration::from_hours(1), 32 << 20)).await;
        let referral = Referral::set(&app).await;
        app.replace_content(&referral.document.binary, b"%PDF-1.4 something else").await;
        proxy.forward();
        eventually("it is told that there is no verdict", async || {
            let rows = scans_of(&app, &referral.document.binary).await;
            rows.iter().any(|row| row.to_string().contains("\"failed\""))
        })
        .await;
        referral.fetch(&referral.lane).await.refused(403, WITHHELD);
    }

    async fn without_the_rule_nothing_is_scanned_and_once_it_comes_all_that_is_there(backend) {
        let mut app = TestApp::start(backend).await;
        let (clean, bad) = (Referral::set(&app).await, Referral::with_content(&app, &eicar()).await);
        assert_eq!(bad.fetch(&bad.lane).await.expect(200).body, eicar());
        let (tenant, id) = (TenantId::default_tenant(), BinaryId::parse(clean.document.binary.clone()).unwrap());
        let known = app.server.app.read(move |read| Ok(read.scan(&tenant, &id)?)).await.unwrap();
        assert_eq!(known, None);
        assert_eq!(scans_of(&app, &bad.document.binary).await, [Value::Null; 0]);

        app.halt().await;
        app.options.scan = Some(scanned());
        let again = TestApp::start_again(&app).await;
        let lane = again.client("lane").await;
        let path = clean.content_path();
        eventually("what was there is scanned", async || lane.head(&path).await.status == 200).await;
        until_found_infected(&again, &bad.document.binary).await;
        lane.get(&bad.content_path()).await.refused(403, WITHHELD);
    }
}

/// Replicas that look for the same content at the same time scan each of it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_the_work_and_scan_nothing_twice() {
    /// What the daemon is sent of one: `VERSION`, then the command, a chunk of nine bytes with its length, and the end.
    const ONE: u64 = 9 + 10 + 4 + 9 + 4;
    let proxy = Proxy::before(&clamd()).await;
    // Long enough for both to see the same content.
    proxy.delay(Duration::from_millis(30));
    let address = proxy.address.to_string();
    let scan = scanned_at(&address, Duration::from_hours(1), 32 << 20);
    let app = start(Backend::Production, scan).await;
    let replica = app.replica().await;
    let ehr = app.client("ehr").await;
    let there = ehr.at(&replica.server.base_url);
    let uploading: Vec<_> = (0..24_u64)
        .map(|number| {
            let client = if number % 2 == 0 {
                ehr.clone()
            } else {
                there.clone()
            };
            tokio::spawn(async move { upload(&client, format!("letter {number:02}").as_bytes()).await })
        })
        .collect();
    let mut binaries = Vec::new();
    for one in uploading {
        binaries.push(one.await.unwrap());
    }
    eventually("all are scanned", async || {
        for binary in &binaries {
            if scans_of(&app, binary).await.is_empty() {
                return false;
            }
        }
        true
    })
    .await;
    for binary in &binaries {
        let rows = scans_of(&app, binary).await;
        assert_eq!(rows.len(), 1, "{binary}: {rows:#?}");
    }
    assert_eq!(proxy.requested(), 24 * ONE);
}

/// Content that can't be read waits, whatever the reason, and holds up nothing that comes after it.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_cannot_be_read_holds_up_no_other() {
    let proxy = Proxy::before(&clamd()).await;
    proxy.refuse();
    let address = proxy.address.to_string();
    let app = start(
        Backend::Embedded,
        scanned_at(&address, Duration::from_hours(1), 32 << 20),
    )
    .await;
    let bad = Referral::set(&app).await;
    // A link that leads to itself: the disk refuses to open it, as it refuses other things for other reasons.
    let file = app.folder().join("blobs/default").join(&bad.document.binary);
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&file, &file).unwrap();
    let later = Referral::set(&app).await;
    proxy.forward();
    until_released(&later).await;
    bad.fetch(&bad.lane).await.refused(403, WITHHELD);
}
