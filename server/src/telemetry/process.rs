//! What the system says of this process, under the names that Prometheus gives it everywhere.

use std::fmt::Write;
use std::fs;

use rustix::process::{Resource, getrlimit};

use super::metrics::head;

/// Descriptors in use; `None` where the system does not say.
pub fn open_descriptors() -> Option<usize> {
    // The listing itself holds one.
    fs::read_dir("/proc/self/fd")
        .ok()
        .map(|entries| entries.count().saturating_sub(1))
}

/// Descriptors that there may be; `None` where there is no limit.
pub fn most_descriptors() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Memory held, in bytes; `None` where the system does not say.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

pub(super) fn write(out: &mut String) -> std::fmt::Result {
    let values = [
        (
            "process_open_fds",
            "Descriptors in use.",
            open_descriptors().map(|n| n as u64),
        ),
        (
            "process_max_fds",
            "Descriptors that there may be.",
            most_descriptors(),
        ),
        ("process_resident_memory_bytes", "Memory held.", resident()),
    ];
    for (name, help, value) in values {
        if let Some(value) = value {
            head(out, name, "gauge", help)?;
            writeln!(out, "{name} {value}")?;
        }
    }
    Ok(())
}
