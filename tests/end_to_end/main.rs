//! muster as processes: a simulator, a server and nodes on one machine, looked at from outside.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod agent;
mod agent_renewal;
mod agent_tokens;
mod agent_trouble;
mod audit_log;
mod aws;
mod ca;
mod certificate;
mod client_certificate;
mod clock;
mod crowd;
mod doctor;
mod genuine;
mod harness;
mod hostile;
mod limits;
mod patience;
mod policies;
mod publications;
mod publications_trouble;
mod reload;
mod renewal;
mod review;
mod revocation;
mod secrets;
mod shell;
mod socket;
#[path = "../support/softhsm.rs"]
mod softhsm;
mod storm;
mod tokens;
mod trust;
mod what_happens;
mod what_happens_disks;
mod what_happens_replies;
mod wire;
