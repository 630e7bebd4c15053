//! Processes that are killed while they seal the audit, dispose of content and export: whoever comes next goes on, nothing is done
//! twice, and what was proved before still is.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use handoff_integration_tests::chaos::record::Recorder;
use handoff_integration_tests::chaos::servers::Fleet;
use handoff_integration_tests::chaos::stand::{Cell, Stand};
use handoff_integration_tests::ledger::pem;
use handoff_integration_tests::process::{CONFIG, Ended, program, run_with};
use handoff_integration_tests::scene::{document, task};
use handoff_integration_tests::{Client, http_client, on_both};
use handoff_policies::{SHIPPED_WORKFLOWS, Source};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

/// The demo's key and log.
const DEMO_SEED: u8 = b'd';
const DEMO_LOG: &str = "demo.handoff.example/audit";

/// Everything is disposed of a day after it was created, without grace.
const A_DAY: &str = "[default]\nkeep = \"24h\"\ngrace = \"0h\"\n";
const DAY: i64 = 24 * 3600 * 1_000_000;

const LETTERS: usize = 60;
/// After how many milliseconds of its work a server is killed.
const KILLED_AFTER: [u64; 8] = [0, 5, 20, 40, 80, 140, 220, 300];

on_both! {
    async fn whoever_comes_after_a_server_that_was_killed_goes_on_where_it_was(backend) {
        let stand = Stand::prepare(backend);
        let policies = rules_with(stand.folder(), A_DAY);
        let fleet = Fleet::start_with(&stand, 1, &["--policies", &policies]).await;
        let server = &fleet.servers[0];
        let sign_in = async |name: &str| Client::sign_in(&http_client(), &fleet.issuer, &server.base, name).await;
        let ehr = sign_in("ehr").await;
        let mut letters = Vec::new();
        for number in 0..LETTERS {
            letters.push(document(&ehr, format!("%PDF-1.4 letter {number}").as_bytes()).await);
        }
        // One that is held, and one that is too young.
        let records = sign_in("records").await;
        let held = format!("/admin/documents/{}/hold", letters[0].id);
        let why = serde_json::json!({"reason": "a matter before court"});
        records.post_plain(&held, &why).await.expect(201);
        let young = letters.pop().unwrap();
        stand.tamper(&format!("UPDATE documents SET created = created - 2 * {DAY} WHERE id <> '{}'", young.id));

        let recorder = Recorder::default();
        for after in KILLED_AFTER {
            // What a dead one leased is another's once its term is over.
            let over = async { stand.tamper("UPDATE leases SET until = 0 WHERE name IN ('seal', 'disposal')") };
            server.crash(over, &recorder).await;
            // Something to seal meanwhile.
            let body = task("draft", &young.id, None);
            ehr.post("/fhir/Task", &body).await.expect(201);
            sleep(Duration::from_millis(after)).await;
        }
        let over = async { stand.tamper("UPDATE leases SET until = 0 WHERE name IN ('seal', 'disposal')") };
        server.crash(over, &recorder).await;
        let left = || stand.reader().rows(&[Cell::Plain("\"binary\"")], "FROM disposals WHERE state <> 'gone'").len();
        let gone = || stand.reader().rows(&[Cell::Plain("\"binary\"")], "FROM disposals WHERE state = 'gone'").len();
        in_time("all that is due is gone", async || gone() == LETTERS - 2 && left() == 0).await;
        let unsealed = "FROM audit_log a WHERE NOT EXISTS \
                        (SELECT 1 FROM ledger_leaves l WHERE l.tenant = a.tenant AND l.sequence = a.sequence)";
        in_time("everything is sealed", async || {
            stand.reader().rows(&[Cell::Plain("a.sequence")], unsealed).is_empty()
        })
        .await;
        server.kill().await;

        // Each is on record once, and nothing else lies in the store than what is kept.
        let mut recorded: Vec<String> = stand
            .reader()
            .rows(&[Cell::About("binary")], "FROM audit_log WHERE event = 'content-disposed'")
            .iter()
            .map(|row| row[0].as_str().unwrap().to_owned())
            .collect();
        recorded.sort();
        let mut due: Vec<String> = letters[1..].iter().map(|one| format!("Binary/{}", one.binary)).collect();
        due.sort();
        assert_eq!(recorded, due);
        let mut kept = stand.objects().await;
        kept.sort();
        let mut wanted = vec![letters[0].binary.clone(), young.binary.clone()];
        wanted.sort();
        assert_eq!(kept, wanted);
        let verified = audit(&stand, &["verify"]).await;
        assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);

        exports(&stand).await;
    }
}

/// Waits for what jobs do that come back after a minute where they failed once.
async fn in_time(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let holds = async {
        while !condition().await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let in_time = timeout(Duration::from_mins(3), holds).await;
    in_time.unwrap_or_else(|_| panic!("did not happen in three minutes: {what}"));
}

/// A folder with the rules that ship and these schedules.
fn rules_with(folder: &Path, schedules: &str) -> String {
    let policies = folder.join("policies");
    std::fs::create_dir(&policies).expect("a folder");
    for (name, text) in Source::shipped().rules {
        std::fs::write(policies.join(name), text).expect("a file");
    }
    std::fs::write(policies.join("workflow.toml"), SHIPPED_WORKFLOWS).expect("a file");
    std::fs::write(policies.join("retention.toml"), schedules).expect("a file");
    policies.display().to_string()
}

/// What the command line needs to know of a demo's database.
fn variables(stand: &Stand) -> [(&'static str, String); 3] {
    [
        ("HANDOFF__DATABASE__URL", stand.database_url()),
        ("HANDOFF__AUDIT__KEY", pem(DEMO_SEED)),
        ("HANDOFF__AUDIT__ORIGIN", DEMO_LOG.to_owned()),
    ]
}

fn config(stand: &Stand) -> String {
    let file = stand.folder().join("audit.toml");
    std::fs::write(&file, CONFIG).expect("a file");
    file.display().to_string()
}

/// Runs `handoff audit`.
async fn audit(stand: &Stand, arguments: &[&str]) -> Ended {
    let variables = variables(stand);
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let config = config(stand);
    let all = [&["audit"], arguments, &["--config", &config]].concat();
    run_with(&all, &variables).await
}

/// An export whose process is killed in the middle is never taken for a whole one.
async fn exports(stand: &Stand) {
    let key = audit(stand, &["key"]).await.out.trim().to_owned();
    let config = config(stand);
    let verify = async |name: &str, content: &[u8]| {
        let file = stand.folder().join(name);
        std::fs::write(&file, content).expect("a file");
        let path = file.to_str().expect("a path");
        run_with(&["audit", "verify", "--export", path, "--key", &key], &[]).await
    };
    // Nobody takes what it writes: it waits in the middle.
    let mut export = Command::new(program())
        .args(["audit", "export", "--config", &config])
        .envs(variables(stand))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut out = export.stdout.take().expect("its output");
    let mut part = vec![0];
    out.read_exact(&mut part).await.expect("it writes");
    export.kill().await.expect("it runs");
    out.read_to_end(&mut part).await.expect("what it had written");
    let whole = audit(stand, &["export"]).await.out;
    assert!(whole.as_bytes().starts_with(&part), "the same up to there");
    assert!(part.len() < whole.len(), "{} of {}", part.len(), whole.len());
    let broken = verify("part.ndjson", &part).await;
    assert_eq!(broken.code, Some(1), "{}{}", broken.out, broken.err);
    let verified = verify("whole.ndjson", whole.as_bytes()).await;
    assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);
}
