//! The audit at its sinks: every row, in order and once where all is well, at least once and the same where it is not; and nobody who
//! waits for a sink but that sink.

use std::time::{Duration, Instant};

use handoff::config::Sink;
use handoff_domain::forwarding::Start;
use handoff_integration_tests::chaos::record::Recorder;
use handoff_integration_tests::chaos::servers::Fleet;
use handoff_integration_tests::chaos::stand::{Cell, Stand};
use handoff_integration_tests::forwarding::arrivals::{
    Batch, Row, attribute, batches, judge, records, sink, taken,
};
use handoff_integration_tests::forwarding::load::Writers;
use handoff_integration_tests::forwarding::trial;
use handoff_integration_tests::scene::{document, task};
use handoff_integration_tests::subscriber::{Received, Reply, Subscriber};
use handoff_integration_tests::{Backend, TestApp, eventually, on_both};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use prost::Message as _;
use serde_json::json;

/// How long something may take in a debug build while other tests run, and a killed process's lease lapses.
const SOON: Duration = Duration::from_mins(1);
/// Longer than any test.
const NEVER: Duration = Duration::from_hours(1);

/// A receiver, and the sink that it is to the server.
struct Receiver {
    endpoint: Subscriber,
    sink: Sink,
}

impl Receiver {
    async fn start(name: &str, kind: &str) -> Self {
        let endpoint = Subscriber::start().await;
        Self {
            sink: sink(name, kind, &endpoint.url),
            endpoint,
        }
    }

    fn batches(&self) -> Vec<Batch> {
        batches(&self.sink.kind, &self.endpoint.received())
    }

    /// Waits until all of these were taken; answers everything that came.
    async fn until_all(&self, truth: &[Row]) -> Vec<Batch> {
        let kind = &self.sink.kind;
        let all = |received: &[Received]| {
            let taken = taken(&batches(kind, received));
            truth.iter().all(|row| taken.contains(row))
        };
        let received = self.endpoint.until(SOON, all).await;
        let came = batches(kind, &received);
        assert_eq!(judge(&came, truth), [""; 0]);
        came
    }

    async fn until_tried(&self, times: usize) -> Vec<Received> {
        self.endpoint.until(SOON, |all| all.len() >= times).await
    }
}

async fn start(backend: Backend, receivers: &[&Receiver]) -> TestApp {
    let sinks: Vec<Sink> = receivers.iter().map(|one| one.sink.clone()).collect();
    TestApp::start_with(backend, |options| options.forwarding = sinks).await
}

/// Lets something happen that is recorded, in two tenants.
async fn happen(app: &TestApp, times: usize) {
    let (ehr, other) = (app.client("ehr").await, app.client("ehr-b").await);
    let letter = document(&ehr, b"%PDF-1.4 a letter").await.id;
    for number in 0..times {
        let task = task("accepted", &letter, Some("Practitioner/lane"));
        ehr.post("/fhir/Task", &task).await.expect(201);
        let title = format!("number {number}");
        let document = json!({"resourceType": "DocumentReference", "status": "current",
            "content": [{"attachment": {"title": title}}]});
        other
            .post("/t/b/fhir/DocumentReference", &document)
            .await
            .expect(201);
    }
}

/// All rows that there are.
async fn truth(app: &TestApp) -> Vec<Row> {
    let found = app.server.app.read(|read| {
        let mut rows = Vec::new();
        for tenant in read.audited_tenants()? {
            for entry in read.audit_entries(&tenant, i64::MIN, i64::MAX, 100_000)? {
                rows.push((tenant.to_string(), entry.sequence));
            }
        }
        rows.sort_by_key(|(_, number)| *number);
        Ok(rows)
    });
    found.await.expect("the database answers")
}

