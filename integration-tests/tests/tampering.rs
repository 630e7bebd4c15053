//! What somebody can do to the audit with SQL, behind the server's back: each is found by `handoff audit verify`, and where.

use std::fmt::Write as _;

use handoff_integration_tests::ledger::{Database, file, pem, seal};
use handoff_integration_tests::scene::{document, task};
use handoff_integration_tests::{Backend, Stores, TestApp, on_both};
use handoff_ledger::{Checkpoint, Hash, SigningKey, commit};

const SEED: u8 = 7;

/// What is done, how, and what is said of it. `{N}` stands for the number of a row in the middle, `{P}` for its position, `{LAST}` for
/// that of the last.
struct Tampering {
    name: &'static str,
    statements: &'static str,
    found: &'static [&'static str],
}

const fn tampering(
    name: &'static str,
    statements: &'static str,
    found: &'static [&'static str],
) -> Tampering {
    Tampering {
        name,
        statements,
        found,
    }
}

const ALL: &[Tampering] = &[
    tampering(
        "an_entry_is_edited",
        "UPDATE audit_log SET entry = replace(entry, '\"success\"', '\"denied\"') WHERE tenant = 'default' AND sequence = {N}",
        &["row {N} (position {P}) is not as it was written"],
    ),
    tampering(
        "a_blank_is_added",
        "UPDATE audit_log SET entry = entry || ' ' WHERE tenant = 'default' AND sequence = {N}",
        &["row {N} (position {P}) is not as it was written"],
    ),
    tampering(
        "who_it_is_found_by_is_edited",
        "UPDATE audit_log SET actor = 'Practitioner/other' WHERE tenant = 'default' AND sequence = {N}",
        &["row {N} (position {P}) is as it was written, but the columns"],
    ),
    tampering(
        "a_row_is_deleted",
        "DELETE FROM audit_log WHERE tenant = 'default' AND sequence = {N}",
        &["row {N} (position {P}) is gone"],
    ),
    tampering(
        "a_row_is_deleted_with_its_leaf",
        "DELETE FROM audit_log WHERE tenant = 'default' AND sequence = {N}; \
         DELETE FROM ledger_leaves WHERE tenant = 'default' AND sequence = {N}",
        &["position {P} should follow"],
    ),
    tampering(
        "a_row_is_erased_without_leave",
        "DELETE FROM audit_log WHERE tenant = 'default' AND sequence = {N}; \
         UPDATE ledger_leaves SET salt = NULL WHERE tenant = 'default' AND sequence = {N}",
        &["row {N} (position {P}) was erased, and no rule allows it"],
    ),
    tampering(
        "a_row_is_moved_to_another_tenant",
        "UPDATE audit_log SET tenant = 'b' WHERE tenant = 'default' AND sequence = {N}",
        &["row {N} (position {P}) is gone"],
    ),
    tampering(
        "a_row_is_put_in_before_others",
        "INSERT INTO audit_log (tenant, sequence, recorded, event, outcome, correlation, entry) \
         SELECT tenant, -5, recorded, event, outcome, correlation, entry FROM audit_log \
         WHERE tenant = 'default' AND sequence = {N}",
        &["row -5 was put in later"],
    ),
    tampering(
        "a_leaf_is_numbered_anew",
        "UPDATE ledger_leaves SET sequence = -sequence WHERE tenant = 'default' AND sequence = {N}",
        &["(position {P}) follows row", "row {N} was put in later"],
    ),
    tampering(
        "leaves_change_places",
        "UPDATE ledger_leaves SET position = -1 WHERE tenant = 'default' AND position = {P}; \
         UPDATE ledger_leaves SET position = {P} WHERE tenant = 'default' AND position = {P} + 1; \
         UPDATE ledger_leaves SET position = {P} + 1 WHERE tenant = 'default' AND position = -1",
        &["follows row"],
    ),
    tampering(
        "a_stored_node_is_edited",
        "UPDATE ledger_nodes SET hash = (SELECT commitment FROM ledger_leaves WHERE tenant = 'default' AND position = 0) \
         WHERE tenant = 'default' AND level = 8 AND position = 0",
        &["the stored node 0 of level 8 is not what its rows make"],
    ),
    tampering(
        "a_stored_node_is_deleted",
        "DELETE FROM ledger_nodes WHERE tenant = 'default' AND level = 8 AND position = 0",
        &["the stored node 0 of level 8 is gone"],
    ),
    tampering(
        "a_node_is_put_where_the_tree_comes_to_later",
        "INSERT INTO ledger_nodes SELECT tenant, level, 5, hash FROM ledger_nodes WHERE tenant = 'default' AND level = 8",
        &["the node 5 of level 8 is stored, and rows under it are not there"],
    ),
    tampering(
        "the_tail_is_cut_off",
        "DELETE FROM audit_log WHERE tenant = 'default' AND sequence > {N}; \
         DELETE FROM ledger_leaves WHERE tenant = 'default' AND sequence > {N}",
        &["were signed: the last"],
    ),
    tampering(
        "the_seal_is_taken_away",
        "DELETE FROM ledger_leaves; DELETE FROM ledger_nodes; DELETE FROM ledger_checkpoints",
        &["there are 0 rows, and"],
    ),
    tampering(
        "the_checkpoint_is_deleted",
        "DELETE FROM ledger_checkpoints",
        &["there is no checkpoint at the end"],
    ),
    tampering(
        "the_checkpoint_is_not_one",
        "UPDATE ledger_checkpoints SET note = 'trust me'",
        &["is not valid"],
    ),
    tampering(
        "a_row_is_added_with_a_leaf",
        "INSERT INTO audit_log (tenant, sequence, recorded, event, outcome, correlation, entry) \
         SELECT tenant, {LAST} + 1000, recorded, event, outcome, correlation, entry FROM audit_log \
         WHERE tenant = 'default' AND sequence = {N}; \
         INSERT INTO ledger_leaves (tenant, position, sequence, salt, commitment) \
         SELECT tenant, (SELECT max(position) + 1 FROM ledger_leaves WHERE tenant = 'default'), {LAST} + 1000, salt, commitment \
         FROM ledger_leaves WHERE tenant = 'default' AND sequence = {N}",
        &["nothing vouches for the rest"],
    ),
];

