//! What all clients share: the servers' addresses, everybody's tokens, the Tasks that were placed, the record. Sends
//! what a client asks and writes down what it was told.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::time::sleep;

use super::content::Content;
use super::download::{Pace, Wanted, download, reason_of};
use super::record::{Answer, Asked, Change, Recorder, Stream, now};
use crate::Client;

/// The placer.
pub const EHR: &str = "ehr";
/// Everybody that can hold a grant, and by which client.
pub const PEOPLE: [&str; 4] = ["lane", "otis", "clerk", "viewer-app"];

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(20);
/// Who is refused a connection waits a little.
const NOBODY_THERE: Duration = Duration::from_millis(60);
/// How many Tasks are worked on.
const ON_THE_BOARD: usize = 60;

/// A document of a Task.
#[derive(Debug, Clone)]
pub struct Paper {
    /// Id of the DocumentReference.
    pub document: String,
    /// Id of the Binary.
    pub binary: String,
    /// The bytes.
    pub content: Content,
}

/// A Task that somebody placed.
#[derive(Debug)]
pub struct Case {
    /// Its id.
    pub task: String,
    /// Its documents.
    pub papers: Vec<Paper>,
    /// Whose it was when somebody last looked.
    pub owner: Mutex<Option<&'static str>>,
}

impl Case {
    /// Whose it was when somebody last looked.
    pub fn owner(&self) -> Option<&'static str> {
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody looked.
    pub fn owned_by(&self, reference: Option<&str>) {
        let name = PEOPLE
            .into_iter()
            .find(|name| reference == Some(reference_of(name).as_str()));
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }
}

/// The FHIR reference of one of the cast.
pub fn reference_of(name: &str) -> String {
    match name {
        EHR => "Organization/referring-clinic".to_owned(),
        "viewer-app" => "Practitioner/lane".to_owned(),
        name => format!("Practitioner/{name}"),
    }
}

/// What the clients share.
pub struct World {
    /// Where the servers are.
    pub servers: Vec<String>,
    /// The record.
    pub recorder: Arc<Recorder>,
    /// What every choice follows from.
    pub seed: u64,
    http: reqwest::Client,
    tokens: HashMap<&'static str, String>,
    cases: Mutex<VecDeque<Arc<Case>>>,
    requests: AtomicU64,
    is_over: AtomicBool,
}

/// A body to be sent.
pub enum Body<'a> {
    /// None.
    Empty,
    /// FHIR JSON.
    Fhir(&'a Value),
    /// Plain JSON.
    Plain(&'a Value),
    /// Content.
    Bytes(Vec<u8>),
}

/// A request for a change.
pub struct Request<'a> {
    method: Method,
    path: &'a str,
    body: Body<'a>,
    if_match: Option<i64>,
}

impl<'a> Request<'a> {
    /// Creates something, or asks for it.
    pub const fn post(path: &'a str, body: Body<'a>) -> Self {
        Self {
            method: Method::POST,
            path,
            body,
            if_match: None,
        }
    }

    /// Changes something, perhaps only where it is at this version.
    pub const fn put(path: &'a str, body: &'a Value, if_match: Option<i64>) -> Self {
        Self {
            method: Method::PUT,
            path,
            body: Body::Fhir(body),
            if_match,
        }
    }

    /// Deletes something, or takes it back.
    pub const fn delete(path: &'a str) -> Self {
        Self {
            method: Method::DELETE,
            path,
            body: Body::Empty,
            if_match: None,
        }
    }
}

/// A change that was made.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// The body.
    pub body: Value,
    /// `Location`.
    pub location: Option<String>,
}

impl World {
    /// Signs everybody in.
    pub async fn enter(issuer: &str, servers: Vec<String>, seed: u64, recorder: Arc<Recorder>) -> Self {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .expect("an HTTP client");
        let mut tokens = HashMap::new();
        for name in PEOPLE.into_iter().chain([EHR, "operator"]) {
            let client = Client::sign_in(&http, issuer, issuer, name).await;
            tokens.insert(name, client.token.expect("a token"));
        }
        Self {
            servers,
            recorder,
            seed,
            http,
            tokens,
            cases: Mutex::default(),
            requests: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// Everybody is to stop.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Whether everybody goes on.
    pub fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::SeqCst)
    }

    /// Waits for so many milliseconds.
    pub async fn pause(&self, choice: &mut fastrand::Rng, least: u64, most: u64) {
        sleep(Duration::from_millis(choice.u64(least..=most))).await;
    }

    /// One of the servers.
    pub fn any(&self, choice: &mut fastrand::Rng) -> usize {
        choice.usize(..self.servers.len())
    }

    /// A Task was placed.
    pub fn place(&self, case: Case) {
        let mut cases = self.cases.lock().unwrap_or_else(PoisonError::into_inner);
        cases.push_back(Arc::new(case));
        if cases.len() > ON_THE_BOARD {
            cases.pop_front();
        }
    }

