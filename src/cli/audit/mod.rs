//! `muster audit`: reads and verifies the audit log.

mod export;
mod tail;
mod verify;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::local::{DataDir, call, call_one, text};
use super::{Exit, Outcome, Printer};
use crate::domain::Timestamp;
use crate::server::{Command, RecordFilter};

/// Reads and verifies the audit log.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster audit ls --class security --since 2026-11-01T00:00:00Z
  muster audit show k-0123456789abcdef0123
  muster audit tail --follow
  muster audit export --out audit.jsonl
  muster audit verify --against /var/log/muster/audit.jsonl")]
pub(super) struct AuditArguments {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Lists records, one a line.
    Ls {
        /// At or after this time.
        #[arg(long, value_name = "T")]
        since: Option<Timestamp>,
        #[command(flatten)]
        filter: FilterArguments,
        #[command(flatten)]
        server: DataDir,
    },
    Tail(tail::TailArguments),
    /// Explains a correlation id: every record of it, and every rule that was asked.
    Show {
        /// What the node was told.
        correlation_id: String,
        #[command(flatten)]
        server: DataDir,
    },
    Export(export::ExportArguments),
    Verify(verify::VerifyArguments),
}

/// Which records are wanted.
#[derive(Debug, Args)]
struct FilterArguments {
    /// admission, security, known or noise.
    #[arg(long, value_name = "C")]
    class: Option<String>,
    /// About this account.
    #[arg(long, value_name = "N")]
    account: Option<String>,
    /// admitted, refused, failed or done.
    #[arg(long, value_name = "O")]
    outcome: Option<String>,
}

impl From<FilterArguments> for RecordFilter {
    fn from(arguments: FilterArguments) -> Self {
        let FilterArguments { class, account, outcome } = arguments;
        Self { class, account, outcome }
    }
}

/// Runs the command.
pub(super) fn run(arguments: AuditArguments, printer: Printer) -> Outcome {
    match arguments.command {
        AuditCommand::Ls { since, filter, server } => {
            let command = Command::AuditLs { since, filter: filter.into() };
            call(&server.data_dir, &command, |record| {
                printer.result(&record, || line(&record));
                true
            })?;
            Ok(Exit::Yes)
        }
        AuditCommand::Show { correlation_id, server } => {
            let found = call_one(&server.data_dir, &Command::AuditShow { correlation_id })?;
            printer.result(&found, || story(&found));
            Ok(Exit::Yes)
        }
        AuditCommand::Tail(arguments) => tail::run(arguments, printer),
        AuditCommand::Export(arguments) => export::run(&arguments, printer),
        AuditCommand::Verify(arguments) => verify::run(&arguments, printer),
    }
}

/// Every rule that was asked, and which field kept the node out.
fn explanation_lines(explanation: &Value) -> Vec<String> {
    let list = |value: &Value, name: &str| -> Vec<Value> {
        value.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let mut lines = Vec::new();
    for policy in list(explanation, "policies") {
        lines.push(format!("  policy {}: {}", text(&policy, "name"), text(&policy, "outcome")));
        for rule in list(&policy, "rules") {
            lines.push(format!(
                "    {} {}: {}",
                text(&rule, "kind"),
                text(&rule, "name"),
                text(&rule, "outcome")
            ));
            for field in list(&rule, "fields") {
                lines.push(format!(
                    "      {} {}: expected {}, found {}",
                    text(&field, "field"),
                    text(&field, "outcome"),
                    text(&field, "expected"),
                    text(&field, "actual")
                ));
            }
        }
    }
    lines
}

fn line(record: &Value) -> String {
    let of = |name| text(record, name);
    let mut words = vec![of("time"), of("class"), of("kind"), of("outcome")];
    for name in ["code", "account_id", "instance_id", "policy", "source", "correlation_id"] {
        let value = of(name);
        if value != "-" {
            words.push(value);
        }
    }
    words.join("  ")
}

fn story(found: &Value) -> String {
    let mut lines = Vec::new();
    for record in found.get("records").and_then(Value::as_array).into_iter().flatten() {
        lines.push(line(record));
        if let Some(message) = record.pointer("/detail/message").and_then(Value::as_str) {
            lines.push(format!("  {message}"));
        }
    }
    if let Some(remedy) = found.get("what_to_do").and_then(Value::as_str) {
        lines.push(format!("what to do: {remedy}"));
    }
    match found.get("explanation") {
        None | Some(Value::Null) => {}
        Some(explanation) => {
            lines.push("rule by rule:".to_owned());
            lines.extend(explanation_lines(explanation));
        }
    }
    lines.join("\n")
}
