//! After the storm: waits until the servers have cleaned up behind the dead, then asks for what nobody knows the fate
//! of, through the front door.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::content::Content;
use super::download::Pace;
use super::placing::{name, place_task};
use super::plan::choices;
use super::record::{Answer, Asked, Orphan};
use super::snapshot::{Snapshot, left_open};
use super::stand::Stand;
use super::world::{EHR, Paper, World};

/// How long cleaning up may take: servers take a process for dead after half a minute of silence.
const CLEANING_UP: Duration = Duration::from_mins(2);
const LOOK: Duration = Duration::from_millis(250);
/// How many whose fate is known are fetched as well, and how many orphans are asked for.
const SAMPLE: usize = 20;

/// Waits until no redemption waits or runs any more, or for as long as that may take; what is left is a finding.
pub(super) async fn come_to_rest(stand: &Stand) {
    let deadline = Instant::now() + CLEANING_UP;
    while left_open(stand) > 0 && Instant::now() < deadline {
        sleep(LOOK).await;
    }
}

/// Fetches every content whose upload was not answered and yet committed, and a sample of the others; asks for objects
/// that belong to nobody.
pub(super) async fn look_at_what_is_left(world: &World, stand: &Stand) {
    let store = Snapshot::take(stand).await;
    let mut uploads: HashMap<String, (Content, bool)> = HashMap::new();
    world.recorder.note(|record| {
        for change in &record.changes {
            if let Asked::Upload { content, .. } = &change.asked {
                let is_unknown = change.answer == Answer::Unknown;
                uploads.insert(change.correlation.clone(), (*content, is_unknown));
            }
        }
    });
    let mut unknown = Vec::new();
    let mut others = Vec::new();
    for row in store.audit.iter().filter(|row| row.event == "binary-created") {
        if let (Some((content, is_unknown)), Some(binary)) = (uploads.get(&row.correlation), &row.binary) {
            let list = if *is_unknown { &mut unknown } else { &mut others };
            list.push((binary.clone(), *content));
        }
    }
    let mut choice = choices(world.seed, "aftermath", 0);
    choice.shuffle(&mut others);
    others.truncate(SAMPLE);
    let named: HashMap<&str, &str> = store
        .binaries
        .iter()
        .filter_map(|b| Some((b.id.as_str(), b.document.as_deref()?)))
        .collect();
    for (binary, content) in unknown.into_iter().chain(others) {
        let paper = match named.get(binary.as_str()) {
            Some(document) => Some(Paper {
                document: (*document).to_owned(),
                binary: binary.clone(),
                content,
            }),
            None => name(world, &mut choice, &binary, content).await,
        };
        if let Some(paper) = paper {
            fetch_once(world, &mut choice, paper).await;
        }
    }
    ask_for_orphans(world, &store).await;
}

async fn fetch_once(world: &World, choice: &mut fastrand::Rng, paper: Paper) {
    let case = place_task(world, choice, "accepted", Some("lane"), vec![paper.clone()], None).await;
    let Some(case) = case else { return };
    let path = format!("/fhir/Binary/{}?task=Task/{}", paper.binary, case.task);
    let server = world.any(choice);
    world
        .fetch("lane", server, &path, &paper, None, Pace::Eager)
        .await;
}

async fn ask_for_orphans(world: &World, store: &Snapshot) {
    let named: HashSet<&str> = store.binaries.iter().map(|b| b.id.as_str()).collect();
    let orphans = store.objects.iter().filter(|id| !named.contains(id.as_str()));
    for id in orphans.take(SAMPLE) {
        let mut statuses = Vec::new();
        for server in 0..world.servers.len() {
            for who in [EHR, "lane", "operator"] {
                statuses.push(world.status(who, server, &format!("/fhir/Binary/{id}")).await);
            }
        }
        world.recorder.note(|record| {
            record.orphans.push(Orphan {
                id: id.clone(),
                statuses,
            });
        });
    }
}
