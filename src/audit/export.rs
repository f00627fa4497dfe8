//! A copy of everything, made once and on demand, in the form of the sinks.

use std::collections::BTreeMap;
use std::io::BufRead;

use super::line::{Read, parse_line, read_line};
use super::query::is_chain;
use super::record::Entry;
use super::sink::{Sink, to_lines};
use crate::domain::Timestamp;
use crate::store::{LogHead, Store, StoreUnavailable};

/// Records of one write.
const BATCH: usize = 512;

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// Records.
    pub records: u64,
    /// Chains that had any.
    pub chains: u64,
}

/// Why a copy was not made.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreUnavailable),
    /// The copy could not be written.
    #[error(transparent)]
    Sink(#[from] std::io::Error),
}

/// A file that is no copy of an audit log.
#[derive(Debug, thiserror::Error)]
pub enum NoCopy {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] std::io::Error),
    /// A line of it is something else.
    #[error("line {0} is not an audit record, so nothing is added to this file")]
    Line(u64),
}

/// Up to where a copy has each chain.
pub fn copied_so_far(copy: &mut dyn BufRead) -> Result<BTreeMap<String, u64>, NoCopy> {
    let (mut copied, mut line, mut number) = (BTreeMap::new(), Vec::new(), 0_u64);
    loop {
        number += 1;
        let entry = match read_line(copy, &mut line)? {
            Read::End => return Ok(copied),
            Read::TooLong => return Err(NoCopy::Line(number)),
            Read::Line => parse_line(&line).map_err(|_| NoCopy::Line(number))?,
        };
        let last = copied.entry(entry.chain).or_default();
        *last = entry.seq.max(*last);
    }
}

/// Copies every chain: what comes after what is copied so far, or from the first record at or after
/// `since` on; up to where the chains end now.
pub async fn export_everything(
    store: &dyn Store,
    copied: &BTreeMap<String, u64>,
    since: Option<Timestamp>,
    sink: &mut dyn Sink,
    mut tell: impl FnMut(Exported),
) -> Result<Exported, CopyError> {
    let mut exported = Exported::default();
    for head in store.heads().await?.into_iter().filter(is_chain) {
        let before = exported.records;
        let copied = copied.get(&head.log).copied();
        // What a copy has begun it goes on with: there are no gaps within a chain.
        let since = since.filter(|_| copied.is_none());
        let mut chain = Chain { head, after: copied.unwrap_or_default(), since };
        while let Some(lines) = chain.next(store).await? {
            sink.write(&lines.text)?;
            exported.records += lines.count;
            tell(exported);
        }
        exported.chains += u64::from(exported.records > before);
    }
    Ok(exported)
}

struct Chain {
    head: LogHead,
    after: u64,
    since: Option<Timestamp>,
}

struct Lines {
    text: Vec<u8>,
    count: u64,
}

impl Chain {
    /// The next lines; nothing at the end.
    async fn next(&mut self, store: &dyn Store) -> Result<Option<Lines>, StoreUnavailable> {
        if self.after >= self.head.sequence {
            return Ok(None);
        }
        let mut entries = store.read_log(&self.head.log, self.after, BATCH).await?;
        entries.retain(|entry| entry.sequence <= self.head.sequence);
        let Some(last) = entries.last() else { return Ok(None) };
        self.after = last.sequence;
        if let Some(since) = self.since {
            let is_old = |entry: &crate::store::LogEntry| {
                let entry = Entry::from_log(&self.head.log, entry);
                entry.is_ok_and(|entry| entry.record.time < since)
            };
            let begin = entries.iter().position(|entry| !is_old(entry));
            if begin.is_some() {
                self.since = None;
            }
            entries.drain(..begin.unwrap_or(entries.len()));
        }
        let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        Ok(Some(Lines { text: to_lines(&self.head.log, &entries)?, count }))
    }
}
