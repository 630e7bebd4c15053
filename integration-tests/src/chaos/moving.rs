//! Those who move Tasks: the people they belong to and the placer, against each other and all at once.

use std::sync::Arc;

use serde_json::{Value, json};

use super::record::Asked;
use super::world::{Case, EHR, PEOPLE, Request, World, reference_of};

/// Moves Tasks for as long as the run lasts.
pub async fn move_tasks(world: Arc<World>, mut choice: fastrand::Rng) {
    while world.goes_on() {
        world.pause(&mut choice, 5, 120).await;
        if let Some(case) = world.case(&mut choice) {
            let _moved = move_task(&world, &mut choice, &case).await;
        }
    }
}

async fn move_task(world: &World, choice: &mut fastrand::Rng, case: &Case) -> Option<()> {
    let path = format!("/fhir/Task/{}", case.task);
    let task = case.task.clone();
    if choice.u8(..60) == 0 {
        let server = world.any(choice);
        let asked = Asked::DeleteTask { task };
        return world
            .change(EHR, server, Request::delete(&path), asked)
            .await
            .map(drop);
    }
    let mut body = world.look(EHR, world.any(choice), &path).await?;
    case.owned_by(body["owner"]["reference"].as_str());
    let version = body["meta"]["versionId"].as_str()?.parse::<i64>().ok()?;
    edit(choice, &mut body);
    let mover = match (choice.u8(..10), case.owner()) {
        (0..5, Some(owner)) => owner,
        (0..6, _) => PEOPLE[choice.usize(..PEOPLE.len())],
        _ => EHR,
    };
    let if_match = (choice.u8(..10) < 6).then_some(version);
    let server = world.any(choice);
    let asked = Asked::UpdateTask { task };
    let answer = world
        .change(mover, server, Request::put(&path, &body, if_match), asked)
        .await?;
    case.owned_by(answer.body["owner"]["reference"].as_str());
    Some(())
}

fn edit(choice: &mut fastrand::Rng, body: &mut Value) {
    match choice.u8(..20) {
        0..3 => {
            let owner = PEOPLE[choice.usize(..3)];
            body["owner"] = json!({"reference": reference_of(owner)});
        }
        3 => {
            body.as_object_mut().expect("a resource").remove("owner");
        }
        4 => {
            body.as_object_mut().expect("a resource").remove("input");
        }
        5 => body["priority"] = json!(["routine", "urgent", "stat"][choice.usize(..3)]),
        _ => {
            let status = body["status"].as_str().unwrap_or_default().to_owned();
            body["status"] = json!(next(choice, &status));
        }
    }
}

/// A status to ask for: mostly one that may follow, rarely an end, sometimes nonsense.
fn next(choice: &mut fastrand::Rng, status: &str) -> &'static str {
    const LIVELY: [&str; 3] = ["accepted", "ready", "in-progress"];
    const ENDS: [&str; 5] = ["completed", "cancelled", "failed", "rejected", "entered-in-error"];
    if choice.u8(..12) == 0 {
        return ENDS[choice.usize(..ENDS.len())];
    }
    match status {
        "draft" => ["requested", "ready"][choice.usize(..2)],
        "requested" => ["received", "accepted", "ready"][choice.usize(..3)],
        "received" => ["accepted", "ready"][choice.usize(..2)],
        "accepted" => ["ready", "in-progress", "on-hold"][choice.usize(..3)],
        "ready" => ["in-progress", "on-hold", "on-hold", "requested"][choice.usize(..4)],
        "in-progress" => ["ready", "on-hold"][choice.usize(..2)],
        _ => LIVELY[choice.usize(..LIVELY.len())],
    }
}
