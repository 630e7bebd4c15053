//! The program as people start it: the demo and its printed commands, and `serve` with a configuration, a database,
//! a content store and an issuer that are all real.

use std::path::Path;
use std::process::Command;

use handoff_integration_tests::browser::Scenario;
use handoff_integration_tests::process::{Program, run, run_with};
use handoff_integration_tests::scene::{document, task};
use handoff_integration_tests::slow::SlowDownload;
use handoff_integration_tests::{Client, http_client, needed, psql};
use serde_json::Value;
use tempfile::TempDir;

/// Of the specialist, at the certified provider; published in `integration-tests/services`.
const PROVIDER_SECRET: &str = "test-only-not-a-secret";

/// Fails unless each comes in the text, in this order.
#[track_caller]
fn in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let Some(at) = rest.find(part) else {
            panic!("`{part}` does not come in its place:\n{text}")
        };
        rest = &rest[at + part.len()..];
    }
}

const STORY: [&str; 16] = [
    "POST /fhir/Binary",
    "201 Created",
    "sha-256",
    "POST /fhir/DocumentReference",
    "POST /fhir/Task",
    "accepted, owner Practitioner/lane",
    "200 OK",
    "/access-grants",
    "POST /handoff/",
    "303 See Other",
    "sha-256",
    "exhausted",
    "404",
    "completed",
    "403   task-completed",
    "redemption-completed",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_plays_its_story_once_and_ends_well() {
    // Its own default, where tests ask for more.
    let quiet = [("HANDOFF__LOG__FILTER", "warn")];
    let ended = run_with(&["demo", "--once", "--port", "0"], &quiet).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    in_order(&ended.out, &STORY);
    // The checksum that the specialist sees is the one of what the EHR sent.
    let sums: Vec<&str> = ended
        .out
        .split("sha-256 ")
        .skip(1)
        .filter_map(|rest| rest.get(..64))
        .collect();
    assert!(
        sums.len() >= 2 && sums.iter().all(|sum| *sum == sums[0]),
        "{sums:?}"
    );
    assert_eq!(ended.err, "", "nothing stands between the lines of the story");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_printed_commands_work_as_printed_and_a_signal_ends_the_demo() {
    let mut demo = Program::start(&["demo", "--port", "0"]);
    let link = demo.line_with("played link").await;
    assert!(link.contains("/handoff/") && link.contains('#'));
    let fresh = demo.line_with("fresh link    http").await;
    let fresh = fresh.split_whitespace().last().unwrap().to_owned();
    // The last of the commands; each is printed whole on one line.
    demo.line_with("client_id=auditor").await;
    let commands: Vec<String> = demo
        .said
        .iter()
        .map(|l| l.trim().to_owned())
        .filter(|l| l.starts_with("curl "))
        .collect();
    assert!(commands.len() >= 5, "{commands:#?}");
    let folder = TempDir::new().unwrap();
    // Twice, since each may be tried again.
    for _ in 0..2 {
        for command in &commands {
            let output = shell(command, folder.path());
            if command.contains("/fhir/metadata") {
                assert_eq!(json(&output)["resourceType"], "CapabilityStatement");
            } else if command.contains("-o letter.pdf") {
                let letter = std::fs::read(folder.path().join("letter.pdf")).unwrap();
                assert!(letter.starts_with(b"%PDF"), "{output}");
                assert_eq!(output.trim(), format!("200 {} bytes in letter.pdf", letter.len()));
            } else if command.contains("/fhir/Binary/") {
                assert_eq!(
                    json(&output)["issue"][0]["details"]["coding"][0]["code"],
                    "task-completed"
                );
            } else if command.contains("/notifications/") {
                assert_eq!(json(&output)["issue"][0]["severity"], "information");
            } else if command.contains("/fhir/AuditEvent") {
                assert!(output.contains("redemption-completed"), "{output}");
            } else {
                assert!(
                    json(&output)["entry"].as_array().is_some_and(|e| !e.is_empty()),
                    "{command}: {output}"
                );
            }
        }
    }
    let told = serde_json::json!({"link": fresh, "label": "Sign in", "who": "Dr. Lane", "javaScript": true});
    let seen = Scenario::start("handoff-page").play(&told).await;
    assert_eq!(seen["pages"]["document"]["heading"], "Referral letter");
    assert!(seen["saved"]["length"].as_u64().is_some_and(|length| length > 0));
    demo.signal("TERM");
    assert_eq!(demo.ended().await, Some(0));
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Runs a command as somebody who pasted it.
fn shell(command: &str, folder: &Path) -> String {
    let output = Command::new("bash")
        .args(["-c", command])
        .current_dir(folder)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && complaint.is_empty(),
        "{command}: {complaint}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A database of its own on the tests' server, gone when dropped.
pub struct OwnDatabase(String);

impl OwnDatabase {
    pub fn create(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        psql(&format!("CREATE DATABASE \"{name}\""));
        Self(name)
    }

    pub fn url(&self) -> String {
        let server = needed("HANDOFF_TEST_POSTGRES_URL");
        format!("{}/{}", server.rsplit_once('/').unwrap().0, self.0)
    }

    pub fn container(&self) -> String {
        format!("{}/{}", needed("HANDOFF_TEST_AZURITE_URL"), self.0)
    }
}

impl Drop for OwnDatabase {
    fn drop(&mut self) {
        psql(&format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_plays_on_the_production_stores_and_a_second_one_joins_with_its_issuer() {
    let database = OwnDatabase::create("demo-replicas");
    let (url, container) = (database.url(), database.container());
    let stores = ["--database", url.as_str(), "--blob", container.as_str()];
    let arguments = |more: &[&'static str]| [&["demo", "--port", "0"], more].concat();
    let mut first = Program::start(&[arguments(&["--no-play"]).as_slice(), &stores].concat());
    let (base, _) = first.addresses().await;
    let issuer = format!("{base}/dev-issuer");
    let second = [
        &["demo", "--port", "0", "--once", "--issuer", issuer.as_str()],
        stores.as_slice(),
    ]
    .concat();
    let ended = run(&second).await;
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    in_order(&ended.out, &STORY);
    // Both stand on the same stores: what was played on one is seen on the other.
    let auditor = Client::sign_in(&http_client(), &base, &base, "auditor").await;
    let rows = auditor.get("/fhir/AuditEvent?_count=200").await.expect(200);
    assert!(
        String::from_utf8(rows.body)
            .unwrap()
            .contains("redemption-completed")
    );
    first.signal("TERM");
    assert_eq!(first.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_command_line_ends_with_2_and_every_command_has_help_with_an_example() {
    let wrong: [&[&str]; 6] = [
        &[],
        &["serv"],
        &["demo", "--port", "none"],
        &["demo", "--once", "--no-play"],
        &["config"],
        &["serve", "--nonsense"],
    ];
    for arguments in wrong {
        assert_eq!(run(arguments).await.code, Some(2), "{arguments:?}");
    }
    let commands: [&[&str]; 7] = [
        &[],
        &["serve"],
        &["demo"],
        &["migrate"],
        &["config", "check"],
        &["config", "show"],
        &["revoke"],
    ];
    for command in commands {
        let ended = run(&[command, &["--help"]].concat()).await;
        assert_eq!(ended.code, Some(0), "{command:?}");
        assert!(ended.out.contains("Example"), "{command:?}: {}", ended.out);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_is_for_this_machine_alone() {
    for unsafe_flags in [
        ["--database", "postgres://u:p@db.example.org/handoff"],
        ["--blob", "https://acct.blob.core.windows.net/handoff"],
        ["--issuer", "http://10.0.0.1:8080/dev-issuer"],
    ] {
        let ended = run(&[["demo", "--once"].as_slice(), &unsafe_flags].concat()).await;
        assert_eq!(ended.code, Some(1), "{unsafe_flags:?}: {}", ended.out);
        assert!(
            ended.err.contains("loopback") || ended.err.contains("another demo"),
            "{}",
            ended.err
        );
    }
}

fn write(folder: &Path, text: &str) -> String {
    let path = folder.join("handoff.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_configuration_is_told_with_every_problem_at_once() {
    let folder = TempDir::new().unwrap();
    let config = write(
        folder.path(),
        r#"
        [server]
        listen = "nowhere"
        public_url = "http://handoff.example.org"
        replicas = 3
        [database]
        url = "sqlite:/tmp/never.db"
        [blob]
        url = "file:///tmp/never"
        [demo]
        [timeouts]
        body_idle = "soon"
        [[issuers]]
        issuer = "http://login.example.org"
        "#,
    );
    for command in [["config", "check"].as_slice(), &["serve"], &["migrate"]] {
        let ended = run(&[command, &["--config", &config]].concat()).await;
        assert_eq!(ended.code, Some(1), "{command:?}");
        for key in [
            "`server.listen`",
            "`server.public_url`",
            "`database.url`",
            "`blobs.url`",
            "`demo`",
            "`timeouts.body_idle`",
            "`issuers.0.issuer`",
            "`issuers.0.audience`",
            "[blobs]",
        ] {
            assert!(
                ended.err.contains(key),
                "{command:?} does not name {key}: {}",
                ended.err
            );
        }
    }
    let missing = run(&["config", "check", "--config", "/nowhere/handoff.toml"]).await;
    assert_eq!(missing.code, Some(1));
}

/// A configuration that is fit to serve with, on the real parts.
fn good_config(folder: &Path, database: &OwnDatabase) -> String {
    std::fs::write(folder.join("database-url"), database.url()).unwrap();
    let text = format!(
        r#"
        [server]
        listen = "127.0.0.1:0"
        public_url = "https://handoff.example"
        replicas = 2
        [admin]
        listen = "127.0.0.1:0"
        [database]
        url_file = "{}"
        [blobs]
        url = "{}"
        create_container = true
        [log]
        filter = "debug"
        [[issuers]]
        issuer = "{}"
        audience = ["https://handoff.example/fhir"]
        client_actor = "Device"
        "#,
        folder.join("database-url").display(),
        database.container(),
        needed("HANDOFF_TEST_OIDC_ISSUER"),
    );
    write(folder, &text)
}

/// Signs in at the certified provider.
async fn provider_client(base: &str, name: &str) -> Client {
    let http = http_client();
    let issuer = needed("HANDOFF_TEST_OIDC_ISSUER");
    let discovery = http
        .get(format!("{issuer}/.well-known/openid-configuration"))
        .send()
        .await
        .unwrap();
    let discovery: Value = discovery.json().await.unwrap();
    let form = format!(
        "grant_type=client_credentials&client_id={name}&client_secret={PROVIDER_SECRET}\
         &resource=https%3A%2F%2Fhandoff.example%2Ffhir&scope=system%2F*.cruds"
    );
    let answer = http
        .post(discovery["token_endpoint"].as_str().unwrap())
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await
        .unwrap();
    let answer: Value = answer.json().await.unwrap();
    let mut client = Client::anonymous(&http, base);
    client.token = Some(answer["access_token"].as_str().unwrap().to_owned());
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_hands_over_a_document_with_a_certified_providers_tokens() {
    let database = OwnDatabase::create("serve");
    let folder = TempDir::new().unwrap();
    let config = good_config(folder.path(), &database);
    let checked = run(&["config", "check", "--config", &config]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.err);
    let shown = run(&["config", "show", "--config", &config]).await;
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    let password = database
        .url()
        .split(':')
        .nth(2)
        .unwrap()
        .split('@')
        .next()
        .unwrap()
        .to_owned();
    assert!(!shown.out.contains(&password), "a password is shown");
    // Without its tables the server does not start, and says what to do.
    let early = run(&["serve", "--config", &config]).await;
    assert_eq!(early.code, Some(1));
    assert!(early.err.contains("handoff migrate"), "{}", early.err);
    // Looking for what is missing changes nothing.
    for _ in 0..2 {
        let checked = run(&["migrate", "--check", "--config", &config]).await;
        assert_eq!(checked.code, Some(1), "{}", checked.out);
        assert!(
            checked.out.contains("missing") && checked.err.contains("handoff migrate"),
            "{}",
            checked.err
        );
    }
    for said in ["applied", "up to date"] {
        let migrated = run(&["migrate", "--config", &config]).await;
        assert_eq!(migrated.code, Some(0), "{}", migrated.err);
        assert!(migrated.out.contains(said), "{}", migrated.out);
    }
    let checked = run(&["migrate", "--check", "--config", &config]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.err);

    let (mut server, base, admin) = Program::serve(Path::new(&config)).await;
    let ready = http_client()
        .get(format!("{admin}/health/ready"))
        .send()
        .await
        .unwrap();
    assert_eq!(ready.status().as_u16(), 200);
    let (ehr, lane) = (
        provider_client(&base, "ehr").await,
        provider_client(&base, "lane-es256").await,
    );
    let otis = provider_client(&base, "otis").await;
    let document = document(&ehr, b"%PDF-1.4 for real").await;
    let mut referral = task("requested", &document.id, None);
    referral["description"] = "for Zebulon-Marker".into();
    let id = ehr.post("/fhir/Task", &referral).await.expect(201).id();
    let path = format!("/fhir/Binary/{}?task=Task/{id}", document.binary);
    lane.get(&path).await.refused(403, "task-not-actionable");
    let mut accepted = lane.get(&format!("/fhir/Task/{id}")).await.expect(200).json();
    accepted["status"] = "accepted".into();
    accepted["owner"] = serde_json::json!({"reference": "Practitioner/lane"});
    lane.put(&format!("/fhir/Task/{id}"), &accepted).await.expect(200);
    otis.get(&path).await.expect(404);
    assert_eq!(lane.get(&path).await.expect(200).body, document.content);
    lane.get(&path).await.refused(403, "exhausted");
    // Neither the development issuer nor anybody's own token opens anything here.
    let mut forged = lane.clone();
    forged.token = forged.token.map(|token| format!("{token}x"));
    forged.get(&path).await.refused(401, "token-invalid");
    Client::anonymous(&http_client(), &base)
        .get("/dev-issuer/.well-known/openid-configuration")
        .await
        .expect(404);
    server.signal("TERM");
    assert_eq!(server.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_mid_download_has_its_redemption_closed_and_the_use_stays_taken() {
    let database = OwnDatabase::create("killed");
    let folder = TempDir::new().unwrap();
    let config = good_config(folder.path(), &database);
    assert_eq!(run(&["migrate", "--config", &config]).await.code, Some(0));
    let (mut server, base, _) = Program::serve(Path::new(&config)).await;
    let (ehr, lane) = (
        provider_client(&base, "ehr").await,
        provider_client(&base, "lane").await,
    );
    let document = document(&ehr, &vec![4; 20 * 1024 * 1024]).await;
    let body = task("accepted", &document.id, Some("Practitioner/lane"));
    let id = ehr.post("/fhir/Task", &body).await.expect(201).id();
    let path = format!("/fhir/Binary/{}?task=Task/{id}", document.binary);
    let mut download = SlowDownload::start(&lane, &path, 100_000).await;
    server.signal("KILL");
    assert_eq!(server.ended().await, None);
    let (sent, whole) = download.read_to_end().await;
    assert!(!whole, "the client must see an error, not a short success");

    let (server, base, _) = Program::serve(Path::new(&config)).await;
    let auditor = provider_client(&base, "auditor").await;
    let interrupted = async || {
        let rows = auditor
            .get(&format!("/fhir/AuditEvent?entity=Task/{id}&_count=200"))
            .await
            .expect(200);
        String::from_utf8(rows.body)
            .unwrap()
            .contains("redemption-interrupted")
    };
    // A process counts as dead when it was silent for half a minute.
    let mut rounds = 0;
    while !interrupted().await {
        rounds += 1;
        assert!(rounds < 300, "the redemption stays open");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let (ehr, lane) = (ehr.at(&base), lane.at(&base));
    let grants = ehr
        .get(&format!("/files/{}/access-grants", document.id))
        .await
        .expect(200)
        .json();
    assert_eq!(grants["grants"][0]["uses"], 1);
    lane.get(&path).await.refused(403, "exhausted");
    // How far it came died with the process: the client goes on from where it knows to be, under the same use.
    let resumed = lane
        .request(reqwest::Method::GET, &path)
        .header("range", format!("bytes={}-", sent.len()))
        .header("if-range", download.header("etag").unwrap());
    let answer = lane.send(resumed).await.expect(206);
    assert!([sent, answer.body].concat() == document.content);
    let grants = ehr
        .get(&format!("/files/{}/access-grants", document.id))
        .await
        .expect(200)
        .json();
    assert_eq!(grants["grants"][0]["uses"], 1);
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_refuses_what_is_unsafe() {
    let database = OwnDatabase::create("unsafe");
    let folder = TempDir::new().unwrap();
    let config = good_config(folder.path(), &database);
    for (name, value, key) in [
        (
            "HANDOFF__ISSUERS__0__ISSUER",
            "http://login.example.org",
            "issuers.0.issuer",
        ),
        (
            "HANDOFF__ISSUERS__0__ISSUER",
            "http://127.0.0.1:8080/dev-issuer",
            "issuers.0.issuer",
        ),
        (
            "HANDOFF__SERVER__PUBLIC_URL",
            "http://handoff.example",
            "server.public_url",
        ),
        (
            "HANDOFF__BLOBS__URL",
            "http://acct.blob.core.windows.net/handoff",
            "blobs.url",
        ),
        ("HANDOFF__DEMO__PORT", "8080", "demo"),
    ] {
        let ended = run_with(&["serve", "--config", &config], &[(name, value)]).await;
        assert_eq!(ended.code, Some(1), "{name}={value}");
        assert!(ended.err.contains(key), "{name}={value}: {}", ended.err);
    }
}
