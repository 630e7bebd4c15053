//! The benchmark as a program: that each of its measurements can still be made. What it measures here means nothing.

use std::process::Command;

use handoff_integration_tests::process::program;
use serde_json::Value;
use tempfile::TempDir;

/// Words of a line that would be taken for a verdict.
fn verdicts(line: &str) -> usize {
    line.split(|c: char| !c.is_alphanumeric())
        .filter(|word| matches!(*word, "ok" | "MISS"))
        .count()
}

#[test]
fn the_benchmark_can_make_each_of_its_measurements() {
    let folder = TempDir::new().unwrap();
    let json = folder.path().join("figures.json");
    let output = Command::new(env!("CARGO_BIN_EXE_handoff-bench"))
        .arg("--smoke")
        .arg("--server")
        .arg(program())
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    for line in out.lines().chain(err.lines()) {
        assert_eq!(verdicts(line), 0, "{line}");
    }
    let figures: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let rows = figures["rows"].as_array().unwrap();
    for row in rows {
        let verdict = row["verdict"].as_str().unwrap();
        assert_eq!(verdict, "no budget", "{row:#}");
    }
    assert_eq!(rows.len(), 31, "{out}");
}

#[test]
fn a_wrong_command_line_of_the_benchmark_is_told_with_2() {
    for arguments in [
        ["--quick", "--smoke"],
        ["--only", "everything"],
        ["--header", "a: b"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_handoff-bench"))
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
