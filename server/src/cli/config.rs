//! `handoff config check` and `handoff config show`.

use super::{ConfigFile, Failed, say};

/// Names every problem, or says that there is none.
pub(super) fn check(file: &ConfigFile) -> Result<(), Failed> {
    file.load()?;
    say("the configuration has no problems")
}

/// Prints what is in force.
pub(super) fn show(file: &ConfigFile) -> Result<(), Failed> {
    say(file.load()?.show().trim_end())
}
