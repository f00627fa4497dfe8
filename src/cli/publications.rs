//! `muster publications`: what the server publishes, and how that goes.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::local::{DataDir, call_one, text};
use super::{Exit, Outcome, Printer};
use crate::domain::PolicyName;
use crate::server::Command;

/// Shows the tokens that the server publishes, and publishes new ones, over its local socket.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster publications ls
  muster publications show web
  muster publications publish web --target aws/us-west-2/111122223333")]
pub(super) struct PublicationsArguments {
    #[command(subcommand)]
    command: PublicationsCommand,
}

#[derive(Debug, Subcommand)]
enum PublicationsCommand {
    /// Lists every target of every publication.
    Ls {
        #[command(flatten)]
        server: DataDir,
    },
    /// Shows one publication.
    Show {
        /// Its name.
        name: PolicyName,
        #[command(flatten)]
        server: DataDir,
    },
    /// Publishes new tokens now, and waits until they are read back.
    Publish {
        /// The publication's name.
        name: PolicyName,
        /// One of its targets, as `ls` shows it; all of them unless given.
        #[arg(long, value_name = "T")]
        target: Option<String>,
        #[command(flatten)]
        server: DataDir,
    },
}

/// Runs the command.
pub(super) fn run(arguments: PublicationsArguments, printer: Printer) -> Outcome {
    let (server, command, to_text): (_, _, fn(&Value) -> String) = match arguments.command {
        PublicationsCommand::Ls { server } => {
            (server, Command::PublicationsLs { name: None }, listed)
        }
        PublicationsCommand::Show { name, server } => {
            (server, Command::PublicationsLs { name: Some(name) }, shown)
        }
        PublicationsCommand::Publish { name, target, server } => {
            (server, Command::PublicationsPublish { name, target }, listed)
        }
    };
    let value = call_one(&server.data_dir, &command)?;
    printer.result(&value, || to_text(&value));
    Ok(Exit::Yes)
}

fn targets(value: &Value) -> &[Value] {
    let targets = value.get("publications").and_then(Value::as_array);
    targets.map(Vec::as_slice).unwrap_or_default()
}

fn listed(value: &Value) -> String {
    let lines = targets(value).iter().map(|target| {
        let of = |name| text(target, name);
        let error = match target.get("error").and_then(Value::as_str) {
            Some(error) => format!("  ERROR {error}"),
            None => String::new(),
        };
        format!(
            "{}  {}  {}  {}  {}  next {}{error}",
            of("name"),
            of("target"),
            of("state"),
            of("parameter"),
            of("token"),
            of("next_at"),
        )
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { "no publications".to_owned() } else { lines.join("\n") }
}

fn shown(value: &Value) -> String {
    let one = |target: &Value| {
        let names = [
            "name",
            "target",
            "policy",
            "state",
            "parameter",
            "arn",
            "version",
            "token",
            "published_at",
            "next_at",
            "expires_at",
            "previous",
            "error",
        ];
        names.map(|name| format!("{name}: {}", text(target, name))).join("\n")
    };
    targets(value).iter().map(one).collect::<Vec<_>>().join("\n\n")
}
