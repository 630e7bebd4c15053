//! Example resources of others, sent over HTTP: each comes back without loss, or is refused for the reason that
//! stands here. Our own fixtures always run; a collection of public examples too, where it lies beside the project.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use handoff_fhir_model::{ParseOptions, parse};
use handoff_fhir_profiles::canonical::{EXT_SHA256, EXT_SIZE};
use handoff_integration_tests::scene::upload;
use handoff_integration_tests::{Client, TestApp, on_both};
use serde_json::Value;

/// What is refused: the start of the file's name, status, reason code, and why.
const REFUSED: &[(&str, u16, &str, &str)] = &[
    (
        "AuditEvent-",
        405,
        "not-supported",
        "audit events are made by the server alone",
    ),
    (
        "Subscription-",
        422,
        "not-supported",
        "its criteria are about Observations, or a topic of another server",
    ),
    ("Basic-", 404, "not-supported", "not a type that is served"),
    (
        "CapabilityStatement-",
        404,
        "not-supported",
        "not a type that is served",
    ),
    (
        "OperationOutcome-",
        404,
        "not-supported",
        "not a type that is served",
    ),
    (
        "backport-Parameters-",
        404,
        "not-supported",
        "not a type that is served",
    ),
    (
        "backport-Bundle-r4-notification-",
        400,
        "invalid",
        "a notification is no transaction",
    ),
    (
        "Bundle-bundle-example.json",
        400,
        "invalid",
        "a search's answer is no transaction",
    ),
    (
        "Bundle-bundle-references.json",
        400,
        "invalid",
        "a collection is no transaction",
    ),
    (
        "Bundle-bundle-response.json",
        400,
        "invalid",
        "a transaction's answer is no transaction",
    ),
    (
        "Bundle-bundle-search-warning.json",
        400,
        "invalid",
        "a search's answer is no transaction",
    ),
    (
        "Bundle-bundle-transaction.json",
        400,
        "invalid",
        "it creates a Patient, a type that is not served",
    ),
    // Each entry is answered by itself.
    (
        "Bundle-bundle-request-simplesummary.json",
        200,
        "",
        "its entries read, and a batch only writes",
    ),
    (
        "Bundle-xds.json",
        400,
        "not-supported",
        "it has conditional requests",
    ),
    (
        "Task-example1.json",
        422,
        "invalid",
        "its contained Provenance carries a signature's bytes",
    ),
    (
        "Task-example4.json",
        422,
        "illegal-transition",
        "no Task begins as `completed`",
    ),
    (
        "Task-example6.json",
        422,
        "illegal-transition",
        "no Task begins as `completed`",
    ),
    (
        "Task-fm-example6.json",
        422,
        "illegal-transition",
        "no Task begins as `completed`",
    ),
];

fn json_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            json_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "json") {
            found.push(path);
        }
    }
    found.sort();
}

/// Our fixtures, and the collection where there is one.
fn examples() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    json_files(&here.join("../fhir-profiles/examples"), &mut files);
    assert!(files.len() >= 6, "our own fixtures are there");
    if let Some(folder) = here
        .ancestors()
        .map(|a| a.join("shared/examples"))
        .find(|p| p.is_dir())
    {
        json_files(&folder, &mut files);
    }
    files
}

fn read(file: &Path) -> Value {
    let bytes = std::fs::read(file).unwrap();
    serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)).unwrap()
}

fn name_of(file: &Path) -> &str {
    file.file_name().and_then(|n| n.to_str()).unwrap()
}

/// Without what the server assigns.
fn apart_from_id_and_meta(resource: &Value) -> Value {
    let mut resource = resource.clone();
    let members = resource.as_object_mut().unwrap();
    members.remove("id");
    if let Some(meta) = members.get_mut("meta").and_then(Value::as_object_mut) {
        meta.remove("versionId");
        meta.remove("lastUpdated");
        if meta.is_empty() {
            members.remove("meta");
        }
    }
    resource
}

/// Takes the attachments out of a document and compares what the server completes: content moves into a Binary,
/// size and hash are stated.
fn compare_attachments(name: &str, sent: &mut Value, kept: &mut Value) {
    let take = |document: &mut Value| -> Vec<Value> {
        let contents = document["content"].as_array_mut().unwrap();
        contents
            .iter_mut()
            .map(|content| content["attachment"].take())
            .collect()
    };
    for (sent, kept) in take(sent).into_iter().zip(take(kept)) {
        for (member, value) in sent.as_object().unwrap() {
            match member.as_str() {
                "data" => {
                    assert_eq!(kept.get("data"), None, "{name}");
                    assert!(
                        kept["url"].as_str().is_some_and(|url| url.contains("Binary/")),
                        "{name}: {kept}"
                    );
                    let size = STANDARD.decode(value.as_str().unwrap()).unwrap().len();
                    assert_eq!(kept["size"].to_string(), size.to_string(), "{name}");
                }
                // Digest and size are stated anew by the server, which checked them.
                "extension" => {
                    let kept = kept["extension"].as_array().unwrap();
                    let is_the_servers = |e: &Value| e["url"] == EXT_SHA256 || e["url"] == EXT_SIZE;
                    let lost = value
                        .as_array()
                        .unwrap()
                        .iter()
                        .find(|e| !is_the_servers(e) && !kept.contains(e));
                    assert_eq!(lost, None, "{name}");
                }
                "url" if value.as_str().is_some_and(|url| url.starts_with("urn:")) => {}
                _ => assert_eq!(&kept[member], value, "{name}: attachment.{member}"),
            }
        }
    }
}

