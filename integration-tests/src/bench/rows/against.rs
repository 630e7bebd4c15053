//! The rows that any FHIR R4 server can be measured by, so that peers stand side by side. Nothing of ours is used:
//! plain FHIR JSON, and whatever headers the caller gives.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{millis, number};
use crate::arguments::Arguments;
use crate::failure::{Failure, Result};
use crate::http::{Body, Connection, Target, once};
use crate::load::{Expected, closed, each};
use crate::report::{Budget, Report, Row};
use crate::stage::{FHIR, noise};
use crate::{arguments::Scale, say};

const CLIENTS: usize = 16;
const READERS: usize = 64;
/// Tasks that are made for reading, updating and searching.
const TASKS: usize = 500;
const CONTENT: u64 = 1024 * 1024;

/// Measures the server at `url`.
pub async fn measure(arguments: &Arguments, url: &str, report: &mut Report) -> Result<()> {
    let target = Target::parse(url)?.with_headers(&arguments.header);
    report.fact("against", url);
    let peer = Peer {
        owner: owner(&target).await?,
        target,
        scale: arguments.scale(),
    };
    let tasks = peer
        .tasks()
        .await
        .map_err(|failure| failure.during("preparing Tasks"))?;
    let steps: [(&str, &str); 6] = [
        ("create", "Task create, 16 clients"),
        ("read", "Task read by id, 64 clients"),
        ("update", "Task update, 16 clients"),
        ("search", "search by owner and status, `_count=20`, 16 clients"),
        ("binary-up", "Binary up, 1 MiB, one client"),
        ("binary-down", "Binary down, 1 MiB, one client"),
    ];
    let mut binary = None;
    for (id, what) in steps {
        let measured = match id {
            "create" => peer.create(what).await,
            "read" => peer.read(what, &tasks).await,
            "update" => peer.update(what, &tasks).await,
            "search" => peer.search(what).await,
            "binary-up" => peer.upload(what).await.map(|(row, uploaded)| {
                binary = Some(uploaded);
                row
            }),
            _ => match &binary {
                Some(binary) => peer.download(what, binary).await,
                None => Ok(Row::not_measured("binary-down", what, "there is no Binary")),
            },
        };
        report.add(measured.unwrap_or_else(|failure| Row::failed(step(id), what, &failure)));
        say(what);
    }
    Ok(())
}

/// An id that lives as long as a row.
fn step(id: &str) -> &'static str {
    match id {
        "create" => "create",
        "read" => "read",
        "update" => "update",
        "search" => "search",
        "binary-up" => "binary-up",
        _ => "binary-down",
    }
}

struct Peer {
    target: Target,
    scale: Scale,
    owner: String,
}

/// Whom the Tasks are for: a Practitioner made for this, where the server keeps those, since it may refuse references
/// to what it does not have.
async fn owner(target: &Target) -> Result<String> {
    let practitioner = json!({"resourceType": "Practitioner", "name": [{"family": "Bench"}]});
    let made = once(target, &fhir(target, "POST", "/Practitioner", &practitioner)).await?;
    if made.status == 201 {
        if let Ok(id) = made.id() {
            return Ok(format!("Practitioner/{id}"));
        }
        return Err(Failure::new(
            "the server answers a create without the resource: send `Prefer: return=representation`",
        ));
    }
    Ok("Practitioner/lane".to_owned())
}

fn fhir(target: &Target, method: &str, path: &str, body: &Value) -> Bytes {
    let headers = [
        ("accept", FHIR),
        ("content-type", FHIR),
        ("prefer", "return=representation"),
    ];
    if body.is_null() {
        return target.request(method, path, &headers[..1], b"");
    }
    target.request(method, path, &headers, body.to_string().as_bytes())
}

