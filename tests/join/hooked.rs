//! A store for stories in which somebody is quicker.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use muster::store::{
    CommitError, Committed, Key, LogEntry, LogHead, MemoryStore, Page, Put, Store,
    StoreUnavailable, Transaction, Versioned,
};

type Meanwhile = Pin<Box<dyn Future<Output = ()> + Send>>;
type Intruder = Box<dyn FnOnce(Arc<dyn Store>) -> Meanwhile + Send>;

/// A store in memory in which something happens once, between two steps of a join.
#[derive(Default)]
pub(crate) struct Hooked {
    inner: Arc<MemoryStore>,
    /// Just before what is on record is read.
    pub(crate) before_reading: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    before_commit: Mutex<Option<Intruder>>,
}

impl Hooked {
    /// Somebody else does this just before the next commit.
    pub(crate) fn before_commit<F>(&self, then: impl FnOnce(Arc<dyn Store>) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        *self.before_commit.lock().unwrap() = Some(Box::new(|store| Box::pin(then(store))));
    }

    /// Somebody else writes this key again, as it is, just before the next commit.
    pub(crate) fn touch_before_commit(&self, key: Key) {
        self.before_commit(async move |store| {
            let Versioned { value, .. } = store.get(&key).await.unwrap().unwrap();
            let puts = vec![Put { key, value, expires_at: None }];
            store.commit(Transaction { puts, ..Transaction::default() }).await.unwrap();
        });
    }
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
        let meanwhile = self.before_commit.lock().unwrap().take();
        if let Some(then) = meanwhile {
            then(Arc::clone(&self.inner) as Arc<dyn Store>).await;
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
