//! The audit log: who was admitted, who was refused and why, what people did by hand.
//!
//! Four classes (design D4). Admissions are linked into the enrollment's own transaction; security
//! events are always written; refusals of accounts that some policy names are written up to a
//! quota; everything else is noise: counted exactly, explained from memory, summed up once a
//! minute. Noise can never spend the space or the fsyncs of admissions (I17).

mod against;
mod checkpoint;
mod export;
mod line;
mod noise;
mod query;
mod quota;
mod record;
mod room;
mod sealing;
mod sink;
mod verify;

use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::rand;

use crate::clock::Clock;
use crate::domain::CorrelationId;
use crate::store::{Append, CommitError, Store, StoreUnavailable, Transaction};
use noise::Noise;
use quota::Quota;
use room::LastSeen;
use sealing::Sealer;

pub use against::compare_with_export;
pub use checkpoint::{
    Checkpoint, CheckpointKey, Head, InvalidCheckpoint, UnusableKey, public_key_from_pem,
    public_key_to_pem,
};
pub use export::{CopyError, Exported, NoCopy, copied_so_far, export_everything};
pub use line::{InvalidLine, LINE_BYTES_MAX, parse_line};
pub use query::{Query, first, is_chain, last, read};
pub use quota::RefusalQuota;
pub use record::{Class, Entry, Outcome, Record};
pub use room::Room;
pub use sink::{Cursor, FileSink, Sink, StdoutSink, catch_up, export};
pub use verify::{Broken, Verification, verify};

/// What whoever asks to be admitted without room is told, and the operator reads.
const NO_ROOM: &str = "the store's disk is full and the reserve (store.reserve_mib) is used up: nobody \
    is admitted until there is room; `df` on the data directory, and \"The disk is full\" in \
    docs/operations.md";

/// Prefix of the names of all audit logs.
pub(crate) const LOG_PREFIX: &str = "audit/";

/// The writer's end of the audit log: one chain per process start.
pub struct Audit {
    store: Arc<dyn Store>,
    clock: Clock,
    chain: String,
    state: Mutex<State>,
    sealer: Option<Sealer>,
    room: LastSeen,
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
        Ok(Self {
            store,
            clock,
            chain,
            state: Mutex::new(state),
            sealer: None,
            room: LastSeen::default(),
        })
    }

    /// The same writer, which signs checkpoints with this key.
    #[must_use]
    pub fn with_checkpoints(self, key: CheckpointKey) -> Self {
        Self { sealer: Some(Sealer::new(key)), ..self }
    }

    /// The same writer, which keeps these quotas over every start.
    pub async fn with_refusal_quota(self, quota: RefusalQuota) -> Result<Self, StoreUnavailable> {
        let used_before = sealing::refusal_bytes_before(self.store.as_ref()).await?;
        self.state().quota = Quota::new(quota, used_before);
        Ok(self)
    }

    /// Where this process's chain begins.
    pub fn start(&self) -> Cursor {
        Cursor { chain: self.chain.clone(), seq: 0 }
    }

    /// A correlation id of this class.
    pub fn correlation_id(&self, class: Class) -> Result<CorrelationId, StoreUnavailable> {
        Ok(CorrelationId::new(class.letter(), random()?))
    }

    /// The record as part of somebody else's transaction: durable with it or not at all (I9). Without
    /// room there is no admission.
    pub fn append(&self, record: &Record) -> Result<Append, StoreUnavailable> {
        if record.class == Class::Admission && self.room() == Room::Gone {
            return Err(StoreUnavailable(NO_ROOM.to_owned()));
        }
        self.chained(record)
    }

    fn chained(&self, record: &Record) -> Result<Append, StoreUnavailable> {
        Ok(Append { log: self.chain.clone(), payload: record.to_payload()? })
    }

    /// Writes a record of its own.
    pub async fn write(&self, record: &Record) -> Result<(), StoreUnavailable> {
        self.commit(self.chained(record)?).await
    }

    async fn commit(&self, append: Append) -> Result<(), StoreUnavailable> {
        let transaction = Transaction { appends: vec![append], ..Transaction::default() };
        self.store.commit(transaction).await.map(|_| ()).map_err(unconditional)
    }

    /// Writes a refusal, if its class and quota allow a record of its own, or counts it.
    ///
    /// `subject` is what the quota of known refusals counts by.
    pub async fn refuse(&self, record: Record, subject: &str) -> Result<(), StoreUnavailable> {
        let append = match record.class {
            Class::Admission | Class::Security => Some(self.chained(&record)?),
            Class::Known if self.room() < Room::VeryLow => {
                let append = self.chained(&record)?;
                let reason = record.code.map_or("", crate::domain::Code::as_str);
                let length = append.payload.len();
                let admits = self.state().quota.admits(subject, reason, length, record.time);
                Some(append).filter(|_| admits)
            }
            Class::Known | Class::Noise => None,
        };
        let Some(append) = append else {
            self.state().noise.count(&record);
            return Ok(());
        };
        let written = self.commit(append).await;
        if written.is_err() {
            // Whatever the store does, the operator finds the explanation and the count.
            self.state().noise.count(&record);
        }
        written
    }

    /// A refusal that is explained from memory only.
    pub fn recall(&self, id: &CorrelationId) -> Option<Record> {
        self.state().noise.recall(id)
    }

    /// Writes the sum of what was only counted since the last one, if there was anything. With little
    /// room it waits: what is counted takes no more memory however long that is.
    pub async fn write_summary(&self) -> Result<(), StoreUnavailable> {
        if self.room() == Room::Ample { self.summarise().await } else { Ok(()) }
    }

    /// The same before the process ends: what waits in memory would be lost.
    pub async fn write_last_summary(&self) -> Result<(), StoreUnavailable> {
        if self.room() == Room::Gone { Ok(()) } else { self.summarise().await }
    }

    async fn summarise(&self) -> Result<(), StoreUnavailable> {
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

    /// Bytes that records of known refusals take in the store, and the most that they may.
    pub fn refusal_bytes(&self) -> (u64, u64) {
        let state = self.state();
        (state.quota.used_in_all(), state.quota.limits().bytes_in_all)
    }

    /// Bytes of memory that explanations take.
    pub fn explained_bytes(&self) -> usize {
        self.state().noise.explained_bytes()
    }

    /// Says how much room there is from now on.
    pub fn set_room(&self, room: Room) {
        self.room.set(room);
    }

    /// How much room there is.
    pub fn room(&self) -> Room {
        self.room.get()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Counters stay usable whatever happened to another thread.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a write without conditions can fail with.
fn unconditional(error: CommitError) -> StoreUnavailable {
    match error {
        CommitError::Unavailable(unavailable) => unavailable,
        CommitError::Conflict(key) => {
            StoreUnavailable(format!("an unconditional write met a conflict: {key:?}"))
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], StoreUnavailable> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| StoreUnavailable("no random bytes".to_owned()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
