//! The `muster` command: parses the command line, installs the crypto provider, hands over.

use std::process::ExitCode;

fn main() -> ExitCode {
    muster::cli::main()
}
