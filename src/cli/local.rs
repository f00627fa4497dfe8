//! What the local commands share: the socket of a running server.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::{Exit, Failure};
use crate::domain::Code;
use crate::server::{Command, Reply, socket_path, store_path};
use crate::store::SqliteStore;

/// Longer than the server's own limit for a command.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(130);

/// Where the server's data is.
#[derive(Debug, Clone, Args)]
pub(super) struct DataDir {
    /// The server's data directory; its `muster.sock` is used.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/muster")]
    pub(super) data_dir: PathBuf,
}

/// Runs a command and hands each value to `each`, until that says stop with `false`.
pub(super) fn call(
    data_dir: &Path,
    command: &Command,
    each: impl FnMut(Value) -> bool,
) -> Result<(), Failure> {
    converse(data_dir, command, Some(ANSWER_TIMEOUT), each)
}

/// Likewise, for a command whose values may come at any time.
pub(super) fn follow(
    data_dir: &Path,
    command: &Command,
    each: impl FnMut(Value) -> bool,
) -> Result<(), Failure> {
    converse(data_dir, command, None, each)
}

fn converse(
    data_dir: &Path,
    command: &Command,
    patience: Option<Duration>,
    mut each: impl FnMut(Value) -> bool,
) -> Result<(), Failure> {
    let path = socket_path(data_dir);
    let mut stream = UnixStream::connect(&path).map_err(|error| unreachable(&path, &error))?;
    let lost = |error: std::io::Error| {
        Failure::new(Code::ServerNotRunning, format!("{}: {error}", path.display()))
    };
    stream.set_read_timeout(patience).map_err(lost)?;
    let mut line = serde_json::to_vec(command)
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    line.push(b'\n');
    stream.write_all(&line).map_err(lost)?;
    for line in BufReader::new(stream).lines() {
        let reply: Reply = serde_json::from_str(&line.map_err(lost)?)
            .map_err(|error| Failure::new(Code::MalformedRequest, error.to_string()))?;
        match reply {
            Reply::Item(value) => {
                if !each(value) {
                    return Ok(());
                }
            }
            Reply::End => return Ok(()),
            Reply::Error(error) => return Err(Failure::new(error.code, error.message)),
        }
    }
    Err(Failure::new(Code::ServerNotRunning, "the server ended the answer early"))
}

/// Runs a command that answers with one value.
pub(super) fn call_one(data_dir: &Path, command: &Command) -> Result<Value, Failure> {
    let mut found = None;
    call(data_dir, command, |value| {
        found = Some(value);
        true
    })?;
    found.ok_or_else(|| Failure::new(Code::Internal, "the server answered with nothing"))
}

fn unreachable(path: &Path, error: &std::io::Error) -> Failure {
    let message = format!("{}: {error}", path.display());
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        return Failure::new(Code::NotPermitted, message);
    }
    let mut failure = Failure::new(Code::ServerNotRunning, message);
    failure.exit = Exit::NotNow;
    failure
}

/// Opens the store of a data directory for reading, beside a running server or without one.
pub(super) fn open_store(data_dir: &Path) -> Result<SqliteStore, Failure> {
    let path = store_path(data_dir);
    File::open(&path).map_err(|error| {
        let is_denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        let code = if is_denied { Code::NotPermitted } else { Code::FileUnreadable };
        Failure::new(code, format!("{}: {error}", path.display()))
    })?;
    SqliteStore::open_read_only(&path).map_err(|error| {
        Failure::new(Code::FileUnreadable, format!("{}: {}", path.display(), error.0))
    })
}

/// A member of a JSON object as text for people; absent and null are a dash.
pub(super) fn text(value: &Value, name: &str) -> String {
    match value.get(name) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
