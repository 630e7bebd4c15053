//! The command line that says which sources there are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use handoff_domain::ports::Clock as _;
use handoff_integration_tests::process::{CONFIG, Ended, run_with};
use handoff_integration_tests::{Answer, Backend, TestApp};
use reqwest::Method;
use ring::hmac;

use crate::sources::notification;

/// The command line of a machine beside that of a server.
struct Shell {
    app: TestApp,
    config: String,
}

impl Shell {
    async fn open() -> Self {
        let app = TestApp::start(Backend::Production).await;
        let file = app.folder().join("handoff.toml");
        std::fs::write(&file, CONFIG).unwrap();
        let config = file.to_str().unwrap().to_owned();
        Self { app, config }
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        let database = [("HANDOFF__DATABASE__URL", self.app.options.store.url.as_str())];
        let all = [&["sources"], arguments, &["--config", &self.config]].concat();
        run_with(&all, &database).await
    }

    /// Adds a source of that name, or changes it.
    async fn add(&self, name: &str, more: &[&str]) -> Ended {
        let add = ["add", name, "--acts-as", "Organization/referring-clinic"];
        self.run(&[&add, more].concat()).await
    }

    /// Ends well; what it said.
    async fn added(&self, more: &[&str]) -> String {
        let ended = self.add("lab", more).await;
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        ended.out
    }
}

fn last_line(text: &str) -> String {
    text.lines().last().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_source_is_refused_with_the_reason() {
    let shell = Shell::open().await;
    for wrong in [
        &[][..],
        &["--mint-secret", "--trust", "blindly"],
        &["--mint-secret", "--secret-env", "NAME"],
        &["--keep-proof"],
    ] {
        assert_eq!(shell.add("lab", wrong).await.code, Some(2), "{wrong:?}");
    }
    for (wrong, why) in [
        (&["--mint-secret", "--type", "Observation"][..], "--type"),
        (&["--mint-secret", "--trust", "re-read"], "--base"),
        (&["--mint-secret", "--tenant", "c"], "tenant `c`"),
        (&["--secret-env", "NO_SUCH_VARIABLE"], "NO_SUCH_VARIABLE"),
        (&["--signing-key-file", "/nowhere/lab.key"], "--signing-key-file"),
        (&["--replace", "--keep-proof"], "no source `lab`"),
    ] {
        let ended = shell.add("lab", wrong).await;
        assert_eq!(ended.code, Some(1), "{wrong:?}");
        assert!(ended.err.contains(why), "{wrong:?}: {}", ended.err);
    }
    let patient = ["add", "lab", "--acts-as", "Patient/1", "--mint-secret"];
    let ended = shell.run(&patient).await;
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("--acts-as"), "{}", ended.err);
    let listed = shell.run(&["list"]).await.out;
    assert!(
        listed.contains(" ehr-feed ") && !listed.contains(" lab "),
        "{listed}"
    );
}

/// It adds, lists, changes and removes sources, beside a server that runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_says_which_sources_there_are() {
    let shell = Shell::open().await;
    let added = shell.added(&["--mint-secret", "--type", "Task"]).await;
    assert!(
        added.contains("https://handoff.example/notifications/lab"),
        "{added}"
    );
    assert!(
        added.contains("speaks of Task by any topic; base none, believed as sent"),
        "{added}"
    );
    let secret = last_line(&added);
    assert_eq!(secret.len(), 43);
    let heartbeat = notification("heartbeat", 0, &[]);
    let lab = shell.app.stranger().with_token(secret);
    lab.post("/notifications/lab", &heartbeat).await.expect(200);
    let again = shell.add("lab", &["--mint-secret"]).await;
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("--replace"), "{}", again.err);

    // A change of something else leaves its secret as it is.
    let kept = shell.added(&["--replace", "--keep-proof"]).await;
    assert!(!kept.contains("not shown again"), "{kept}");
    lab.post("/notifications/lab", &heartbeat).await.expect(200);

    let listed = shell.run(&["list", "--tenant", "default"]).await;
    let line = listed.out.lines().find(|line| line.contains(" lab ")).unwrap();
    assert!(
        line.contains("heard of at") && line.contains("DocumentReference"),
        "{line}"
    );
    assert_eq!(shell.run(&["remove", "lab"]).await.code, Some(0));
    assert_eq!(shell.run(&["remove", "lab"]).await.code, Some(1));
    lab.post("/notifications/lab", &heartbeat).await.expect(401);
    let auditor = shell.app.client("auditor").await;
    let rows = auditor
        .get("/fhir/AuditEvent?_count=100")
        .await
        .expect(200)
        .json()
        .to_string();
    assert!(rows.contains("source-added") && rows.contains("source-removed"));
}

/// A source that had a secret signs what it sends from then on, each attempt anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_may_sign_instead() {
    let shell = Shell::open().await;
    let heartbeat = notification("heartbeat", 0, &[]);
    let secret = last_line(&shell.added(&["--mint-secret"]).await);
    let key = shell.app.folder().join("lab.key");
    let changed = shell
        .added(&["--replace", "--signing-key-file", key.to_str().unwrap()])
        .await;
    let text = last_line(&changed);
    assert_eq!(std::fs::read_to_string(&key).unwrap().trim(), text);
    let lab = shell.app.stranger().with_token(secret);
    lab.post("/notifications/lab", &heartbeat).await.expect(401);
    let send = async |at: i64, text: &str| -> Answer {
        let key = STANDARD.decode(text.trim_start_matches("whsec_")).unwrap();
        let body = heartbeat.to_string();
        let signed = format!("msg_1.{at}.{body}");
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes());
        let stranger = shell.app.stranger();
        let request = stranger
            .request(Method::POST, "/notifications/lab")
            .header("content-type", "application/fhir+json")
            .header("webhook-id", "msg_1")
            .header("webhook-timestamp", at.to_string())
            .header("webhook-signature", format!("v1,{}", STANDARD.encode(tag)))
            .body(body);
        stranger.send(request).await
    };
    let now = shell.app.clock.now().0.div_euclid(1_000_000);
    send(now, &text).await.expect(200);
    let late = send(now - 600, &text).await.refused(401, "token-invalid");
    assert!(String::from_utf8_lossy(&late.body).contains("webhook-timestamp"));
    let other = format!("whsec_{}", STANDARD.encode([7; 32]));
    send(now, &other).await.expect(401);
    let listed = shell.run(&["list"]).await;
    let line = listed.out.lines().find(|line| line.contains(" lab ")).unwrap();
    assert!(line.contains("signature") && !line.contains("whsec_"), "{line}");
    shell.run(&["remove", "lab"]).await;
    send(now, &text).await.expect(401);
}
