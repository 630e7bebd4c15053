//! A day at the server, operation by operation: the audit holds exactly what `audited_day.txt` says, and the accounting of a
//! patient's disclosures is what left.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use handoff::app::AppError;
use handoff::app::reads::Recorded;
use handoff_domain::audit::AuditRow;
use handoff_domain::ids::TenantId;
use handoff_domain::ports::{AuditSearch, RecordedRow};
use handoff_domain::time::Span;
use handoff_integration_tests::scene::{
    ADA, Referral, about_ben, document, document_reference, noise, task, upload,
};
use handoff_integration_tests::slow::SlowDownload;
use handoff_integration_tests::{TestApp, on_both};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

const EXPECTED: &str = include_str!("audited_day.txt");
const LETTER: &[u8] = b"%PDF-1.4 a referral letter";
/// Longer than what sockets and the server hold on the way to a client that does not read.
const LONG: usize = 20 * 1024 * 1024;
/// Details that differ from run to run.
const VOLATILE: [&str; 7] = [
    "policy",
    "rules",
    "milliseconds",
    "sha256",
    "bytes",
    "bytes-in-all",
    "expires",
];

/// What was recorded, as it comes in.
struct Day<'a> {
    app: &'a TestApp,
    last: i64,
    acts: usize,
    names: Names,
    told: String,
}

/// Ids as the text has them: in the order in which they are met.
#[derive(Default)]
struct Names {
    known: Vec<(String, String)>,
    counts: HashMap<&'static str, usize>,
}

impl Names {
    fn name(&mut self, id: &str, kind: &'static str) {
        if id.len() > 8 && !self.known.iter().any(|(known, _)| known == id) {
            let count = self.counts.entry(kind).or_default();
            *count += 1;
            self.known.push((id.to_owned(), format!("{kind}-{count}")));
        }
    }

    fn put_into(&self, mut text: String) -> String {
        for (id, name) in &self.known {
            text = text.replace(id, name);
        }
        text
    }
}

impl<'a> Day<'a> {
    async fn begin(app: &'a TestApp) -> Self {
        let mut day = Self {
            app,
            last: 0,
            acts: 0,
            names: Names::default(),
            told: String::new(),
        };
        day.last = day.recorded().await.last().map_or(0, |row| row.sequence);
        day
    }

    async fn recorded(&self) -> Vec<RecordedRow> {
        let search = AuditSearch {
            after: Some(self.last),
            oldest_first: true,
            limit: 1_000,
            ..AuditSearch::default()
        };
        let read = self
            .app
            .server
            .app
            .read(move |read| Ok::<_, AppError>(read.audit(&TenantId::default_tenant(), &search)?));
        read.await.expect("the audit can be read")
    }

    /// Does something, and takes down what was recorded of it. What comes late, because something else ends by it, is waited for.
    async fn act<T>(&mut self, what: &str, act: impl Future<Output = T>) -> T {
        let done = act.await;
        self.acts += 1;
        let title = format!("{:02} {what}", self.acts);
        let expected = EXPECTED
            .lines()
            .skip_while(|line| *line != title)
            .skip(1)
            .take_while(|line| line.starts_with(' '))
            .count();
        let mut rows = self.recorded().await;
        for _ in 0..100 {
            if rows.len() >= expected {
                break;
            }
            sleep(Duration::from_millis(50)).await;
            rows = self.recorded().await;
        }
        writeln!(self.told, "{title}").expect("a string takes text");
        for recorded in rows {
            self.last = recorded.sequence;
            let line = self.line(&recorded.row);
            writeln!(self.told, "   {line}").expect("a string takes text");
        }
        done
    }

