//! `muster agent status`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::agent::{AgentRecord, EarlierError, NodeRecord, Status, status};
use crate::cli::{Exit, Failure, Outcome, Printer};
use crate::clock::Clock;
use crate::domain::Timestamp;

/// Shows until when the certificate counts, and how the agent fares.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster agent status
  muster agent status --state /var/lib/muster-agent --output json

Exit status: 0 the machine has a certificate that counts, 1 it has none, 2 the state directory cannot
be read.")]
pub(super) struct StatusArguments {
    /// Where key and certificate are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/muster-agent")]
    state: PathBuf,
}

/// Runs the command.
pub(super) fn run(arguments: &StatusArguments, printer: Printer) -> Outcome {
    let seen =
        status(&arguments.state).map_err(|error| Failure::new(error.code(), error.to_string()))?;
    let Status { current, agent } = seen;
    let record = current.and_then(|current| current.record());
    let now = Clock::system().now();
    let is_joined = record.as_ref().is_some_and(|record| now < record.not_after);
    let value = json!({
        "joined": is_joined,
        "node_id": record.as_ref().map(|record| &record.node_id),
        "spiffe_id": record.as_ref().map(|record| &record.spiffe_id),
        "method": record.as_ref().map(|record| record.method),
        "policy": record.as_ref().map(|record| &record.policy),
        "serial": record.as_ref().map(|record| &record.serial),
        "not_after": record.as_ref().map(|record| record.not_after),
        "renew_after": record.as_ref().map(|record| record.renew_after),
        "last_success": agent.last_success,
        "last_error": agent.last_error,
        "last_reload": agent.reload,
        "next_try": agent.next_try,
        "state": arguments.state,
    });
    printer.result(&value, || text(record.as_ref(), &agent, now));
    Ok(if is_joined { Exit::Yes } else { Exit::No })
}

fn text(record: Option<&NodeRecord>, agent: &AgentRecord, now: Timestamp) -> String {
    let mut lines = match record {
        None => vec!["not joined".to_owned()],
        Some(record) => {
            let ended = if now < record.not_after { "until" } else { "ended at" };
            vec![
                format!("joined as {} by the policy {}", record.spiffe_id, record.policy),
                format!(
                    "certificate {} {ended} {}, renewal due after {}",
                    record.serial, record.not_after, record.renew_after
                ),
            ]
        }
    };
    if let Some(time) = agent.last_success {
        lines.push(format!("last success: {time}"));
    }
    if let Some(error) = &agent.last_error {
        let by = error.method.as_ref().map(|method| format!("{method}: ")).unwrap_or_default();
        lines.push(format!("last error: {by}{} [{}] at {}", error.message, error.code, error.time));
        lines.extend(error.hint.as_ref().map(|hint| format!("  hint: {hint}")));
        lines.extend(error.correlation_id.as_ref().map(|id| format!("  correlation id: {id}")));
        for EarlierError { method, code, message, correlation_id } in &error.earlier {
            let id = correlation_id.as_ref().map(|id| format!(", correlation id {id}"));
            let id = id.unwrap_or_default();
            lines.push(format!("  before it, {method}: {message} [{code}]{id}"));
        }
    }
    if let Some(reload) = &agent.reload
        && let Some(error) = &reload.error
    {
        lines.push(format!("reload command failed at {}: {error}", reload.time));
    }
    if let Some(time) = agent.next_try {
        lines.push(format!("next try: {time}"));
    }
    lines.join("\n")
}
