//! The play: one specialist referral over real HTTP, from the EHR's upload to the refusal after the Task is done.
//! Every answer is looked at; one that is not as it should be ends the play.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use handoff_domain::time::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::time::{Instant, sleep};

use super::actor::{Actor, Answer, client};
use super::pdf::referral_letter;
use super::scene::{Teller, Tone};

const FHIR: &str = "application/fhir+json";
/// The Task says that the document was fetched within this of the last byte, and then some for slow machines.
const NEWS_DEADLINE: Duration = Duration::from_secs(5);

/// Why the play broke off.
#[derive(Debug, Error)]
pub enum PlayError {
    /// The server could not be asked.
    #[error("the server could not be asked: {0}")]
    Wire(String),
    /// An answer was not the one that the play is about.
    #[error("{who} expected {wanted} and got {got}")]
    Unexpected {
        /// Who asked.
        who: &'static str,
        /// The answer there should have been.
        wanted: String,
        /// The answer there was.
        got: String,
    },
    /// It could not be told.
    #[error("the play could not be told: {0}")]
    Telling(#[from] io::Error),
}

/// What the play leaves behind, for those who want to go on by themselves.
#[derive(Debug, Clone)]
pub struct Props {
    /// The Task's id.
    pub task: String,
    /// The DocumentReference's id.
    pub document: String,
    /// The Binary's id.
    pub binary: String,
    /// The handoff link of the play; its one use is taken.
    pub link: String,
}

/// Where it is played.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The server.
    pub base: String,
    /// The server whose development issuer gives tokens; mostly the same.
    pub issuer_base: String,
    /// When, for the date of the letter.
    pub now: Timestamp,
}

/// Plays it all.
pub async fn play<W: Write>(stage: &Stage, teller: &mut Teller<W>) -> Result<Props, PlayError> {
    let client = client()?;
    let enter = async |id, name| Actor::enter(&client, &stage.base, &stage.issuer_base, id, name).await;
    let ehr = enter("ehr", "The referring clinic's EHR").await?;
    let lane = enter("lane", "Dr. Lane (cardiology)").await?;
    let otis = enter("otis", "Dr. Otis (oncology)").await?;
    let auditor = enter("auditor", "The auditor").await?;

    teller.line(
        "A referral is handed over: one letter, one specialist, one time.",
        Tone::Strong,
    )?;
    let (binary, document) = post_letter(&ehr, stage, teller).await?;
    let task = post_task(&ehr, &document, stage, teller).await?;
    accept(&lane, &task, teller).await?;
    let link = ask_for_link(&lane, &document, &task, teller).await?;
    redeem(&lane, &link, &stage.letter(), teller).await?;
    hear_of_it(&ehr, &task, teller).await?;
    try_again(&lane, &link, &binary, &task, teller).await?;
    stranger(&otis, &binary, &task, teller).await?;
    complete(&lane, &task, teller).await?;
    too_late(&lane, &binary, &task, teller).await?;
    show_trail(&auditor, &task, teller).await?;
    teller.flush()?;
    Ok(Props {
        task,
        document,
        binary,
        link,
    })
}

/// Hands the same letter to the same specialist once more, and answers a link that nobody has used yet.
pub async fn another_link(stage: &Stage, props: &Props) -> Result<String, PlayError> {
    let client = client()?;
    let ehr = Actor::enter(&client, &stage.base, &stage.issuer_base, "ehr", "The EHR").await?;
    let given = task(
        &props.document,
        "accepted",
        Some("Practitioner/lane"),
        &stage.now.to_instant(),
    );
    let answer = ehr.ask(Method::POST, "/fhir/Task", FHIR, bytes(&given)).await?;
    must(&ehr, &answer, 201, &[])?;
    let mut silent = Teller::new(io::sink(), false);
    ask_for_link(&ehr, &props.document, &id_of(&ehr, &answer)?, &mut silent).await
}

impl Stage {
    fn letter(&self) -> Vec<u8> {
        referral_letter(&self.date())
    }

    fn date(&self) -> String {
        self.now.to_instant().chars().take(10).collect()
    }
}

