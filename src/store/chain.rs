//! The hash chain of a log: each record's hash covers the record and the hash before it, so a
//! record that is changed, removed or put in breaks the chain.
//!
//! This alone proves nothing against somebody who can rewrite the whole store (red team X6):
//! exported copies do.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};

/// The hash of a record and all before it; zero before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChainHash(pub [u8; 32]);

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A record of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// From 1, without gaps.
    pub sequence: u64,
    /// The record.
    pub payload: Vec<u8>,
    /// `link` of the entry before.
    pub hash: ChainHash,
}

/// Where a log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHead {
    /// The log's name.
    pub log: String,
    /// The number of its last record.
    pub sequence: u64,
    /// That record's hash.
    pub hash: ChainHash,
}

/// `SHA-256("muster/log/v1\0" ‖ previous ‖ SHA-256(log name) ‖ sequence, 8 bytes ‖ payload)`.
pub fn link(previous: ChainHash, log: &str, sequence: u64, payload: &[u8]) -> ChainHash {
    let mut hash = Context::new(&SHA256);
    hash.update(b"muster/log/v1\0");
    hash.update(&previous.0);
    hash.update(aws_lc_rs::digest::digest(&SHA256, log.as_bytes()).as_ref());
    hash.update(&sequence.to_be_bytes());
    hash.update(payload);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    ChainHash(bytes)
}
