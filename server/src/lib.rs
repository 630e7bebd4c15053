//! Handoff: a FHIR R4 workflow server that releases clinical documents only while their Task is actionable.
//!
//! The way of a request is always edge (`http`, `fhir`) → `app` → the domain crate → its ports, and back.

pub mod adapters;
pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod demo;
pub mod fhir;
pub mod forwarding;
pub mod http;
pub mod notifications;
pub mod otlp;
pub mod scanning;
pub mod telemetry;
pub mod wiring;
