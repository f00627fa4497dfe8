//! Finding records.

use tokio::sync::mpsc;

use super::LOG_PREFIX;
use super::record::{Class, Entry, Outcome, Record};
use crate::domain::{CorrelationId, Timestamp};
use crate::store::{LogHead, Store, StoreUnavailable};

/// What a reader asks for.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// At or after this time.
    pub since: Option<Timestamp>,
    /// Of this class.
    pub class: Option<Class>,
    /// About this account.
    pub account: Option<String>,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// With this correlation id.
    pub correlation_id: Option<CorrelationId>,
}

impl Query {
    /// Whether this is one of them.
    pub fn wants(&self, record: &Record) -> bool {
        self.since.is_none_or(|since| record.time >= since)
            && self.class.is_none_or(|class| record.class == class)
            && self.outcome.is_none_or(|outcome| record.outcome == outcome)
            && (self.account.is_none() || record.account_id == self.account)
            && (self.correlation_id.is_none() || record.correlation_id == self.correlation_id)
    }
}

/// Reads records in the order of their chains and sends each that is wanted, until the receiver is
/// gone. The channel's bound is the bound of what is in memory.
pub async fn read(
    store: &dyn Store,
    query: &Query,
    found: mpsc::Sender<Entry>,
) -> Result<(), StoreUnavailable> {
    const BATCH: usize = 512;
    for chain in store.logs().await? {
        let mut after = 0;
        loop {
            let entries = store.read_log(&chain, after, BATCH).await?;
            let is_last = entries.len() < BATCH;
            for entry in entries {
                after = entry.sequence;
                let Ok(entry) = Entry::from_log(&chain, &entry) else { continue };
                if query.wants(&entry.record) && found.send(entry).await.is_err() {
                    return Ok(());
                }
            }
            if is_last {
                break;
            }
        }
    }
    Ok(())
}

/// The first records that are wanted, at most `limit`.
pub async fn first(
    store: &dyn Store,
    query: &Query,
    limit: usize,
) -> Result<Vec<Entry>, StoreUnavailable> {
    let (found, mut queue) = mpsc::channel(64);
    let collecting = async {
        let mut entries = Vec::new();
        while entries.len() < limit {
            let Some(entry) = queue.recv().await else { break };
            entries.push(entry);
        }
        drop(queue);
        entries
    };
    let (read, entries) = tokio::join!(read(store, query, found), collecting);
    read.map(|()| entries)
}

/// Whether this log is a chain of audit records.
pub fn is_chain(head: &LogHead) -> bool {
    head.log.starts_with(LOG_PREFIX)
}

/// The newest records that are wanted, at most `count`, the oldest first; up to these heads. Chains
/// stand in the order of their starts.
pub async fn last(
    store: &dyn Store,
    heads: &[LogHead],
    query: &Query,
    count: usize,
) -> Result<Vec<Entry>, StoreUnavailable> {
    const BATCH: u64 = 256;
    let mut found = Vec::new();
    for head in heads.iter().rev().filter(|head| is_chain(head)) {
        let mut end = head.sequence;
        while end > 0 && found.len() < count {
            let start = end.saturating_sub(BATCH);
            let length = usize::try_from(end - start).unwrap_or(usize::MAX);
            let entries = store.read_log(&head.log, start, length).await?;
            for entry in entries.into_iter().rev().filter(|entry| entry.sequence <= end) {
                let Ok(entry) = Entry::from_log(&head.log, &entry) else { continue };
                if found.len() < count && query.wants(&entry.record) {
                    found.push(entry);
                }
            }
            end = start;
        }
    }
    found.reverse();
    Ok(found)
}
