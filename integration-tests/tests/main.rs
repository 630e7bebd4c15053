//! The contract over HTTP, on both pairs of stores.

mod bad_clients;
mod demo;
mod examples;
mod faults;
mod redemption;
mod streams;
mod task_table;