on_both! {
    async fn every_row_comes_once_and_in_order_to_each_sink(backend) {
        let webhook = Receiver::start("once-hook", "webhook").await;
        let otlp = Receiver::start("once-otlp", "otlp").await;
        let app = start(backend, &[&webhook, &otlp]).await;
        happen(&app, 10).await;
        let rows = truth(&app).await;
        let came = webhook.until_all(&rows).await;
        assert_eq!(taken(&came), rows);
        let logged = otlp.until_all(&rows).await;
        assert_eq!(taken(&logged), rows);
        let tenants: Vec<&str> = rows.iter().map(|(tenant, _)| tenant.as_str()).collect();
        assert!(tenants.contains(&"b") && tenants.contains(&"default"), "{tenants:?}");

        // What is sent is what an auditor reads, in either form.
        let auditor = app.client("auditor").await;
        for came in [&came, &logged] {
            let events = came.iter().flat_map(|batch| &batch.events);
            let event = events.clone().find(|event| event["source"]["site"] == "default").unwrap();
            let id = event["id"].as_str().unwrap();
            let read = auditor.get(&format!("/fhir/AuditEvent/{id}")).await.expect(200).json();
            assert_eq!(read, *event);
        }
        let logs: Vec<_> = otlp.endpoint.received().iter().flat_map(records).collect();
        let created = logs.iter().find(|log| log.event_name == "handoff.audit.task-created").unwrap();
        assert_eq!((created.severity_number, created.severity_text.as_str()), (9, "INFO"));
        assert!(attribute(created, "handoff.task").unwrap().starts_with("Task/"));
        assert_eq!(attribute(created, "handoff.actor").as_deref(), Some("Organization/referring-clinic"));
        assert!(created.time_unix_nano > 1_600_000_000_000_000_000);

        // Nothing of it is recorded, and it is all counted.
        eventually("it is counted", async || {
            app.metric("handoff_forwarding_rows_total{sink=\"once-hook\"}").await >= 20.0
        }).await;
        assert!(app.metric("handoff_forwarding_attempts_total{sink=\"once-otlp\",result=\"taken\"}").await >= 1.0);
        let later = truth(&app).await;
        assert_eq!(later.len() - rows.len(), 2, "only that the audit was read, twice");
    }

    async fn a_sink_that_was_down_misses_nothing_and_is_left_alone_as_long_as_it_asks(backend) {
        let webhook = Receiver::start("down-hook", "webhook").await;
        let otlp = Receiver::start("down-otlp", "otlp").await;
        webhook.endpoint.behave(|_| Reply::status(500));
        otlp.endpoint.behave(|_| Reply::cut());
        let app = start(backend, &[&webhook, &otlp]).await;
        webhook.until_tried(2).await;
        let wish = Duration::from_secs(3);
        webhook.endpoint.behave(|_| Reply::status(429).header("Retry-After", "3"));
        let before = webhook.endpoint.received().len();
        webhook.until_tried(before + 1).await;
        webhook.endpoint.behave(|_| Reply::status(200));
        happen(&app, 5).await;
        otlp.until_tried(2).await;
        otlp.endpoint.behave(|_| Reply::status(200));
        let rows = truth(&app).await;
        let came = webhook.until_all(&rows).await;
        otlp.until_all(&rows).await;
        // One batch was tried again and again, as it was.
        let first = &came[0];
        let again: Vec<&Batch> = came.iter().filter(|batch| batch.id == first.id).collect();
        assert!(again.len() > before, "{} tries", again.len());
        assert_eq!(again.iter().filter(|batch| batch.taken).count(), 1);
        let received = webhook.endpoint.received();
        let asked = received.iter().rposition(|one| one.answered == Some(429)).unwrap();
        let waited = received[asked + 1].at.duration_since(received[asked].at);
        assert!(waited >= wish, "{waited:?}");
        assert!(app.metric("handoff_forwarding_attempts_total{sink=\"down-hook\",result=\"status-429\"}").await >= 1.0);
        assert!(app.metric("handoff_forwarding_attempts_total{sink=\"down-hook\",result=\"status-5xx\"}").await >= 2.0);
    }

    async fn a_sink_that_never_answers_delays_neither_requests_nor_another_sink(backend) {
        let mut silent = Receiver::start("silent-hook", "webhook").await;
        silent.sink.timeout = Duration::from_mins(2);
        let otlp = Receiver::start("silent-otlp", "otlp").await;
        silent.endpoint.behave(|_| Reply::status(200).after(NEVER));
        let mut app = start(backend, &[&silent, &otlp]).await;
        silent.until_tried(1).await;
        happen(&app, 10).await;
        let rows = truth(&app).await;
        otlp.until_all(&rows).await;
        assert_eq!(silent.endpoint.received().len(), 1);
        eventually("its lag is told", async || {
            app.metric("handoff_forwarding_lag_seconds{sink=\"silent-hook\"}").await > 0.0
        }).await;
        // Nor does it keep the server from ending.
        let asked = Instant::now();
        app.halt().await;
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    }

    async fn a_redirect_is_not_followed(backend) {
        let elsewhere = Subscriber::start().await;
        let webhook = Receiver::start("elsewhere", "webhook").await;
        let target = format!("{}/audit", elsewhere.url);
        webhook.endpoint.behave(move |_| Reply::status(307).header("Location", &target));
        let app = start(backend, &[&webhook]).await;
        webhook.until_tried(2).await;
        webhook.endpoint.behave(|_| Reply::status(204));
        webhook.until_all(&truth(&app).await).await;
        assert!(elsewhere.received().is_empty());
    }

    async fn what_a_collector_refuses_is_counted_and_the_rest_goes_on(backend) {
        let otlp = Receiver::start("partial", "otlp").await;
        let answer = ExportLogsServiceResponse {
            partial_success: Some(ExportLogsPartialSuccess {
                rejected_log_records: 1,
                error_message: "one is not liked".to_owned(),
            }),
        };
        let answer = answer.encode_to_vec();
        otlp.endpoint.behave(move |_| Reply::status(200).body(answer.clone()));
        let app = start(backend, &[&otlp]).await;
        otlp.until_tried(1).await;
        happen(&app, 2).await;
        let rows = truth(&app).await;
        let came = otlp.until_all(&rows).await;
        assert!(came.len() >= 2, "it goes on");
        assert_eq!(taken(&came), rows, "nothing is sent again");
        eventually("it is counted", async || {
            app.metric("handoff_forwarding_refused_rows_total{sink=\"partial\"}").await >= 2.0
        }).await;
    }

    /// Without a key that seals the audit, and on servers that recorded before there was a sink.
    async fn a_new_sink_begins_with_the_first_row_or_from_now_on(backend) {
        let all = Receiver::start("from-beginning", "webhook").await;
        let mut late = Receiver::start("from-now", "webhook").await;
        late.sink.start = Start::Now;
        let mut app = TestApp::start_with(backend, |options| options.seal = None).await;
        happen(&app, 3).await;
        app.halt().await;
        let old = truth(&app).await;
        app.options.forwarding = vec![late.sink.clone()];
        let mut app = TestApp::start_again(&app).await;
        eventually("the sink begins", async || {
            let name = late.sink.name.clone();
            let found = app.server.app.read(move |read| Ok(read.cursor(&name)?)).await;
            found.unwrap().is_some()
        }).await;
        happen(&app, 1).await;
        app.halt().await;
        // Where it was is where it goes on, whatever stands in the configuration.
        late.sink.start = Start::Beginning;
        app.options.forwarding = vec![late.sink.clone(), all.sink.clone()];
        let app = TestApp::start_again(&app).await;
        happen(&app, 1).await;
        let rows = truth(&app).await;
        all.until_all(&rows).await;
        let new: Vec<Row> = rows.iter().filter(|row| !old.contains(row)).cloned().collect();
        let last = new.last().unwrap().clone();
        let kind = late.sink.kind.clone();
        late.endpoint.until(SOON, |received| taken(&batches(&kind, received)).contains(&last)).await;
        let came = taken(&late.batches());
        assert!(came.iter().all(|row| new.contains(row)), "nothing old");
        assert!(came.len() + 3 >= new.len(), "what was recorded once it had begun");
    }

    async fn a_batch_that_was_fixed_is_read_whole_however_large_the_holes_are(backend) {
        let mut app = TestApp::start(backend).await;
        happen(&app, 4).await;
        app.halt().await;
        let database = handoff_integration_tests::ledger::Database::of(&app);
        database.sql("UPDATE audit_log SET sequence = sequence * 1000 + 1000000");
        let rows = truth(&app).await;
        let (_, last) = rows[rows.len() - 2];
        let found = app.server.app.rows_of_batch(0, last).await.unwrap();
        let found: Vec<Row> = found
            .into_iter()
            .map(|row| (row.tenant.to_string(), row.recorded.sequence))
            .collect();
        assert_eq!(found, rows[..rows.len() - 1]);
        let next = app.server.app.rows_to_forward(last, i64::MAX).await.unwrap();
        assert_eq!(next.len(), 1);
    }

    /// What had been begun is sent again as it was, under the same name, by whoever comes next.
    async fn a_server_that_is_killed_in_mid_batch_repeats_it_as_it_was(backend) {
        let webhook = Receiver::start("webhook", "webhook").await;
        webhook.endpoint.behave(|_| Reply::cut().after(NEVER));
        let stand = Stand::prepare(backend);
        let forward = format!("webhook={}/audit", webhook.endpoint.url);
        let fleet = Fleet::start_with(&stand, 1, &["--forward", &forward]).await;
        let writers = Writers::at(&fleet.issuer, &fleet.servers[0].base).await;
        webhook.until_tried(1).await;
        // More is recorded meanwhile, which is not in the batch.
        writers.write(Duration::from_millis(300)).await;
        fleet.servers[0].crash(async {}, &Recorder::default()).await;
        webhook.endpoint.behave(|_| Reply::status(200));
        let before = webhook.endpoint.received().len();
        writers.write(Duration::from_millis(300)).await;
        let rows = stand.reader().rows(
            &[Cell::Plain("tenant"), Cell::Plain("sequence")],
            "FROM audit_log ORDER BY sequence",
        );
        let rows: Vec<Row> = rows
            .iter()
            .map(|row| (row[0].as_str().unwrap().to_owned(), row[1].as_i64().unwrap()))
            .collect();
        let came = webhook.until_all(&rows).await;
        let (first, again) = (&came[0], &came[before]);
        assert!(!first.taken && again.taken);
        assert_eq!((&first.id, &first.body), (&again.id, &again.body));
        fleet.servers[0].kill().await;
    }
}