async fn post_letter<W: Write>(
    ehr: &Actor,
    stage: &Stage,
    teller: &mut Teller<W>,
) -> Result<(String, String), PlayError> {
    let letter = stage.letter();
    teller.scene(ehr.name, "uploads a referral letter, as a PDF that it just made")?;
    teller.sent(&format!(
        "POST /fhir/Binary   application/pdf, {} bytes",
        letter.len()
    ))?;
    let digest = hex(&letter);
    let answer = ehr
        .ask(Method::POST, "/fhir/Binary", "application/pdf", letter)
        .await?;
    must(ehr, &answer, 201, &[])?;
    let binary = id_of(ehr, &answer)?;
    teller.answered(&format!("201 Created   Binary/{binary}"), Tone::Good)?;
    teller.remark(&format!("sha-256 {digest}"))?;

    teller.scene(ehr.name, "says what it is: a letter about Ada, for the record")?;
    let resource = json!({
        "resourceType": "DocumentReference",
        "status": "current",
        "docStatus": "final",
        "type": {"coding": [{"system": "http://loinc.org", "code": "57133-1", "display": "Referral note"}]},
        "subject": {"reference": "Patient/ada"},
        "author": [{"reference": "Organization/referring-clinic"}],
        "date": stage.now.to_instant(),
        "content": [{"attachment": {
            "contentType": "application/pdf",
            "url": format!("Binary/{binary}"),
            "title": "Referral letter",
        }}],
    });
    teller.sent("POST /fhir/DocumentReference   subject Patient/ada, content Binary/…")?;
    let answer = ehr
        .ask(Method::POST, "/fhir/DocumentReference", FHIR, bytes(&resource))
        .await?;
    must(ehr, &answer, 201, &[])?;
    let document = id_of(ehr, &answer)?;
    teller.answered(&format!("201 Created   DocumentReference/{document}"), Tone::Good)?;
    Ok((binary, document))
}

async fn post_task<W: Write>(
    ehr: &Actor,
    document: &str,
    stage: &Stage,
    teller: &mut Teller<W>,
) -> Result<String, PlayError> {
    teller.scene(
        ehr.name,
        "asks cardiology to look at it: nobody in particular yet",
    )?;
    let resource = task(document, "requested", None, &stage.now.to_instant());
    teller.sent("POST /fhir/Task   requested, performerType cardiology, focus DocumentReference/…")?;
    let answer = ehr
        .ask(Method::POST, "/fhir/Task", FHIR, bytes(&resource))
        .await?;
    must(ehr, &answer, 201, &[])?;
    let id = id_of(ehr, &answer)?;
    teller.answered(&format!("201 Created   Task/{id}"), Tone::Good)?;
    teller.remark("a grant is issued: it can be seen, and not be used until a person takes the Task")?;
    Ok(id)
}

/// A Task that hands the document to cardiology.
pub(super) fn task(document: &str, status: &str, owner: Option<&str>, authored: &str) -> Value {
    let mut resource = json!({
        "resourceType": "Task",
        "status": status,
        "intent": "order",
        "code": {"coding": [{"system": "http://hl7.org/fhir/CodeSystem/task-code", "code": "fulfill"}]},
        "focus": {"reference": format!("DocumentReference/{document}")},
        "for": {"reference": "Patient/ada"},
        "requester": {"reference": "Organization/referring-clinic", "display": "The referring clinic"},
        "performerType": [{"coding": [{
            "system": "https://handoff.example/fhir/CodeSystem/team",
            "code": "cardiology",
        }]}],
        "authoredOn": authored,
    });
    if let (Some(owner), Some(members)) = (owner, resource.as_object_mut()) {
        members.insert("owner".to_owned(), json!({ "reference": owner }));
    }
    resource
}

async fn accept<W: Write>(lane: &Actor, task: &str, teller: &mut Teller<W>) -> Result<(), PlayError> {
    teller.scene(lane.name, "takes the Task")?;
    let answer = move_task(lane, task, "accepted", Some("Practitioner/lane"), teller).await?;
    must(lane, &answer, 200, &[])?;
    teller.answered(&format!("200 OK   {}", version_of(&answer)), Tone::Good)?;
    teller
        .remark("the grant is bound to Practitioner/lane, for 15 minutes and one use")
        .map_err(PlayError::from)
}

/// Reads the Task, and puts it back in another status.
async fn move_task<W: Write>(
    actor: &Actor,
    task: &str,
    status: &str,
    owner: Option<&str>,
    teller: &mut Teller<W>,
) -> Result<Answer, PlayError> {
    let path = format!("/fhir/Task/{task}");
    let found = actor.ask(Method::GET, &path, "", Vec::new()).await?;
    must(actor, &found, 200, &[])?;
    let mut resource = found.json();
    if let Some(members) = resource.as_object_mut() {
        members.insert("status".to_owned(), json!(status));
        if let Some(owner) = owner {
            members.insert("owner".to_owned(), json!({ "reference": owner }));
        }
    }
    let and_owner = owner.map(|owner| format!(", owner {owner}")).unwrap_or_default();
    teller.sent(&format!("PUT {path}   {status}{and_owner}"))?;
    actor.ask(Method::PUT, &path, FHIR, bytes(&resource)).await
}

