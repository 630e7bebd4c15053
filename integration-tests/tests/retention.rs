//! Three clocks that never mix: a grant's expiry, a document's availability, the retention of its content; and the hold that stops
//! the last one. A table of cases, each a test; days pass by the test's own clock.

use futures_util::StreamExt as _;
use handoff::app::disposal;
use handoff_domain::ids::{BinaryId, TenantId};
use handoff_domain::ports::{BlobError, Clock as _};
use handoff_domain::time::{Span, Timestamp};
use handoff_integration_tests::scene::{ADA, document_reference, noise, task, upload};
use handoff_integration_tests::slow::SlowDownload;
use handoff_integration_tests::{Answer, Backend, TestApp, eventually, on_both};
use serde_json::{Value, json};

const LANE: &str = "Practitioner/lane";
/// The case that the letter belongs to.
pub(crate) const CASE: &str = "EpisodeOfCare/hip";

/// What is made of letters in these tests: kept for a month, or for ever; and deleted a day after they were marked.
pub(crate) const A_MONTH: &str = "[class.referral-note]\nkeep = \"30d\"\n";
pub(crate) const FOR_EVER: &str = "[default]\nkeep = \"forever\"\n";

/// A server with a letter that Lane may fetch, and what becomes of both.
pub(crate) struct Stand {
    pub(crate) app: TestApp,
    pub(crate) letter: String,
    binary: String,
    task: String,
    began: Timestamp,
}

impl Stand {
    /// Sets it up where this is what is kept.
    pub(crate) async fn set(backend: Backend, schedules: &str) -> Self {
        Self::with_content(backend, schedules, 1_000).await
    }

    async fn with_content(backend: Backend, schedules: &str, length: usize) -> Self {
        let app = TestApp::start_in(backend, |options, folder| {
            let file = folder.join("retention.toml");
            std::fs::write(&file, schedules).unwrap();
            options.policies.retention = Some(file);
        })
        .await;
        let ehr = app.client("ehr").await;
        let binary = upload(&ehr, &noise(length)).await;
        let mut letter = document_reference(&binary, ADA);
        letter["context"] = json!({"encounter": [{"reference": CASE}]});
        let letter = ehr
            .post("/fhir/DocumentReference", &letter)
            .await
            .expect(201)
            .id();
        let asked = task("accepted", &letter, Some(LANE));
        let task = ehr.post("/fhir/Task", &asked).await.expect(201).id();
        let began = app.server.app.clock.now();
        Self {
            app,
            letter,
            binary,
            task,
            began,
        }
    }

    /// Goes on to this day after the letter came to be, and does what is due by then.
    pub(crate) async fn day(&self, day: i64) {
        self.hours(24 * day).await;
    }

    async fn hours(&self, hours: i64) {
        let left = self.began.plus(Span::hours(hours)).since(self.app.clock.now());
        assert!(left > Span(0), "time goes on");
        self.app.clock.advance(left);
        self.dispose().await;
    }

    /// Does what is due.
    async fn dispose(&self) {
        handoff::app::retention::follow_availability(&self.app.server.app)
            .await
            .unwrap();
        disposal::run_once(&self.app.server.app, &[TenantId::default_tenant()])
            .await
            .unwrap();
    }

    fn instant(&self, day: i64) -> String {
        self.began.plus(Span::hours(24 * day)).to_instant()
    }

    pub(crate) async fn records(&self, method: &str, path: &str, body: &Value) -> Answer {
        let records = self.app.client("records").await;
        match method {
            "POST" => records.post_plain(path, body).await,
            "PUT" => records.put_plain(path, body).await,
            "DELETE" => records.delete(path).await,
            _ => records.get(path).await,
        }
    }