/// One of them forwards; the other goes on where it stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_replicas_one_forwards_and_the_other_takes_over() {
    let webhook = Receiver::start("replicas-hook", "webhook").await;
    let otlp = Receiver::start("replicas-otlp", "otlp").await;
    let mut app = start(Backend::Production, &[&webhook, &otlp]).await;
    let replica = app.replica().await;
    happen(&app, 3).await;
    happen(&replica, 3).await;
    let rows = truth(&app).await;
    assert_eq!(taken(&webhook.until_all(&rows).await), rows);
    assert_eq!(taken(&otlp.until_all(&rows).await), rows);
    let ehr = app.client("ehr").await.at(&replica.server.base_url);
    app.halt().await;
    let letter = json!({"resourceType": "DocumentReference", "status": "current",
        "content": [{"attachment": {"title": "late"}}]});
    ehr.post("/fhir/DocumentReference", &letter).await.expect(201);
    let rows = truth(&replica).await;
    assert_eq!(taken(&webhook.until_all(&rows).await), rows);
    assert_eq!(taken(&otlp.until_all(&rows).await), rows);
}

/// Batches are bounded, and whatever has waited comes in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_of_thousands_comes_in_bounded_batches() {
    let webhook = Receiver::start("backlog", "webhook").await;
    let mut app = TestApp::start(Backend::Embedded).await;
    happen(&app, 1).await;
    app.halt().await;
    handoff_integration_tests::ledger::Database::of(&app).sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
         INSERT INTO audit_log (tenant, recorded, event, outcome, correlation, entry) \
         SELECT a.tenant, a.recorded, a.event, a.outcome, a.correlation, a.entry FROM n, \
         (SELECT * FROM audit_log WHERE tenant = 'b' LIMIT 1) a; \
         UPDATE audit_log SET sequence = sequence + 100000 WHERE sequence > 1000",
    );
    app.options.forwarding = vec![webhook.sink.clone()];
    let app = TestApp::start_again(&app).await;
    let rows = truth(&app).await;
    assert!(rows.len() > 3000);
    let came = webhook.until_all(&rows).await;
    assert_eq!(taken(&came), rows);
    assert!(
        came.iter()
            .all(|batch| batch.rows.len() <= 500 && batch.body.len() <= 1 << 20)
    );
    assert!(came.len() < 60, "{} batches", came.len());
}

