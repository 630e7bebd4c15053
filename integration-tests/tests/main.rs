//! The contract over HTTP, on both pairs of stores.
#![allow(clippy::indexing_slicing, reason = "JSON in tests is indexed; a wrong index fails the test")]

mod redemption;
mod streams;
mod task_table;
