//! The ledger as a server keeps it: sealed by one of several, in the order in which rows were committed, with proofs that need nothing
//! of ours to be checked.

use handoff::app::ledger::seal::{SealKey, Sealer};
use handoff_integration_tests::ledger::{Database, file, seal, verifier};
use handoff_integration_tests::open_transaction::OpenTransaction;
use handoff_integration_tests::scene::{document, task};
use handoff_integration_tests::{Backend, Client, TestApp, eventually, on_both};
use handoff_ledger::prove::{Consistency, Proof};
use handoff_ledger::{Note, verify_export};
use serde_json::json;

const SEED: u8 = 3;

/// A server whose audit is sealed as far as it goes.
struct Scene {
    app: TestApp,
    database: Database,
    ehr: Client,
    letter: String,
}

impl Scene {
    async fn set(backend: Backend) -> Self {
        let app = TestApp::start_with(backend, |options| options.seal = Some(seal(SEED, Vec::new()))).await;
        let ehr = app.client("ehr").await;
        let scene = Self {
            database: Database::of(&app),
            letter: document(&ehr, b"%PDF-1.4 a letter").await.id,
            ehr,
            app,
        };
        scene.happen().await;
        scene.database.sealed().await;
        scene
    }

    /// Lets something happen that is recorded.
    async fn happen(&self) {
        let task = task("accepted", &self.letter, Some("Practitioner/lane"));
        self.ehr.post("/fhir/Task", &task).await.expect(201);
    }

    /// Another server goes on with what this one stored, once it was stopped; `key` seals.
    async fn again(mut self, key: SealKey) -> Self {
        self.app.halt().await;
        self.app.options.seal = Some(key);
        let app = TestApp::start_again(&self.app).await;
        Self {
            ehr: app.client("ehr").await,
            app,
            ..self
        }
    }

    /// What comes of sealing now, by a sealer that knows nothing yet.
    async fn seal_with(&self, key: SealKey) -> Result<(), String> {
        Sealer::new(key).run_once(&self.app.server.app).await
    }

    /// Why nothing more can be sealed.
    async fn refused(&self) -> String {
        let sealed = self.seal_with(seal(SEED, Vec::new())).await;
        sealed.expect_err("something is wrong")
    }

    fn leaves(&self) -> i64 {
        self.database.count("SELECT count(*) AS count FROM ledger_leaves")
    }
}

async fn note(auditor: &Client) -> Note {
    let text = auditor.get("/admin/audit/checkpoint").await.expect(200).text();
    Note::parse(text).unwrap()
}

