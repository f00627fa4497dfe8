//! The node side: gather evidence, join, renew, keep the result on disk.

mod attempt;
mod attester;
mod config;
mod daemon;
mod directions;
mod join;
mod machine;
mod method;
mod network;
mod outside;
mod plan;
mod reload;
mod state;
mod token;

pub use config::{AgentConfig, AgentOverrides, EXAMPLE, TrustSource, UnusableConfig, read_trust};
pub use daemon::{AgentOptions, Event, Wish, run};
pub use join::{JoinOptions, join};
pub use machine::{InvalidMachineId, MachineId, NoMachineId};
pub use method::{InvalidMethodList, Method, MethodList, UnknownMethod};
pub use network::Means;
pub use state::*;
pub use token::{InvalidTokenSource, ParameterPath, SsmSettings, TokenSource};

#[cfg(test)]
mod tests;
