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
    ] {
        assert_eq!(code(wrong), two, "{wrong:?}");
    }
    assert_eq!(
        code(&["config", "check", "--config", "/nowhere/at/all.toml"]),
        format!("{:?}", ExitCode::from(1))
    );
    assert_eq!(code(&["--help"]), format!("{:?}", ExitCode::SUCCESS));
    assert_eq!(code(&["--version"]), format!("{:?}", ExitCode::SUCCESS));
}
