//! Every example resource goes in and comes out again without loss; what is refused is listed with the reason.
//! Own fixtures always run; the collection of public examples too, where it lies beside the project.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use handoff_fhir_model::{ParseOptions, parse};
use serde_json::Value;

/// Files that are not valid R4, and the place that is told; none at present.
const REFUSED: &[(&str, &str)] = &[];

fn json_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            json_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "json") {
            found.push(path);
        }
    }
}

#[test]
fn every_example_round_trips_without_loss() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    json_files(&here.join("tests/fixtures"), &mut files);

    assert!(files.len() >= 7, "the fixtures are there");
    let beside = here
        .ancestors()
        .map(|a| a.join("shared/examples"))
        .find(|p| p.is_dir());
    if let Some(folder) = beside {
        json_files(&folder, &mut files);
    }
    for file in files {
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let bytes = std::fs::read(&file).unwrap();
        let parsed = parse(&bytes, &ParseOptions::default());
        let expected = REFUSED.iter().find(|(refused, _)| *refused == name);
        match (parsed, expected) {
            (Ok(resource), None) => {
                let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
                let before: Value = serde_json::from_slice(text).unwrap();
                let after: Value = serde_json::from_slice(&resource.to_json()).unwrap();
                assert_eq!(before, after, "{name}");
            }
            (Err(issues), Some((_, place))) => {
                let places: Vec<&str> = issues.iter().filter_map(|i| i.expression.as_deref()).collect();
                assert!(places.contains(place), "{name}: {issues:#?}");
            }
            (Ok(_), Some(_)) => panic!("{name} is listed as refused, and was taken"),
            (Err(issues), None) => panic!("{name}: {issues:#?}"),
        }
    }
}
