//! A server with its cast signed in, and the documents and Tasks that the measurements need. Everything here is
//! preparation: nothing of it is measured.

use std::path::Path;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::http::{Answer, Connection, Target, once};
use crate::load::{Expected, each};
use crate::server::{Server, Stores};

/// FHIR JSON.
pub const FHIR: &str = "application/fhir+json";
/// The specialist whom most Tasks are for.
pub const LANE: &str = "Practitioner/lane";
/// Connections that prepare things.
const HANDS: usize = 16;

/// A server and how to talk to it.
pub struct Stage {
    /// The server.
    pub server: Server,
    /// Its base URL.
    pub target: Target,
    ehr: String,
    lane: String,
}

/// A stored document.
#[derive(Debug, Clone)]
pub struct Document {
    /// Id of the DocumentReference.
    pub id: String,
    /// Id of the Binary.
    pub binary: String,
}

impl Stage {
    /// Starts a server on `stores` and signs the cast in.
    pub async fn set(program: &Path, stores: &Stores) -> Result<Self> {
        let server = Server::start(program, stores, None).await?;
        let target = Target::parse(&server.base)?;
        Ok(Self {
            ehr: token(&target, "ehr").await?,
            lane: token(&target, "lane").await?,
            server,
            target,
        })
    }

    /// Another token for a member of the cast.
    pub async fn sign_in(&self, name: &str) -> Result<String> {
        token(&self.target, name).await
    }

    /// A request of the placer.
    pub fn as_ehr(&self, method: &str, path: &str, body: &Value) -> Bytes {
        with_token(&self.target, &self.ehr, method, path, body)
    }

    /// A request of the placer to another server with the same issuer.
    pub fn as_ehr_at(&self, target: &Target, method: &str, path: &str, body: &Value) -> Bytes {
        with_token(target, &self.ehr, method, path, body)
    }

    /// A request of the specialist.
    pub fn as_lane(&self, method: &str, path: &str, body: &Value) -> Bytes {
        with_token(&self.target, &self.lane, method, path, body)
    }

    /// The request that fetches a document under a Task.
    pub fn fetch(&self, document: &Document, task: &str) -> Bytes {
        self.as_lane(
            "GET",
            &format!("/fhir/Binary/{}?task=Task/{task}", document.binary),
            &Value::Null,
        )
    }

    /// Uploads `count` documents of `size` bytes each.
    pub async fn documents(&self, count: usize, size: u64) -> Result<Vec<Document>> {
        let block = noise();
        let mut connection = Connection::open(&self.target).await?;
        let bearer = bearer(&self.ehr);
        let head = self.target.head(
            "POST",
            "/fhir/Binary",
            &[("authorization", &bearer), ("content-type", "application/pdf")],
            size,
        );
        let mut binaries = Vec::new();
        for _ in 0..count {
            let answer = connection.upload(&head, &block, size).await?;
            binaries.push(answer.expect(201, "upload of a document")?.id()?);
        }
        let requests = binaries.iter().map(|binary| {
            let body = json!({
                "resourceType": "DocumentReference",
                "status": "current",
                "type": {"coding": [{"system": "http://loinc.org", "code": "57133-1"}]},
                "subject": {"reference": "Patient/ada"},
                "content": [{"attachment": {"contentType": "application/pdf", "url": format!("Binary/{binary}")}}]
            });
            self.as_ehr("POST", "/fhir/DocumentReference", &body)
        });
        let made = each(&self.target, HANDS, CREATED, requests.collect()).await?;
        made.iter()
            .zip(binaries)
            .map(|(answer, binary)| {
                Ok(Document {
                    id: answer.id()?,
                    binary,
                })
            })
            .collect()
    }

    /// Creates `count` accepted Tasks of the specialist over these documents, one after the other of them; each binds
    /// a grant. Answers them as they are stored.
    pub async fn tasks(&self, count: usize, documents: &[Document]) -> Result<Vec<Value>> {
        let requests = documents
            .iter()
            .cycle()
            .take(count)
            .map(|document| self.as_ehr("POST", "/fhir/Task", &task("accepted", document, LANE)));
        let made = each(&self.target, HANDS, CREATED, requests.collect()).await?;
        made.iter().map(Answer::json).collect()
    }

    /// The ids of such Tasks.
    pub async fn task_ids(&self, count: usize, documents: &[Document]) -> Result<Vec<String>> {
        self.tasks(count, documents).await?.iter().map(id_of).collect()
    }
}

/// What creating answers.
pub const CREATED: Expected = Expected {
    what: "create",
    status: 201,
};

/// A request with a Bearer token; no body where that is null.
pub fn with_token(target: &Target, token: &str, method: &str, path: &str, body: &Value) -> Bytes {
    let bearer = bearer(token);
    if body.is_null() {
        return target.request(method, path, &[("authorization", &bearer)], b"");
    }
    let headers = [("authorization", bearer.as_str()), ("content-type", FHIR)];
    target.request(method, path, &headers, body.to_string().as_bytes())
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// `id` of a resource.
pub fn id_of(resource: &Value) -> Result<String> {
    resource["id"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::new("a resource without an id"))
}

/// A referral as EHRs send them, about 1.2 kB.
pub fn task(status: &str, document: &Document, owner: &str) -> Value {
    json!({
        "resourceType": "Task",
        "identifier": [{"system": "https://ehr.example/referrals", "value": format!("R-{}", document.id)}],
        "status": status,
        "intent": "order",
        "priority": "routine",
        "code": {"coding": [{"system": "http://hl7.org/fhir/CodeSystem/task-code", "code": "fulfill"}],
                 "text": "Specialist referral"},
        "description": "Referral to cardiology with the discharge letter attached",
        "focus": {"reference": format!("DocumentReference/{}", document.id)},
        "for": {"reference": "Patient/ada"},
        "authoredOn": "2026-01-05T09:30:00+01:00",
        "requester": {"reference": "Organization/referring-clinic"},
        "performerType": [{"coding": [
            {"system": "https://handoff.example/fhir/CodeSystem/team", "code": "cardiology"}
        ]}],
        "owner": {"reference": owner},
        "reasonCode": {"text": "Exertional dyspnoea for three weeks, new systolic murmur"},
        "note": [{"text": "Please see within two weeks. Echocardiography has been requested by us already."}]
    })
}

async fn token(target: &Target, name: &str) -> Result<String> {
    let form = format!("grant_type=client_credentials&client_id={name}");
    let request = target.request(
        "POST",
        "/dev-issuer/token",
        &[("content-type", "application/x-www-form-urlencoded")],
        form.as_bytes(),
    );
    let answer = once(target, &request).await?.expect(200, "a token")?.json()?;
    answer["access_token"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::new("the issuer gave no token"))
}

/// A mebibyte that does not compress: what a generator with a fixed seed gives.
pub fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = 1024 * 1024 / 8;
    let mut bytes = Vec::with_capacity(words * 8);
    for _ in 0..words {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}