/// A sealed audit of some hundred rows that nobody serves any more, with a checkpoint that was kept half way and one from the end.
struct Sealed {
    _stores: Stores,
    database: Database,
    kept: [String; 2],
    /// The number and the position of a row in the middle, and the number of the last.
    number: i64,
    position: i64,
    last: i64,
}

impl Sealed {
    async fn new(backend: Backend) -> Self {
        let app = TestApp::start_with(backend, |options| options.seal = Some(seal(SEED, Vec::new()))).await;
        let database = Database::of(&app);
        let (ehr, auditor) = (app.client("ehr").await, app.client("auditor").await);
        let letter = document(&ehr, b"%PDF-1.4 a letter").await;
        let mut kept = Vec::new();
        for (half, name) in ["half.txt", "end.txt"].into_iter().enumerate() {
            for _ in 0..50 {
                let task = task("accepted", &letter.id, Some("Practitioner/lane"));
                ehr.post("/fhir/Task", &task).await.expect(201);
            }
            database.sealed().await;
            let note = auditor.get("/admin/audit/checkpoint").await.expect(200).text();
            kept.push(file(&app.folder(), &format!("{half}-{name}"), &note));
        }
        let rows = database.sealed().await;
        assert!(rows > 300, "{rows} rows are too few for a stored node");
        let one = |column: &str, of: &str| {
            database.count(&format!(
                "SELECT {column} AS count FROM ledger_leaves WHERE tenant = 'default' AND position = {of}"
            ))
        };
        let position = rows * 2 / 3;
        let number = one("sequence", &position.to_string());
        let last = one(
            "sequence",
            "(SELECT max(position) FROM ledger_leaves WHERE tenant = 'default')",
        );
        let kept = kept.try_into().expect("two");
        Self {
            _stores: app.end().await,
            database,
            kept,
            number,
            position,
            last,
        }
    }

    fn fill(&self, text: &str) -> String {
        text.replace("{N}", &self.number.to_string())
            .replace("{P}", &self.position.to_string())
            .replace("{LAST}", &self.last.to_string())
    }

    /// The arguments that name what was kept.
    fn kept(&self) -> Vec<&str> {
        self.kept
            .iter()
            .flat_map(|path| ["--checkpoint", path.as_str()])
            .collect()
    }
}

