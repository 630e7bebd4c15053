//! What the command line takes, and how it ends.

use clap::CommandFactory as _;

use super::*;

fn code(arguments: &[&str]) -> String {
    let arguments = std::iter::once("handoff")
        .chain(arguments.iter().copied())
        .map(OsString::from);
    format!("{:?}", run(arguments))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_help_with_an_example() {
    fn look(command: &mut clap::Command) {
        let help = command.render_long_help().to_string();
        assert!(help.contains("Example"), "{}", command.get_name());
        for inner in command.get_subcommands_mut() {
            look(inner);
        }
    }
    look(&mut Cli::command());
}

#[test]
fn a_wrong_command_line_ends_with_2_and_a_failure_with_1() {
    let two = format!("{:?}", ExitCode::from(2));
    for wrong in [
        &["fly"][..],
        &[],
        &["serve", "--colour"],
        &["demo", "--port", "many"],
        &["demo", "--once", "--no-play"],
        &["policy"],
        &["policy", "explain"],
        &["policy", "explain", "--action", "fetch"],
        &["policy", "explain", "--action", "task-read", "--role", "nurse"],
        &[
            "policy",
            "explain",
            "--action",
            "task-read",
            "--relation",
            "Owner",
        ],
        &["policy", "explain", "--action", "task-read", "--at", "yesterday"],
        &["policy", "explain", "--action", "task-read", "--actor", "me"],
        &[
            "policy",
            "explain",
            "--action",
            "task-read",
            "--session-age",
            "-5",
        ],
        &["policy", "check", "--policies", "a", "--config", "b"],
    ] {
        assert_eq!(code(wrong), two, "{wrong:?}");
    }
    assert_eq!(
        code(&["config", "check", "--config", "/nowhere/at/all.toml"]),
        format!("{:?}", ExitCode::from(1))
    );
    for missing in ["check", "test"] {
        let failed = code(&["policy", missing, "--policies", "/nowhere/at/all"]);
        assert_eq!(failed, format!("{:?}", ExitCode::from(1)));
    }
    assert_eq!(code(&["--help"]), format!("{:?}", ExitCode::SUCCESS));
    assert_eq!(code(&["--version"]), format!("{:?}", ExitCode::SUCCESS));
}

#[test]
fn the_shipped_rules_pass_and_can_be_explained() {
    let done = format!("{:?}", ExitCode::SUCCESS);
    assert_eq!(code(&["policy", "check"]), done);
    assert_eq!(code(&["policy", "test"]), done);
    let question = [
        "policy",
        "explain",
        "--action",
        "binary-fetch",
        "--role",
        "fulfiller",
        "--session-age",
        "5",
    ];
    assert_eq!(code(&question), done);
    // The project's own directory is one as the README describes it.
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies");
    for look in ["check", "test"] {
        assert_eq!(code(&["policy", look, "--policies", shipped]), done);
    }
}
