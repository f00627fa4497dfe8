//! `muster audit tail`: the newest records, and what comes.

use clap::Args;
use serde_json::Value;

use super::super::local::{DataDir, call, follow};
use super::super::{Exit, Failure, Outcome, Printer, runtime};
use super::{FilterArguments, line};
use crate::domain::Code;
use crate::server::Command;

/// Shows the newest records, and with --follow what comes; asks the running server.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster audit tail
  muster audit tail -n 100 --class known
  muster audit tail --follow --class security --output json")]
pub(super) struct TailArguments {
    /// How many records to begin with, at most 1000.
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 10)]
    count: usize,
    /// Goes on with every record that is written, until ^C.
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    filter: FilterArguments,
    #[command(flatten)]
    server: DataDir,
}

pub(super) fn run(arguments: TailArguments, printer: Printer) -> Outcome {
    let TailArguments { count, follow: follows, filter, server } = arguments;
    let command = Command::AuditTail { count, follow: follows, filter: filter.into() };
    let print = move |record: Value| {
        printer.result(&record, || line(&record));
        true
    };
    if !follows {
        call(&server.data_dir, &command, print)?;
        return Ok(Exit::Yes);
    }
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        // Before the first record is shown: whoever has seen one may end it.
        let interrupted = tokio::signal::ctrl_c();
        let following =
            tokio::task::spawn_blocking(move || follow(&server.data_dir, &command, print));
        tokio::select! {
            ended = following => ended
                .map_err(|error| Failure::new(Code::Internal, error.to_string()))?
                .map(|()| Exit::Yes),
            _ = interrupted => Ok(Exit::Yes),
        }
    });
    // The thread that reads the socket ends with the process.
    runtime.shutdown_background();
    outcome
}
