//! Tables and their version.

use std::time::Duration;

use rusqlite::Connection;

use super::super::StoreUnavailable;
use super::unavailable;

/// How long one connection waits for another before it gives up.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many pages the write-ahead log has before it is copied into the file: 16 MiB.
const CHECKPOINT_PAGES: i64 = 4096;
/// `PRAGMA user_version` of this build.
const VERSION: i64 = 2;
/// `PRAGMA application_id`: "mstr".
const APPLICATION: i64 = 0x6d73_7472;

/// Values stand in the order in which they came, and only the index in the order of keys: values are
/// long and keys come at random, so that rows in the order of keys would be a page or two to write for
/// each (SQLite, "Clustered Indexes and the WITHOUT ROWID Optimization", section 5).
const ENTRIES: &str = "
    CREATE TABLE entries (
        id         INTEGER PRIMARY KEY,
        key        TEXT UNIQUE NOT NULL,
        value      BLOB NOT NULL,
        version    INTEGER NOT NULL,
        expires_at INTEGER
    ) STRICT;
    CREATE INDEX entries_by_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL;
";

const OTHER_TABLES: &str = "
    CREATE TABLE records (
        log      TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        payload  BLOB NOT NULL,
        hash     BLOB NOT NULL,
        PRIMARY KEY (log, sequence)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE commits (
        token    BLOB PRIMARY KEY NOT NULL,
        revision INTEGER NOT NULL,
        appended TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE revision (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        value    INTEGER NOT NULL
    ) STRICT;
    INSERT INTO revision VALUES (1, 0);
";

/// Version 1 kept the entries in the order of their keys.
const FROM_VERSION_1: &str = "
    INSERT INTO entries (key, value, version, expires_at)
        SELECT key, value, version, expires_at FROM entries_1 ORDER BY key;
    DROP TABLE entries_1;
";

/// Sets the connection up, creates the tables of an empty file, and brings an older one up to date.
pub(super) fn prepare(connection: &Connection) -> Result<(), StoreUnavailable> {
    connection.busy_timeout(BUSY_TIMEOUT).map_err(unavailable)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(unavailable)?;
    // FULL: a commit that was answered survives a power cut (SQLite, "PRAGMA synchronous").
    connection.pragma_update(None, "synchronous", "FULL").map_err(unavailable)?;
    // Every page that is written often is written once for so many pages, not for a thousand.
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(unavailable)?;
    let change = match version(connection)? {
        0 => format!("{ENTRIES} {OTHER_TABLES} PRAGMA application_id = {APPLICATION};"),
        1 if is_ours(connection)? => format!(
            "DROP INDEX entries_by_expiry; ALTER TABLE entries RENAME TO entries_1;
             {ENTRIES} {FROM_VERSION_1}"
        ),
        _ => return check_version(connection),
    };
    let change = format!("BEGIN IMMEDIATE; {change} PRAGMA user_version = {VERSION}; COMMIT;");
    connection.execute_batch(&change).map_err(unavailable)?;
    check_version(connection)
}

/// Refuses files of another program or of a newer version.
pub(super) fn check_version(connection: &Connection) -> Result<(), StoreUnavailable> {
    if !is_ours(connection)? {
        return Err(StoreUnavailable("the file is not a muster store".to_owned()));
    }
    let found = version(connection)?;
    if found < VERSION {
        return Err(StoreUnavailable(format!(
            "the store has schema version {found}; start `muster server` once, which brings it to \
             version {VERSION}"
        )));
    }
    if found != VERSION {
        return Err(StoreUnavailable(format!(
            "the store has schema version {found}, this muster reads version {VERSION}"
        )));
    }
    Ok(())
}

fn is_ours(connection: &Connection) -> Result<bool, StoreUnavailable> {
    let application: i64 =
        connection.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(unavailable)?;
    Ok(application == APPLICATION)
}

fn version(connection: &Connection) -> Result<i64, StoreUnavailable> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(unavailable)
}
