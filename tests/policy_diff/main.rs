//! `muster policy diff`: twelve widenings that are easy to overlook, each with a witness that `muster
//! policy explain` confirms; and texts that changed without a change in meaning.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test ends where it is wrong"
)]

mod change;
mod meaning;
mod outputs;
mod widenings;
