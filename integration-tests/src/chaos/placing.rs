//! The referring side: brings content, documents and Tasks, and takes some of it back. Every choice follows from the
//! seed.

use std::sync::Arc;

use serde_json::{Value, json};

use super::content::{Content, sha256};
use super::record::Asked;
use super::world::{Body, Case, EHR, Paper, Reply, Request, World, reference_of};
use crate::scene::{ADA, MARKER, document_reference};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Places Tasks for as long as the run lasts.
pub async fn place_tasks(world: Arc<World>, mut choice: fastrand::Rng) {
    while world.goes_on() {
        if let Some(case) = place(&world, &mut choice).await {
            world.place(case);
        }
        world.pause(&mut choice, 100, 700).await;
    }
}

/// Changes documents of placed Tasks for as long as the run lasts.
pub async fn change_documents(world: Arc<World>, mut choice: fastrand::Rng) {
    while world.goes_on() {
        world.pause(&mut choice, 200, 1500).await;
        let _changed = change_document(&world, &mut choice).await;
    }
}

/// Mostly small, some long enough to be met by something on their way.
fn size(choice: &mut fastrand::Rng) -> u64 {
    match choice.u8(..100) {
        0..50 => choice.u64(1..64 * KIB),
        50..80 => choice.u64(64 * KIB..512 * KIB),
        80..95 => choice.u64(512 * KIB..3 * MIB),
        _ => choice.u64(3 * MIB..16 * MIB),
    }
}

/// Uploads content and makes it a document.
async fn document(world: &World, choice: &mut fastrand::Rng) -> Option<Paper> {
    let content = Content {
        seed: choice.u64(..),
        size: size(choice),
    };
    let binary = upload(world, choice, content).await?;
    name(world, choice, &binary, content).await
}

/// Uploads content.
async fn upload(world: &World, choice: &mut fastrand::Rng, content: Content) -> Option<String> {
    let bytes = content.whole();
    let asked = Asked::Upload {
        content,
        sha256: sha256(&bytes),
    };
    let server = world.any(choice);
    let body = Body::Bytes(bytes);
    let made = world
        .change(EHR, server, Request::post("/fhir/Binary", body), asked)
        .await?;
    id_of(&made)
}

/// Makes a document of a Binary.
pub async fn name(
    world: &World,
    choice: &mut fastrand::Rng,
    binary: &str,
    content: Content,
) -> Option<Paper> {
    let body = document_reference(binary, ADA);
    let made = world
        .change(
            EHR,
            world.any(choice),
            Request::post("/fhir/DocumentReference", Body::Fhir(&body)),
            Asked::CreateDocument,
        )
        .await?;
    Some(Paper {
        document: id_of(&made)?,
        binary: binary.to_owned(),
        content,
    })
}

async fn place(world: &World, choice: &mut fastrand::Rng) -> Option<Case> {
    let mut papers = vec![document(world, choice).await?];
    if choice.u8(..6) == 0 {
        papers.push(document(world, choice).await?);
    }
    let owner = match choice.u8(..10) {
        0..6 => Some("lane"),
        6..8 => Some("otis"),
        8 => Some("clerk"),
        _ => None,
    };
    let status = match choice.u8(..10) {
        0 => "requested",
        1 => "received",
        2 | 3 => "ready",
        4 => "in-progress",
        _ => "accepted",
    };
    let parent = (choice.u8(..8) == 0).then(|| world.case(choice)).flatten();
    place_task(
        world,
        choice,
        status,
        owner,
        papers,
        parent.map(|p| p.task.clone()),
    )
    .await
}

/// Places a Task over documents.
pub async fn place_task(
    world: &World,
    choice: &mut fastrand::Rng,
    status: &str,
    owner: Option<&'static str>,
    papers: Vec<Paper>,
    parent: Option<String>,
) -> Option<Case> {
    let body = task(choice, status, owner, &papers, parent);
    let made = world
        .change(
            EHR,
            world.any(choice),
            Request::post("/fhir/Task", Body::Fhir(&body)),
            Asked::CreateTask,
        )
        .await?;
    let case = Case {
        task: id_of(&made)?,
        papers,
        owner: std::sync::Mutex::new(owner),
    };
    Some(case)
}

fn task(
    choice: &mut fastrand::Rng,
    status: &str,
    owner: Option<&str>,
    papers: &[Paper],
    parent: Option<String>,
) -> Value {
    let focus = papers.first().map(|p| p.document.as_str()).unwrap_or_default();
    let owner = owner.map(reference_of);
    let mut task = crate::scene::task(status, focus, owner.as_deref());
    let inputs: Vec<Value> = papers
        .iter()
        .skip(1)
        .map(|paper| {
            json!({
                "type": {"text": "also"},
                "valueReference": {"reference": format!("DocumentReference/{}", paper.document)}
            })
        })
        .collect();
    if !inputs.is_empty() {
        task["input"] = json!(inputs);
    }
    if let Some(parent) = parent {
        task["partOf"] = json!([{"reference": format!("Task/{parent}")}]);
    }
    if choice.u8(..2) == 0 {
        task["performerType"][0]["coding"][0]["code"] = json!("oncology");
    }
    task
}

fn id_of(reply: &Reply) -> Option<String> {
    reply.body["id"].as_str().map(str::to_owned)
}

async fn change_document(world: &World, choice: &mut fastrand::Rng) -> Option<()> {
    let case = world.case(choice)?;
    let paper = choice.choice(&case.papers)?.clone();
    let path = format!("/fhir/DocumentReference/{}", paper.document);
    let server = world.any(choice);
    let document = paper.document.clone();
    if choice.u8(..12) == 0 {
        let asked = Asked::DeleteDocument { document };
        return world
            .change(EHR, server, Request::delete(&path), asked)
            .await
            .map(drop);
    }
    let mut body = world.look(EHR, server, &path).await?;
    let mut replaced = None;
    match choice.u8(..6) {
        0 => body["status"] = json!("superseded"),
        1 => body["status"] = json!("entered-in-error"),
        2 | 3 => {
            let content = Content {
                seed: choice.u64(..),
                size: size(choice),
            };
            let binary = upload(world, choice, content).await?;
            body["content"][0]["attachment"] =
                json!({"contentType": "application/pdf", "url": format!("Binary/{binary}")});
            replaced = Some(Paper {
                binary,
                content,
                ..paper
            });
        }
        _ => body["description"] = json!(format!("Changed letter about {MARKER}")),
    }
    let asked = Asked::UpdateDocument { document };
    let request = Request::put(&path, &body, None);
    world.change(EHR, server, request, asked).await?;
    if let Some(paper) = replaced {
        world.place(Case {
            task: case.task.clone(),
            papers: vec![paper],
            owner: std::sync::Mutex::new(case.owner()),
        });
    }
    Some(())
}
