//! Those who move Tasks: many at once, at servers that are killed. What became of an unanswered move is read at the end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, IF_MATCH};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::truth::{Change, Truth};
use crate::{Client, http_client};

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(20);
/// Who is refused a connection waits a little.
const NOBODY_THERE: Duration = Duration::from_millis(50);
const FHIR: &str = "application/fhir+json";

/// The Tasks, and who moves them.
pub struct Board {
    bases: Vec<String>,
    ehr: Client,
    lane: Client,
    tasks: Vec<String>,
    /// How many moves were answered as done.
    pub moves: AtomicUsize,
}

impl Board {
    /// Places so many Tasks.
    pub async fn set(issuer: &str, bases: Vec<String>, tasks: usize, seed: u64) -> Self {
        let http = http_client();
        let ehr = Client::sign_in(&http, issuer, &bases[0], "ehr").await;
        let lane = Client::sign_in(&http, issuer, &bases[0], "lane").await;
        let mut board = Self {
            bases,
            ehr,
            lane,
            tasks: Vec::new(),
            moves: AtomicUsize::new(0),
        };
        for number in 0..tasks {
            let body = json!({
                "resourceType": "Task",
                "status": "accepted",
                "intent": "order",
                "code": {"coding": [{"system": "http://hl7.org/fhir/CodeSystem/task-code", "code": "fulfill"}]},
                "owner": {"reference": "Practitioner/lane"},
                "description": format!("number {number} of run {seed}"),
            });
            let made = board.ehr.post("/fhir/Task", &body).await.expect(201);
            board.tasks.push(made.id());
        }
        board
    }

    /// Reads every version of every Task.
    pub async fn history(&self) -> Truth {
        let mut truth = Truth::default();
        for task in &self.tasks {
            let mut versions: Vec<Value> = Vec::new();
            let mut next = Some(format!("/fhir/Task/{task}/_history?_count=100"));
            while let Some(path) = next {
                let page = self.ehr.get(&path).await.expect(200).json();
                let entries = page["entry"].as_array().into_iter().flatten();
                versions.extend(entries.map(|entry| entry["resource"].clone()));
                let links = page["link"].as_array().into_iter().flatten();
                let link = links.clone().find(|link| link["relation"] == "next");
                // It names the server as it is called from outside, where nobody is.
                next = link.and_then(|link| link["url"].as_str()).and_then(|url| {
                    let at = url.find("/fhir/")?;
                    Some(url[at..].to_owned())
                });
            }
            versions.reverse();
            let mut changes: Vec<Change> = Vec::new();
            for version in versions {
                let status = version["status"].as_str().expect("a status").to_owned();
                if changes.last().is_none_or(|last| last.status != status) {
                    changes.push(Change {
                        version: version["meta"]["versionId"]
                            .as_str()
                            .and_then(|v| v.parse().ok())
                            .expect("a version"),
                        status,
                        at: version["meta"]["lastUpdated"]
                            .as_str()
                            .expect("an instant")
                            .to_owned(),
                    });
                }
            }
            truth.tasks.insert(task.clone(), changes);
        }
        truth
    }
}

/// Moves Tasks until all together have moved them often enough.
pub async fn move_tasks(board: std::sync::Arc<Board>, enough: usize, mut choice: fastrand::Rng) {
    while board.moves.load(Ordering::Relaxed) < enough {
        let task = &board.tasks[choice.usize(..board.tasks.len())];
        let base = &board.bases[choice.usize(..board.bases.len())];
        match move_once(&board, base, task, &mut choice).await {
            Ok(true) => {
                board.moves.fetch_add(1, Ordering::Relaxed);
            }
            Ok(false) => {}
            Err(_) => sleep(NOBODY_THERE).await,
        }
    }
}

/// Whether its status was moved, as far as was answered.
async fn move_once(
    board: &Board,
    base: &str,
    task: &str,
    choice: &mut fastrand::Rng,
) -> Result<bool, reqwest::Error> {
    let path = format!("/fhir/Task/{task}");
    let lane = board.lane.at(base);
    let read = lane.request(Method::GET, &path).timeout(PATIENCE).send().await?;
    let text = read.error_for_status()?.bytes().await?;
    let Ok(mut body) = serde_json::from_slice::<Value>(&text) else {
        return Ok(false);
    };
    let version = body["meta"]["versionId"].as_str().unwrap_or_default().to_owned();
    // One in eight is a version without a move: nobody is told of that.
    let moves = choice.u8(..8) > 0;
    let client = if moves {
        let status = match body["status"].as_str() {
            Some("in-progress") => "on-hold",
            _ => "in-progress",
        };
        body["status"] = json!(status);
        lane
    } else {
        body["priority"] = json!(["routine", "urgent", "stat"][choice.usize(..3)]);
        board.ehr.at(base)
    };
    let answer = client
        .request(Method::PUT, &path)
        .header(CONTENT_TYPE, FHIR)
        .header(IF_MATCH, format!("W/\"{version}\""))
        .timeout(PATIENCE)
        .body(body.to_string())
        .send()
        .await?;
    let status = answer.status();
    let told = answer.text().await?;
    // 422 where somebody else was quicker, and what is asked no longer follows.
    assert!(
        status.is_success() || status.is_server_error() || matches!(status.as_u16(), 409 | 412 | 422),
        "a move is refused: {status}: {told}"
    );
    Ok(moves && status.is_success())
}
