//! Writers: each places a Task and moves it, and does so again as soon as that was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{Client, http_client};

/// How many write at once.
const WRITERS: usize = 16;

/// Who writes at one server.
#[derive(Clone)]
pub struct Writers {
    ehr: Client,
    lane: Client,
}

impl Writers {
    /// Signs them in.
    pub async fn at(issuer: &str, base: &str) -> Self {
        let http = http_client();
        Self {
            ehr: Client::sign_in(&http, issuer, base, "ehr").await,
            lane: Client::sign_in(&http, issuer, base, "lane").await,
        }
    }

    /// Writes for so long; answers how many changes a second were answered.
    pub async fn write(&self, lasting: Duration) -> f64 {
        let done = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let until = began + lasting;
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let (this, done) = (self.clone(), Arc::clone(&done));
            writers.spawn(async move {
                while Instant::now() < until {
                    this.create_and_move().await;
                    done.fetch_add(2, Ordering::Relaxed);
                }
            });
        }
        while let Some(ended) = writers.join_next().await {
            ended.expect("a writer comes to its end");
        }
        let changes = u32::try_from(done.load(Ordering::Relaxed)).expect("so many");
        f64::from(changes) / began.elapsed().as_secs_f64()
    }

    async fn create_and_move(&self) {
        let mut task = json!({
            "resourceType": "Task",
            "status": "accepted",
            "intent": "order",
            "code": {"coding": [{"system": "http://hl7.org/fhir/CodeSystem/task-code", "code": "fulfill"}]},
            "for": {"reference": "Patient/ada"},
            "owner": {"reference": "Practitioner/lane"},
        });
        let made = self.ehr.post("/fhir/Task", &task).await.expect(201).json();
        let id = made["id"].as_str().expect("an id");
        task.clone_from(&made);
        task["status"] = json!("in-progress");
        self.lane
            .put(&format!("/fhir/Task/{id}"), &task)
            .await
            .expect(200);
    }
}