/// A row that can't be read is passed over by nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_can_not_be_read_holds_up_what_follows_until_it_can() {
    let webhook = Receiver::start("unreadable", "webhook").await;
    webhook.endpoint.behave(|_| Reply::status(503));
    let app = start(Backend::Embedded, &[&webhook]).await;
    webhook.until_tried(1).await;
    happen(&app, 1).await;
    let rows = truth(&app).await;
    let database = handoff_integration_tests::ledger::Database::of(&app);
    let (_, last) = rows.last().unwrap();
    database.sql(&format!(
        "UPDATE audit_log SET entry = '!' || entry WHERE sequence = {last}"
    ));
    webhook.endpoint.behave(|_| Reply::status(200));
    eventually("it is told", async || {
        app.metric("handoff_forwarding_attempts_total{sink=\"unreadable\",result=\"not-read\"}")
            .await
            >= 1.0
    })
    .await;
    assert!(!taken(&webhook.batches()).contains(rows.last().unwrap()));
    database.sql(&format!(
        "UPDATE audit_log SET entry = substr(entry, 2) WHERE sequence = {last}"
    ));
    webhook.until_all(&rows).await;
}

/// A short run of `integration-tests/forwarding`. How much slower a debug build is beside other tests says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sinks_that_are_down_for_long_get_everything_in_the_end() {
    let outcome = trial::run(Backend::Embedded, 6, Duration::from_secs(2)).await;
    let found: Vec<&String> = outcome
        .found
        .iter()
        .filter(|found| !found.contains("slow-down"))
        .collect();
    assert!(found.is_empty(), "{found:?}\n{outcome}");
    assert!(outcome.rows > 100, "{outcome}");
}
