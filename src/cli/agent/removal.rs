//! `muster agent leave` and `muster agent seal`: nothing of this node stays on the disk.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::agent::{Removed, StateUnusable, remove};
use crate::cli::{Exit, Failure, Outcome, Printer};

/// Removes this node's keys and certificates from the disk.
#[derive(Debug, Args)]
#[command(after_help = "`leave` and `seal` remove the same and say different things about it.

Examples:
  muster agent leave
  muster agent seal --yes

Exit status: 0 removed, or nothing was there; 1 not confirmed; 2 an agent runs, or the state directory
cannot be used.")]
pub(super) struct RemovalArguments {
    /// Where key and certificate are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/muster-agent")]
    state: PathBuf,
    /// Does not ask.
    #[arg(long)]
    yes: bool,
}

/// For a node that goes.
pub(super) fn leave(arguments: &RemovalArguments, printer: Printer) -> Outcome {
    take_away(arguments, printer, |removed| {
        let node = removed.node_id.as_deref().unwrap_or("ID");
        format!(
            "The enrollment stays on the server, and the certificate counts until it ends. An \
             operator ends the enrollment with `muster nodes forget {node} --reason TEXT`."
        )
    })
}

/// For an image that is about to be made.
pub(super) fn seal(arguments: &RemovalArguments, printer: Printer) -> Outcome {
    take_away(arguments, printer, |_| {
        "An image may be made now, as long as no agent is started before it. The blocks of removed \
         files may be in the image still: what must never leave a machine is better built on one \
         that never joined."
            .to_owned()
    })
}

fn take_away(
    arguments: &RemovalArguments,
    printer: Printer,
    advice: impl FnOnce(&Removed) -> String,
) -> Outcome {
    let failure = |error: StateUnusable| Failure::new(error.code(), error.to_string());
    let there = remove(&arguments.state, true).map_err(failure)?;
    let is_wanted = there.names.is_empty() || arguments.yes || is_confirmed(arguments, &there);
    if is_wanted && !there.names.is_empty() {
        remove(&arguments.state, false).map_err(failure)?;
    }
    let advice = advice(&there);
    let value = json!({
        "removed": is_wanted,
        "state": arguments.state,
        "node_id": there.node_id,
        "files": there.names,
        "advice": advice,
    });
    printer.result(&value, || {
        let state = arguments.state.display();
        if there.names.is_empty() {
            format!("nothing to remove in {state}\n{advice}")
        } else if is_wanted {
            format!("removed from {state}: {}\n{advice}", there.names.join(", "))
        } else {
            let names = there.names.join(", ");
            format!("nothing was removed; --yes would remove from {state}: {names}")
        }
    });
    Ok(if is_wanted { Exit::Yes } else { Exit::No })
}

/// Asks whoever sits there; nobody there is no.
fn is_confirmed(arguments: &RemovalArguments, there: &Removed) -> bool {
    if !io::stdin().is_terminal() {
        return false;
    }
    let names = there.names.join(", ");
    let question =
        format!("Remove from {}: {names}? There is no way back. [y/N] ", arguments.state.display());
    let _closed = io::stderr().write_all(question.as_bytes());
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}
