//! Tables and their version.

use std::time::Duration;

use rusqlite::Connection;

use super::super::StoreUnavailable;
use super::unavailable;

/// How long one connection waits for another before it gives up.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// `PRAGMA user_version` of this build.
const VERSION: i64 = 1;
/// `PRAGMA application_id`: "mstr".
const APPLICATION: i64 = 0x6d73_7472;

const TABLES: &str = "
    CREATE TABLE entries (
        key        TEXT PRIMARY KEY NOT NULL,
        value      BLOB NOT NULL,
        version    INTEGER NOT NULL,
        expires_at INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX entries_by_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL;
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

/// Sets the connection up and creates the tables of an empty file.
pub(super) fn prepare(connection: &Connection) -> Result<(), StoreUnavailable> {
    connection.busy_timeout(BUSY_TIMEOUT).map_err(unavailable)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(unavailable)?;
    // FULL: a commit that was answered survives a power cut (SQLite, "PRAGMA synchronous").
    connection.pragma_update(None, "synchronous", "FULL").map_err(unavailable)?;
    if version(connection)? == 0 {
        let create = format!(
            "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION};
             PRAGMA user_version = {VERSION}; COMMIT;"
        );
        connection.execute_batch(&create).map_err(unavailable)?;
    }
    check_version(connection)
}

/// Refuses files of another program or of a newer version.
pub(super) fn check_version(connection: &Connection) -> Result<(), StoreUnavailable> {
    let application: i64 =
        connection.query_row("PRAGMA application_id", [], |row| row.get(0)).map_err(unavailable)?;
    let found = version(connection)?;
    if application != APPLICATION {
        return Err(StoreUnavailable("the file is not a muster store".to_owned()));
    }
    if found != VERSION {
        return Err(StoreUnavailable(format!(
            "the store has schema version {found}, this muster reads version {VERSION}"
        )));
    }
    Ok(())
}

fn version(connection: &Connection) -> Result<i64, StoreUnavailable> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(unavailable)
}
