//! Those who fetch: several at once for one use, on every server, slowly, broken off, and gone on with.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::download::Pace;
use super::record::Stream;
use super::world::{PEOPLE, Paper, World};

/// How often a download that broke off is gone on with.
const RESUMES: u32 = 4;

/// Fetches for as long as the run lasts.
pub async fn fetch_documents(world: Arc<World>, mut choice: fastrand::Rng) {
    while world.goes_on() {
        world.pause(&mut choice, 10, 250).await;
        let Some(case) = world.case(&mut choice) else {
            continue;
        };
        let Some(paper) = choice.choice(&case.papers).cloned() else {
            continue;
        };
        let at_once = [1, 1, 1, 2, 3, 6][choice.usize(..6)];
        let all = (0..at_once).map(|_| {
            let mut own = choice.fork();
            let who = match (own.u8(..10), case.owner()) {
                (0..8, Some(owner)) => owner,
                _ => PEOPLE[own.usize(..PEOPLE.len())],
            };
            let path = format!("/fhir/Binary/{}?task=Task/{}", paper.binary, case.task);
            let (world, paper) = (&world, &paper);
            async move { fetch_to_the_end(world, &mut own, who, &path, paper).await }
        });
        join_all(all).await;
    }
}

/// Fetches, and goes on with what broke off.
async fn fetch_to_the_end(world: &World, choice: &mut fastrand::Rng, who: &str, path: &str, paper: &Paper) {
    let pace = pace(choice, paper.content.size);
    let (stream, etag) = world.fetch(who, world.any(choice), path, paper, None, pace).await;
    let (Some(etag), Some(redemption)) = (etag, stream.redemption.clone()) else {
        return;
    };
    let mut reached = reached(&stream);
    for _ in 0..RESUMES {
        if reached >= paper.content.size || !world.goes_on() || choice.u8(..5) == 0 {
            return;
        }
        world.pause(choice, 0, 800).await;
        let by_redemption = format!("/redemptions/{redemption}/content");
        let path = if choice.bool() { path } else { &by_redemption };
        let resume = Some((reached, etag.as_str()));
        let server = world.any(choice);
        let (stream, _) = world.fetch(who, server, path, paper, resume, Pace::Eager).await;
        if stream.status == 206 && stream.redemption.as_ref() == Some(&redemption) {
            reached = self::reached(&stream);
        } else if stream.status != 0 {
            return;
        }
    }
}

fn reached(stream: &Stream) -> u64 {
    stream.from + stream.received()
}

/// Long content is mostly read slowly, so that something meets it on its way.
fn pace(choice: &mut fastrand::Rng, size: u64) -> Pace {
    let is_long = size > 256 * 1024;
    match choice.u8(..10) {
        0..5 if is_long => {
            let piece = 32 * 1024;
            let pieces = size / piece as u64;
            // Two to eight seconds in all.
            let pause = choice.u64(2_000..8_000) / pieces.max(1);
            Pace::Slow {
                piece,
                pause: Duration::from_millis(pause.max(1)),
            }
        }
        5 => Pace::Leaving {
            after: choice.u64(..=size),
        },
        _ => Pace::Eager,
    }
}
