//! The node side: gather evidence, join, keep the result on disk.

mod attester;
mod join;
mod state;

pub use join::{JoinOptions, join};
pub use state::*;
