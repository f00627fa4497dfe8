//! Copies of the audit log as JSON lines, outside the store. The store is the truth; a sink follows
//! it and continues where it stopped, so that a record is copied at least once.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::line::LINE_BYTES_MAX;
use super::record::Entry;
use crate::store::{LogEntry, Store, StoreUnavailable};

/// How far from the end of a copy its last whole line begins at most.
const TAIL_BYTES: u64 = LINE_BYTES_MAX as u64 + 1;

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

    /// A sink that makes its file, which must not be there yet.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self::new(path))
    }

    /// Drops half a line at the end, if there is one.
    pub fn mend(&self) -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().read(true).write(true).open(&self.path)?;
        drop_half_a_line(&mut file)
    }
}

impl Sink for FileSink {
    fn write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.path)?;
        drop_half_a_line(&mut file)?;
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

/// How far a sink has come: up to this record of this chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The chain.
    pub chain: String,
    /// The last record copied; 0 for none.
    pub seq: u64,
}

/// A write that was cut off (a full disk, a crash) leaves half a line; its record is copied again.
fn drop_half_a_line(file: &mut std::fs::File) -> std::io::Result<()> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    Read::take(&mut *file, TAIL_BYTES).read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if whole < tail.len() {
        file.set_len(start + u64::try_from(whole).unwrap_or_default())?;
    }
    Ok(())
}

impl FileSink {
    /// Where the copy ends, from its last whole line; nothing if there is no copy yet.
    pub fn cursor(&self) -> Option<Cursor> {
        let mut file = std::fs::File::open(&self.path).ok()?;
        let length = file.metadata().ok()?.len();
        let start = length.saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(start)).ok()?;
        let mut tail = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut tail).ok()?;
        tail.rsplit(|byte| *byte == b'\n')
            .find_map(|line| serde_json::from_slice::<Entry>(line).ok())
            .map(|entry| Cursor { chain: entry.chain, seq: entry.seq })
    }
}

/// Records of a chain as lines.
pub(super) fn to_lines(chain: &str, entries: &[LogEntry]) -> Result<Vec<u8>, StoreUnavailable> {
    let mut lines = Vec::new();
    for entry in entries {
        let line = Entry::from_log(chain, entry)
            .and_then(|entry| serde_json::to_vec(&entry))
            .map_err(|error| StoreUnavailable(error.to_string()))?;
        lines.extend_from_slice(&line);
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Copies what earlier processes wrote after the cursor: the rest of its chain, and the chains that
/// began after it, but for `own`.
pub async fn catch_up(
    store: &dyn Store,
    cursor: &Cursor,
    own: &str,
    sink: &mut dyn Sink,
) -> Result<(), StoreUnavailable> {
    let chains = store.logs().await?;
    for chain in chains.into_iter().filter(|chain| *chain >= cursor.chain && chain != own) {
        let seq = if chain == cursor.chain { cursor.seq } else { 0 };
        export(store, &mut Cursor { chain, seq }, sink).await?;
    }
    Ok(())
}

/// Copies the records of the cursor's chain that come after it, and moves it behind what was
/// written.
pub async fn export(
    store: &dyn Store,
    cursor: &mut Cursor,
    sink: &mut dyn Sink,
) -> Result<(), StoreUnavailable> {
    const BATCH: usize = 512;
    loop {
        let entries = store.read_log(&cursor.chain, cursor.seq, BATCH).await?;
        let Some(last) = entries.last().map(|entry| entry.sequence) else { return Ok(()) };
        sink.write(&to_lines(&cursor.chain, &entries)?)
            .map_err(|error| StoreUnavailable(format!("the audit sink failed: {error}")))?;
        cursor.seq = last;
    }
}
