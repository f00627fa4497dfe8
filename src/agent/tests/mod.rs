//! The agent in a world that loses replies, sleeps, forgets and refuses.

mod daemon;
mod world;
