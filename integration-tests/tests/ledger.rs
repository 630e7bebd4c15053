//! The ledger as a server keeps it: sealed by one of several, in the order in which rows were committed, with proofs that need nothing
//! of ours to be checked.

use handoff_integration_tests::ledger::{Database, file, seal, verifier};
use handoff_integration_tests::open_transaction::OpenTransaction;
use handoff_integration_tests::scene::{document, task};
use handoff_integration_tests::{Backend, Client, TestApp, eventually, on_both};
use handoff_ledger::prove::{Consistency, Proof};
use handoff_ledger::{Note, verify_export};

const SEED: u8 = 3;

async fn start(backend: Backend) -> TestApp {
    TestApp::start_with(backend, |options| options.seal = Some(seal(SEED, Vec::new()))).await
}

/// Lets something happen that is recorded.
async fn happen(ehr: &Client, letter: &str) {
    let task = task("accepted", letter, Some("Practitioner/lane"));
    ehr.post("/fhir/Task", &task).await.expect(201);
}

async fn note(auditor: &Client) -> Note {
    let text = auditor.get("/admin/audit/checkpoint").await.expect(200).text();
    Note::parse(text).unwrap()
}

on_both! {
    async fn rows_are_sealed_and_proved_to_whoever_has_the_key(backend) {
        let app = start(backend).await;
        let database = Database::of(&app);
        let (ehr, auditor) = (app.client("ehr").await, app.client("auditor").await);
        let letter = document(&ehr, b"%PDF-1.4 a letter").await;
        happen(&ehr, &letter.id).await;
        database.sealed().await;
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
            happen(&ehr, &letter.id).await;
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
        let app = start(backend).await;
        let database = Database::of(&app);
        let ehr = app.client("ehr").await;
        let letter = document(&ehr, b"%PDF-1.4 a letter").await;
        happen(&ehr, &letter.id).await;
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
        happen(&ehr, &letter.id).await;
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

    /// Whoever seals goes on from where the one before it stopped, and of two only one seals.
    async fn another_process_goes_on_with_the_seal(backend) {
        let mut app = start(backend).await;
        let database = Database::of(&app);
        let ehr = app.client("ehr").await;
        let letter = document(&ehr, b"%PDF-1.4 a letter").await;
        happen(&ehr, &letter.id).await;
        database.sealed().await;
        app.halt().await;
        let next = TestApp::start_again(&app).await;
        let ehr = next.client("ehr").await;
        happen(&ehr, &letter.id).await;
        eventually("it is sealed by the next", async || {
            database.count("SELECT count(*) AS count FROM audit_log") == database.count("SELECT count(*) AS count FROM ledger_leaves")
        })
        .await;
        let verified = database.audit(SEED, &["verify"]).await;
        assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);
    }

    /// What is stored is held against what was signed before it is gone on from.
    async fn a_ledger_that_was_changed_is_not_sealed_further(backend) {
        let mut app = start(backend).await;
        let database = Database::of(&app);
        let ehr = app.client("ehr").await;
        let letter = document(&ehr, b"%PDF-1.4 a letter").await;
        happen(&ehr, &letter.id).await;
        let rows = database.sealed().await;
        app.halt().await;
        database.sql("UPDATE ledger_leaves SET sequence = -1 WHERE tenant = 'default' AND position = 1");
        let next = TestApp::start_again(&app).await;
        happen(&next.client("ehr").await, &letter.id).await;
        eventually("it is told", async || next.metric("handoff_audit_unsound_ledgers").await >= 1.0).await;
        assert_eq!(database.count("SELECT count(*) AS count FROM ledger_leaves WHERE tenant = 'default'"), rows);
        let auditor = next.client("auditor").await;
        auditor.get("/admin/audit/proof?event=1").await.expect_one_of(&[404, 500]);
    }

    /// A key is changed by naming the one before.
    async fn another_key_goes_on_from_the_one_before(backend) {
        let mut app = start(backend).await;
        let database = Database::of(&app);
        let ehr = app.client("ehr").await;
        let letter = document(&ehr, b"%PDF-1.4 a letter").await;
        happen(&ehr, &letter.id).await;
        database.sealed().await;
        app.halt().await;
        app.options.seal = Some(seal(4, vec![verifier(SEED)]));
        let next = TestApp::start_again(&app).await;
        happen(&next.client("ehr").await, &letter.id).await;
        database.sealed().await;
        let auditor = next.client("auditor").await;
        assert_eq!(note(&auditor).await.verified_by(&[verifier(4), verifier(SEED)]), Ok(0));
        let export = auditor.get("/admin/audit/export").await.expect(200).text();
        let report = verify_export(export.as_bytes(), &[verifier(4), verifier(SEED)], &[]).unwrap();
        assert!(report.is_clean(), "{report:#?}");
    }
}

/// Numbers are taken before their transactions end: none that is still to come is passed over, and all are in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_commits_late_is_waited_for() {
    let app = start(Backend::Production).await;
    let database = Database::of(&app);
    let ehr = app.client("ehr").await;
    let letter = document(&ehr, b"%PDF-1.4 a letter").await;
    happen(&ehr, &letter.id).await;
    database.sealed().await;
    let late = OpenTransaction::begin(
        &app.options.store.url,
        "INSERT INTO audit_log (tenant, recorded, event, outcome, correlation, actor, patient, task, entry) \
         SELECT tenant, recorded, event, outcome, correlation, actor, patient, task, entry FROM audit_log \
         WHERE tenant = 'default' AND event = 'task-created' LIMIT 1",
    )
    .await;
    let before = database.count("SELECT count(*) AS count FROM ledger_leaves");
    happen(&ehr, &letter.id).await;
    // Long enough for several rounds.
    eventually("it is told that rows wait", async || {
        app.metric("handoff_job_failures_total{job=\"seal\"}").await >= 1.0
    })
    .await;
    assert_eq!(
        database.count("SELECT count(*) AS count FROM ledger_leaves"),
        before
    );
    late.commit().await;
    database.sealed().await;
    let verified = database.audit(SEED, &["verify"]).await;
    assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);
}

/// Numbers that begin anew below those that are sealed are never come back to: that is told, and found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_whose_numbers_were_set_back_are_missed() {
    let app = start(Backend::Production).await;
    let database = Database::of(&app);
    let ehr = app.client("ehr").await;
    let letter = document(&ehr, b"%PDF-1.4 a letter").await;
    happen(&ehr, &letter.id).await;
    database.sealed().await;
    database.sql("ALTER SEQUENCE audit_log_sequence_seq MINVALUE -100000 RESTART WITH -5000");
    happen(&ehr, &letter.id).await;
    eventually("it is told", async || {
        app.metric("handoff_audit_unsound_ledgers").await >= 1.0
    })
    .await;
    let verified = database.audit(SEED, &["verify"]).await;
    assert_eq!(verified.code, Some(1));
    assert!(
        verified.out.contains("row -5000 was put in later"),
        "{}",
        verified.out
    );
}
