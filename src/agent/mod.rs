//! The node side: gather evidence, join, renew, keep the result on disk.

mod attempt;
mod attester;
mod join;
mod outside;
mod state;

pub use join::{JoinOptions, join};
pub use state::*;
