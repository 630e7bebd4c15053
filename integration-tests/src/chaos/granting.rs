//! Those who ask for grants by name, open links, and take grants back.

use std::sync::Arc;

use serde_json::json;

use super::content::sha256;
use super::download::{Pace, redemption_of};
use super::record::Asked;
use super::world::{Body, Case, EHR, PEOPLE, Paper, Reply, Request, World, reference_of};

/// Asks for grants for as long as the run lasts.
pub async fn ask_for_grants(world: Arc<World>, mut choice: fastrand::Rng) {
    while world.goes_on() {
        world.pause(&mut choice, 20, 300).await;
        if let Some(case) = world.case(&mut choice) {
            let _done = ask(&world, &mut choice, &case).await;
        }
    }
}

async fn ask(world: &World, choice: &mut fastrand::Rng, case: &Case) -> Option<()> {
    let paper = choice.choice(&case.papers)?;
    let holder = case.owner().unwrap_or(PEOPLE[choice.usize(..3)]);
    let who = [EHR, EHR, EHR, holder][choice.usize(..4)];
    let expires = [2, 5, 60, 600][choice.usize(..4)];
    let body = json!({
        "task": format!("Task/{}", case.task),
        "actor": {"reference": reference_of(holder)},
        "action": "download",
        "uses": 1,
        "expiresIn": expires,
    });
    let path = format!("/files/{}/access-grants", paper.document);
    let server = world.any(choice);
    let asked = Asked::IssueGrant {
        task: case.task.clone(),
    };
    let issued = world
        .change(who, server, Request::post(&path, Body::Plain(&body)), asked)
        .await?;
    let grant = issued.body["grantId"].as_str()?.to_owned();
    match choice.u8(..10) {
        0..5 => open(world, choice, &issued, &grant, holder, paper).await,
        5 => {
            world.pause(choice, 0, 50).await;
            take_back(world, choice, &grant).await
        }
        // Opened and taken back at once.
        6 | 7 => {
            let mut other = choice.fork();
            let opened = open(world, choice, &issued, &grant, holder, paper);
            let taken_back = async {
                world.pause(&mut other, 0, 100).await;
                take_back(world, &mut other, &grant).await
            };
            let (_opened, taken_back) = tokio::join!(opened, taken_back);
            taken_back
        }
        _ => Some(()),
    }
}

async fn take_back(world: &World, choice: &mut fastrand::Rng, grant: &str) -> Option<()> {
    let asked = Asked::RevokeGrant {
        grant: grant.to_owned(),
    };
    let who = [EHR, "operator"][choice.usize(..2)];
    let path = format!("/access-grants/{grant}");
    let server = world.any(choice);
    world
        .change(who, server, Request::delete(&path), asked)
        .await
        .map(drop)
}

/// Opens a link, perhaps twice at once, and perhaps fetches what it leads to.
async fn open(
    world: &World,
    choice: &mut fastrand::Rng,
    issued: &Reply,
    grant: &str,
    holder: &str,
    paper: &Paper,
) -> Option<()> {
    // Another content by now than the one that is known here.
    if issued.body["sha256"].as_str()? != sha256(&paper.content.whole()) {
        return None;
    }
    let link = issued.body["link"].as_str()?;
    let (page, secret) = link.split_once('#')?;
    let path = page.get(page.find("/handoff/")?..)?;
    let body = json!({"secret": secret});
    let redeem = |server| {
        let asked = Asked::Redeem {
            grant: grant.to_owned(),
        };
        world.change(holder, server, Request::post(path, Body::Plain(&body)), asked)
    };
    let (here, there) = (world.any(choice), world.any(choice));
    let opened = if choice.bool() {
        redeem(here).await
    } else {
        let (one, other) = tokio::join!(redeem(here), redeem(there));
        one.or(other)
    };
    let redemption = redemption_of(opened?.location.as_deref()?)?;
    if choice.u8(..4) == 0 {
        return Some(());
    }
    let path = format!("/redemptions/{redemption}/content");
    let server = world.any(choice);
    let (stream, etag) = world.fetch(holder, server, &path, paper, None, Pace::Eager).await;
    if let (false, Some(etag)) = (stream.is_whole(), etag) {
        let resume = Some((stream.received(), etag.as_str()));
        world
            .fetch(holder, world.any(choice), &path, paper, resume, Pace::Eager)
            .await;
    }
    Some(())
}
