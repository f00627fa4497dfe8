//! `muster nodes lock`, `unlock`, `locks`: takes nodes out of service, and back.

use clap::{ArgGroup, Args};
use serde_json::Value;

use super::reason;
use crate::cli::local::{DataDir, call_one, text};
use crate::cli::{Exit, Outcome, Printer};
use crate::domain::{AccountId, InstanceId, Lifetime, NodeId, Partition, PolicyName, Serial};
use crate::server::{Command, LockWanted};

/// What is locked.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("target").required(true)
        .args(["node", "instance", "account", "policy", "serial"])
)]
struct Target {
    /// One node, by its node id.
    #[arg(long, value_name = "ID")]
    node: Option<NodeId>,
    /// Whatever joins from this instance.
    #[arg(long, value_name = "ID")]
    instance: Option<InstanceId>,
    /// Every node of an account; in every partition unless one is given.
    #[arg(long, value_name = "[PARTITION/]N", value_parser = account)]
    account: Option<(Option<Partition>, AccountId)>,
    /// Every node of a policy.
    #[arg(long, value_name = "P")]
    policy: Option<PolicyName>,
    /// The node that holds this certificate.
    #[arg(long, value_name = "S")]
    serial: Option<Serial>,
}

/// Locks nodes: no join, no renewal, and their certificates go on the revocation list.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster nodes lock --instance i-0123456789abcdef0 --reason 'INC-42'
  muster nodes lock --account aws/111122223333 --for 2h --reason 'credentials leaked'
  muster nodes lock --serial 4F0A… --reason 'key found in a backup'")]
pub(super) struct Lock {
    #[command(flatten)]
    target: Target,
    /// Why, on one line; it stands in the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    /// For how long; until it is lifted, if not given.
    #[arg(long = "for", value_name = "D")]
    within: Option<Lifetime>,
    #[command(flatten)]
    server: DataDir,
}

/// Lifts a lock, an operator's or a clone signal's.
#[derive(Debug, Args)]
pub(super) struct Unlock {
    #[command(flatten)]
    target: Target,
    /// Why, on one line; it stands in the audit log.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    #[command(flatten)]
    server: DataDir,
}

impl Target {
    fn wanted(self) -> Option<LockWanted> {
        let Self { node, instance, account, policy, serial } = self;
        let account =
            account.map(|(partition, account)| LockWanted::Account { partition, account });
        node.map(LockWanted::Node)
            .or(instance.map(LockWanted::Instance))
            .or(account)
            .or(policy.map(LockWanted::Policy))
            .or(serial.map(LockWanted::Serial))
    }
}

impl Lock {
    pub(super) fn run(self, printer: Printer) -> Outcome {
        let Self { target, reason, within, server } = self;
        let Some(target) = target.wanted() else { return Ok(Exit::Usage) };
        let command = Command::NodesLock { target, within, reason };
        let value = call_one(&server.data_dir, &command)?;
        printer.result(&value, || {
            format!("locked; it holds {} nodes that are enrolled", text(&value, "nodes"))
        });
        Ok(Exit::Yes)
    }
}

impl Unlock {
    pub(super) fn run(self, printer: Printer) -> Outcome {
        let Self { target, reason, server } = self;
        let Some(target) = target.wanted() else { return Ok(Exit::Usage) };
        let value = call_one(&server.data_dir, &Command::NodesUnlock { target, reason })?;
        printer.result(&value, || listed(&value, "unlocked"));
        Ok(Exit::Yes)
    }
}

/// Lists the locks that stand.
pub(super) fn list(server: &DataDir, printer: Printer) -> Outcome {
    let value = call_one(&server.data_dir, &Command::NodesLocks {})?;
    printer.result(&value, || match listed(&value, "locks") {
        lines if lines.is_empty() => "no locks".to_owned(),
        lines => lines,
    });
    Ok(Exit::Yes)
}

fn listed(value: &Value, name: &str) -> String {
    let locks = value.get(name).and_then(Value::as_array).into_iter().flatten();
    let lines = locks.map(|lock| {
        let target = lock.get("target").and_then(Value::as_object).into_iter().flatten();
        let target: String = target.map(|(kind, value)| in_words(kind, value)).collect();
        let of = |name| text(lock, name);
        format!("{target}  since {}  until {}  {}", of("since"), of("until"), of("reason"))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// `node n-…`, `account aws/111122223333`.
fn in_words(kind: &str, value: &Value) -> String {
    match value.as_str() {
        Some(name) => format!("{kind} {name}"),
        None => format!("{kind} {}/{}", text(value, "partition"), text(value, "account")),
    }
}

fn account(text: &str) -> Result<(Option<Partition>, AccountId), String> {
    let (partition, number) = match text.split_once('/') {
        Some((partition, number)) => {
            (Some(partition.parse().map_err(|error| format!("{error}"))?), number)
        }
        None => (None, text),
    };
    let number = number.parse().map_err(|error| format!("{error}"))?;
    Ok((partition, number))
}