    fn line(&mut self, row: &AuditRow) -> String {
        let about = &row.about;
        let things = [
            ("task", &about.task, about.task_version),
            ("document", &about.document, about.document_version),
            ("binary", &about.binary, None),
            ("grant", &about.grant, None),
            ("redemption", &about.redemption, None),
        ];
        let who = row.agent.actor.as_deref().or(row.agent.address.as_deref());
        let mut line = format!(
            "{} {} {} {}",
            row.event.as_str(),
            row.outcome.as_str(),
            row.reason.as_str(),
            who.map_or("the server", |who| if who == "127.0.0.1" {
                "a stranger"
            } else {
                who
            }),
        );
        if let Some(patient) = &about.patient {
            write!(line, " {patient}").expect("a string takes text");
        }
        for (kind, reference, version) in things {
            let Some(reference) = reference else { continue };
            let id = reference.rsplit('/').next().unwrap_or_default();
            self.names.name(id, kind);
            write!(line, " {id}").expect("a string takes text");
            if let Some(version) = version {
                write!(line, "/{version}").expect("a string takes text");
            }
        }
        for (name, value) in &row.detail {
            if name == "block" {
                self.names.name(value, "block");
            }
            // Where a download was when it broke off.
            let broke_off = name == "from" && value.parse::<u64>().is_ok_and(|at| at > 0);
            let value = if broke_off { "there" } else { value };
            if !VOLATILE.contains(&name.as_str()) {
                write!(line, " {name}={value}").expect("a string takes text");
            }
        }
        self.names.put_into(line)
    }

    fn add(&mut self, title: &str, lines: impl IntoIterator<Item = String>) {
        writeln!(self.told, "{title}").expect("a string takes text");
        for line in lines {
            writeln!(self.told, "   {}", self.names.put_into(line)).expect("a string takes text");
        }
    }

