//! `muster regions`: the regions whose documents are accepted, and by which certificate.

mod import;

use std::path::PathBuf;

use serde::Serialize;

use super::{Exit, Outcome, Printer, input};
use crate::aws::RegionCertificate;
use crate::domain::{Partition, Region, Timestamp};

/// `muster regions …`
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Ls(List),
    Import(import::Arguments),
}

/// Lists the certificates that verify identity documents, sorted by region.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  muster regions ls
  muster regions ls --certificates-dir ./certificates --output json")]
struct List {
    /// Adds the region certificates `<region>.pem` of a directory.
    #[arg(long, value_name = "DIR")]
    certificates_dir: Vec<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, printer: Printer) -> Outcome {
    match &arguments.command {
        Command::Ls(list) => list.run(printer),
        Command::Import(import) => import.run(printer),
    }
}

#[derive(Serialize)]
struct Row<'a> {
    region: &'a Region,
    partition: Partition,
    serial: &'a str,
    sha256: String,
    not_after: Timestamp,
    source: String,
}

impl<'a> Row<'a> {
    fn of(certificate: &'a RegionCertificate) -> Self {
        Self {
            region: certificate.region(),
            partition: certificate.partition(),
            serial: certificate.serial(),
            sha256: certificate.sha256(),
            not_after: certificate.not_after(),
            source: certificate.source().to_string(),
        }
    }

    fn in_words(&self) -> String {
        format!(
            "{:<16} {:<11} {:<17} {:.10}  {}  {}",
            self.region.as_str(),
            self.partition.as_str(),
            self.serial,
            self.not_after.to_string(),
            self.sha256,
            self.source
        )
    }
}

impl List {
    fn run(&self, printer: Printer) -> Outcome {
        let certificates = input::certificates(&self.certificates_dir)?;
        let rows: Vec<Row<'_>> = certificates.list().into_iter().map(Row::of).collect();
        printer.result(&rows, || {
            let heading = format!(
                "{:<16} {:<11} {:<17} {:<10}  {:<64}  {}",
                "REGION", "PARTITION", "SERIAL", "NOT AFTER", "SHA-256", "SOURCE"
            );
            let lines: Vec<String> =
                std::iter::once(heading).chain(rows.iter().map(Row::in_words)).collect();
            lines.join("\n")
        });
        Ok(Exit::Yes)
    }
}
