//! The `handoff` program: hands the command line to [`handoff::cli`] and its answer to the system.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request makes thousands of small allocations on one thread and frees them on another, which the system's allocator
/// is slow at.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    handoff::cli::run(std::env::args_os())
}
