//! The writer thread: group commit.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::{mpsc, oneshot};

use super::super::{
    ChainHash, CommitError, Committed, Condition, Count, Key, StoreUnavailable, Transaction,
    Versioned, link,
};
use super::StoreStatistics;
use crate::domain::Timestamp;

/// How many transactions share an fsync at most: bounds how long the first of them waits.
const BATCH_MAX: usize = 512;
/// When the last commit was shared by so many there is a crowd, and more are on their way.
const CROWD: usize = 3;
/// How long a crowd is waited for. A commit writes every page that it has touched and waits for the
/// disk, so it costs little more for fifty transactions than for five. Whoever comes alone waits for
/// nobody.
const LINGER: Duration = Duration::from_millis(4);
/// How many retry tokens are remembered: far more than can be in flight.
const TOKENS_KEPT: u64 = 100_000;

/// A transaction and where its outcome goes.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) transaction: Transaction,
    pub(super) answer: oneshot::Sender<Result<Committed, CommitError>>,
}

type Outcome = Result<Committed, CommitError>;

/// Runs until the queue closes.
pub(super) fn run_writer(
    mut connection: Connection,
    mut queue: mpsc::Receiver<Job>,
    statistics: &StoreStatistics,
) {
    let (mut heads, mut is_crowd) = (Heads::default(), false);
    while let Some(first) = queue.blocking_recv() {
        let mut jobs = vec![first];
        take_waiting(&mut queue, &mut jobs);
        if is_crowd && jobs.len() < BATCH_MAX {
            std::thread::sleep(LINGER);
            take_waiting(&mut queue, &mut jobs);
        }
        is_crowd = jobs.len() >= CROWD;
        let (transactions, answers): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| (job.transaction, job.answer)).unzip();
        let outcomes = commit_batch(&mut connection, &mut heads, &transactions);
        let applied = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        statistics.transactions.fetch_add(applied as u64, Ordering::Relaxed);
        statistics.commits.fetch_add(1, Ordering::Relaxed);
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // A waiter that gave up finds its outcome by reading.
            let _gone = answer.send(outcome);
        }
    }
}

fn take_waiting(queue: &mut mpsc::Receiver<Job>, jobs: &mut Vec<Job>) {
    while jobs.len() < BATCH_MAX {
        let Ok(next) = queue.try_recv() else { return };
        jobs.push(next);
    }
}

fn commit_batch(
    connection: &mut Connection,
    heads: &mut Heads,
    transactions: &[Transaction],
) -> Vec<Outcome> {
    match try_commit_batch(connection, heads, transactions) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            // What the cache says of uncommitted records is void.
            heads.0.clear();
            let unavailable = StoreUnavailable(error.to_string());
            transactions.iter().map(|_| Err(unavailable.clone().into())).collect()
        }
    }
}

fn try_commit_batch(
    connection: &mut Connection,
    heads: &mut Heads,
    transactions: &[Transaction],
) -> rusqlite::Result<Vec<Outcome>> {
    let batch = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let mut revision: u64 =
        batch.prepare_cached("SELECT value FROM revision")?.query_row([], |row| row.get(0))?;
    let mut outcomes = Vec::with_capacity(transactions.len());
    for transaction in transactions {
        let outcome = match check(&batch, transaction)? {
            Checked::Before(first) => Ok(first),
            Checked::Refused(error) => Err(error),
            Checked::Holds(counted) => {
                revision += 1;
                Ok(apply(&batch, heads, transaction, &counted, revision)?)
            }
        };
        outcomes.push(outcome);
    }
    batch.prepare_cached("UPDATE revision SET value = ?1")?.execute([revision])?;
    batch
        .prepare_cached("DELETE FROM commits WHERE revision < ?1")?
        .execute([revision.saturating_sub(TOKENS_KEPT)])?;
    batch.commit()?;
    Ok(outcomes)
}

/// What is to become of a transaction. Nothing is written yet, so that one that is refused has left
/// nothing behind in the batch.
enum Checked {
    /// It was applied before.
    Before(Committed),
    /// It cannot be applied.
    Refused(CommitError),
    /// It can; these are the numbers that it counts to.
    Holds(Vec<u64>),
}

fn check(connection: &Connection, transaction: &Transaction) -> rusqlite::Result<Checked> {
    if let Some(first) = earlier_outcome(connection, transaction.token)? {
        return Ok(Checked::Before(first));
    }
    for condition in &transaction.conditions {
        if !holds(connection, condition)? {
            return Ok(Checked::Refused(CommitError::Conflict(condition.key().clone())));
        }
    }
    let mut counted = Vec::with_capacity(transaction.counts.len());
    for count in &transaction.counts {
        match Count::read(find(connection, &count.key)?.as_ref()) {
            Ok(number) if number < count.below => counted.push(number + 1),
            Ok(_) => return Ok(Checked::Refused(CommitError::Conflict(count.key.clone()))),
            Err(unreadable) => return Ok(Checked::Refused(unreadable.into())),
        }
    }
    Ok(Checked::Holds(counted))
}

