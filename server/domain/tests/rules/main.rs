//! The rules of a handoff, held against independently written tables and a plain model of what they promise.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod asking;
mod gate;
mod model;
mod movements;
mod moves;
mod plain;
mod transitions;
mod world;
