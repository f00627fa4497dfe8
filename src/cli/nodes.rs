//! `muster nodes`: what the server remembers of nodes, and what an operator may change.

mod locks;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::local::{DataDir, call_one, text};
use super::{Exit, Outcome, Printer};
use crate::domain::Lifetime;
use crate::server::Command;

/// Lists nodes, locks them and lets them back in, over the server's local socket.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster nodes ls --account 111122223333
  muster nodes show i-0123456789abcdef0
  muster nodes allow-rejoin i-0123456789abcdef0 --for 1h --reason 'root volume replaced'
  muster nodes forget n-0123456789abcdef0123 --reason 'decommissioned'
  muster nodes lock --account aws/111122223333 --reason 'INC-42'
  muster nodes unlock --account aws/111122223333 --reason 'INC-42 is closed'")]
pub(super) struct NodesArguments {
    #[command(subcommand)]
    command: NodesCommand,
}

#[derive(Debug, Subcommand)]
enum NodesCommand {
    /// Lists nodes.
    Ls {
        /// Of this account.
        #[arg(long, value_name = "N")]
        account: Option<String>,
        /// Admitted by this policy.
        #[arg(long, value_name = "P")]
        policy: Option<String>,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        /// Where to go on; the page before says it as `next`.
        #[arg(long, value_name = "TOKEN")]
        page: Option<String>,
        #[command(flatten)]
        server: DataDir,
    },
    /// Shows a node and its history.
    Show {
        /// A node id, or an instance id.
        id: String,
        #[command(flatten)]
        server: DataDir,
    },
    /// Forgets a node but for its floor: for an hour a key may bind anew.
    Forget {
        /// A node id, or an instance id.
        id: String,
        /// Why, on one line; it stands in the audit log.
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
        #[command(flatten)]
        server: DataDir,
    },
    /// Allows one rejoin: with another key, or with a document that is too old.
    AllowRejoin {
        /// A node id, or an instance id.
        id: String,
        /// For how long, at most 24h.
        #[arg(long = "for", value_name = "D", default_value = "1h")]
        within: Lifetime,
        /// Why, on one line; it stands in the audit log.
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
        #[command(flatten)]
        server: DataDir,
    },
    Lock(locks::Lock),
    Unlock(locks::Unlock),
    /// Lists the locks that stand.
    Locks {
        #[command(flatten)]
        server: DataDir,
    },
}

/// A usage error here, rather than the server's refusal later.
pub(super) fn reason(text: &str) -> Result<String, &'static str> {
    let is_line = !text.trim().is_empty() && !text.chars().any(char::is_control);
    if is_line && text.len() <= 500 {
        return Ok(text.to_owned());
    }
    Err("a reason is one line of at most 500 bytes")
}

/// Runs the command.
pub(super) fn run(arguments: NodesArguments, printer: Printer) -> Outcome {
    let (server, command, to_text): (_, _, fn(&Value) -> String) = match arguments.command {
        NodesCommand::Ls { account, policy, limit, page, server } => {
            (server, Command::NodesLs { account, policy, limit, page }, listed)
        }
        NodesCommand::Show { id, server } => (server, Command::NodesShow { node: id }, shown),
        NodesCommand::Forget { id, reason, server } => {
            (server, Command::NodesForget { node: id, reason }, forgotten)
        }
        NodesCommand::AllowRejoin { id, within, reason, server } => {
            (server, Command::NodesAllowRejoin { node: id, within, reason }, allowed)
        }
        NodesCommand::Lock(lock) => return lock.run(printer),
        NodesCommand::Unlock(unlock) => return unlock.run(printer),
        NodesCommand::Locks { server } => return locks::list(&server, printer),
    };
    let value = call_one(&server.data_dir, &command)?;
    printer.result(&value, || to_text(&value));
    Ok(Exit::Yes)
}

fn listed(page: &Value) -> String {
    let nodes = page.get("nodes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if nodes.is_empty() {
        return "no nodes".to_owned();
    }
    let mut lines = Vec::new();
    for node in nodes {
        let of = |name| text(node, name);
        lines.push(format!(
            "{}  {}  {} {} {}  {}  {}  until {}",
            of("node_id"),
            of("state"),
            of("account_id"),
            of("region"),
            of("instance_id"),
            of("policy"),
            of("strength"),
            of("not_after"),
        ));
    }
    if let Some(next) = page.get("next").and_then(Value::as_str) {
        lines.push(format!("more: --page '{next}'"));
    }
    lines.join("\n")
}

fn shown(node: &Value) -> String {
    let mut lines = Vec::new();
    for name in [
        "node_id",
        "spiffe_id",
        "state",
        "policy",
        "rule",
        "strength",
        "epoch",
        "floor",
        "key",
        "serial",
        "not_after",
        "renewed_at",
        "source",
    ] {
        lines.push(format!("{name}: {}", text(node, name)));
    }
    if let Some(grant) = node.get("grant").filter(|grant| !grant.is_null()) {
        lines.push(format!(
            "rejoin allowed until {}: {}",
            text(grant, "until"),
            text(grant, "reason")
        ));
    }
    lines.push("history:".to_owned());
    for event in node.get("history").and_then(Value::as_array).into_iter().flatten() {
        let reason = text(event, "reason");
        let reason = if reason == "-" { String::new() } else { format!(" ({reason})") };
        lines.push(format!(
            "  {} {}{reason}, serial {}",
            text(event, "time"),
            text(event, "what"),
            text(event, "serial"),
        ));
    }
    lines.join("\n")
}

fn forgotten(node: &Value) -> String {
    format!(
        "{} is forgotten; a key may bind anew for an hour, documents from before {} stay refused",
        text(node, "node_id"),
        text(node, "floor")
    )
}

fn allowed(node: &Value) -> String {
    let grant = node.get("grant").cloned().unwrap_or_default();
    format!("{} may rejoin once until {}", text(node, "node_id"), text(&grant, "until"))
}
