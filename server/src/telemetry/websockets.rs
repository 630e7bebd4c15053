//! What is counted of web sockets: how many there are, which were refused and why, and why they were closed. Labels are
//! words of fixed sets.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::metrics::{Labelled, head, write_labelled};

static OPEN: AtomicUsize = AtomicUsize::new(0);
static REFUSED: Labelled<1> = Labelled::new();
static CLOSED: Labelled<1> = Labelled::new();

/// One was opened.
pub fn opened() {
    OPEN.fetch_add(1, Ordering::Relaxed);
}

/// One ended.
pub fn ended() {
    OPEN.fetch_sub(1, Ordering::Relaxed);
}

/// One was refused: `full`, `address`, `creator`, `origin`, `stopping`.
pub fn refused(why: &'static str) {
    REFUSED.count([why]);
}

/// One was closed, and why.
pub fn closed(why: &'static str) {
    CLOSED.count([why]);
}

/// The metrics as Prometheus text.
pub(super) fn write(out: &mut String) -> fmt::Result {
    let name = "handoff_websockets";
    head(out, name, "gauge", "Web sockets.")?;
    writeln!(out, "{name} {}", OPEN.load(Ordering::Relaxed))?;
    write_labelled(
        out,
        "handoff_websockets_refused_total",
        "Web sockets that were not opened, by why.",
        ["reason"],
        &REFUSED,
    )?;
    write_labelled(
        out,
        "handoff_websockets_closed_total",
        "Web sockets that ended, by why.",
        ["reason"],
        &CLOSED,
    )
}