on_both! {
    async fn rows_are_sealed_and_proved_to_whoever_has_the_key(backend) {
        let scene = Scene::set(backend).await;
        let Scene { app, database, .. } = &scene;
        let auditor = app.client("auditor").await;
        let keys = [verifier(SEED)];
        let early = note(&auditor).await;
        assert_eq!(early.verified_by(&keys), Ok(0));
        assert_eq!(early.checkpoint().origin, "tests.handoff.example/audit/default");

        // Each AuditEvent has a proof under its id.
        let events = auditor.get("/fhir/AuditEvent").await.expect(200);
        database.sealed().await;
        let id = events.json()["entry"][0]["resource"]["id"].as_str().unwrap().to_owned();
        let proof = auditor.get(&format!("/admin/audit/proof?event={id}")).await.expect(200).text();
        let proof = Proof::parse(&proof).unwrap();
        proof.check(&keys).unwrap();
        assert_eq!(proof.row.sequence.to_string(), id);
        assert!(proof.check(&[verifier(4)]).is_err());

        // What comes later goes on from what was kept.
        for _ in 0..3 {
            scene.happen().await;
        }
        database.sealed().await;
        let first = early.checkpoint().size;
        let path = format!("/admin/audit/consistency?first={first}");
        let consistency = auditor.get(&path).await.expect(200).text();
        let proved = Consistency::parse(&consistency).unwrap().check(&early, &keys).unwrap();
        assert!(proved.checkpoint.size > first);

        // The whole of it can be checked without a server, and so can its end alone.
        let whole = auditor.get("/admin/audit/export").await.expect(200).text();
        let report = verify_export(whole.as_bytes(), &keys, std::slice::from_ref(&early)).unwrap();
        assert!(report.is_clean(), "{report:#?}");
        assert_eq!((report.vouched_size, report.kept_agreed), (Some(report.size), 1));
        let end = auditor.get(&format!("/admin/audit/export?from={first}")).await.expect(200).text();
        let report = verify_export(end.as_bytes(), &keys, &[]).unwrap();
        assert!(report.is_clean() && report.from == first, "{report:#?}");
        let changed = whole.replacen("task-created", "task-updated", 1);
        assert!(!verify_export(changed.as_bytes(), &keys, &[]).unwrap().is_clean());

        // That the audit was read is in the audit, and nobody else reads it.
        let read = database.count("SELECT count(*) AS count FROM audit_log WHERE event = 'audit-read' AND entry LIKE '%\"ledger\":\"export\"%'");
        assert_eq!(read, 2);
        for path in ["checkpoint", "checkpoints", "proof?event=1", "consistency?first=0", "export"] {
            let path = format!("/admin/audit/{path}");
            for name in ["ehr", "lane", "operator", "records", "interface"] {
                app.client(name).await.get(&path).await.expect(403);
            }
            app.stranger().get(&path).await.expect(401);
        }
        for (path, status) in [
            ("proof", 422), ("proof?event=x", 422), ("proof?event=999999999", 404), ("proof?event=-1", 404),
            ("proof?event=1&event=1", 422), ("proof?row=1", 422), ("consistency?first=999999", 404), ("consistency?first=-1", 422),
            ("export?from=999999", 404), ("export?from=99999999999999999999", 422), ("checkpoint?x=1", 400), ("checkpoints?below=x", 422),
        ] {
            auditor.get(&format!("/admin/audit/{path}")).await.expect(status);
        }
        let none = auditor.get("/admin/audit/checkpoints?below=1").await.expect(200).json();
        assert_eq!(none["checkpoints"].as_array().unwrap().len(), 0);
    }

    /// By the command line as well, from the file alone.
    async fn an_export_is_verified_without_database_or_configuration(backend) {
        let scene = Scene::set(backend).await;
        let Scene { app, database, .. } = &scene;
        let rows = database.sealed().await;
        let export = app.folder().join("audit.ndjson");
        let export = export.to_str().unwrap();
        let ended = database.audit(SEED, &["export", "--output", export]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        // It is about patients: for its owner alone, and never over another file.
        let again = database.audit(SEED, &["export", "--output", export]).await;
        assert_eq!(again.code, Some(1));
        assert!(again.err.contains("is there already"), "{}", again.err);
        let printed = database.audit(SEED, &["key"]).await;
        let key = printed.out.trim();
        assert_eq!(key, verifier(SEED).to_string());

        let verify = |arguments: Vec<String>| async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            handoff_integration_tests::process::run(&arguments).await
        };
        let of = |export: &str, more: &[&str]| {
            let all = [&["audit", "verify", "--export", export, "--key", key], more].concat();
            all.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        let clean = verify(of(export, &[])).await;
        assert_eq!(clean.code, Some(0), "{}{}", clean.out, clean.err);
        assert!(clean.out.contains(&format!("{rows} rows verified")), "{}", clean.out);
        let text = std::fs::read_to_string(export).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let middle = lines.len() / 2;
        let mut dropped = lines.clone();
        dropped.remove(middle);
        let mut swapped = lines.clone();
        swapped.swap(middle, middle + 1);
        let mut doubled = lines.clone();
        doubled.insert(middle, lines[middle]);
        let edited = text.replacen("task-created", "task-updated", 1);
        let position = format!("position {}", middle - 1);
        for (name, changed, said) in [
            ("dropped", dropped.join("\n"), position.as_str()),
            ("swapped", swapped.join("\n"), position.as_str()),
            ("doubled", doubled.join("\n"), "should follow"),
            ("edited", edited, "is not as it was written"),
            ("cut", lines[..middle].join("\n"), "there is no checkpoint at the end"),
        ] {
            let changed = file(&app.folder(), name, &changed);
            let ended = verify(of(&changed, &[])).await;
            assert_eq!(ended.code, Some(1), "{name}");
            assert!(ended.out.contains(said), "{name}: {}", ended.out);
        }
        // What was kept has to be held against something.
        let last: serde_json::Value = serde_json::from_str(lines.last().unwrap()).unwrap();
        let kept = file(&app.folder(), "kept.txt", last["checkpoint"].as_str().unwrap());
        scene.happen().await;
        database.sealed().await;
        for (from, code) in [("5", 0), (rows.to_string().as_str(), 0), ((rows + 1).to_string().as_str(), 1)] {
            let end = format!("{export}.{from}");
            let ended = database.audit(SEED, &["export", "--from", from, "--output", &end]).await;
            assert_eq!(ended.code, Some(0), "{}", ended.err);
            let ended = verify(of(&end, &["--checkpoint", &kept])).await;
            assert_eq!(ended.code, Some(code), "{from}: {}{}", ended.out, ended.err);
        }

        // With another key nothing is proved, and without one nothing is asked.
        let other = verifier(9).to_string();
        let ended = verify(["audit", "verify", "--export", export, "--key", &other].map(str::to_owned).to_vec()).await;
        assert_eq!(ended.code, Some(1));
        let ended = verify(["audit", "verify", "--export", export].map(str::to_owned).to_vec()).await;
        assert_eq!(ended.code, Some(2));

        // Single rows, too.
        let row = database.count("SELECT max(sequence) AS count FROM ledger_leaves WHERE tenant = 'default'").to_string();
        let proof = app.folder().join("row.json");
        let proof = proof.to_str().unwrap();
        let ended = database.audit(SEED, &["prove", "--event", &row, "--output", proof]).await;
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        let ended = verify(["audit", "verify", "--proof", proof, "--key", key].map(str::to_owned).to_vec()).await;
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        assert!(ended.out.contains(&format!("row {row} of tenant default is in the audit")), "{}", ended.out);
        let with_note = ["audit", "verify", "--proof", proof, "--key", key, "--checkpoint", &kept];
        assert_eq!(verify(with_note.map(str::to_owned).to_vec()).await.code, Some(1));

        // A row that is gone is not said to be there, and a private key in the wrong place is not printed.
        database.sql(&format!("DELETE FROM audit_log WHERE tenant = 'default' AND sequence = {row}"));
        let ended = database.audit(SEED, &["prove", "--event", &row]).await;
        assert_eq!(ended.code, Some(1));
        assert!(ended.err.contains("is not the one that was sealed"), "{}", ended.err);
        let private = handoff_integration_tests::ledger::pem(SEED);
        let ended = verify(["audit", "verify", "--export", export, "--key", &private].map(str::to_owned).to_vec()).await;
        assert_eq!(ended.code, Some(1));
        assert!(!ended.err.contains("MC4C"), "{}", ended.err);
    }

    /// Whoever seals goes on from where the one before it stopped.
    async fn another_process_goes_on_with_the_seal(backend) {
        let scene = Scene::set(backend).await.again(seal(SEED, Vec::new())).await;
        scene.happen().await;
        scene.database.sealed().await;
        let verified = scene.database.audit(SEED, &["verify"]).await;
        assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);
    }

    /// What is stored is held against what was signed before it is gone on from. Other tenants are sealed all the same.
    async fn a_ledger_that_was_changed_is_not_sealed_further(backend) {
        let mut scene = Scene::set(backend).await;
        scene.app.halt().await;
        scene
            .database
            .sql("UPDATE ledger_leaves SET sequence = -1 WHERE tenant = 'default' AND position = 1");
        let scene = scene.again(seal(SEED, Vec::new())).await;
        let of = |tenant: &str| {
            scene.database.count(&format!("SELECT count(*) AS count FROM ledger_leaves WHERE tenant = '{tenant}'"))
        };
        let (ours, others) = (of("default"), of("b"));
        scene.happen().await;
        scene.app.client("ehr-b").await.get("/t/b/fhir/Task").await.expect(200);
        let document = json!({"resourceType": "DocumentReference", "status": "current", "content": [{"attachment": {"title": "none"}}]});
        scene.app.client("ehr-b").await.post("/t/b/fhir/DocumentReference", &document).await.expect(201);
        eventually("the other tenant is sealed", async || of("b") > others).await;
        assert_eq!(of("default"), ours);
        let refused = scene.refused().await;
        assert!(refused.contains("is not what was signed last"), "{refused}");
        eventually("it is told", async || scene.app.metric("handoff_audit_unsound_ledgers").await >= 1.0).await;
    }

    /// A key is changed by naming the one before. It vouches for a tenant in which nothing happens, too.
    async fn another_key_goes_on_from_the_one_before(backend) {
        let scene = Scene::set(backend).await;
        let keys = [verifier(4), verifier(SEED)];
        let both = || seal(4, vec![verifier(SEED)]);
        let [new, old] = keys.clone().map(|key| key.to_string());
        let verify = ["verify", "--key", &new, "--key", &old];
        let before = scene.database.audit(4, &verify).await;
        assert!(before.out.contains("is not signed by the newest key"), "{}", before.out);
        scene.seal_with(both()).await.unwrap();
        let after = scene.database.audit(4, &verify).await;
        assert_eq!(after.code, Some(0), "{}{}", after.out, after.err);

        let scene = scene.again(both()).await;
        scene.happen().await;
        scene.database.sealed().await;
        let auditor = scene.app.client("auditor").await;
        assert_eq!(note(&auditor).await.verified_by(&keys), Ok(0));
        let export = auditor.get("/admin/audit/export").await.expect(200).text();
        let report = verify_export(export.as_bytes(), &keys, &[]).unwrap();
        assert!(report.is_clean(), "{report:#?}");
    }
}

