//! Audit records for reviewers: from an exported file or from a data directory, one after the other.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::audit::{self, Class, Outcome, Query};
use crate::cli::local::open_store;
use crate::cli::policy::report::visible;
use crate::cli::{Failure, Printer, runtime};
use crate::domain::{Code, Timestamp};
use crate::methods::{self, ClaimValues, Declaration, FactValues};

/// The longest line that is read.
const MAX_LINE_BYTES: u64 = 1024 * 1024;
/// After so many records somebody at a terminal is told how far it is.
const PROGRESS_EVERY: u64 = 50_000;

/// Where records are read from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// JSON lines, as `muster audit ls --output json` prints and the server exports them.
    File(PathBuf),
    /// The store of a data directory; a server may be running on it.
    DataDir(PathBuf),
}

/// What reviewers need of a record. The rest is read only where it is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    pub(super) time: Timestamp,
    pub(super) class: Class,
    pub(super) kind: String,
    pub(super) outcome: Outcome,
    pub(super) policy: Option<String>,
    pub(super) account_id: Option<String>,
    pub(super) node_id: Option<String>,
    pub(super) correlation_id: Option<String>,
    pub(super) detail: Box<RawValue>,
}

/// The part of a record's details that decisions are made on.
#[derive(Debug, Deserialize)]
pub(super) struct Detail {
    method: Option<String>,
    claims: Option<Box<RawValue>>,
    facts: Option<Box<RawValue>>,
    epoch: Option<Timestamp>,
    pub(super) not_after: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
    pub(super) reason: Option<String>,
}

/// The one claim that says whose account a number is.
#[derive(Deserialize)]
struct Partitioned {
    partition: Said,
}

#[derive(Deserialize)]
struct Said {
    value: Text,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

/// A node as a record tells of it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) method: &'static Declaration,
    pub(super) claims: ClaimValues,
    pub(super) facts: Option<FactValues>,
    pub(super) epoch: Timestamp,
}

impl Record {
    /// The details; none where they are not as a server of this version writes them.
    pub(super) fn detail(&self) -> Option<Detail> {
        serde_json::from_str(self.detail.get()).ok()
    }

    /// Whether a certificate was ordered or handed out for a node.
    pub(super) fn is_admission(&self) -> bool {
        self.class == Class::Admission && self.outcome == Outcome::Admitted
    }
}

impl Detail {
    /// The partition that the evidence named.
    pub(super) fn partition(&self) -> Option<String> {
        let claims: Partitioned = serde_json::from_str(self.claims.as_ref()?.get()).ok()?;
        Some(claims.partition.value.text)
    }

    /// What the decision was made on; none where it ended before there were claims.
    pub(super) fn told(&self, at: Timestamp) -> Option<Told> {
        let name = self.method.as_deref()?;
        let method = *methods::ALL.iter().find(|method| method.name == name)?;
        let claims = ClaimValues::from_json(method, self.claims.as_deref()?).ok()?;
        let facts = self.facts.as_deref();
        let facts = facts.and_then(|json| FactValues::from_json(method, json).ok());
        Some(Told { method, claims, facts, epoch: self.epoch.unwrap_or(at) })
    }
}

impl Source {
    /// Calls `each` with every record, the oldest of a chain first.
    pub(super) fn read(
        &self,
        printer: Printer,
        mut each: impl FnMut(Record),
    ) -> Result<u64, Failure> {
        let mut progress = Progress::new(printer);
        match self {
            Self::File(path) => read_file(path, |line, number| {
                each(parse(line, path, number)?);
                progress.count(number);
                Ok(())
            }),
            Self::DataDir(directory) => read_store(directory, |line, number| {
                each(parse(line, directory, number)?);
                progress.count(number);
                Ok(())
            }),
        }
    }
}

fn parse(line: &[u8], path: &Path, number: u64) -> Result<Record, Failure> {
    serde_json::from_slice(line).map_err(|error| {
        let message = format!(
            "`{}`, line {number}: no audit record: {}",
            path.display(),
            visible(&error.to_string())
        );
        let mut failure = Failure::new(Code::ClaimsInvalid, message);
        failure.hint = Some("export records with `muster audit ls --output json`".to_owned());
        failure
    })
}

fn read_file(
    path: &Path,
    mut each: impl FnMut(&[u8], u64) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::new(Code::FileUnreadable, format!("`{}`: {error}", path.display()))
    };
    let file: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).map_err(unreadable)?)
    };
    let mut file = BufReader::with_capacity(1 << 20, file);
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        let read = (&mut file).take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        if read.map_err(unreadable)? == 0 {
            return Ok(number);
        }
        if line.len() as u64 == MAX_LINE_BYTES {
            let message = format!("`{}`, line {}: longer than 1 MiB", path.display(), number + 1);
            return Err(Failure::new(Code::FileTooLarge, message));
        }
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        each(&line, number)?;
    }
}

fn read_store(
    directory: &Path,
    mut each: impl FnMut(&[u8], u64) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let store = open_store(directory)?;
    runtime()?.block_on(async {
        let (found, mut queue) = mpsc::channel(256);
        let query = Query::default();
        let reading = audit::read(&store, &query, found);
        let taking = async {
            let mut number = 0;
            while let Some(entry) = queue.recv().await {
                number += 1;
                let line = serde_json::to_vec(&entry)
                    .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
                each(&line, number)?;
            }
            Ok(number)
        };
        let (read, taken) = tokio::join!(reading, taking);
        read.map_err(|error| Failure::new(Code::StoreUnavailable, error.to_string()))?;
        taken
    })
}

/// How far it is, for somebody who waits.
struct Progress {
    printer: Printer,
    is_watched: bool,
}

impl Progress {
    fn new(printer: Printer) -> Self {
        Self { printer, is_watched: std::io::stderr().is_terminal() }
    }

    fn count(&mut self, number: u64) {
        if self.is_watched && number.is_multiple_of(PROGRESS_EVERY) {
            self.printer.note(&format!("{number} records read"));
        }
    }
}
