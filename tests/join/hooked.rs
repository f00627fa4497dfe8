//! A store for stories in which somebody is quicker.

use std::sync::{Arc, Mutex};

use muster::domain::{Token, TokenName};
use muster::registry::{Lock, Registry};
use muster::store::{
    Append, CommitError, Committed, Key, LogEntry, LogHead, MemoryStore, Page, Store,
    StoreUnavailable, Transaction, Versioned,
};

/// A store in memory in which something happens once, between two steps of a join.
#[derive(Default)]
pub(crate) struct Hooked {
    inner: Arc<MemoryStore>,
    /// Just before what is on record is read.
    pub(crate) before_reading: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// This lock is placed just before the next commit.
    pub(crate) lock_before_commit: Mutex<Option<Lock>>,
    /// This token is removed just before the next commit.
    pub(crate) removed_before_commit: Mutex<Option<TokenName>>,
    /// The static tokens are this one from just before the next commit on.
    pub(crate) changed_before_commit: Mutex<Option<Token>>,
    /// This record is written just before the next commit.
    pub(crate) appended_before_commit: Mutex<Option<Append>>,
}

#[async_trait::async_trait]
impl Store for Hooked {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreUnavailable> {
        self.inner.get(key).await
    }

    async fn get_all(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreUnavailable> {
        if let Some(then) = self.before_reading.lock().unwrap().take() {
            then();
        }
        self.inner.get_all(keys).await
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreUnavailable> {
        self.inner.scan(prefix, after, limit).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        let lock = self.lock_before_commit.lock().unwrap().take();
        if let Some(lock) = lock {
            let inner = Arc::clone(&self.inner) as Arc<dyn Store>;
            Registry::new(inner).lock(&[lock], || Ok(vec![])).await?;
        }
        let changed = self.changed_before_commit.lock().unwrap().take();
        if let Some(token) = changed {
            let inner = Arc::clone(&self.inner) as Arc<dyn Store>;
            let log = |_: &Token, _| Ok(Append { log: "test".to_owned(), payload: b"{}".to_vec() });
            Registry::new(inner).keep_static_tokens(&[token], log).await?;
        }
        let removed = self.removed_before_commit.lock().unwrap().take();
        if let Some(name) = removed {
            let inner = Arc::clone(&self.inner) as Arc<dyn Store>;
            Registry::new(inner).remove_token(&name, |_| Ok(vec![])).await?;
        }
        let appended = self.appended_before_commit.lock().unwrap().take();
        if let Some(append) = appended {
            let other = Transaction { appends: vec![append], ..Transaction::default() };
            self.inner.commit(other).await?;
        }
        self.inner.commit(transaction).await
    }

    async fn logs(&self) -> Result<Vec<String>, StoreUnavailable> {
        self.inner.logs().await
    }

    async fn heads(&self) -> Result<Vec<LogHead>, StoreUnavailable> {
        self.inner.heads().await
    }

    async fn read_log(
        &self,
        log: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreUnavailable> {
        self.inner.read_log(log, after, limit).await
    }
}
