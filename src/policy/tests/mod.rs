//! The decision as a table: one admitted node, one change a row, the exact denial.

mod analysis;
mod boundaries;
mod cases;
mod decision;
mod explanations;
mod lints;
mod limits;
mod properties;
mod publications;
mod suppressions;
mod world;
