//! A store in memory, for tests and simulations. It forgets everything when it is dropped.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::Timestamp;

use super::{
    ChainHash, CommitError, Committed, Condition, Count, Key, LogEntry, LogHead, Page, Store,
    StoreUnavailable, Transaction, Versioned, link,
};

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    revision: u64,
    values: BTreeMap<Key, (Versioned, Option<Timestamp>)>,
    logs: BTreeMap<String, Vec<LogEntry>>,
    committed: HashMap<[u8; 16], Committed>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held cannot leave a transaction half applied: conditions are
        // checked before the first change, and changes do not panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn holds(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Absent(key) => !self.values.contains_key(key),
            Condition::Unchanged(key, version) => {
                self.values.get(key).is_some_and(|(found, _)| found.version == *version)
            }
        }
    }

    /// The number under a counted key.
    fn counted(&self, key: &Key) -> Result<u64, StoreUnavailable> {
        Count::read(self.values.get(key).map(|(found, _)| found))
    }

    fn append(&mut self, log: &str, payload: Vec<u8>) -> u64 {
        let entries = self.logs.entry(log.to_owned()).or_default();
        let sequence = entries.last().map_or(0, |last| last.sequence) + 1;
        let previous = entries.last().map_or(ChainHash::default(), |last| last.hash);
        let hash = link(previous, log, sequence, &payload);
        entries.push(LogEntry { sequence, payload, hash });
        sequence
    }
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreUnavailable> {
        Ok(self.state().values.get(key).map(|(found, _)| found.clone()))
    }

    async fn get_all(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreUnavailable> {
        let state = self.state();
        Ok(keys.iter().map(|key| Some(state.values.get(key)?.0.clone())).collect())
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreUnavailable> {
        let state = self.state();
        let start = match after {
            Some(key) if key.as_str() >= prefix => Bound::Excluded(key.clone()),
            _ => Bound::Included(Key(prefix.to_owned())),
        };
        let mut found = state
            .values
            .range((start, Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(prefix));
        let items =
            found.by_ref().take(limit).map(|(key, (value, _))| (key.clone(), value.clone()));
        let items = items.collect();
        Ok(Page { items, more: found.next().is_some() })
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        transaction.check_limits()?;
        let mut state = self.state();
        if let Some(first) = transaction.token.and_then(|token| state.committed.get(&token)) {
            return Ok(first.clone());
        }
        if let Some(broken) = transaction.conditions.iter().find(|one| !state.holds(one)) {
            return Err(CommitError::Conflict(broken.key().clone()));
        }
        let mut counted = Vec::new();
        for count in transaction.counts {
            let number = state.counted(&count.key)?;
            if number >= count.below {
                return Err(CommitError::Conflict(count.key));
            }
            counted.push((count, number + 1));
        }
        state.revision += 1;
        let revision = state.revision;
        for put in transaction.puts {
            let written = Versioned { value: put.value, version: revision };
            state.values.insert(put.key, (written, put.expires_at));
        }
        for (count, number) in counted {
            let written = Versioned { value: number.to_string().into_bytes(), version: revision };
            state.values.insert(count.key, (written, count.expires_at));
        }
        for key in &transaction.deletes {
            state.values.remove(key);
        }
        if let Some(now) = transaction.sweep_expired {
            state.values.retain(|_, (_, expires_at)| expires_at.is_none_or(|end| end >= now));
        }
        let appended = transaction
            .appends
            .into_iter()
            .map(|append| state.append(&append.log, append.payload))
            .collect();
        let committed = Committed { revision, appended };
        if let Some(token) = transaction.token {
            state.committed.insert(token, committed.clone());
        }
        Ok(committed)
    }

    async fn logs(&self) -> Result<Vec<String>, StoreUnavailable> {
        Ok(self.state().logs.keys().cloned().collect())
    }

    async fn heads(&self) -> Result<Vec<LogHead>, StoreUnavailable> {
        let state = self.state();
        let head = |(log, entries): (&String, &Vec<LogEntry>)| {
            let LogEntry { sequence, hash, .. } = *entries.last()?;
            Some(LogHead { log: log.clone(), sequence, hash })
        };
        Ok(state.logs.iter().filter_map(head).collect())
    }

    async fn read_log(
        &self,
        log: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreUnavailable> {
        let state = self.state();
        let entries = state.logs.get(log).into_iter().flatten();
        Ok(entries.filter(|entry| entry.sequence > after).take(limit).cloned().collect())
    }
}
