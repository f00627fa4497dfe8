//! The audit log: who was admitted, who was refused and why, what people did by hand.
//!
//! Four classes (design D4). Admissions are linked into the enrollment's own transaction; security
//! events are always written; refusals of accounts that some policy names are written up to a
//! quota; everything else is noise: counted exactly, explained from memory, summed up once a
//! minute. Noise can never spend the space or the fsyncs of admissions (I17).

mod noise;
mod quota;
mod record;
mod sink;
mod verify;

use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::rand;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::domain::{CorrelationId, Timestamp};
use crate::store::{Append, Store, StoreUnavailable, Transaction};
use noise::Noise;
use quota::Quota;

pub use record::{Class, Entry, Outcome, Record};
pub use sink::{Cursor, FileSink, Sink, StdoutSink, catch_up, export};
pub use verify::{Broken, Verification, compare_with_export, verify};

/// Prefix of the names of all audit logs.
pub(crate) const LOG_PREFIX: &str = "audit/";

/// The writer's end of the audit log: one chain per process start.
pub struct Audit {
    store: Arc<dyn Store>,
    clock: Clock,
    chain: String,
    state: Mutex<State>,
}

struct State {
    quota: Quota,
    noise: Noise,
}

impl Audit {
    /// Begins a chain.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Result<Self, StoreUnavailable> {
        let started = clock.now().unix_seconds();
        // The time in front keeps chains in the order of their starts.
        let chain = format!("{LOG_PREFIX}{started:012}-{}", hex::encode(random::<4>()?));
        let state = State { quota: Quota::default(), noise: Noise::default() };
        Ok(Self { store, clock, chain, state: Mutex::new(state) })
    }

    /// Where this process's chain begins.
    pub fn start(&self) -> Cursor {
        Cursor { chain: self.chain.clone(), seq: 0 }
    }

    /// A correlation id of this class.
    pub fn correlation_id(&self, class: Class) -> Result<CorrelationId, StoreUnavailable> {
        Ok(CorrelationId::new(class.letter(), random()?))
    }

    /// The record as part of somebody else's transaction: durable with it or not at all (I9).
    pub fn append(&self, record: &Record) -> Result<Append, StoreUnavailable> {
        Ok(Append { log: self.chain.clone(), payload: record.to_payload()? })
    }

    /// Writes a record of its own.
    pub async fn write(&self, record: &Record) -> Result<(), StoreUnavailable> {
        let transaction =
            Transaction { appends: vec![self.append(record)?], ..Transaction::default() };
        self.store.commit(transaction).await.map(|_| ()).map_err(|error| match error {
            crate::store::CommitError::Unavailable(unavailable) => unavailable,
            crate::store::CommitError::Conflict(key) => {
                StoreUnavailable(format!("an unconditional write met a conflict: {key:?}"))
            }
        })
    }

    /// Writes a refusal, if its class and quota allow a record of its own, or counts it.
    ///
    /// `subject` is what the quota of known refusals counts by.
    pub async fn refuse(&self, record: Record, subject: &str) -> Result<(), StoreUnavailable> {
        let write = match record.class {
            Class::Admission | Class::Security => true,
            Class::Known => {
                let reason = record.code.map_or("", crate::domain::Code::as_str);
                self.state().quota.admits(subject, reason, record.time)
            }
            Class::Noise => false,
        };
        if !write {
            self.state().noise.count(record);
            return Ok(());
        }
        let written = self.write(&record).await;
        if written.is_err() {
            // Whatever the store does, the operator finds the explanation and the count.
            self.state().noise.count(record);
        }
        written
    }

    /// A refusal that is explained from memory only.
    pub fn recall(&self, id: &CorrelationId) -> Option<Record> {
        self.state().noise.recall(id)
    }

    /// Writes the sum of what was only counted since the last call, if there was anything.
    pub async fn write_summary(&self) -> Result<(), StoreUnavailable> {
        let now = self.clock.now();
        let Some((summary, counts)) = self.state().noise.take_summary(now) else { return Ok(()) };
        let written = self.write(&summary).await;
        if written.is_err() {
            self.state().noise.give_back(counts);
        }
        written
    }

    /// How many refusals have only been counted since the start.
    pub fn counted(&self) -> u64 {
        self.state().noise.total()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Counters stay usable whatever happened to another thread.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
    fn wants(&self, record: &Record) -> bool {
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

fn random<const N: usize>() -> Result<[u8; N], StoreUnavailable> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| StoreUnavailable("no random bytes".to_owned()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