async fn ask_for_link<W: Write>(
    lane: &Actor,
    document: &str,
    task: &str,
    teller: &mut Teller<W>,
) -> Result<String, PlayError> {
    teller.scene(lane.name, "asks for a link to open it with")?;
    let path = format!("/files/{document}/access-grants");
    let body = json!({
        "task": format!("Task/{task}"),
        "actor": {"reference": "Practitioner/lane"},
        "role": "physician",
        "action": "download",
        "uses": 1,
        "expiresIn": 900,
    });
    teller.sent(&format!("POST {path}   for Practitioner/lane, one use, 900 s"))?;
    let answer = lane
        .ask(Method::POST, &path, "application/json", bytes(&body))
        .await?;
    must(lane, &answer, 201, &[])?;
    let told = answer.json();
    let link = told
        .get("link")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if !link.contains("/handoff/") || !link.contains('#') {
        return Err(unexpected(lane, "a handoff link", &answer));
    }
    teller.answered("201 Created", Tone::Good)?;
    teller.remark(&link)?;
    teller.remark(
        "what follows the # is the secret: browsers do not send it, the server keeps only its hash",
    )?;
    Ok(link)
}

/// Shows the link and the secret in it to the server.
async fn show_link(actor: &Actor, link: &str) -> Result<Answer, PlayError> {
    let (address, secret) = link.split_once('#').unwrap_or((link, ""));
    let handle = address.rsplit('/').next().unwrap_or_default();
    // By the server's own address: the public one may lie behind a proxy.
    let path = format!("/handoff/{handle}");
    actor
        .ask(
            Method::POST,
            &path,
            "application/json",
            bytes(&json!({ "secret": secret })),
        )
        .await
}

async fn redeem<W: Write>(
    lane: &Actor,
    link: &str,
    letter: &[u8],
    teller: &mut Teller<W>,
) -> Result<(), PlayError> {
    teller.scene(lane.name, "opens the link")?;
    teller.sent("POST /handoff/…   with the secret, signed in as Practitioner/lane")?;
    let answer = show_link(lane, link).await?;
    must(lane, &answer, 303, &[])?;
    let place = answer.location.clone().unwrap_or_default();
    let path = place
        .split_once("/redemptions/")
        .map(|(_, rest)| format!("/redemptions/{rest}"));
    let path = path.ok_or_else(|| unexpected(lane, "the way to the content", &answer))?;
    teller.answered("303 See Other   the one use is taken", Tone::Good)?;
    teller.sent(&format!("GET {path}"))?;
    let answer = lane.ask(Method::GET, &path, "", Vec::new()).await?;
    must(lane, &answer, 200, &[])?;
    if answer.body != letter {
        return Err(unexpected(lane, "the letter as it was uploaded", &answer));
    }
    teller.answered(
        &format!("200 OK   {}, {} bytes", answer.content_type, answer.body.len()),
        Tone::Good,
    )?;
    teller.remark(&format!(
        "sha-256 {}: byte for byte what the EHR sent",
        hex(&answer.body)
    ))?;
    Ok(())
}

async fn hear_of_it<W: Write>(ehr: &Actor, task: &str, teller: &mut Teller<W>) -> Result<(), PlayError> {
    teller.scene(ehr.name, "sees on its Task that the letter has arrived")?;
    let path = format!("/fhir/Task/{task}");
    teller.sent(&format!("GET {path}"))?;
    let deadline = Instant::now() + NEWS_DEADLINE;
    loop {
        let answer = ehr.ask(Method::GET, &path, "", Vec::new()).await?;
        must(ehr, &answer, 200, &[])?;
        let status = answer.json();
        let code = status
            .pointer("/businessStatus/coding/0/code")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if code == "accessed" {
            let text = format!("200 OK   businessStatus accessed, {}", version_of(&answer));
            return teller.answered(&text, Tone::Good).map_err(PlayError::from);
        }
        if Instant::now() > deadline {
            return Err(unexpected(ehr, "businessStatus `accessed`", &answer));
        }
        sleep(Duration::from_millis(20)).await;
    }
}

async fn try_again<W: Write>(
    lane: &Actor,
    link: &str,
    binary: &str,
    task: &str,
    teller: &mut Teller<W>,
) -> Result<(), PlayError> {
    teller.scene(lane.name, "opens the same link once more")?;
    teller.sent("POST /handoff/…   with the secret, signed in as Practitioner/lane")?;
    let answer = show_link(lane, link).await?;
    must(lane, &answer, 403, &["exhausted", "replayed"])?;
    refused(&answer, teller)?;
    let path = format!("/fhir/Binary/{binary}?task=Task/{task}");
    teller.scene(lane.name, "tries the way of the API instead")?;
    teller.sent(&format!("GET {path}"))?;
    let answer = lane.ask(Method::GET, &path, "", Vec::new()).await?;
    must(lane, &answer, 403, &["exhausted", "replayed"])?;
    refused(&answer, teller)
}