    /// Holds what `field` names, maybe until a day.
    pub(crate) async fn hold(&self, field: &str, value: &str, until: Option<i64>) -> String {
        let mut body = json!({"reason": "a matter before court", field: value});
        if let Some(day) = until {
            body["until"] = json!(self.instant(day));
        }
        let placed = self
            .records("POST", "/admin/holds", &body)
            .await
            .expect(201)
            .json();
        placed["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn hold_letter(&self) -> Answer {
        let path = format!("/admin/documents/{}/hold", self.letter);
        self.records("POST", &path, &json!({"reason": "a matter before court"}))
            .await
    }

    pub(crate) async fn release_letter(&self) {
        let path = format!("/admin/documents/{}/hold", self.letter);
        self.records("DELETE", &path, &Value::Null).await.expect(204);
    }

    /// Sets the letter's clocks, in days.
    async fn clocks(&self, from: Option<i64>, until: Option<i64>, retain: Option<i64>) {
        let mut body = json!({"reason": "as agreed"});
        for (name, day) in [("from", from), ("until", until), ("retainUntil", retain)] {
            body[name] = day.map_or(Value::Null, |day| json!(self.instant(day)));
        }
        let path = format!("/admin/documents/{}/availability", self.letter);
        self.records("PUT", &path, &body).await.expect(200);
    }

    pub(crate) async fn purge(&self) -> Answer {
        let records = self.app.client("records").await;
        let body = json!({"resourceType": "Parameters",
            "parameter": [{"name": "reason", "valueString": "asked for by the patient"}]});
        let path = format!("/fhir/DocumentReference/{}/$purge", self.letter);
        records.post(&path, &body).await
    }

    pub(crate) async fn delete_letter(&self) -> Answer {
        let ehr = self.app.client("ehr").await;
        ehr.delete(&format!("/fhir/DocumentReference/{}", self.letter))
            .await
    }

    /// Whether Lane, with a fresh grant, is sent the letter; else the reason.
    async fn released(&self) -> String {
        let (ehr, lane) = (self.app.client("ehr").await, self.app.client("lane").await);
        let path = format!("/files/{}/access-grants", self.letter);
        let asked = json!({"task": format!("Task/{}", self.task), "actor": {"reference": LANE}, "action": "download"});
        let grant = ehr.post_plain(&path, &asked).await;
        let path = format!("/fhir/Binary/{}?task=Task/{}", self.binary, self.task);
        let fetched = lane.get(&path).await;
        // Both say the same of it.
        if grant.status == 201 {
            assert_eq!(fetched.status, 200, "{}", String::from_utf8_lossy(&fetched.body));
            assert_eq!(fetched.body.len(), 1_000);
            return "released".to_owned();
        }
        assert_eq!(fetched.reason(), grant.reason());
        grant.reason().expect("a reason")
    }

    /// Whether the bytes are in the blob store.
    pub(crate) async fn content(&self) -> &'static str {
        let (tenant, id) = (
            TenantId::default_tenant(),
            BinaryId::parse(self.binary.as_str()).unwrap(),
        );
        let app = &self.app.server.app;
        let found = app
            .read(move |read| Ok(read.binary(&tenant, &id)?))
            .await
            .unwrap();
        let pin = found.expect("its record").pin;
        let read = match app.blobs.get(&pin, 0..1_000).await {
            Ok(mut stream) => stream.next().await.expect("something").map(drop),
            Err(error) => Err(error),
        };
        match read {
            Ok(()) => "there",
            Err(BlobError::NotFound) => "gone",
            Err(error) => panic!("{error}"),
        }
    }

    /// What the records manager is told.
    async fn state(&self) -> String {
        let path = format!("/admin/documents/{}/availability", self.letter);
        let told = self.records("GET", &path, &Value::Null).await.expect(200).json();
        told["retention"]["state"].as_str().unwrap().to_owned()
    }

    async fn is(&self, released: &str, content: &str, state: &str) {
        let seen = (self.released().await, self.content().await, self.state().await);
        assert_eq!(
            (seen.0.as_str(), seen.1, seen.2.as_str()),
            (released, content, state)
        );
    }
}

