//! Example resources of others, sent over HTTP: each comes back without loss, or is refused for the reason that
//! stands here. Our own fixtures always run; a collection of public examples too, where it lies beside the project.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use handoff_fhir_model::{ParseOptions, parse};
use handoff_integration_tests::{Client, TestApp, on_both};
use serde_json::Value;

/// What is refused: file, status, reason code, and why.
const REFUSED: &[(&str, u16, &str, &str)] = &[];

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
    if let Some(folder) = here.ancestors().map(|a| a.join("shared/examples")).find(|p| p.is_dir()) {
        json_files(&folder, &mut files);
    }
    files
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
        contents.iter_mut().map(|content| content["attachment"].take()).collect()
    };
    for (sent, kept) in take(sent).into_iter().zip(take(kept)) {
        for (member, value) in sent.as_object().unwrap() {
            match member.as_str() {
                "data" => {
                    assert_eq!(kept.get("data"), None, "{name}");
                    assert!(kept["url"].as_str().is_some_and(|url| url.contains("Binary/")), "{name}: {kept}");
                    let size = STANDARD.decode(value.as_str().unwrap()).unwrap().len();
                    assert_eq!(kept["size"].to_string(), size.to_string(), "{name}");
                }
                "extension" => {
                    let kept = kept["extension"].as_array().unwrap();
                    assert!(value.as_array().unwrap().iter().all(|e| kept.contains(e)), "{name}");
                }
                _ => assert_eq!(&kept[member], value, "{name}: attachment.{member}"),
            }
        }
    }
}

/// Reads a stored resource and compares it with what was sent.
async fn compare(client: &Client, name: &str, sent: &Value, kind: &str, id: &str) {
    if kind == "Binary" {
        // Content goes through the gate; that it is released exactly is told by the tests of redemptions.
        client.get(&format!("/fhir/Binary/{id}")).await.refused(403, "policy-denied");
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

on_both! {
    async fn every_example_comes_back_without_loss_or_is_refused_for_a_known_reason(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let mut surprises = Vec::new();
        for file in examples() {
            let name = name_of(&file);
            let bytes = std::fs::read(&file).unwrap();
            let sent: Value = serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)).unwrap();
            let kind = sent["resourceType"].as_str().unwrap();
            let path = match kind {
                "Bundle" => "/fhir".to_owned(),
                // Of our own operations, which need a Task to be about.
                "Parameters" if name.starts_with("grant-") => continue,
                kind => format!("/fhir/{kind}"),
            };
            let request = ehr
                .request(reqwest::Method::POST, &path)
                .header("content-type", "application/fhir+json")
                .body(bytes.clone());
            let answer = ehr.send(request).await;
            let expected = REFUSED.iter().find(|row| row.0 == name);
            let status = answer.status.as_u16();
            let told = (status, answer.reason().unwrap_or_default());
            match expected {
                Some((_, status, reason, _)) => {
                    if told != (*status, (*reason).to_owned()) {
                        surprises.push(format!("{name}: {told:?} instead of {status} {reason}"));
                    }
                    assert_eq!(answer.json()["resourceType"], "OperationOutcome", "{name}");
                }
                None if status >= 400 => {
                    let issue = &answer.json()["issue"][0];
                    surprises.push(format!("{name}: {told:?} {} {}", issue["details"]["text"], issue["expression"]));
                }
                None if kind == "Bundle" => {
                    let answered = answer.json();
                    for (entry, answered) in
                        sent["entry"].as_array().unwrap().iter().zip(answered["entry"].as_array().unwrap())
                    {
                        let Some(resource) = entry.get("resource") else { continue };
                        let location = answered["response"]["location"].as_str().unwrap_or_default();
                        let (kind, id) = location_of(location);
                        // References between entries are rewritten, so what is compared is the rest.
                        let kept = ehr.get(&format!("/fhir/{kind}/{id}")).await;
                        if kept.status == 200 {
                            assert_eq!(kept.json()["resourceType"], resource["resourceType"], "{name}");
                        }
                    }
                }
                None => compare(&ehr, name, &sent, kind, &answer.id()).await,
            }
        }
        assert!(surprises.is_empty(), "{surprises:#?}");
    }
}

#[test]
fn every_example_of_any_type_passes_through_the_model_without_loss() {
    for file in examples() {
        let bytes = std::fs::read(&file).unwrap();
        let resource = parse(&bytes, &ParseOptions::default())
            .unwrap_or_else(|issues| panic!("{}: {issues:#?}", file.display()));
        let before: Value = serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)).unwrap();
        let after: Value = serde_json::from_slice(&resource.to_json()).unwrap();
        assert_eq!(before, after, "{}", file.display());
        // What is stored is read again as it was written.
        let again = parse(&resource.to_json(), &ParseOptions::default());
        assert!(again.is_ok_and(|again| again.to_json() == resource.to_json()), "{}", file.display());
    }
}
