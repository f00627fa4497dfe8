//! `muster audit export`: a copy of the audit log in the form of the sink; needs no running server.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::super::local::{DataDir, open_store};
use super::super::{Exit, Failure, Outcome, Printer, runtime};
use crate::audit::{
    CopyError, Exported, FileSink, Sink, StdoutSink, copied_so_far, export_everything,
};
use crate::clock::Stopwatch;
use crate::domain::{Code, Timestamp};

/// How often progress is told on a terminal.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Copies the audit log as JSON lines, in the form of `audit.file`; needs no running server.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster audit export --out audit.jsonl
  muster audit export --out audit.jsonl --append
  muster audit export --since 2026-11-01T00:00:00Z | gzip > november.jsonl.gz")]
pub(super) struct ExportArguments {
    /// A new file, mode 0600; standard output unless given.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Goes on where an earlier copy in FILE ends.
    #[arg(long, requires = "out")]
    append: bool,
    /// Of each chain, from its first record at or after this time on.
    #[arg(long, value_name = "T")]
    since: Option<Timestamp>,
    #[command(flatten)]
    server: DataDir,
}

pub(super) fn run(arguments: &ExportArguments, printer: Printer) -> Outcome {
    let store = open_store(&arguments.server.data_dir)?;
    let (mut sink, copied): (Box<dyn Sink>, _) = match &arguments.out {
        None => (Box::new(StdoutSink), BTreeMap::new()),
        Some(path) if arguments.append => {
            let sink = FileSink::new(path);
            sink.mend().map_err(|error| unusable(path, &error))?;
            let file = File::open(path).map_err(|error| unusable(path, &error))?;
            let copied =
                copied_so_far(&mut BufReader::new(file)).map_err(|error| unusable(path, &error))?;
            (Box::new(sink), copied)
        }
        Some(path) => {
            let sink = FileSink::create(path).map_err(|error| unusable(path, &error))?;
            (Box::new(sink), BTreeMap::new())
        }
    };
    let mut progress = Progress::new();
    let copying = export_everything(&store, &copied, arguments.since, sink.as_mut(), |exported| {
        progress.tell(exported, printer);
    });
    let exported = match runtime()?.block_on(copying) {
        Ok(exported) => exported,
        // A reader that went away (`| head`) is no failure of the command.
        Err(CopyError::Sink(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            return Ok(Exit::Yes);
        }
        Err(CopyError::Sink(error)) => {
            let path = arguments.out.as_deref().unwrap_or_else(|| Path::new("standard output"));
            return Err(unusable(path, &error));
        }
        Err(CopyError::Store(error)) => {
            return Err(Failure::new(Code::StoreUnavailable, error.to_string()));
        }
    };
    if let Some(path) = &arguments.out {
        let Exported { records, chains } = exported;
        printer.result(&json!({"records": records, "chains": chains, "out": path}), || {
            format!("{records} records of {chains} chains in {}", path.display())
        });
    }
    Ok(Exit::Yes)
}

/// Tells a terminal how far it is.
struct Progress {
    is_wanted: bool,
    watch: Stopwatch,
    next: Duration,
}

impl Progress {
    fn new() -> Self {
        let is_wanted = std::io::stderr().is_terminal();
        Self { is_wanted, watch: Stopwatch::start(), next: TELL_EVERY }
    }

    fn tell(&mut self, exported: Exported, printer: Printer) {
        if self.is_wanted && self.watch.elapsed() >= self.next {
            self.next = self.watch.elapsed() + TELL_EVERY;
            printer.note(&format!("{} records …", exported.records));
        }
    }
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::FileUnreadable, format!("{}: {error}", path.display()))
}
