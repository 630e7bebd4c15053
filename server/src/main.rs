//! The `handoff` program: hands the command line to [`handoff::cli`] and its answer to the system.

use std::process::ExitCode;

fn main() -> ExitCode {
    handoff::cli::run(std::env::args_os())
}
