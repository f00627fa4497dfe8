//! The store: a small ordered key-value store with atomic multi-key compare-and-swap and
//! append-only hash-chained logs. All state goes through it; it knows nothing of what it keeps.
//!
//! Sized so that SQLite, PostgreSQL, DynamoDB (at most 100 items a transaction) and etcd can all
//! implement it honestly. Every backend passes `contract`.

mod chain;
#[cfg(test)]
mod contract;
mod memory;
mod sqlite;

pub use chain::{ChainHash, LogEntry, LogHead, link};
pub use memory::MemoryStore;
pub use sqlite::{SqliteStore, StoreStatistics};

use std::collections::HashSet;

use crate::domain::Timestamp;

/// The most conditions, puts, deletes, counts and appends of one transaction, in all.
pub const TRANSACTION_ITEMS_MAX: usize = 100;
/// The longest key in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// The longest value or log payload in bytes.
pub const VALUE_BYTES_MAX: usize = 256 * 1024;

/// A key: parts joined by `/`, compared bytewise. Parts must not hold a slash themselves; where one
/// may come from outside, encode it first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// A key of these parts.
    pub fn new<'a>(parts: impl IntoIterator<Item = &'a str>) -> Self {
        Self(parts.into_iter().collect::<Vec<_>>().join("/"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A value and the version under which it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes.
    pub value: Vec<u8>,
    /// Changes with every write of this key.
    pub version: u64,
}

/// What must hold for a transaction to be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist.
    Absent(Key),
    /// The key exists in exactly this version.
    Unchanged(Key, u64),
}

impl Condition {
    /// The key that the condition is about.
    pub fn key(&self) -> &Key {
        match self {
            Self::Absent(key) | Self::Unchanged(key, _) => key,
        }
    }
}

/// Changes that happen together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// Keys to write.
    pub puts: Vec<Put>,
    /// Keys to remove; removing what is not there is no error.
    pub deletes: Vec<Key>,
    /// Numbers to count up, each once.
    pub counts: Vec<Count>,
    /// Records to append, each to the log of its name.
    pub appends: Vec<Append>,
    /// Removes every entry whose `expires_at` is before this time.
    pub sweep_expired: Option<Timestamp>,
    /// Makes a retried commit harmless: a token that was committed answers with the first outcome.
    pub token: Option<[u8; 16]>,
}

/// One key to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Where.
    pub key: Key,
    /// What.
    pub value: Vec<u8>,
    /// From when on the store may forget it. Garbage collection only: whoever reads a value after
    /// this time decides by its content.
    pub expires_at: Option<Timestamp>,
}

/// One number to count up by one, beginning from nothing. Unlike a value that is read, changed and
/// written under a condition, a crowd can count at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// Where. Only counts ever write there; the value is the number in decimal digits.
    pub key: Key,
    /// It must be below this before; otherwise the transaction conflicts at this key.
    pub below: u64,
    /// As with a put.
    pub expires_at: Option<Timestamp>,
}

impl Count {
    /// The number under a counted key, which is 0 where nothing was counted yet.
    pub fn read(found: Option<&Versioned>) -> Result<u64, StoreUnavailable> {
        let Some(found) = found else { return Ok(0) };
        let number = std::str::from_utf8(&found.value).ok().and_then(|text| text.parse().ok());
        number.ok_or_else(|| StoreUnavailable("a counted number cannot be read".to_owned()))
    }
}

/// One record to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The log's name.
    pub log: String,
    /// The record.
    pub payload: Vec<u8>,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Rises with every commit of this store.
    pub revision: u64,
    /// The sequence number of each appended record, in the order of `appends`.
    pub appended: Vec<u64>,
}

/// Why a transaction was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// This condition did not hold; nothing was changed.
    #[error("`{}` is not as it was read", .0.as_str())]
    Conflict(Key),
    /// The store could not say; whether anything was changed is unknown unless a token is used.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

/// The store did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store is unavailable: {0}")]
pub struct StoreUnavailable(pub String);

/// Part of a scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys in order, with their values.
    pub items: Vec<(Key, Versioned)>,
    /// There is more after the last item.
    pub more: bool,
}

/// A place for state. Reads are strongly consistent.
#[async_trait::async_trait]
pub trait Store: Send + Sync {
    /// The value of a key.
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreUnavailable>;

    /// The values of several keys, in their order. Not one moment of all of them: who needs that makes
    /// them conditions of a commit.
    async fn get_all(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreUnavailable>;

    /// Keys that begin with `prefix`, in order, after `after`, at most `limit` of them.
    async fn scan(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreUnavailable>;

    /// Applies a transaction durably, or nothing of it.
    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError>;

    /// The names of all logs, in order.
    async fn logs(&self) -> Result<Vec<String>, StoreUnavailable>;

    /// The last record of every log, in the order of their names: number and hash.
    async fn heads(&self) -> Result<Vec<LogHead>, StoreUnavailable>;

    /// Records of a log in order, after the one numbered `after` (0 for the start).
    async fn read_log(
        &self,
        log: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreUnavailable>;
}

impl Transaction {
    /// Refuses what some backend could not do.
    fn check_limits(&self) -> Result<(), StoreUnavailable> {
        let items = self.conditions.len()
            + self.puts.len()
            + self.deletes.len()
            + self.counts.len()
            + self.appends.len();
        let keys = self
            .conditions
            .iter()
            .map(Condition::key)
            .chain(self.puts.iter().map(|put| &put.key))
            .chain(&self.deletes)
            .chain(self.counts.iter().map(|count| &count.key));
        let values = self
            .puts
            .iter()
            .map(|put| put.value.len())
            .chain(self.appends.iter().map(|append| append.payload.len()));
        if items > TRANSACTION_ITEMS_MAX {
            return Err(StoreUnavailable(format!("a transaction of {items} items is too large")));
        }
        if keys.into_iter().any(|key| key.0.len() > KEY_BYTES_MAX) {
            return Err(StoreUnavailable("a key is too long".to_owned()));
        }
        let counted: HashSet<_> = self.counts.iter().map(|count| &count.key).collect();
        if counted.len() < self.counts.len() {
            return Err(StoreUnavailable("a number is counted twice in a transaction".to_owned()));
        }
        if values.into_iter().any(|length| length > VALUE_BYTES_MAX) {
            return Err(StoreUnavailable("a value is too long".to_owned()));
        }
        Ok(())
    }
}
