//! The node side: gather evidence, join, renew, keep the result on disk.

mod attempt;
mod attester;
mod config;
mod daemon;
mod join;
mod machine;
mod outside;
mod plan;
mod reload;
mod state;

pub use config::{AgentConfig, AgentOverrides, EXAMPLE, TrustSource, UnusableConfig, read_trust};
pub use daemon::{AgentOptions, Event, Wish, run};
pub use join::{JoinOptions, join};
pub use machine::MachineId;
pub use state::*;

#[cfg(test)]
mod tests;