on_both! {
    async fn by_itself_nothing_ends(backend) {
        let stand = Stand::set(backend, FOR_EVER).await;
        stand.day(3_650).await;
        stand.is("released", "there", "kept").await;
    }

    async fn what_was_kept_long_enough_is_gone_a_day_after_it_was_marked(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        stand.day(29).await;
        stand.is("released", "there", "kept").await;
        stand.day(30).await;
        stand.is("document-deleted", "there", "disposed").await;
        stand.hours(30 * 24 + 23).await;
        stand.is("document-deleted", "there", "disposed").await;
        stand.hours(31 * 24 + 1).await;
        stand.is("document-deleted", "gone", "disposed").await;
        let ehr = stand.app.client("ehr").await;
        ehr.get(&format!("/fhir/DocumentReference/{}", stand.letter)).await.expect(410);
    }

    async fn only_its_own_class_is_disposed_of(backend) {
        let stand = Stand::set(backend, "[class.progress-note]\nkeep = \"30d\"\n").await;
        stand.day(365).await;
        stand.is("released", "there", "kept").await;
    }

    async fn what_has_no_schedule_of_its_own_has_the_default(backend) {
        let stand = Stand::set(backend, "[default]\nkeep = \"30d\"\n[class.progress-note]\nkeep = \"forever\"\n").await;
        stand.day(30).await;
        stand.day(32).await;
        stand.is("document-deleted", "gone", "disposed").await;
    }

    async fn a_change_begins_the_time_anew_where_it_is_counted_from_that(backend) {
        let stand = Stand::set(backend, "[default]\nkeep = \"30d\"\nfrom = \"last-changed\"\n").await;
        stand.day(20).await;
        let ehr = stand.app.client("ehr").await;
        let path = format!("/fhir/DocumentReference/{}", stand.letter);
        let mut letter = ehr.get(&path).await.expect(200).json();
        letter["description"] = json!("a better word for it");
        ehr.put(&path, &letter).await.expect(200);
        stand.day(49).await;
        stand.is("released", "there", "kept").await;
        stand.day(51).await;
        stand.day(53).await;
        stand.is("document-deleted", "gone", "disposed").await;
    }

    async fn a_hold_on_the_document_beats_retention_and_changes_nothing_else(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        stand.hold_letter().await.expect(201);
        stand.day(400).await;
        stand.is("released", "there", "held").await;
        stand.release_letter().await;
        stand.dispose().await;
        stand.day(402).await;
        stand.is("document-deleted", "gone", "disposed").await;
    }

    async fn a_hold_on_the_patient_beats_retention(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        let hold = stand.hold("patient", ADA, None).await;
        stand.day(400).await;
        stand.is("released", "there", "held").await;
        stand.records("DELETE", &format!("/admin/holds/{hold}"), &Value::Null).await.expect(204);
        stand.dispose().await;
        stand.day(402).await;
        assert_eq!(stand.content().await, "gone");
    }

    async fn a_hold_on_the_case_beats_retention(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        stand.hold("case", CASE, None).await;
        stand.day(400).await;
        stand.is("released", "there", "held").await;
    }

    async fn a_hold_on_somebody_else_holds_nothing(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        stand.hold("patient", "Patient/ben", None).await;
        stand.hold("case", "EpisodeOfCare/knee", None).await;
        stand.day(30).await;
        stand.day(32).await;
        assert_eq!(stand.content().await, "gone");
    }

    async fn a_hold_ends_by_itself_at_its_time(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        stand.hold("document", &stand.letter, Some(100)).await;
        stand.day(99).await;
        stand.is("released", "there", "held").await;
        stand.day(100).await;
        stand.day(102).await;
        stand.is("document-deleted", "gone", "disposed").await;
    }

    async fn of_two_holds_both_have_to_end(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        stand.hold_letter().await.expect(201);
        stand.hold("patient", ADA, Some(100)).await;
        stand.day(50).await;
        stand.release_letter().await;
        stand.day(99).await;
        stand.is("released", "there", "held").await;
        stand.day(100).await;
        stand.day(102).await;
        assert_eq!(stand.content().await, "gone");
    }

    async fn a_hold_that_comes_after_the_mark_keeps_the_content_and_releases_nothing(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        stand.day(30).await;
        stand.hold_letter().await.expect(201);
        stand.day(400).await;
        stand.is("document-deleted", "there", "disposed").await;
        stand.release_letter().await;
        stand.dispose().await;
        stand.is("document-deleted", "gone", "disposed").await;
    }

    async fn a_hold_comes_too_late_for_what_is_gone_and_says_so(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        stand.day(30).await;
        stand.day(32).await;
        stand.hold_letter().await.refused(409, "document-deleted");
    }

    async fn availability_ends_releases_and_nothing_else(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        stand.clocks(None, Some(10), None).await;
        stand.day(9).await;
        stand.is("released", "there", "kept").await;
        stand.day(10).await;
        stand.is("document-withheld", "there", "kept").await;
        stand.day(29).await;
        stand.is("document-withheld", "there", "kept").await;
    }

    async fn availability_begins_when_it_is_time(backend) {
        let stand = Stand::set(backend, FOR_EVER).await;
        stand.clocks(Some(2), Some(5), None).await;
        stand.is("document-withheld", "there", "kept").await;
        stand.day(2).await;
        stand.is("released", "there", "kept").await;
        stand.day(5).await;
        stand.is("document-withheld", "there", "kept").await;
    }

    async fn grants_are_suspended_while_a_document_is_withheld_and_arise_when_it_is_not(backend) {
        let stand = Stand::set(backend, FOR_EVER).await;
        let states = async |task: &str| {
            let path = format!("/files/{}/access-grants?status=all", stand.letter);
            let listed = stand.app.client("ehr").await.get(&path).await.expect(200).json();
            let of_task = |one: &&Value| one["task"] == format!("Task/{task}");
            let grants = listed["grants"].as_array().unwrap().iter().filter(of_task);
            grants.map(|one| one["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(states(&stand.task).await, ["bound"]);
        stand.clocks(Some(2), None, None).await;
        assert_eq!(states(&stand.task).await, ["suspended"]);
        stand.clocks(None, None, None).await;
        assert_eq!(states(&stand.task).await, ["bound"]);
        stand.clocks(Some(2), None, None).await;
        let asked = task("accepted", &stand.letter, Some(LANE));
        let later = stand.app.client("ehr").await.post("/fhir/Task", &asked).await.expect(201).id();
        assert_eq!(states(&later).await, [] as [&str; 0]);
        stand.day(2).await;
        // Its own time did not stand still.
        assert_eq!(states(&stand.task).await, ["expired"]);
        assert_eq!(states(&later).await, ["bound"]);
        let lane = stand.app.client("lane").await;
        lane.get(&format!("/fhir/Binary/{}?task=Task/{later}", stand.binary)).await.expect(200);
    }

    async fn what_is_withheld_is_cut_in_mid_download(backend) {
        let stand = Stand::with_content(backend, FOR_EVER, 8 << 20).await;
        let lane = stand.app.client("lane").await;
        let path = format!("/fhir/Binary/{}?task=Task/{}", stand.binary, stand.task);
        let download = SlowDownload::start(&lane, &path, 64 << 10).await;
        stand.clocks(Some(2), None, None).await;
        let (_, came_to_its_end) = download.over().await;
        assert!(!came_to_its_end);
        lane.get(&path).await.refused(403, "document-withheld");
    }

    async fn a_class_may_be_available_for_a_time_and_a_records_manager_may_change_that(backend) {
        let stand = Stand::set(backend, "[default]\navailable = \"7d\"\n").await;
        stand.day(6).await;
        stand.is("released", "there", "kept").await;
        stand.day(7).await;
        stand.is("document-withheld", "there", "kept").await;
        stand.clocks(None, None, None).await;
        stand.is("released", "there", "kept").await;
    }

    async fn retention_beats_availability(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        stand.clocks(None, Some(4_000), None).await;
        stand.day(30).await;
        stand.is("document-deleted", "there", "disposed").await;
        stand.day(32).await;
        stand.is("document-deleted", "gone", "disposed").await;
    }

    async fn a_hold_does_not_open_what_is_withheld(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        stand.clocks(None, Some(10), None).await;
        stand.hold_letter().await.expect(201);
        stand.day(400).await;
        stand.is("document-withheld", "there", "held").await;
    }

    async fn a_records_manager_may_have_it_kept_longer_and_never_shorter(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        stand.clocks(None, None, Some(60)).await;
        stand.day(59).await;
        stand.is("released", "there", "kept").await;
        stand.clocks(None, None, Some(10)).await;
        stand.day(60).await;
        stand.day(62).await;
        stand.is("document-deleted", "gone", "disposed").await;

        let stand = Stand::set(backend, A_MONTH).await;
        stand.clocks(None, None, Some(10)).await;
        stand.day(29).await;
        stand.is("released", "there", "kept").await;
    }

    async fn what_its_placer_deletes_is_kept_for_as_long_as_the_rest(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        stand.delete_letter().await.expect(204);
        stand.day(29).await;
        stand.is("document-deleted", "there", "kept").await;
        stand.day(30).await;
        stand.day(32).await;
        stand.is("document-deleted", "gone", "disposed").await;
    }

    async fn nobody_deletes_what_is_held(backend) {
        let stand = Stand::set(backend, FOR_EVER).await;
        stand.hold_letter().await.expect(201);
        stand.delete_letter().await.refused(409, "legal-hold");
        stand.purge().await.refused(409, "legal-hold");
        let ehr = stand.app.client("ehr").await;
        // Its grant has to end before content can be deleted at all.
        let task = format!("/fhir/Task/{}", stand.task);
        let mut ended = ehr.get(&task).await.expect(200).json();
        ended["status"] = json!("cancelled");
        ehr.put(&task, &ended).await.expect(200);
        ehr.delete(&format!("/fhir/Binary/{}", stand.binary)).await.refused(409, "legal-hold");
        assert_eq!(stand.content().await, "there");
        stand.release_letter().await;
        stand.delete_letter().await.expect(204);
    }

    async fn a_purge_is_for_what_nothing_keeps(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        stand.purge().await.refused(409, "policy-denied");
        stand.is("released", "there", "kept").await;

        let stand = Stand::set(backend, FOR_EVER).await;
        stand.clocks(None, None, Some(5)).await;
        stand.purge().await.refused(409, "policy-denied");
        stand.day(5).await;
        let purged = stand.purge().await.expect(200).json();
        assert_eq!(purged["parameter"][0], json!({"name": "contents", "valueUnsignedInt": 1}));
        stand.is("document-deleted", "gone", "disposed").await;
    }

    async fn nothing_is_kept_for_a_shorter_time_by_calling_it_something_else(backend) {
        let stand = Stand::set(backend, "[default]\nkeep = \"2d\"\n[class.referral-note]\nkeep = \"30d\"\n").await;
        let ehr = stand.app.client("ehr").await;
        let path = format!("/fhir/DocumentReference/{}", stand.letter);
        let mut letter = ehr.get(&path).await.expect(200).json();
        letter["type"] = json!({"text": "something or other"});
        ehr.put(&path, &letter).await.expect(200);
        stand.day(29).await;
        stand.is("released", "there", "kept").await;
        stand.day(30).await;
        assert_eq!(stand.state().await, "disposed");
    }

    async fn a_schedule_that_is_mended_in_time_keeps_what_it_had_not_meant(backend) {
        let stand = Stand::set(backend, A_MONTH).await;
        stand.day(30).await;
        assert_eq!(stand.state().await, "disposed");
        let file = stand.app.options.policies.retention.clone().unwrap();
        let before = stand.app.server.app.rules.now().policy.version().to_owned();
        std::fs::write(&file, FOR_EVER).unwrap();
        eventually("the file is read", async || stand.app.server.app.rules.now().policy.version() != before).await;
        stand.day(60).await;
        assert_eq!(stand.content().await, "there");
    }

    async fn what_is_marked_can_be_purged_although_the_mark_was_a_change(backend) {
        let stand = Stand::set(backend, "[default]\nkeep = \"30d\"\nfrom = \"last-changed\"\n").await;
        stand.day(31).await;
        stand.is("document-deleted", "there", "disposed").await;
        stand.purge().await.expect(200);
        assert_eq!(stand.content().await, "gone");
    }
}