impl Peer {
    fn task(&self) -> Value {
        json!({
            "resourceType": "Task",
            "status": "accepted",
            "intent": "order",
            "priority": "routine",
            "code": {"coding": [{"system": "http://hl7.org/fhir/CodeSystem/task-code", "code": "fulfill"}],
                     "text": "Specialist referral"},
            "description": "Referral to cardiology with the discharge letter attached",
            "authoredOn": "2026-01-05T09:30:00+01:00",
            "owner": {"reference": self.owner},
            "reasonCode": {"text": "Exertional dyspnoea for three weeks, new systolic murmur"},
            "note": [{"text": "Please see within two weeks. Echocardiography has been requested by us already."}]
        })
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> Bytes {
        fhir(&self.target, method, path, body)
    }

    async fn tasks(&self) -> Result<Vec<Value>> {
        let create = self.request("POST", "/Task", &self.task());
        let made = each(&self.target, CLIENTS, CREATE, vec![create; TASKS]).await?;
        made.iter().map(crate::http::Answer::json).collect()
    }

    async fn closed(
        &self,
        id: &'static str,
        what: &str,
        clients: usize,
        expected: Expected,
        least: Option<f64>,
        next: impl Fn(usize, usize) -> Bytes + 'static,
    ) -> Result<Row> {
        let mut load = closed(&self.target, clients, self.scale.load, expected, next).await?;
        let (p50, p99) = (millis(load.whole.p50()), millis(load.whole.p99()));
        let budget = least.map_or(Budget::None, Budget::AtLeast);
        Ok(Row::new(id, what, load.rate(), "/s", budget)
            .detail(format!("p50 {p50:.1}, p99 {p99:.1} ms"))
            .with("p50_ms", p50)
            .with("p99_ms", p99))
    }

    async fn create(&self, what: &str) -> Result<Row> {
        let create = self.request("POST", "/Task", &self.task());
        self.closed("create", what, CLIENTS, CREATE, Some(700.0), move |_, _| {
            create.clone()
        })
        .await
    }

    async fn read(&self, what: &str, tasks: &[Value]) -> Result<Row> {
        let reads: Vec<Bytes> = paths(tasks)
            .map(|path| self.request("GET", &path, &Value::Null))
            .collect();
        let next = move |client: usize, turn: usize| reads[(client * 31 + turn * 7) % reads.len()].clone();
        self.closed("read", what, READERS, READ, Some(10_000.0), next)
            .await
    }

    /// Each client changes its own Tasks, there and back, so that every update is one.
    async fn update(&self, what: &str, tasks: &[Value]) -> Result<Row> {
        let mut updates = Vec::new();
        for (task, path) in tasks.iter().zip(paths(tasks)) {
            updates.push(["in-progress", "ready"].map(|status| {
                let mut changed = task.clone();
                changed["status"] = json!(status);
                if let Some(resource) = changed.as_object_mut() {
                    resource.remove("meta");
                }
                self.request("PUT", &path, &changed)
            }));
        }
        let each = updates.len() / CLIENTS;
        let next =
            move |client: usize, turn: usize| updates[client * each + turn % each][turn / each % 2].clone();
        self.closed("update", what, CLIENTS, READ, Some(500.0), next)
            .await
    }

    async fn search(&self, what: &str) -> Result<Row> {
        let requests = ["accepted", "in-progress", "ready"].map(|status| {
            let path = format!("/Task?owner={}&status={status}&_count=20", self.owner);
            self.request("GET", &path, &Value::Null)
        });
        let next = move |client: usize, turn: usize| requests[(client + turn) % requests.len()].clone();
        self.closed("search", what, CLIENTS, READ, Some(1_000.0), next)
            .await
    }

    async fn upload(&self, what: &str) -> Result<(Row, String)> {
        let block = noise();
        let headers = [
            ("accept", FHIR),
            ("content-type", "application/pdf"),
            ("prefer", "return=representation"),
        ];
        let head = self.target.head("POST", "/Binary", &headers, CONTENT);
        let mut connection = Connection::open(&self.target).await?;
        let mut id = String::new();
        let mut uploads = 0_u64;
        let begun = std::time::Instant::now();
        while uploads == 0 || begun.elapsed() < self.scale.load {
            if !connection.open {
                connection = Connection::open(&self.target).await?;
            }
            let answer = connection
                .upload(&head, &block, CONTENT)
                .await?
                .expect(201, "Binary up")?;
            id = answer.id()?;
            uploads += 1;
        }
        let rate = number(uploads) / begun.elapsed().as_secs_f64();
        Ok((Row::new("binary-up", what, rate, "MiB/s", Budget::None), id))
    }

    async fn download(&self, what: &str, id: &str) -> Result<Row> {
        let request = self.target.request(
            "GET",
            &format!("/Binary/{id}"),
            &[("accept", "application/pdf")],
            b"",
        );
        let mut connection = Connection::open(&self.target).await?;
        let first = connection.exchange(&request, Body::Dropped).await?;
        if matches!(first.status, 401 | 403 | 404) {
            let why = format!(
                "the server answers {} to the client that uploaded it",
                first.status
            );
            return Ok(Row::not_measured("binary-down", what, why));
        }
        first.expect(200, "Binary down")?;
        let (mut downloads, begun) = (0_u64, std::time::Instant::now());
        while downloads == 0 || begun.elapsed() < self.scale.load {
            if !connection.open {
                connection = Connection::open(&self.target).await?;
            }
            let answer = connection
                .exchange(&request, Body::Dropped)
                .await?
                .expect(200, "Binary down")?;
            if answer.length != CONTENT {
                return Err(Failure::new(format!(
                    "{} bytes came instead of {CONTENT}",
                    answer.length
                )));
            }
            downloads += 1;
        }
        let rate = number(downloads) / begun.elapsed().as_secs_f64();
        Ok(Row::new("binary-down", what, rate, "MiB/s", Budget::None))
    }
}

const CREATE: Expected = Expected {
    what: "Task create",
    status: 201,
};
const READ: Expected = Expected {
    what: "a FHIR request",
    status: 200,
};

fn paths(tasks: &[Value]) -> impl Iterator<Item = String> {
    tasks
        .iter()
        .map(|task| format!("/Task/{}", task["id"].as_str().unwrap_or_default()))
}
