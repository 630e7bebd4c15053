//! What is counted of clients: connections and bodies that were refused or let go, and why.
//! Labels are words of fixed sets: never an address.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::metrics::{Labelled, head, write_labelled};

static REFUSED: Labelled<1> = Labelled::new();
static ENDED: Labelled<1> = Labelled::new();
static BODIES: Labelled<1> = Labelled::new();
static TRANSFERS: Labelled<1> = Labelled::new();
static ATTEMPTS: Labelled<1> = Labelled::new();
static FAULTS: AtomicU64 = AtomicU64::new(0);

/// A connection that was not accepted: `full`, `address`.
pub fn connection_refused(why: &'static str) {
    REFUSED.count([why]);
    FAULTS.fetch_add(1, Ordering::Relaxed);
}

/// A connection that ended, and why; whether its client did not behave as clients should.
pub fn connection_ended(why: &'static str, is_fault: bool) {
    ENDED.count([why]);
    if is_fault {
        FAULTS.fetch_add(1, Ordering::Relaxed);
    }
}

/// A request's body that was not taken: `too-large`, `stalled`, `too-slow`, `no-room`, `broken-off`.
pub fn body_refused(why: &'static str) {
    BODIES.count([why]);
}

/// A `download` or `upload` for which there was no room.
pub fn transfer_refused(what: &'static str) {
    TRANSFERS.count([what]);
}

/// An attempt that was refused because too many before it failed, by the limit that was reached: `token`,
/// `link-address`, `link-client`, `link`.
pub fn attempt_refused(limit: &'static str) {
    ATTEMPTS.count([limit]);
}

/// How many connections were refused, or ended by a fault of their clients.
pub fn faults() -> u64 {
    FAULTS.load(Ordering::Relaxed)
}

/// What stands at the time of asking.
#[derive(Debug, Clone, Copy, Default)]
pub struct Present {
    /// Connections, and how many there may be.
    pub connections: (usize, usize),
    /// Downloads under way, and how many there may be.
    pub downloads: (usize, usize),
    /// Uploads under way, and how many there may be.
    pub uploads: (usize, usize),
    /// Bytes of bodies in memory, and how many there may be.
    pub buffered: (usize, usize),
}

pub(super) fn write(out: &mut String, present: &Present) -> std::fmt::Result {
    write_labelled(
        out,
        "handoff_connections_refused_total",
        "Connections that were not accepted, by what was full.",
        ["reason"],
        &REFUSED,
    )?;
    write_labelled(
        out,
        "handoff_connections_ended_total",
        "Connections that ended, by why.",
        ["reason"],
        &ENDED,
    )?;
    write_labelled(
        out,
        "handoff_bodies_refused_total",
        "Bodies of requests that were not taken, by why.",
        ["reason"],
        &BODIES,
    )?;
    write_labelled(
        out,
        "handoff_transfers_refused_total",
        "Downloads and uploads for which there was no room.",
        ["direction"],
        &TRANSFERS,
    )?;
    write_labelled(
        out,
        "handoff_attempts_refused_total",
        "Tokens and attempts at links that were refused because too many failed, by the limit that was reached.",
        ["limit"],
        &ATTEMPTS,
    )?;
    for (name, what, (now, most)) in [
        ("handoff_connections", "Connections", present.connections),
        (
            "handoff_downloads",
            "Downloads of content under way",
            present.downloads,
        ),
        ("handoff_uploads", "Uploads of content under way", present.uploads),
        (
            "handoff_buffered_body_bytes",
            "Bytes of request bodies in memory",
            present.buffered,
        ),
    ] {
        head(out, name, "gauge", &format!("{what}."))?;
        writeln!(out, "{name} {now}")?;
        let name = format!("{name}_max");
        head(out, &name, "gauge", &format!("{what}: how many there may be."))?;
        writeln!(out, "{name} {most}")?;
    }
    Ok(())
}
