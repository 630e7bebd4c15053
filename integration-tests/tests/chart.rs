//! The chart's configurations are held against the program itself: what it renders has to be what the server takes.

use std::path::Path;
use std::process::Command;

use handoff_integration_tests::process::program;

#[test]
fn the_server_takes_what_the_chart_renders() {
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("checks/chart");
    let told = Command::new(check)
        .arg("--only-handoff")
        .arg(program())
        .output()
        .unwrap();
    let text = [told.stdout, told.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert!(told.status.success(), "{text}");
}
