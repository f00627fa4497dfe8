//! The store in one SQLite file: WAL, `synchronous = FULL`, one writer thread.
//!
//! The writer drains a bounded queue into one transaction per fsync (group commit) and answers the
//! waiters after the commit. Of each waiter everything is checked before anything is written, so one
//! broken condition fails one waiter, not the batch.

mod readers;
mod schema;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{mpsc, oneshot};

use super::{
    ChainHash, CommitError, Committed, Key, LogEntry, LogHead, Page, Store, StoreUnavailable,
    Transaction, Versioned,
};
use readers::Readers;
use writer::{Job, run_writer};

/// How many transactions may wait for the writer.
const QUEUE_LENGTH: usize = 4096;

/// The names of all logs. One index look-up for each; DISTINCT would read the index of every record.
const LOGS: &str = "
    WITH RECURSIVE logs (log) AS (
        SELECT min(log) FROM records
        UNION ALL
        SELECT (SELECT min(log) FROM records WHERE log > logs.log)
        FROM logs WHERE log IS NOT NULL
    )";

/// A store in a file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    jobs: mpsc::Sender<Job>,
    readers: Readers,
    statistics: Arc<StoreStatistics>,
}

/// How much the writer has done.
#[derive(Debug, Default)]
pub struct StoreStatistics {
    /// Transactions that were applied.
    pub transactions: AtomicU64,
    /// Commits of the file, each of which waits for the disk once.
    pub commits: AtomicU64,
}

impl SqliteStore {
    /// Opens the file, or creates it. A file of a newer version of muster is refused.
    pub fn open(path: &Path) -> Result<Self, StoreUnavailable> {
        let connection = Connection::open(path).map_err(unavailable)?;
        schema::prepare(&connection)?;
        let (jobs, queue) = mpsc::channel(QUEUE_LENGTH);
        let statistics = Arc::<StoreStatistics>::default();
        let counted = Arc::clone(&statistics);
        std::thread::Builder::new()
            .name("muster-store".to_owned())
            .spawn(move || run_writer(connection, queue, &counted))
            .map_err(|error| StoreUnavailable(format!("cannot start the writer: {error}")))?;
        Ok(Self { jobs, readers: Readers::start(path)?, statistics })
    }

    /// How much was written since it was opened.
    pub fn statistics(&self) -> Arc<StoreStatistics> {
        Arc::clone(&self.statistics)
    }

    /// Opens the file for reading alone: for looking at a data directory without its server.
    pub fn open_read_only(path: &Path) -> Result<Self, StoreUnavailable> {
        schema::check_version(&readers::open(path)?)?;
        let (jobs, _closed) = mpsc::channel(1);
        Ok(Self { jobs, readers: Readers::start(path)?, statistics: Arc::default() })
    }
}

fn unavailable(error: impl std::fmt::Display) -> StoreUnavailable {
    StoreUnavailable(error.to_string())
}

#[async_trait::async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &Key) -> Result<Option<Versioned>, StoreUnavailable> {
        Ok(self.get_all(std::slice::from_ref(key)).await?.pop().flatten())
    }

    async fn get_all(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreUnavailable> {
        let keys = keys.to_vec();
        self.readers
            .read(move |connection| {
                let mut statement = connection
                    .prepare_cached("SELECT value, version FROM entries WHERE key = ?1")?;
                let mut read = |key: &Key| {
                    let found = statement.query_row([key.as_str()], |row| {
                        Ok(Versioned { value: row.get(0)?, version: row.get(1)? })
                    });
                    found.optional()
                };
                keys.iter().map(&mut read).collect()
            })
            .await
    }

    async fn scan(
        &self,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreUnavailable> {
        // Keys are text of at most U+10FFFF, so this is after every key with the prefix.
        let end = format!("{prefix}\u{10FFFF}");
        let start = after.map_or("", Key::as_str).to_owned();
        let prefix = prefix.to_owned();
        let wanted = limit.saturating_add(1);
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT key, value, version FROM entries
                 WHERE key >= ?1 AND key < ?2 AND key > ?3 ORDER BY key LIMIT ?4",
                )?;
                let rows = statement.query_map(params![prefix, end, start, wanted], |row| {
                    let value = Versioned { value: row.get(1)?, version: row.get(2)? };
                    Ok((Key(row.get(0)?), value))
                })?;
                let mut items = rows.collect::<rusqlite::Result<Vec<_>>>()?;
                let more = items.len() > limit;
                items.truncate(limit);
                Ok(Page { items, more })
            })
            .await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, CommitError> {
        transaction.check_limits()?;
        let (answer, outcome) = oneshot::channel();
        let closed = || StoreUnavailable("the writer has stopped".to_owned());
        self.jobs.send(Job { transaction, answer }).await.map_err(|_| closed())?;
        outcome.await.map_err(|_| closed())?
    }

    async fn logs(&self) -> Result<Vec<String>, StoreUnavailable> {
        self.readers
            .read(|connection| {
                let mut statement = connection.prepare_cached(&format!(
                    "{LOGS} SELECT log FROM logs WHERE log IS NOT NULL"
                ))?;
                statement.query_map([], |row| row.get(0))?.collect()
            })
            .await
    }

    async fn heads(&self) -> Result<Vec<LogHead>, StoreUnavailable> {
        self.readers
            .read(|connection| {
                let mut statement = connection.prepare_cached(&format!(
                    "{LOGS} SELECT log,
                     (SELECT max(sequence) FROM records WHERE log = logs.log),
                     (SELECT hash FROM records WHERE log = logs.log
                      ORDER BY sequence DESC LIMIT 1)
                 FROM logs WHERE log IS NOT NULL"
                ))?;
                statement
                    .query_map([], |row| {
                        let (log, sequence) = (row.get(0)?, row.get(1)?);
                        Ok(LogHead { log, sequence, hash: ChainHash(row.get(2)?) })
                    })?
                    .collect()
            })
            .await
    }

    async fn read_log(
        &self,
        log: &str,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LogEntry>, StoreUnavailable> {
        let log = log.to_owned();
        self.readers
            .read(move |connection| {
                let mut statement = connection.prepare_cached(
                    "SELECT sequence, payload, hash FROM records
                 WHERE log = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3",
                )?;
                statement
                    .query_map(params![log, after, limit], |row| {
                        Ok(LogEntry {
                            sequence: row.get(0)?,
                            payload: row.get(1)?,
                            hash: ChainHash(row.get(2)?),
                        })
                    })?
                    .collect()
            })
            .await
    }
}