on_both! {
    async fn what_was_done_behind_the_servers_back_is_found_and_where(backend) {
        let sealed = Sealed::new(backend).await;
        let verify = [&["verify"], sealed.kept().as_slice()].concat();

        let clean = sealed.database.audit(SEED, &verify).await;
        assert_eq!(clean.code, Some(0), "{}{}", clean.out, clean.err);
        assert!(clean.out.contains("2 of 2 given checkpoints agree"), "{}", clean.out);

        let mut wrong = String::new();
        for one in ALL {
            let copy = sealed.database.copy(one.name);
            copy.sql(&sealed.fill(one.statements));
            let ended = copy.audit(SEED, &verify).await;
            let missed: Vec<String> =
                one.found.iter().map(|text| sealed.fill(text)).filter(|text| !ended.out.contains(text)).collect();
            if ended.code != Some(1) || !missed.is_empty() {
                let _infallible = writeln!(wrong, "{}: {:?}, not said: {missed:?}\n{}{}", one.name, ended.code, ended.out, ended.err);
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
    }

    /// Who knows how the ledger works can make leaves, nodes and rows fit each other, but not the signature.
    async fn what_fits_itself_is_not_what_was_signed(backend) {
        let sealed = Sealed::new(backend).await;
        let verify = [&["verify"], sealed.kept().as_slice()].concat();
        let (salt, entry) = ([9; 32], r#"{"nothing":"happened"}"#);
        let bytes = |hash: Hash| match backend {
            Backend::Embedded => format!("x'{hash}'"),
            Backend::Production => format!("'\\x{hash}'::bytea"),
        };
        let forged = format!(
            "UPDATE audit_log SET entry = '{entry}' WHERE tenant = 'default' AND sequence = {{N}}; \
             UPDATE ledger_leaves SET salt = {}, commitment = {} WHERE tenant = 'default' AND sequence = {{N}}",
            bytes(Hash(salt)),
            bytes(commit(&salt, entry.as_bytes()).0),
        );
        let copy = sealed.database.copy("forged");
        copy.sql(&sealed.fill(&forged));
        let ended = copy.audit(SEED, &verify).await;
        assert_eq!(ended.code, Some(1));
        let half = std::fs::read_to_string(&sealed.kept[0]).unwrap();
        let half = half.lines().nth(1).unwrap();
        let between = format!("the difference is after the first {half}, which are");
        assert!(ended.out.contains(&between), "{between}: {}", ended.out);

        // A checkpoint that somebody else signs is none, also where the tail was cut to fit an honest older one.
        let other = SigningKey::from_pem(&format!("{}/default", handoff_integration_tests::ledger::ORIGIN), &pem(8)).unwrap();
        let note = other
            .sign(&Checkpoint { origin: other.name().to_owned(), size: 5, root: Hash([1; 32]), extensions: Vec::new() })
            .unwrap();
        let copy = sealed.database.copy("other");
        copy.sql(&format!("UPDATE ledger_checkpoints SET note = '{note}', size = 5"));
        let ended = copy.audit(SEED, &verify).await;
        assert_eq!(ended.code, Some(1));
        assert!(ended.out.contains("the checkpoint of size 5 is not valid"), "{}", ended.out);

        let honest = std::fs::read_to_string(&sealed.kept[0]).unwrap();
        let cut = format!(
            "UPDATE ledger_checkpoints SET note = '{honest}', size = {half}; \
             DELETE FROM audit_log WHERE tenant = 'default' AND sequence > \
             (SELECT sequence FROM ledger_leaves WHERE tenant = 'default' AND position = {half} - 1); \
             DELETE FROM ledger_leaves WHERE tenant = 'default' AND position >= {half}; \
             DELETE FROM ledger_nodes WHERE tenant = 'default' AND (position + 1) * 256 > {half}"
        );
        let copy = sealed.database.copy("cut");
        copy.sql(&cut);
        let by_itself = copy.audit(SEED, &["verify"]).await;
        assert_eq!(by_itself.code, Some(0), "nothing in it tells: {}", by_itself.out);
        assert!(by_itself.out.contains("proved with `--checkpoint` alone"), "{}", by_itself.out);
        let ended = copy.audit(SEED, &verify).await;
        assert_eq!(ended.code, Some(1));
        assert!(ended.out.contains("were signed: the last"), "{}", ended.out);
    }
}
