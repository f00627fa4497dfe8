//! The agent in a world that loses replies, sleeps, forgets and refuses.

mod connection;
mod daemon;
mod methods;
mod world;
