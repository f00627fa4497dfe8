//! The life of a join, told in stories: one for each invariant and attack. The whole pipeline runs
//! in process, on documents of the simulator; only the network is left out.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod authority;
mod bounds;
mod changes;
mod checkpoints;
mod cloud;
mod contract;
mod crash;
mod enrollment;
mod flood;
mod hooked;
mod issuing;
mod locks;
mod logs;
mod look_up;
mod overload;
mod policy_changes;
mod proof;
mod renewal;
mod renewal_abuse;
#[path = "../support/softhsm.rs"]
mod softhsm;
mod token_nodes;
mod tokens;
mod world;
