//! The contract over HTTP, on both pairs of stores.

mod bad_clients;
mod bad_input;
mod bench;
mod chaos;
mod chaos_checker;
mod cut_off;
mod demo;
mod examples;
mod faults;
mod floods;
mod grants;
mod logs;
mod no_way_around;
mod odd_requests;
mod races;
mod redemption;
mod rest;
mod scopes;
mod search;
mod streams;
mod task_life;
mod task_table;