/// Writes what was checked. An error here is the file's, and the end of the whole batch.
fn apply(
    connection: &Connection,
    heads: &mut Heads,
    transaction: &Transaction,
    counted: &[u64],
    revision: u64,
) -> rusqlite::Result<Committed> {
    for put in &transaction.puts {
        write(connection, &put.key, &put.value, put.expires_at, revision)?;
    }
    for (count, number) in transaction.counts.iter().zip(counted) {
        let value = number.to_string().into_bytes();
        write(connection, &count.key, &value, count.expires_at, revision)?;
    }
    for key in &transaction.deletes {
        connection.prepare_cached("DELETE FROM entries WHERE key = ?1")?.execute([key.as_str()])?;
    }
    if let Some(now) = transaction.sweep_expired {
        connection
            .prepare_cached("DELETE FROM entries WHERE expires_at < ?1")?
            .execute([now.unix_seconds()])?;
    }
    let mut appended = Vec::with_capacity(transaction.appends.len());
    for append in &transaction.appends {
        appended.push(heads.append(connection, &append.log, &append.payload)?);
    }
    let committed = Committed { revision, appended };
    remember_token(connection, transaction.token, &committed)?;
    Ok(committed)
}

fn write(
    connection: &Connection,
    key: &Key,
    value: &[u8],
    expires_at: Option<Timestamp>,
    revision: u64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO entries (key, value, version, expires_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (key) DO UPDATE
             SET value = excluded.value, version = excluded.version,
                 expires_at = excluded.expires_at",
        )?
        .execute(params![key.as_str(), value, revision, expires_at.map(Timestamp::unix_seconds)])?;
    Ok(())
}

fn find(connection: &Connection, key: &Key) -> rusqlite::Result<Option<Versioned>> {
    connection
        .prepare_cached("SELECT value, version FROM entries WHERE key = ?1")?
        .query_row([key.as_str()], |row| Ok(Versioned { value: row.get(0)?, version: row.get(1)? }))
        .optional()
}

fn holds(connection: &Connection, condition: &Condition) -> rusqlite::Result<bool> {
    let found: Option<u64> = connection
        .prepare_cached("SELECT version FROM entries WHERE key = ?1")?
        .query_row([condition.key().as_str()], |row| row.get(0))
        .optional()?;
    Ok(match condition {
        Condition::Absent(_) => found.is_none(),
        Condition::Unchanged(_, version) => found == Some(*version),
    })
}

fn earlier_outcome(
    connection: &Connection,
    token: Option<[u8; 16]>,
) -> rusqlite::Result<Option<Committed>> {
    let Some(token) = token else { return Ok(None) };
    connection
        .prepare_cached("SELECT revision, appended FROM commits WHERE token = ?1")?
        .query_row([token], |row| {
            let appended: String = row.get(1)?;
            let appended = appended.split_whitespace().filter_map(|text| text.parse().ok());
            Ok(Committed { revision: row.get(0)?, appended: appended.collect() })
        })
        .optional()
}

fn remember_token(
    connection: &Connection,
    token: Option<[u8; 16]>,
    committed: &Committed,
) -> rusqlite::Result<()> {
    let Some(token) = token else { return Ok(()) };
    let appended: Vec<_> = committed.appended.iter().map(ToString::to_string).collect();
    connection
        .prepare_cached("INSERT INTO commits (token, revision, appended) VALUES (?1, ?2, ?3)")?
        .execute(params![token, committed.revision, appended.join(" ")])?;
    Ok(())
}

/// The last sequence number and hash of each log, so that an append does not read.
#[derive(Debug, Default)]
struct Heads(HashMap<String, (u64, ChainHash)>);

impl Heads {
    fn append(
        &mut self,
        connection: &Connection,
        log: &str,
        payload: &[u8],
    ) -> rusqlite::Result<u64> {
        let (last, previous) = self.head(connection, log)?;
        let sequence = last + 1;
        let hash = link(previous, log, sequence, payload);
        connection
            .prepare_cached(
                "INSERT INTO records (log, sequence, payload, hash) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![log, sequence, payload, hash.0])?;
        self.0.insert(log.to_owned(), (sequence, hash));
        Ok(sequence)
    }

    fn head(&self, connection: &Connection, log: &str) -> rusqlite::Result<(u64, ChainHash)> {
        if let Some(head) = self.0.get(log) {
            return Ok(*head);
        }
        let head = connection
            .prepare_cached(
                "SELECT sequence, hash FROM records WHERE log = ?1
                 ORDER BY sequence DESC LIMIT 1",
            )?
            .query_row([log], |row| Ok((row.get(0)?, ChainHash(row.get(1)?))))
            .optional()?;
        Ok(head.unwrap_or((0, ChainHash::default())))
    }
}
