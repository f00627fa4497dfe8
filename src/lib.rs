//! muster lets cloud machines join without a secret: a machine proves which instance it is, the
//! server checks the proof against reviewed allow-lists and issues a short-lived certificate.
//!
//! The modules stand in the order in which a request meets them; each imports only modules listed
//! above it (`tests/architecture.rs` enforces it).

pub mod domain;
pub mod clock;
pub mod turns;
pub mod store;
pub mod aws;
pub mod methods;
pub mod policy;
pub mod registry;
pub mod audit;
pub mod ca;
pub mod join;
mod proto;
pub mod server;
pub mod client;
pub mod agent;
pub mod sim;
pub mod cli;
