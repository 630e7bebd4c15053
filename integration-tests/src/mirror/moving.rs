//! Those who change Tasks at the source: by its own table, at random, each change with a mark of its own.

use std::sync::atomic::{AtomicUsize, Ordering};

use handoff_domain::task::{TaskStatus, default_transitions};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, IF_MATCH};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::Client;

/// The system of the identifiers by which a Task is known on both sides.
pub const SYSTEM: &str = "https://source.example/tasks";
/// A code whose workflow at the mirror lets no Task fail.
pub const NARROWED: (&str, &str) = ("https://source.example/codes", "never-fails");
const FULFILL: (&str, &str) = ("http://hl7.org/fhir/CodeSystem/task-code", "fulfill");
const OWNERS: [&str; 2] = ["Practitioner/lane", "Practitioner/otis"];
const BEGINNINGS: [TaskStatus; 4] = [
    TaskStatus::Draft,
    TaskStatus::Requested,
    TaskStatus::Accepted,
    TaskStatus::Ready,
];

/// What is planned for a Task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lot {
    /// It is moved at random.
    Common,
    /// In the end it fails, which the mirror's workflow does not know.
    Narrowed,
    /// A user of the mirror ends it there, and afterwards it is moved here.
    EndedThere,
}

/// A Task at the source.
pub struct Piece {
    /// Its logical id there.
    pub id: String,
    /// What is planned.
    pub lot: Lot,
    now: Mutex<Standing>,
}

struct Standing {
    body: Value,
    status: TaskStatus,
    held_from: Option<TaskStatus>,
}

/// All Tasks, and the placer that changes them.
pub struct Board {
    ehr: Client,
    /// The Tasks.
    pub pieces: Vec<Piece>,
    /// How many changes were made.
    pub changes: AtomicUsize,
}

impl Board {
    /// Creates so many Tasks; each counts as a change.
    pub async fn set(ehr: Client, tasks: usize, mut choice: fastrand::Rng) -> Self {
        let mut board = Self {
            ehr,
            pieces: Vec::new(),
            changes: AtomicUsize::new(0),
        };
        let few = (tasks / 10).max(2);
        for number in 0..tasks {
            let lot = match number {
                _ if number < few => Lot::Narrowed,
                _ if number < 2 * few => Lot::EndedThere,
                _ => Lot::Common,
            };
            let (system, code) = if lot == Lot::Narrowed { NARROWED } else { FULFILL };
            let status = BEGINNINGS[choice.usize(..BEGINNINGS.len())];
            let body = json!({
                "resourceType": "Task",
                "identifier": [{"system": SYSTEM, "value": format!("task-{number}")}],
                "status": status.as_str(),
                "intent": "order",
                "code": {"coding": [{"system": system, "code": code}]},
                "owner": {"reference": OWNERS[choice.usize(..2)]},
                "description": board.mark(),
            });
            let made = board.ehr.post("/fhir/Task", &body).await.expect(201).json();
            board.pieces.push(Piece {
                id: made["id"].as_str().expect("an id").to_owned(),
                lot,
                now: Mutex::new(Standing {
                    body: made,
                    status,
                    held_from: None,
                }),
            });
        }
        board
    }

    fn mark(&self) -> String {
        format!("change {}", self.changes.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Changes Tasks at random until there were so many changes. Of several writers each has Tasks of its own.
    pub async fn write(&self, until: usize, writer: (usize, usize), mut choice: fastrand::Rng) {
        let (number, of) = writer;
        let own: Vec<&Piece> = self
            .pieces
            .iter()
            .skip(number)
            .step_by(of)
            // What was ended at the mirror is moved by plan alone.
            .filter(|piece| piece.lot != Lot::EndedThere)
            .collect();
        while self.changes.load(Ordering::Relaxed) < until && !own.is_empty() {
            let piece = own[choice.usize(..own.len())];
            let to = {
                let now = piece.now.lock().await;
                let living = default_transitions(Some(now.status)).iter().copied();
                let mut next: Vec<TaskStatus> = living
                    .filter(|to| !to.is_terminal())
                    .chain(now.held_from)
                    .collect();
                // Sometimes a version without a move: nobody is told of that.
                next.push(now.status);
                next[choice.usize(..next.len())]
            };
            let owner = (choice.u8(..3) == 0).then(|| OWNERS[choice.usize(..2)]);
            self.change(piece, to, owner).await;
        }
    }

    /// One legal change; answers the version.
    pub async fn change(&self, piece: &Piece, to: TaskStatus, owner: Option<&str>) -> i64 {
        let mut now = piece.now.lock().await;
        let mut body = now.body.clone();
        let version = body["meta"]["versionId"].as_str().expect("a version").to_owned();
        body["status"] = json!(to.as_str());
        body["description"] = json!(self.mark());
        if let Some(owner) = owner {
            body["owner"] = json!({"reference": owner});
        }
        let request = self
            .ehr
            .request(Method::PUT, &format!("/fhir/Task/{}", piece.id))
            .header(CONTENT_TYPE, "application/fhir+json")
            .header(IF_MATCH, format!("W/\"{version}\""))
            .body(body.to_string());
        now.body = self.ehr.send(request).await.expect(200).json();
        now.held_from = match (now.status, to) {
            (TaskStatus::OnHold, TaskStatus::OnHold) => now.held_from,
            (from, TaskStatus::OnHold) => Some(from),
            _ => None,
        };
        now.status = to;
        let version = now.body["meta"]["versionId"].as_str();
        version.and_then(|text| text.parse().ok()).expect("a version")
    }

    /// Brings a Task to `in-progress`, in Lane's hands.
    pub async fn bring_to_work(&self, piece: &Piece) {
        loop {
            let (status, held_from) = {
                let now = piece.now.lock().await;
                (now.status, now.held_from)
            };
            let next = match status {
                TaskStatus::Draft | TaskStatus::Requested | TaskStatus::Received => TaskStatus::Ready,
                TaskStatus::OnHold => held_from.expect("where it was"),
                _ => TaskStatus::InProgress,
            };
            self.change(piece, next, Some(OWNERS[0])).await;
            if next == TaskStatus::InProgress {
                return;
            }
        }
    }

    /// A change of status and owner that every subscriber is told of, by whose number it knows what it missed.
    pub async fn last_word(&self) {
        let piece = self
            .pieces
            .iter()
            .find(|piece| piece.lot == Lot::Common)
            .expect("a Task");
        self.bring_to_work(piece).await;
        self.change(piece, TaskStatus::Ready, Some(OWNERS[1])).await;
    }
}
