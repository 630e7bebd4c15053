//! The contract over HTTP, on both pairs of stores.

mod redemption;
mod streams;
mod task_table;