async fn stranger<W: Write>(
    otis: &Actor,
    binary: &str,
    task: &str,
    teller: &mut Teller<W>,
) -> Result<(), PlayError> {
    let path = format!("/fhir/Binary/{binary}?task=Task/{task}");
    teller.scene(otis.name, "has nothing to do with it, and tries")?;
    teller.sent(&format!("GET {path}"))?;
    let answer = otis.ask(Method::GET, &path, "", Vec::new()).await?;
    must(otis, &answer, 404, &[])?;
    refused(&answer, teller)
}

async fn complete<W: Write>(lane: &Actor, task: &str, teller: &mut Teller<W>) -> Result<(), PlayError> {
    teller.scene(lane.name, "does the work, and is done")?;
    for status in ["in-progress", "completed"] {
        let answer = move_task(lane, task, status, None, teller).await?;
        must(lane, &answer, 200, &[])?;
        teller.answered(&format!("200 OK   {}", version_of(&answer)), Tone::Good)?;
    }
    Ok(())
}

async fn too_late<W: Write>(
    lane: &Actor,
    binary: &str,
    task: &str,
    teller: &mut Teller<W>,
) -> Result<(), PlayError> {
    let path = format!("/fhir/Binary/{binary}?task=Task/{task}");
    teller.scene(lane.name, "would like to see the letter again")?;
    teller.sent(&format!("GET {path}"))?;
    let answer = lane.ask(Method::GET, &path, "", Vec::new()).await?;
    must(lane, &answer, 403, &["task-completed"])?;
    refused(&answer, teller)
}

async fn show_trail<W: Write>(auditor: &Actor, task: &str, teller: &mut Teller<W>) -> Result<(), PlayError> {
    teller.scene(auditor.name, "reads who did what")?;
    let path = format!("/fhir/AuditEvent?entity=Task/{task}&_count=100");
    teller.sent(&format!("GET {path}"))?;
    let answer = auditor.ask(Method::GET, &path, "", Vec::new()).await?;
    must(auditor, &answer, 200, &[])?;
    let bundle = answer.json();
    let entries = bundle
        .get("entry")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let mut rows: Vec<Vec<String>> = entries
        .iter()
        .filter_map(|entry| entry.get("resource"))
        .map(super::trail::row)
        .collect();
    // It comes newest first; of what happened in the same millisecond the order is kept.
    rows.reverse();
    rows.sort_by(|a, b| a.first().cmp(&b.first()));
    let has = |event: &str| rows.iter().any(|row| row.iter().any(|cell| cell == event));
    for event in [
        "task-created",
        "grant-bound",
        "redemption-completed",
        "redemption-denied",
    ] {
        if !has(event) {
            return Err(unexpected(auditor, &format!("`{event}` in the trail"), &answer));
        }
    }
    teller.answered(&format!("200 OK   {} events", rows.len()), Tone::Good)?;
    teller.table(&super::trail::HEAD, &rows)?;
    Ok(())
}

/// Tells of a refusal that had to be.
fn refused<W: Write>(answer: &Answer, teller: &mut Teller<W>) -> Result<(), PlayError> {
    let reason = answer.reason().unwrap_or_default();
    teller.answered(&format!("{}   {reason}", answer.status), Tone::Refused)?;
    if let Some(words) = answer.words() {
        teller.remark(&words)?;
    }
    Ok(())
}

/// The play goes on only with this status and, where some are named, with one of these reasons.
fn must(actor: &Actor, answer: &Answer, status: u16, reasons: &[&str]) -> Result<(), PlayError> {
    let reason = answer.reason().unwrap_or_default();
    if answer.status == status && (reasons.is_empty() || reasons.contains(&reason.as_str())) {
        return Ok(());
    }
    let wanted = if reasons.is_empty() {
        status.to_string()
    } else {
        format!("{status} {}", reasons.join(" or "))
    };
    Err(unexpected(actor, &wanted, answer))
}

fn unexpected(actor: &Actor, wanted: &str, answer: &Answer) -> PlayError {
    let mut got = answer.status.to_string();
    for part in [answer.reason(), answer.words()].into_iter().flatten() {
        got.push(' ');
        got.push_str(&part);
    }
    PlayError::Unexpected {
        who: actor.name,
        wanted: wanted.to_owned(),
        got,
    }
}

fn id_of(actor: &Actor, answer: &Answer) -> Result<String, PlayError> {
    answer.id().ok_or_else(|| unexpected(actor, "an id", answer))
}

/// `version 3` of an answer's resource.
fn version_of(answer: &Answer) -> String {
    let version = answer.etag.as_deref().unwrap_or_default();
    format!("version {}", version.trim_start_matches("W/").trim_matches('"'))
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content)
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a String can't fail.
            let _infallible = write!(text, "{byte:02x}");
            text
        })
}