    /// A Task to work on, rather a new one.
    pub fn case(&self, choice: &mut fastrand::Rng) -> Option<Arc<Case>> {
        let cases = self.cases.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = cases.len().checked_sub(1)?;
        let (one, other) = (choice.usize(..=newest), choice.usize(..=newest));
        cases.get(one.max(other)).cloned()
    }

    fn token(&self, who: &str) -> &str {
        self.tokens.get(who).expect("one of the cast")
    }

    fn correlation(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("chaos-{:x}-{number}", self.seed)
    }

    /// Reads a resource; `None` where that can't be had.
    pub async fn look(&self, who: &str, server: usize, path: &str) -> Option<Value> {
        let answer = self
            .http
            .get(format!("{}{path}", self.servers[server]))
            .bearer_auth(self.token(who))
            .send()
            .await;
        match answer {
            Ok(answer) if answer.status() == 200 => answer.json().await.ok(),
            Ok(_) => None,
            Err(_) => {
                sleep(NOBODY_THERE).await;
                None
            }
        }
    }

    /// The status with which a resource is answered; 0 where it is not.
    pub async fn status(&self, who: &str, server: usize, path: &str) -> u16 {
        let url = format!("{}{path}", self.servers[server]);
        let answer = self.http.get(url).bearer_auth(self.token(who)).send().await;
        answer.map_or(0, |answer| answer.status().as_u16())
    }

    /// Asks for a change, and writes down what was told. Answers where it was made.
    pub async fn change(&self, who: &str, server: usize, wanted: Request<'_>, asked: Asked) -> Option<Reply> {
        let correlation = self.correlation();
        let mut request = self
            .http
            .request(wanted.method, format!("{}{}", self.servers[server], wanted.path))
            .bearer_auth(self.token(who))
            .header("x-correlation-id", &correlation);
        request = match wanted.body {
            Body::Empty => request,
            Body::Fhir(json) => request
                .header("content-type", "application/fhir+json")
                .body(json.to_string()),
            Body::Plain(json) => request
                .header("content-type", "application/json")
                .body(json.to_string()),
            Body::Bytes(bytes) => request.header("content-type", "application/pdf").body(bytes),
        };
        if let Some(version) = wanted.if_match {
            request = request.header("if-match", format!("W/\"{version}\""));
        }
        let began = now();
        let told = tell(request).await;
        let ended = now();
        let (answer, reply) = match told {
            None => (Answer::Unknown, None),
            Some((status, reply)) if status < 400 => {
                let id = ["id", "grantId"]
                    .iter()
                    .find_map(|name| reply.body[*name].as_str())
                    .map(str::to_owned)
                    .or_else(|| reply.location.as_deref().and_then(super::download::redemption_of));
                let version = reply.body["meta"]["versionId"].as_str();
                let version = version.and_then(|v| v.parse().ok());
                (Answer::Done { id, version }, Some(reply))
            }
            Some((status, reply)) => {
                let reason = reason_of(reply.body.to_string().as_bytes());
                (Answer::Refused { status, reason }, None)
            }
        };
        let is_unknown = answer == Answer::Unknown;
        self.recorder.note(|record| {
            record.changes.push(Change {
                correlation,
                server,
                began,
                ended,
                asked,
                answer,
            });
        });
        if is_unknown {
            sleep(NOBODY_THERE).await;
        }
        reply
    }

    /// Downloads, and writes down what came. Answers the stream and the `ETag`.
    pub async fn fetch(
        &self,
        who: &str,
        server: usize,
        path: &str,
        paper: &Paper,
        resume: Option<(u64, &str)>,
        pace: Pace,
    ) -> (Stream, Option<String>) {
        let wanted = Wanted {
            base: &self.servers[server],
            token: self.token(who),
            path,
            resume,
            pace,
        };
        let stream = Stream {
            correlation: self.correlation(),
            actor: reference_of(who),
            server,
            binary: paper.binary.clone(),
            content: paper.content,
            began: 0,
            status: 0,
            reason: None,
            redemption: None,
            from: 0,
            announced: 0,
            reads: Vec::new(),
            is_wrong: false,
            reset: None,
            ended: 0,
        };
        let (stream, etag) = download(&wanted, stream).await;
        self.recorder.note(|record| record.streams.push(stream.clone()));
        if stream.status == 0 {
            sleep(NOBODY_THERE).await;
        }
        (stream, etag)
    }
}

/// The answer, read to its end; `None` where it is not known whether anything was done.
async fn tell(request: reqwest::RequestBuilder) -> Option<(u16, Reply)> {
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    if status >= 500 {
        return None;
    }
    let location = answer.headers().get("location");
    let location = location.and_then(|v| v.to_str().ok()).map(str::to_owned);
    // A head says enough: it was done, or refused.
    let body = answer.bytes().await.unwrap_or_default();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Some((status, Reply { body, location }))
}