/// Numbers are taken before their transactions end: none that is still to come is passed over, and all are in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_commits_late_is_waited_for() {
    let scene = Scene::set(Backend::Production).await;
    let late = OpenTransaction::begin(
        &scene.app.options.store.url,
        "INSERT INTO audit_log (tenant, recorded, event, outcome, correlation, actor, patient, task, entry) \
         SELECT tenant, recorded, event, outcome, correlation, actor, patient, task, entry FROM audit_log \
         WHERE tenant = 'default' AND event = 'task-created' LIMIT 1",
    )
    .await;
    let before = scene.leaves();
    scene.happen().await;
    let refused = scene.refused().await;
    assert!(refused.contains("is open for long"), "{refused}");
    assert_eq!(scene.leaves(), before);
    late.commit().await;
    scene.database.sealed().await;
    let verified = scene.database.audit(SEED, &["verify"]).await;
    assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);
}

/// Numbers that begin anew below those that are sealed are never come back to: that is told, and found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_whose_numbers_were_set_back_are_missed() {
    let scene = Scene::set(Backend::Production).await;
    scene
        .database
        .sql("ALTER SEQUENCE audit_log_sequence_seq MINVALUE -100000 RESTART WITH -5000");
    scene.happen().await;
    let refused = scene.refused().await;
    assert!(refused.contains("numbers go on from -"), "{refused}");
    let verified = scene.database.audit(SEED, &["verify"]).await;
    assert_eq!(verified.code, Some(1));
    assert!(
        verified.out.contains("row -5000 was put in later"),
        "{}",
        verified.out
    );
}