/// Reads a stored resource and compares it with what was sent.
async fn compare(client: &Client, name: &str, sent: &Value, kind: &str, id: &str) {
    if kind == "Binary" {
        // Content goes through the gate; that it is released exactly is told by the tests of redemptions.
        client
            .get(&format!("/fhir/Binary/{id}"))
            .await
            .refused(403, "policy-denied");
        return;
    }
    let kept = client.get(&format!("/fhir/{kind}/{id}")).await.expect(200).json();
    let (mut sent, mut kept) = (apart_from_id_and_meta(sent), apart_from_id_and_meta(&kept));
    if kind == "DocumentReference" {
        compare_attachments(name, &mut sent, &mut kept);
    }
    assert_eq!(sent, kept, "{name}");
}

/// `DocumentReference/1` of a location.
fn location_of(text: &str) -> (String, String) {
    let path = text.split("/_history").next().unwrap();
    let mut parts = path.rsplit('/');
    let id = parts.next().unwrap().to_owned();
    (parts.next().unwrap().to_owned(), id)
}

/// What was sent, with the places that its parts were given in the references between them.
fn placed(bundle: &Value, answered: &Value) -> Vec<(Value, String, String)> {
    let mut text = bundle.to_string();
    let mut places = Vec::new();
    let answers = answered["entry"]
        .as_array()
        .unwrap_or_else(|| panic!("no entries: {answered}"));
    for (entry, answer) in bundle["entry"].as_array().unwrap().iter().zip(answers) {
        let status = answer["response"]["status"].as_str().unwrap_or_default();
        let is_created = status.starts_with("201");
        if !is_created {
            assert_eq!(
                answer["response"]["outcome"]["resourceType"], "OperationOutcome",
                "{answer}"
            );
            places.push(None);
            continue;
        }
        let (kind, id) = location_of(answer["response"]["location"].as_str().unwrap());
        if let Some(full_url) = entry["fullUrl"].as_str() {
            text = text.replace(full_url, &format!("{kind}/{id}"));
        }
        places.push(Some((kind, id)));
    }
    let rewritten: Value = serde_json::from_str(&text).unwrap();
    let entries = rewritten["entry"].as_array().unwrap().iter().zip(places);
    entries
        .filter_map(|(entry, place)| place.map(|(kind, id)| (entry["resource"].clone(), kind, id)))
        .collect()
}

on_both! {
    async fn every_example_comes_back_without_loss_or_is_refused_for_a_known_reason(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let mut surprises = Vec::new();
        let mut used = BTreeSet::new();
        for file in examples() {
            let name = name_of(&file);
            let mut sent = read(&file);
            let kind = sent["resourceType"].as_str().unwrap().to_owned();
            // The bodies of our own operations, which are about a Task.
            if name.starts_with("grant-") {
                continue;
            }
            if name == "referral-document.json" {
                // Its content comes first, and has the id that it was given.
                let content = read(&file.with_file_name("referral-binary.json"));
                let content = STANDARD.decode(content["data"].as_str().unwrap()).unwrap();
                sent["content"][0]["attachment"]["url"] = format!("Binary/{}", upload(&ehr, &content).await).into();
            }
            let path = if kind == "Bundle" { "/fhir".to_owned() } else { format!("/fhir/{kind}") };
            let answer = ehr.post(&path, &sent).await;
            let told = (answer.status.as_u16(), answer.reason().unwrap_or_default());
            if let Some((row, status, reason, _)) = REFUSED.iter().find(|row| name.starts_with(row.0)) {
                used.insert(*row);
                if told != (*status, (*reason).to_owned()) {
                    surprises.push(format!("{name}: {told:?} instead of {status} {reason}"));
                } else if *status == 200 {
                    assert_eq!(placed(&sent, &answer.json()), [], "{name}");
                }
            } else if told.0 >= 400 {
                let issue = &answer.json()["issue"][0];
                surprises.push(format!("{name}: {told:?} {} {}", issue["details"]["text"], issue["expression"]));
            } else if kind == "Bundle" {
                for (sent, kind, id) in placed(&sent, &answer.json()) {
                    compare(&ehr, name, &sent, &kind, &id).await;
                }
            } else {
                compare(&ehr, name, &sent, &kind, &answer.id()).await;
            }
        }
        assert!(surprises.is_empty(), "{surprises:#?}");
        // A row that nothing needs is a row that is wrong, where the collection is there to tell.
        assert!(used.is_empty() || used.len() == REFUSED.len(), "only {used:?} are refused");
    }
}

#[test]
fn every_example_of_any_type_passes_through_the_model_without_loss() {
    for file in examples() {
        let bytes = std::fs::read(&file).unwrap();
        let before = read(&file);
        let resource = parse(&bytes, &ParseOptions::default())
            .unwrap_or_else(|issues| panic!("{}: {issues:#?}", file.display()));
        let after: Value = serde_json::from_slice(&resource.to_json()).unwrap();
        assert_eq!(before, after, "{}", file.display());
        // What is stored is read again as it was written.
        let again = parse(&resource.to_json(), &ParseOptions::default());
        assert!(
            again.is_ok_and(|again| again.to_json() == resource.to_json()),
            "{}",
            file.display()
        );
    }
}
