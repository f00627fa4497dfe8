//! Identity documents from outside the crate: genuine ones, ones that `openssl` made, and every
//! forgery that is known. Vectors here are signed with keys of our own.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

mod command;
mod content;
mod flips;
mod forge;
mod genuine;
mod hostile;
mod import;
mod method;
mod openssl;
mod page;
mod pages;
