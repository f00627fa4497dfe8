//! Lines of an exported copy. Every byte of them may be attacker-controlled.

use std::collections::BTreeMap;
use std::io::BufRead;

use serde_json::value::RawValue;

use super::LOG_PREFIX;
use super::record::Entry;

/// The longest line: the store's limit for a payload, and the envelope.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;
/// The longest name of a chain.
const CHAIN_BYTES_MAX: usize = 128;

/// What a line may have (I11); a flattened record alone would pass over anything else.
#[rustfmt::skip]
const MEMBERS: &[&str] = &[
    "seq", "chain", "hash", "time", "class", "kind", "outcome", "code", "correlation_id", "policy",
    "policy_hash", "account_id", "instance_id", "node_id", "serial", "source", "detail",
];

/// A line that is no audit record, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidLine(pub(super) &'static str);

/// The record of one line, with or without its line feed.
pub fn parse_line(line: &[u8]) -> Result<Entry, InvalidLine> {
    if line.len() > LINE_BYTES_MAX {
        return Err(InvalidLine("this line is longer than 1 MiB"));
    }
    let not_a_record = InvalidLine("this line is not an audit record");
    let entry: Entry = serde_json::from_slice(line).map_err(|_| not_a_record)?;
    let members: BTreeMap<&str, &RawValue> =
        serde_json::from_slice(line).map_err(|_| not_a_record)?;
    if members.keys().any(|name| !MEMBERS.contains(name)) {
        return Err(InvalidLine("this line has a member that no audit record has"));
    }
    let is_chain = entry.chain.starts_with(LOG_PREFIX)
        && entry.chain.len() <= CHAIN_BYTES_MAX
        && entry.chain.bytes().all(|byte| byte.is_ascii_graphic());
    let is_hash = entry.hash.len() == 64
        && entry.hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_chain || !is_hash || entry.seq == 0 {
        return Err(InvalidLine("this line names no place in an audit chain"));
    }
    Ok(entry)
}

/// What the reader came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// A whole line, without its line feed.
    Line,
    /// A line that is too long; its rest was passed over.
    TooLong,
    /// The end. Half a line before it is what a writer leaves that is at work or was cut off.
    End,
}

/// Reads the next line into `line`; holds no more than the longest in memory.
pub(super) fn read_line(from: &mut dyn BufRead, line: &mut Vec<u8>) -> std::io::Result<Read> {
    line.clear();
    let mut is_too_long = false;
    loop {
        let available = match from.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(if is_too_long { Read::TooLong } else { Read::End });
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let (part, _) = available.split_at(end.unwrap_or(available.len()));
        if line.len().saturating_add(part.len()) > LINE_BYTES_MAX {
            is_too_long = true;
        } else if !is_too_long {
            line.extend_from_slice(part);
        }
        let taken = part.len() + usize::from(end.is_some());
        from.consume(taken);
        if end.is_some() {
            return Ok(if is_too_long { Read::TooLong } else { Read::Line });
        }
    }
}
