//! Copies of the audit log as JSON lines, outside the store. The store is the truth; a sink follows
//! it and continues where it stopped, so that a record is copied at least once.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::record::Entry;
use crate::store::{Store, StoreUnavailable};

/// Where lines go.
pub trait Sink: Send {
    /// Writes whole lines and makes them durable as far as the sink can.
    fn write(&mut self, lines: &[u8]) -> std::io::Result<()>;
}

/// Appends to a file, mode 0600, and syncs it.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
}

impl FileSink {
    /// A sink that appends to `path`; opened anew for each batch, so that log rotation works.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }
}

impl Sink for FileSink {
    fn write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file =
            std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        file.write_all(lines)?;
        file.sync_data()
    }
}

/// Writes to standard output.
#[derive(Debug)]
pub struct StdoutSink;

impl Sink for StdoutSink {
    fn write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(lines)?;
        stdout.flush()
    }
}

/// Copies what was appended to `chain` after `after` to the sink; returns how far it came.
pub async fn export(
    store: &dyn Store,
    chain: &str,
    mut after: u64,
    sink: &mut dyn Sink,
) -> Result<u64, StoreUnavailable> {
    const BATCH: usize = 512;
    loop {
        let entries = store.read_log(chain, after, BATCH).await?;
        let Some(last) = entries.last().map(|entry| entry.sequence) else { return Ok(after) };
        let mut lines = Vec::new();
        for entry in &entries {
            let line = Entry::from_log(chain, entry)
                .and_then(|entry| serde_json::to_vec(&entry))
                .map_err(|error| StoreUnavailable(error.to_string()))?;
            lines.extend_from_slice(&line);
            lines.push(b'\n');
        }
        sink.write(&lines)
            .map_err(|error| StoreUnavailable(format!("the audit sink failed: {error}")))?;
        after = last;
    }
}
