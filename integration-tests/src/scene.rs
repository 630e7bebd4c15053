//! Building blocks of the tests: documents, Tasks, and the usual state of things.

use serde_json::{Value, json};

use crate::{Answer, Client, TestApp};

/// The patient that most scenes are about.
pub const ADA: &str = "Patient/ada";

/// Another one.
pub const BEN: &str = "Patient/ben";

/// The name of every patient of the tests; `checks/logs` looks for it in the logs.
pub const MARKER: &str = "Zebulon-Marker";

/// A stored document with its content.
#[derive(Debug, Clone)]
pub struct Document {
    /// Logical id of the DocumentReference.
    pub id: String,
    /// Logical id of the Binary.
    pub binary: String,
    /// The bytes.
    pub content: Vec<u8>,
}

/// Bytes that are nowhere the same for long.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    (0..length.div_ceil(8))
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(length)
        .collect()
}

/// Uploads content as a Binary and answers its id.
pub async fn upload(client: &Client, content: &[u8]) -> String {
    client
        .post_bytes("/fhir/Binary", "application/pdf", content.to_vec())
        .await
        .expect(201)
        .id()
}

/// A DocumentReference about a patient that names a Binary.
pub fn document_reference(binary: &str, patient: &str) -> Value {
    json!({
        "resourceType": "DocumentReference",
        "status": "current",
        "type": {"coding": [{"system": "http://loinc.org", "code": "57133-1"}]},
        "subject": {"reference": patient, "display": MARKER},
        "description": format!("Letter about {MARKER}"),
        "content": [{"attachment": {
            "contentType": "application/pdf",
            "url": format!("Binary/{binary}"),
            "title": format!("Letter about {MARKER}")
        }}]
    })
}

/// Stores a document about Ada with this content, as `client`.
pub async fn document(client: &Client, content: &[u8]) -> Document {
    document_about(client, ADA, content).await
}

async fn document_about(client: &Client, patient: &str, content: &[u8]) -> Document {
    let binary = upload(client, content).await;
    let id = client
        .post("/fhir/DocumentReference", &document_reference(&binary, patient))
        .await
        .expect(201)
        .id();
    Document {
        id,
        binary,
        content: content.to_vec(),
    }
}

/// A Task about Ada over a document, for the cardiology team.
pub fn task(status: &str, document: &str, owner: Option<&str>) -> Value {
    let mut task = json!({
        "resourceType": "Task",
        "status": status,
        "intent": "order",
        "code": {"coding": [{"system": "http://hl7.org/fhir/CodeSystem/task-code", "code": "fulfill"}]},
        "focus": {"reference": format!("DocumentReference/{document}")},
        "for": {"reference": ADA, "display": MARKER},
        "description": format!("Please see {MARKER}"),
        "performerType": [{"coding": [
            {"system": "https://handoff.example/fhir/CodeSystem/team", "code": "cardiology"}
        ]}]
    });
    if let Some(owner) = owner {
        task["owner"] = json!({"reference": owner});
    }
    task
}

/// Stores a referral of Lane's about Ben, as `ehr`: the Task's id, and the document.
pub async fn about_ben(ehr: &Client) -> (String, Document) {
    let document = document_about(ehr, BEN, b"%PDF-1.4 about somebody else").await;
    let mut about = task("accepted", &document.id, Some("Practitioner/lane"));
    about["for"]["reference"] = json!(BEN);
    let task = ehr.post("/fhir/Task", &about).await.expect(201).id();
    (task, document)
}

/// The usual scene: `ehr` has given `lane` one document, under a Task that is accepted.
pub struct Referral {
    /// The placer.
    pub ehr: Client,
    /// The specialist who owns the Task.
    pub lane: Client,
    /// The document.
    pub document: Document,
    /// Logical id of the Task.
    pub task: String,
}

impl Referral {
    /// Sets the scene with this content.
    pub async fn with_content(app: &TestApp, content: &[u8]) -> Self {
        let (ehr, lane) = (app.client("ehr").await, app.client("lane").await);
        Self::between(ehr, (lane, "Practitioner/lane"), content).await
    }

    /// Sets the scene between a placer and an owner, who is called this.
    pub async fn between(ehr: Client, (lane, owner): (Client, &str), content: &[u8]) -> Self {
        let document = document(&ehr, content).await;
        let task = ehr
            .post("/fhir/Task", &task("accepted", &document.id, Some(owner)))
            .await
            .expect(201)
            .id();
        Self {
            ehr,
            lane,
            document,
            task,
        }
    }

    /// Sets the scene with a short content.
    pub async fn set(app: &TestApp) -> Self {
        Self::with_content(app, b"%PDF-1.4 a referral letter").await
    }

    /// Fetches the content as `client`.
    pub async fn fetch(&self, client: &Client) -> Answer {
        client.get(&self.content_path()).await
    }

    /// Where the content is fetched.
    pub fn content_path(&self) -> String {
        format!("/fhir/Binary/{}?task=Task/{}", self.document.binary, self.task)
    }

    /// The Task as it stands.
    pub async fn current(&self) -> Value {
        self.ehr
            .get(&format!("/fhir/Task/{}", self.task))
            .await
            .expect(200)
            .json()
    }

    /// Changes the Task as `client`.
    pub async fn change(&self, client: &Client, edit: impl FnOnce(&mut Value)) -> Answer {
        let mut task = self.current().await;
        edit(&mut task);
        client.put(&format!("/fhir/Task/{}", self.task), &task).await
    }

    /// Moves the Task to a status as `client`.
    pub async fn move_to(&self, client: &Client, status: &str) -> Answer {
        self.change(client, |task| task["status"] = json!(status)).await
    }

    /// The grants of the document as the placer sees them.
    pub async fn grants(&self) -> Vec<Value> {
        let path = format!("/files/{}/access-grants", self.document.id);
        let body = self.ehr.get(&path).await.expect(200).json();
        body["grants"].as_array().cloned().unwrap_or_default()
    }

    /// The audit rows about the Task as the auditor sees them, newest first: event code and reason.
    pub async fn audited(&self, app: &TestApp) -> Vec<Value> {
        let auditor = app.client("auditor").await;
        let path = format!("/fhir/AuditEvent?entity=Task/{}&_count=200", self.task);
        let body = auditor.get(&path).await.expect(200).json();
        body["entry"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|e| e["resource"].clone())
            .collect()
    }
}
