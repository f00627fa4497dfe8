//! What a package installs beside the program: completions for shells, and manual pages. Both are made
//! from the same definitions as `--help`, so they cannot say anything else.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Exit, Failure, Outcome, Printer};
use crate::domain::Code;

/// Prints the completions of a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  muster completions bash > /usr/share/bash-completion/completions/muster
  muster completions zsh > /usr/share/zsh/vendor-completions/_muster")]
pub(super) struct Completions {
    /// Which shell.
    shell: Shell,
}

/// Writes the manual pages, one for each command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  muster man --out /usr/share/man/man1")]
pub(super) struct Man {
    /// The directory; it is made.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Completions {
    pub(super) fn run(&self, printer: Printer) -> Exit {
        let mut script = Vec::new();
        let mut command = super::Arguments::command();
        clap_complete::generate(self.shell, &mut command, "muster", &mut script);
        printer.bytes(&script);
        Exit::Yes
    }
}

impl Man {
    pub(super) fn run(&self, printer: Printer) -> Outcome {
        let unwritten = |error: std::io::Error| {
            Failure::new(Code::FileUnreadable, format!("{}: {error}", self.out.display()))
        };
        std::fs::create_dir_all(&self.out).map_err(unwritten)?;
        clap_mangen::generate_to(super::Arguments::command(), &self.out).map_err(unwritten)?;
        let written = serde_json::json!({"out": self.out});
        printer.result(&written, || format!("manual pages are in {}", self.out.display()));
        Ok(Exit::Yes)
    }
}
