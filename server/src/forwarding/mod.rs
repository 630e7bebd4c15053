//! The audit on its way to sinks: what each is sent, and when. One task a sink, so that none waits for another, and nothing here is
//! waited for by a request. Which rows there are, and how far a sink is, is `app::forwarding`'s to know.

mod batch;
mod otlp;
mod sender;
mod webhook;
mod work;

pub use work::{Forwarding, start};
