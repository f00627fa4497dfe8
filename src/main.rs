//! The `muster` command: parses the command line, installs the crypto provider, hands over.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A join makes hundreds of small allocations on whichever thread it happens to be; docs/performance.md
/// has what this saves.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    muster::cli::main()
}
