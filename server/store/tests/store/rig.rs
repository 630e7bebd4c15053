//! A fresh database per test, on either server, and examples of everything that is stored.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, RunQueryDsl, SqliteConnection};
use handoff_domain::audit::{About, Agent, AuditRow, Event, Outcome};
use handoff_domain::document::{Attachment, Document, DocumentFacts, DocumentStatus, Sha256, StoredBinary};
use handoff_domain::grant::{Constraints, Grant, GrantState, Origin};
use handoff_domain::ports::{self, BlobPin, Read, SearchIndex, StoreError, Tx};
use handoff_domain::redemption::{Redemption, RedemptionState};
use handoff_domain::retention::Availability;
use handoff_domain::task::{Code, PlacerElements, Priority, Task, TaskFacts, TaskStatus};
use handoff_domain::{
    ActorRef, BinaryId, CorrelationId, DocumentId, GrantId, Handle, Reason, RedemptionId, Span, TaskId,
    TenantId, Timestamp,
};
use handoff_store::{DieselStore, StoreConfig};

/// A database of a test's own, gone when the test is.
pub struct Rig {
    pub config: StoreConfig,
    pub store: Arc<DieselStore>,
    pub tenant: TenantId,
    database: Option<TestDatabase>,
    _directory: Option<tempfile::TempDir>,
}

struct TestDatabase {
    server: String,
    name: String,
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Ok(mut connection) = PgConnection::establish(&self.server) {
            let _gone = connection.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

fn server_url() -> String {
    std::env::var("HANDOFF_TEST_POSTGRES_URL").expect(
        "HANDOFF_TEST_POSTGRES_URL names the PostgreSQL server; integration-tests/with-services starts one",
    )
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Rig {
    pub async fn postgres() -> Self {
        let server = server_url();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("handoff_store_{}_{number}", std::process::id());
        PgConnection::establish(&server)
            .unwrap()
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .unwrap();
        let (before, _) = server.rsplit_once('/').unwrap();
        let mut config = StoreConfig::new(format!("{before}/{name}"));
        config.pool_size = 8;
        let database = TestDatabase { server, name };
        Self::open(config, Some(database), None).await
    }

    pub async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("handoff.db");
        let mut config = StoreConfig::new(path.to_str().unwrap());
        config.pool_size = 4;
        Self::open(config, None, Some(directory)).await
    }

    async fn open(
        config: StoreConfig,
        database: Option<TestDatabase>,
        directory: Option<tempfile::TempDir>,
    ) -> Self {
        let all = handoff_store::pending(&config).unwrap().len();
        assert_eq!(handoff_store::migrate(&config).unwrap().len(), all);
        let store = DieselStore::open(&config).await.unwrap();
        Self {
            config,
            store,
            tenant: TenantId::default_tenant(),
            database,
            _directory: directory,
        }
    }

    pub fn is_postgres(&self) -> bool {
        self.database.is_some()
    }

    /// Runs a statement behind the store's back.
    pub fn execute(&self, statement: &str) {
        if self.is_postgres() {
            let mut connection = PgConnection::establish(&self.config.url).unwrap();
            connection.batch_execute(statement).unwrap();
        } else {
            let mut connection = SqliteConnection::establish(&self.config.url).unwrap();
            connection.batch_execute(statement).unwrap();
        }
    }

    /// The column `name` of what a query finds behind the store's back.
    pub fn names(&self, query: &str) -> Vec<String> {
        let query = diesel::sql_query(query);
        let found: Vec<Name> = if self.is_postgres() {
            query
                .load(&mut PgConnection::establish(&self.config.url).unwrap())
                .unwrap()
        } else {
            query
                .load(&mut SqliteConnection::establish(&self.config.url).unwrap())
                .unwrap()
        };
        found.into_iter().map(|row| row.name).collect()
    }

    pub async fn write<T: std::any::Any + Send>(
        &self,
        work: impl FnMut(&mut dyn Tx) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        ports::write(&*self.store, work).await
    }

    pub async fn read<T: std::any::Any + Send>(
        &self,
        reading: impl FnOnce(&mut dyn Read) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        ports::read(&*self.store, reading).await.unwrap()
    }
}

#[derive(diesel::QueryableByName)]
struct Name {
    #[diesel(sql_type = diesel::sql_types::Text)]
    name: String,
}

/// Runs a test on one database.
pub fn on<F: Future<Output = ()>>(rig: impl Future<Output = Rig>, test: impl FnOnce(Arc<Rig>) -> F) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            let rig = Arc::new(rig.await);
            test(rig).await;
        });
}

