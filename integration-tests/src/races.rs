//! Races between two servers on the same stores: many who redeem one grant at once, and a Task that is cancelled at
//! one server while its document is on its way from the other.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::chaos::stand::Stand;
use crate::figures::Figures;
use crate::process::Program;
use crate::scene::{Document, document, noise, task};
use crate::slow::SlowDownload;
use crate::{Backend, Client, eventually, http_client};

/// Large enough not to be over before the cancel comes.
const LONG: usize = 24 * 1024 * 1024;

/// Two server processes on PostgreSQL and Azurite, and the cast as clients of the first.
pub struct Pair {
    /// The placer.
    pub ehr: Client,
    /// The owner of every Task.
    pub lane: Client,
    auditor: Client,
    /// Where the two serve.
    pub bases: [String; 2],
    /// The processes, in the same order.
    pub programs: [Program; 2],
    _stand: Stand,
}

impl Pair {
    /// Starts both, the second with the issuer of the first.
    pub async fn start() -> Self {
        let stand = Stand::prepare(Backend::Production);
        let (database, blob) = (stand.database_url(), stand.blob_url());
        let stores = ["--database", database.as_str(), "--blob", blob.as_str()];
        let common = [&["demo", "--no-play", "--port", "0"], stores.as_slice()].concat();
        let mut first = Program::start(&common);
        let (here, _) = first.addresses().await;
        let issuer = format!("{here}/dev-issuer");
        let mut second = Program::start(&[common.as_slice(), &["--issuer", &issuer]].concat());
        let (there, _) = second.addresses().await;
        let http = http_client();
        let sign_in = async |name: &str| Client::sign_in(&http, &here, &here, name).await;
        Self {
            ehr: sign_in("ehr").await,
            lane: sign_in("lane").await,
            auditor: sign_in("auditor").await,
            bases: [here, there],
            programs: [first, second],
            _stand: stand,
        }
    }

    /// Stores a document that a race is about.
    pub async fn document(&self, content: &[u8]) -> Document {
        document(&self.ehr, content).await
    }

    /// Has `many` redeem one grant at once, half of them at either server. Fails unless one alone is served, and
    /// everybody else refused for the right reason, by the answers as by the audit and by the grant.
    pub async fn one_of_many_wins(&self, many: usize, document: &Document) {
        let id = accepted(&self.ehr, document).await;
        let path = content_path(document, &id);
        let redeeming: Vec<_> = (0..many)
            .map(|n| {
                let [here, there] = &self.bases;
                let client = self.lane.at(if n % 2 == 0 { here } else { there });
                let path = path.clone();
                tokio::spawn(async move { client.get(&path).await })
            })
            .collect();
        let mut served = 0;
        for one in redeeming {
            let answer = one.await.expect("an answer");
            if answer.status == 200 {
                served += 1;
                assert!(answer.body == document.content, "the right bytes");
            } else {
                answer.refused(403, "exhausted");
            }
        }
        assert_eq!(
            served, 1,
            "of {many} that redeem one grant at once, one is served"
        );
        let grants = self
            .ehr
            .get(&format!("/files/{}/access-grants", document.id))
            .await
            .expect(200)
            .json();
        let grant = grants["grants"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|grant| grant["task"].as_str().is_some_and(|task| task.ends_with(&id)))
            .cloned();
        assert_eq!(grant.map(|grant| grant["uses"].clone()), Some(json!(1)));
        eventually("the one stream has told its end", async || {
            self.audited(&id, "redemption-completed").await == 1
        })
        .await;
        assert_eq!(self.audited(&id, "redemption-authorized").await, 1);
        assert_eq!(self.audited(&id, "redemption-denied").await, many - 1);
    }

    /// How many rows of this event the audit has about a Task.
    pub async fn audited(&self, id: &str, event: &str) -> usize {
        let path = format!("/fhir/AuditEvent?entity=Task/{id}&_count=200");
        let found = self.auditor.get(&path).await.expect(200).json();
        let is_of_event = |row: &&Value| {
            row["resource"]["subtype"]
                .as_array()
                .is_some_and(|s| s.iter().any(|c| c["code"] == event))
        };
        let rows = found["entry"].as_array().into_iter().flatten();
        rows.filter(is_of_event).count()
    }

    /// Cancels Tasks while their document is on its way, from the other server or from the same, at both in turns.
    pub async fn cancels_against_downloads(&self, trials: usize, same: bool) -> Cuts {
        let document = self.document(&noise(LONG)).await;
        let mut cuts = Cuts::default();
        for trial in 0..trials {
            let [here, there] = &self.bases;
            let (at, other) = if trial % 2 == 0 {
                (here, there)
            } else {
                (there, here)
            };
            let (ehr, lane) = (self.ehr.at(at), self.lane.at(if same { at } else { other }));
            cuts.note(cancel_against_download(&ehr, &lane, &document, trial).await);
        }
        cuts
    }
}

/// How long downloads went on after their Tasks were cancelled.
#[derive(Debug, Clone, Default)]
pub struct Cuts {
    /// Since the cancel was sent.
    pub since_asked: Figures,
    /// Since it was answered.
    pub since_answered: Figures,
}

impl Cuts {
    /// Takes note of one.
    pub fn note(&mut self, cut: Cut) {
        self.since_asked.note(cut.since_asked);
        self.since_answered.note(cut.since_answered);
    }
}

/// How long one download went on.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Since the cancel was sent.
    pub since_asked: Duration,
    /// Since it was answered; nothing where the download was over before.
    pub since_answered: Duration,
}

/// Cancels a Task as `ehr` while `lane` downloads its document. The download must break off.
pub async fn cancel_against_download(ehr: &Client, lane: &Client, document: &Document, trial: usize) -> Cut {
    let id = accepted(ehr, document).await;
    let download = SlowDownload::start(lane, &content_path(document, &id), 100_000).await;
    let watching = tokio::spawn(download.over());
    // The watch looks at fixed times: met at all of its phases.
    sleep(Duration::from_millis(20 + (trial as u64 * 37) % 100)).await;
    let mut cancelled = ehr.get(&format!("/fhir/Task/{id}")).await.expect(200).json();
    cancelled["status"] = json!("cancelled");
    let asked = Instant::now();
    ehr.put(&format!("/fhir/Task/{id}"), &cancelled).await.expect(200);
    let answered = Instant::now();
    let (over, whole) = watching.await.expect("its end");
    assert!(!whole, "the client must see an error, not the whole content");
    Cut {
        since_asked: over.saturating_duration_since(asked),
        since_answered: over.saturating_duration_since(answered),
    }
}

/// A Task over the document that its owner has accepted.
pub async fn accepted(ehr: &Client, document: &Document) -> String {
    let body = task("accepted", &document.id, Some("Practitioner/lane"));
    ehr.post("/fhir/Task", &body).await.expect(201).id()
}

/// Where the owner of a Task fetches its document.
pub fn content_path(document: &Document, task: &str) -> String {
    format!("/fhir/Binary/{}?task=Task/{task}", document.binary)
}