    /// Everything is as the text says.
    fn check(self) {
        if self.told == EXPECTED {
            return;
        }
        let place = self.app.folder().with_extension("txt");
        std::fs::write(&place, &self.told).expect("a file can be written");
        let differs = self
            .told
            .lines()
            .zip(EXPECTED.lines())
            .find(|(told, expected)| told != expected);
        panic!("it is not as expected, see {}: {differs:#?}", place.display());
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

on_both! {
    async fn the_audit_holds_exactly_what_was_done_and_the_accounting_what_left(backend) {
        let app = TestApp::start_with(backend, |options| options.audit_reads = Recorded::Each).await;
        let (ehr, lane, otis) = (app.client("ehr").await, app.client("lane").await, app.client("otis").await);
        let (glass, operator) = (app.client("glass").await, app.client("operator").await);
        let (auditor, clerk) = (app.client("auditor").await, app.client("clerk").await);
        let reader = app.scoped("lane", "user/Task.rs", None).await;
        let mut day = Day::begin(&app).await;

        // A referral, from its letter to the first download.
        let letter = day.act("the placer stores a letter", document(&ehr, LETTER)).await;
        let asked = task("requested", &letter.id, None);
        let created = day.act("and places a Task over it", ehr.post("/fhir/Task", &asked)).await.expect(201);
        let referral = Referral { ehr: ehr.clone(), lane: lane.clone(), document: letter, task: created.id() };
        let at = format!("/fhir/Task/{}", referral.task);
        let found = day.act("the specialist looks for Tasks", lane.get("/fhir/Task?status=requested&_count=5")).await;
        assert_eq!(found.expect(200).json()["entry"].as_array().map(Vec::len), Some(1));
        day.act("and reads the one", lane.get(&at)).await.expect(200);
        let mut claimed = created.json();
        claimed["status"] = json!("accepted");
        claimed["owner"] = json!({"reference": "Practitioner/lane"});
        day.act("and claims it", lane.put(&at, &claimed)).await.expect(200);
        let letter_at = format!("/fhir/DocumentReference/{}", referral.document.id);
        day.act("she reads what the letter is", lane.get(&letter_at)).await.expect(200);
        day.act("looks at it without taking it", lane.head(&referral.content_path())).await.expect(200);
        day.act("and downloads it", referral.fetch(&lane)).await.expect(200);
        day.act("a second time is once too often", referral.fetch(&lane)).await.refused(403, "exhausted");
        let again = json!({"task": format!("Task/{}", referral.task), "actor": {"reference": "Practitioner/lane"}});
        let grants = format!("/files/{}/access-grants", referral.document.id);
        day.act("so the placer issues another grant", ehr.post_plain(&grants, &again)).await.expect(201);
        day.act("and she downloads it again", referral.fetch(&lane)).await.expect(200);
        day.act("an earlier version of the Task is read", ehr.get(&format!("{at}/_history/1"))).await.expect(200);
        day.act("and its history", ehr.get(&format!("{at}/_history"))).await.expect(200);

        // Those who may not.
        day.act("a physician of another team looks at the Task", otis.get(&at)).await.expect(404);
        day.act("looks for it", otis.get("/fhir/Task")).await.expect(200);
        day.act("tries to change it", otis.put(&at, &claimed)).await.expect(404);
        day.act("tries to delete it", otis.delete(&at)).await.expect(204);
        day.act("and asks for the letter", referral.fetch(&otis)).await.expect(404);
        day.act("the placer can't have it either", referral.fetch(&ehr)).await.refused(403, "policy-denied");
        day.act("who has no token is asked for one", app.stranger().get(&at)).await.expect(401);
        let forged = app.stranger().with_token("not.a.token".to_owned());
        day.act("who has a wrong one is refused", forged.get(&at)).await.refused(401, "token-invalid");
        day.act("a token for Tasks reads no documents", reader.get(&letter_at)).await.refused(403, "insufficient-scope");
        let back = day.act("a Task does not go back", referral.move_to(&lane, "requested")).await;
        back.refused(422, "illegal-transition");
        let stale = lane.request(Method::PUT, &at).header("content-type", "application/fhir+json");
        let stale = stale.header("if-match", "W/\"1\"").body(claimed.to_string());
        day.act("who read an old version changes nothing", lane.send(stale)).await.expect(412);
        day.act("what is not there is not read", ehr.get("/fhir/Task/nowhere")).await.expect(404);

        // Downloads that do not come to their end.
        let scan = day.act("a long scan is handed over", Referral::with_content(&app, &noise(LONG))).await;
        let (etag, had) = day
            .act("its download breaks off", async {
                let mut download = SlowDownload::start(&lane, &scan.content_path(), 100_000).await;
                let had = download.read_some(200_000).await.len();
                (download.header("etag").expect("a tag"), had)
            })
            .await;
        let rest = lane.request(Method::GET, &scan.content_path()).header("if-range", etag);
        let rest = rest.header("range", format!("bytes={had}-"));
        day.act("and goes on from where it was", lane.send(rest)).await.expect(206);
        let film = day.act("another one is handed over", Referral::with_content(&app, &noise(LONG + 1))).await;
        let (download, ended) = day
            .act("and cancelled while it is downloaded", async {
                let download = SlowDownload::start(&lane, &film.content_path(), 100_000).await;
                film.move_to(&ehr, "cancelled").await.expect(200);
                download.over().await
            })
            .await;
        assert!(!ended, "{download:?}");
        day.act("after which it is not given any more", film.fetch(&lane)).await.refused(403, "task-cancelled");
        let bad = day.act("one is handed over", Referral::with_content(&app, b"%PDF-1.4 as it was")).await;
        app.replace_content(&bad.document.binary, b"%PDF-1.4 not so").await;
        day.act("that is not what was stored", bad.fetch(&lane)).await.expect(500);
        day.act("so that it is cancelled", bad.move_to(&ehr, "cancelled")).await.expect(200);
        let late = day.act("one is handed over that nobody fetches", Referral::set(&app)).await;
        app.clock.advance(Span::minutes(16));
        day.act("until its grant expires", async {}).await;
        day.act("and it is too late", late.fetch(&lane)).await.refused(403, "expired");

        // What ends grants besides.
        let old = day.act("a letter is handed over", Referral::set(&app)).await;
        let better = day.act("a better one is taken in", upload(&ehr, b"%PDF-1.4 better")).await;
        let mut replacing = document_reference(&better, ADA);
        replacing["relatesTo"] = json!([{"code": "replaces",
            "target": {"reference": format!("DocumentReference/{}", old.document.id)}}]);
        day.act("which takes its place", ehr.post("/fhir/DocumentReference", &replacing)).await.expect(201);
        day.act("so that it is not given", old.fetch(&lane)).await.refused(403, "document-superseded");
        let gone = day.act("another letter is handed over", Referral::set(&app)).await;
        let gone_at = format!("/fhir/DocumentReference/{}", gone.document.id);
        day.act("and deleted", ehr.delete(&gone_at)).await.expect(204);
        day.act("deleting it again does nothing", ehr.delete(&gone_at)).await.expect(204);
        let blocked = json!({"actor": "Practitioner/lane", "reason": "drill"});
        let placed = day.act("the operator blocks the specialist", operator.post_plain("/admin/revocations", &blocked)).await;
        day.act("who is refused", lane.get(&at)).await.refused(403, "actor-revoked");
        let block = placed.expect(201).json()["id"].as_str().expect("an id").to_owned();
        day.act("and lets her in again", operator.delete(&format!("/admin/revocations/{block}"))).await.expect(204);
        day.act("the Task is over", referral.move_to(&lane, "in-progress")).await.expect(200);
        day.act("at last", referral.move_to(&lane, "completed")).await.expect(200);
        day.act("and the letter not to be had", referral.fetch(&lane)).await.refused(403, "task-completed");

        // Emergencies, and another patient.
        let path = format!("/fhir/Binary/{}", referral.document.binary);
        let urgent = |client: &handoff_integration_tests::Client| {
            client.request(Method::GET, &path).header("x-break-glass-reason", "unconscious")
        };
        day.act("in an emergency the letter is taken", glass.send(urgent(&glass))).await.expect(200);
        day.act("by who may do so alone", clerk.send(urgent(&clerk))).await.expect_one_of(&[403, 404]);
        let (task, other) = day.act("a letter about Ben is handed over", about_ben(&ehr)).await;
        let of_ben = format!("/fhir/Binary/{}?task=Task/{task}", other.binary);
        day.act("and downloaded", lane.get(&of_ben)).await.expect(200);

        // Those who look at all this.
        day.act("a specialist may not read the audit", lane.get("/fhir/AuditEvent")).await.expect(403);
        day.act("the auditor does", auditor.get("/fhir/AuditEvent?patient=Patient/ada&_count=1")).await.expect(200);
        let accounts = format!("/admin/audit/disclosures?patient={ADA}");
        day.act("nor see to whom it was disclosed", lane.get(&accounts)).await.expect(403);
        let answer = day.act("the auditor sees that too", auditor.get(&accounts)).await.expect(200);
        let as_table = auditor.request(Method::GET, &accounts).header("accept", "text/csv");
        let table = day.act("and as a table", auditor.send(as_table)).await.expect(200);

        let accounting = answer.json();
        let told = accounting["disclosures"].as_array().expect("disclosures").clone();
        let columns = ["recipient", "client", "document", "binary", "task", "extent", "purpose", "grant", "redemption"];
        let line = |one: &Value| columns.map(|name| one.get(name).map_or_else(|| "-".to_owned(), text)).join(" ");
        day.add("The accounting of Ada", told.iter().map(line));
        let sizes: Vec<Option<u64>> = told.iter().map(|one| one["bytes"].as_u64()).collect();
        let whole = Some(LETTER.len() as u64);
        assert_eq!((sizes[0], sizes[1], sizes.last().copied().flatten()), (whole, whole, whole));
        assert_eq!(table.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
        assert_eq!(table.text().lines().count(), told.len() + 1);
        assert!(told.iter().all(|one| table.text().contains(&text(&one["redemption"]))));

        // Nothing comes afterwards.
        sleep(Duration::from_secs(1)).await;
        day.act("the day is over", async {}).await;
        day.check();
    }
}