/// The same test on both databases.
macro_rules! on_both {
    ($($(#[$meta:meta])* async fn $name:ident($rig:ident: Arc<Rig>) $body:block)+) => {
        $(async fn $name($rig: std::sync::Arc<crate::rig::Rig>) $body)+

        mod postgres {
            $($(#[$meta])* #[test]
            fn $name() {
                crate::rig::on(crate::rig::Rig::postgres(), super::$name);
            })+
        }

        mod sqlite {
            $($(#[$meta])* #[test]
            fn $name() {
                crate::rig::on(crate::rig::Rig::sqlite(), super::$name);
            })+
        }
    };
}

pub(crate) use on_both;

pub const NOW: Timestamp = Timestamp(1_770_000_000_000_000);

pub fn after(seconds: i64) -> Timestamp {
    NOW.plus(Span::seconds(seconds))
}

pub fn actor(text: &str) -> ActorRef {
    ActorRef::parse(text).unwrap()
}

pub fn task_id(text: &str) -> TaskId {
    TaskId::parse(text).unwrap()
}

pub fn document_id(text: &str) -> DocumentId {
    DocumentId::parse(text).unwrap()
}

pub fn binary_id(text: &str) -> BinaryId {
    BinaryId::parse(text).unwrap()
}

pub fn grant_id(text: &str) -> GrantId {
    GrantId::parse(text).unwrap()
}

pub fn redemption_id(text: &str) -> RedemptionId {
    RedemptionId::parse(text).unwrap()
}

pub fn task(id: &str) -> Task {
    Task {
        id: task_id(id),
        version: 1,
        last_updated: NOW,
        facts: TaskFacts {
            status: TaskStatus::Ready,
            intent: "order".to_owned(),
            priority: Priority::Urgent,
            code: vec![Code {
                system: Some("http://loinc.org".to_owned()),
                code: "18842-5".to_owned(),
            }],
            focus: Some("DocumentReference/d1".to_owned()),
            inputs: vec![],
            subject: Some("Patient/ada".to_owned()),
            encounter: None,
            requester: Some("Organization/referring-clinic".to_owned()),
            owner: Some("Practitioner/lane".to_owned()),
            recipients: vec![],
            due: None,
            performer_types: vec![Code {
                system: None,
                code: "cardiology".to_owned(),
            }],
            part_of: vec![],
            placer_elements: PlacerElements {
                focus: Some(
                    "{\"reference\":\"x\"
                ..PlacerElements::default()
            }"
                    .to_owned(),
                ),
                ..Default::default()
            },
        },
        created_by: actor("Organization/referring-clinic"),
        held_from: None,
        held_by_parent: false,
        documents: vec![document_id("d1")],
        former_owners: vec![],
        reissues: 0,
        accessed: false,
        deleted: false,
    }
}

/// The next version of a Task.
pub fn next(task: &Task, at: Timestamp) -> Task {
    Task {
        version: task.version + 1,
        last_updated: at,
        ..task.clone()
    }
}

pub fn index(task: &Task) -> SearchIndex {
    let facts = &task.facts;
    let mut index = SearchIndex::default();
    let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    index.tokens.push((
        "status".to_owned(),
        "http://hl7.org/fhir/task-status".to_owned(),
        facts.status.as_str().to_owned(),
    ));
    for code in &facts.code {
        index.tokens.push((
            "code".to_owned(),
            code.system.clone().unwrap_or_default(),
            code.code.clone(),
        ));
    }
    for (name, value) in [
        ("owner", &facts.owner),
        ("requester", &facts.requester),
        ("patient", &facts.subject),
        ("focus", &facts.focus),
    ] {
        if let Some(value) = value {
            index.references.push(named(name, value));
        }
    }
    index
}

pub fn body(text: &str) -> Vec<u8> {
    format!("{{\"resourceType\":\"{text}\"}}").into_bytes()
}

pub fn insert_task(tx: &mut dyn Tx, tenant: &TenantId, task: &Task) -> Result<(), StoreError> {
    tx.insert_task(tenant, task, &body(task.id.as_str()), &index(task))
}

pub fn update_task(tx: &mut dyn Tx, tenant: &TenantId, task: &Task) -> Result<(), StoreError> {
    tx.update_task(tenant, task, &body(task.id.as_str()), Some(&index(task)))
}

pub fn document(id: &str) -> Document {
    Document {
        id: document_id(id),
        version: 1,
        content_version: 1,
        last_updated: NOW,
        facts: DocumentFacts {
            status: DocumentStatus::Current,
            doc_status: Some("final".to_owned()),
            subject: Some("Patient/ada".to_owned()),
            kind: vec![],
            category: vec![],
            security: vec![],
            replaces: vec![],
            encounters: Vec::new(),
            attachments: vec![],
        },
        class: Some("discharge-summary".to_owned()),
        created_by: actor("Organization/referring-clinic"),
        attachments: vec![Attachment {
            binary: binary_id("b1"),
            sha256: Sha256([7; 32]),
            size: 12,
            content_type: "application/pdf".to_owned(),
            title: Some("letter".to_owned()),
            infected: false,
        }],
        superseded: false,
        deleted: false,
        availability: Availability::default(),
        retain_until: None,
        past_classes: Vec::new(),
        disposed: false,
    }
}

pub fn binary(id: &str) -> StoredBinary {
    StoredBinary {
        id: binary_id(id),
        created: NOW,
        uploaded_by: actor("Organization/referring-clinic"),
        document: None,
        content_type: "application/pdf".to_owned(),
        security_context: None,
        size: 5 * 1024 * 1024 * 1024,
        sha1: [1; 20],
        sha256: Sha256([7; 32]),
        pin: BlobPin {
            key: format!("default/{id}"),
            version_id: Some("2026".to_owned()),
            etag: "\"0x1\"".to_owned(),
        },
        deleted: false,
    }
}

pub fn grant(id: &str, task: &str) -> Grant {
    Grant {
        id: grant_id(id),
        handle: Handle::parse(format!("h-{id}")).unwrap(),
        secret_hash: Some([9; 32]),
        task: task_id(task),
        document: document_id("d1"),
        content_version: 1,
        binary: binary_id("b1"),
        sha256: Sha256([7; 32]),
        origin: Origin::Automatic,
        max_uses: 1,
        uses: 0,
        window: Span::minutes(15),
        issued_at: NOW,
        constraints: Constraints {
            client: vec!["viewer-app".to_owned()],
            ..Default::default()
        },
        state: GrantState::Issued,
        revision: 1,
    }
}

/// A grant already bound to `Practitioner/lane`, for 15 minutes.
pub fn bound(id: &str, task: &str) -> Grant {
    Grant {
        revision: 1,
        ..grant(id, task).bind(actor("Practitioner/lane"), NOW).unwrap()
    }
}

pub fn redemption(id: &str, grant: &str, state: RedemptionState) -> Redemption {
    Redemption {
        id: redemption_id(id),
        grant: grant_id(grant),
        grantee: actor("Practitioner/lane"),
        client: "viewer-app".to_owned(),
        key: Some("thumb".to_owned()),
        session: None,
        state,
        cut_reason: None,
        opened_at: NOW,
        window_end: after(600),
        ended_at: None,
        size: 100,
        bytes_sent: 10,
        sent_up_to: 10,
        streams: 1,
        process: Some("p1".to_owned()),
        revision: 1,
    }
}

pub fn audit_row(event: Event, correlation: &str) -> AuditRow {
    AuditRow {
        recorded: NOW,
        event,
        outcome: Outcome::Success,
        reason: Reason::Permitted,
        correlation: CorrelationId::parse(correlation).unwrap(),
        agent: Agent {
            actor: Some("Practitioner/lane".to_owned()),
            ..Default::default()
        },
        about: About {
            task: Some("Task/t1".to_owned()),
            task_version: Some(1),
            document: Some("DocumentReference/d1".to_owned()),
            binary: Some("Binary/b1".to_owned()),
            grant: Some("g1".to_owned()),
            redemption: Some("r1".to_owned()),
            patient: Some("Patient/ada".to_owned()),
            ..Default::default()
        },
        detail: [("bytes".to_owned(), "12".to_owned())].into(),
    }
}

/// What a future answers without waiting, if it does.
pub fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}
