//! Both sides as they stand: the histories as they are answered, and what the mirror's store holds of notices.

use std::collections::BTreeMap;

use serde_json::Value;

use super::check::{Feed, Seen, Version};
use super::moving::SYSTEM;
use super::pair::{Pair, SOURCE};
use crate::Client;
use crate::chaos::stand::{Cell, Stand};

/// Reads it all.
pub async fn take(pair: &Pair) -> Seen {
    let mut seen = Seen::default();
    let (here, there) = (pair.source.client("ehr").await, pair.mirror.client("ehr").await);
    let mut by_identifier = BTreeMap::new();
    for task in tasks(&here).await {
        let (id, identifier) = names(&task);
        seen.source.insert(id.clone(), history(&here, &id).await);
        by_identifier.insert(identifier, id);
    }
    for task in tasks(&there).await {
        let (id, identifier) = names(&task);
        match by_identifier.remove(&identifier) {
            Some(theirs) => {
                seen.mirror.insert(theirs, history(&there, &id).await);
            }
            None => seen.others.push(id),
        }
    }
    let (feeds, waiting) = feeds(pair);
    seen.feeds = feeds;
    seen.waiting = waiting;
    let mut reader = pair.mirror.stand.reader();
    for row in reader.rows(
        &[Cell::Plain("about"), Cell::Plain("source_version")],
        "FROM notices WHERE state = 'quarantined'",
    ) {
        let task = row[0].as_str().unwrap_or_default().trim_start_matches("Task/");
        let version = row[1].as_str().and_then(|text| text.parse().ok());
        seen.quarantine.push((task.to_owned(), version.unwrap_or(0)));
    }
    seen
}

/// The subscriptions on both sides, and how much waits at the mirror.
pub fn feeds(pair: &Pair) -> (Vec<Feed>, usize) {
    let counted: BTreeMap<String, i64> = counts(&pair.source.stand)
        .into_iter()
        .map(|(subscription, counted, _)| (format!("Subscription/{subscription}"), counted))
        .collect();
    let mut reader = pair.mirror.stand.reader();
    let told = reader.rows(
        &[
            Cell::Plain("reference"),
            Cell::Plain("last_event"),
            Cell::Plain("missing"),
        ],
        &format!("FROM feed_subscriptions WHERE source = '{SOURCE}'"),
    );
    let waiting = reader
        .rows(&[Cell::Plain("id")], "FROM notices WHERE state = 'waiting'")
        .len();
    let mut feeds: Vec<Feed> = told
        .iter()
        .map(|row| {
            let subscription = text(&row[0]);
            Feed {
                counted: counted.get(&subscription).copied().unwrap_or(-1),
                told: row[1].as_i64().unwrap_or(-1),
                missing: text(&row[2]),
                subscription,
            }
        })
        .collect();
    for (subscription, counted) in counted {
        if feeds.iter().all(|feed| feed.subscription != subscription) {
            feeds.push(Feed {
                subscription,
                counted,
                told: -1,
                missing: "[]".to_owned(),
            });
        }
    }
    (feeds, waiting)
}

/// By subscription at the source: events counted, and delivered.
pub fn counts(source: &Stand) -> Vec<(String, i64, i64)> {
    let rows = source.reader().rows(
        &[
            Cell::Plain("n.subscription"),
            Cell::Plain("n.events"),
            Cell::Plain("c.delivered"),
        ],
        "FROM subscription_counts n JOIN subscription_courses c \
         ON c.tenant = n.tenant AND c.subscription = n.subscription",
    );
    let number = |cell: &Value| cell.as_i64().unwrap_or(-1);
    rows.iter()
        .map(|row| (text(&row[0]), number(&row[1]), number(&row[2])))
        .collect()
}

fn text(cell: &Value) -> String {
    cell.as_str().unwrap_or_default().to_owned()
}

/// Logical id, and the identifier that both sides know.
fn names(task: &Value) -> (String, String) {
    let identifier = task["identifier"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| one["system"] == SYSTEM)
        .map(|one| text(&one["value"]));
    (text(&task["id"]), identifier.unwrap_or_default())
}

async fn tasks(client: &Client) -> Vec<Value> {
    pages(client, "/fhir/Task?_count=100".to_owned()).await
}

/// Every version of a Task, oldest first.
async fn history(client: &Client, id: &str) -> Vec<Version> {
    let mut versions: Vec<Version> = pages(client, format!("/fhir/Task/{id}/_history?_count=100"))
        .await
        .iter()
        .map(version)
        .collect();
    versions.reverse();
    versions
}

async fn pages(client: &Client, first: String) -> Vec<Value> {
    let (mut found, mut next) = (Vec::new(), Some(first));
    while let Some(path) = next {
        let page = client.get(&path).await.expect(200).json();
        let entries = page["entry"].as_array().into_iter().flatten();
        found.extend(entries.map(|entry| entry["resource"].clone()));
        let links = page["link"].as_array().into_iter().flatten();
        let link = links.clone().find(|link| link["relation"] == "next");
        next = link.and_then(|link| link["url"].as_str()).map(str::to_owned);
    }
    found
}

fn version(task: &Value) -> Version {
    let mut rest = task.clone();
    if let Some(members) = rest.as_object_mut() {
        for apart in ["id", "meta", "status", "businessStatus", "owner", "description"] {
            members.remove(apart);
        }
    }
    let number = task["meta"]["versionId"].as_str();
    Version {
        number: number.and_then(|text| text.parse().ok()).unwrap_or(0),
        status: text(&task["status"]),
        owner: text(&task["owner"]["reference"]),
        mark: text(&task["description"]),
        rest,
    }
}
