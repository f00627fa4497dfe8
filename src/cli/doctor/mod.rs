//! `muster doctor`: what is wrong with a server or a node, and what to do about it.

mod node;
mod server;

use serde::Serialize;

use super::{Exit, Outcome, Printer};

/// Names what is wrong with this server or node, and what to do about it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  muster doctor server --config /etc/muster/server.toml
  muster doctor node --server muster.prod.example.org:7443 --pin sha256:3f0a…

Exit status: 0 nothing failed, 1 something did, 2 usage.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Server(server::Arguments),
    Node(node::Arguments),
}

pub(super) fn run(arguments: &Arguments, printer: Printer) -> Outcome {
    let checks = match &arguments.command {
        Command::Server(arguments) => server::checks(arguments)?,
        Command::Node(arguments) => node::checks(arguments)?,
    };
    let ok = checks.iter().all(|check| check.outcome != Health::Failed);
    let report = Report { ok, checks };
    printer.result(&report, || report.in_words());
    Ok(if ok { Exit::Yes } else { Exit::No })
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    Ok,
    Warning,
    Failed,
    #[serde(rename = "not checked")]
    NotChecked,
}

/// One thing that was looked at.
#[derive(Clone, Serialize)]
struct Check {
    name: &'static str,
    outcome: Health,
    detail: String,
    /// What to do about it.
    remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, outcome: Health::Ok, detail: detail.into(), remedy: None }
    }

    fn not_checked(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, outcome: Health::NotChecked, detail: detail.into(), remedy: None }
    }

    fn warning(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { name, outcome: Health::Warning, detail: detail.into(), remedy }
    }

    fn failed(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { name, outcome: Health::Failed, detail: detail.into(), remedy }
    }

    /// Fine with the detail of a result, or failed with its error.
    fn of(name: &'static str, result: Result<String, String>, remedy: &str) -> Self {
        match result {
            Ok(detail) => Self::ok(name, detail),
            Err(detail) => Self::failed(name, detail, remedy),
        }
    }
}

impl Report {
    fn in_words(&self) -> String {
        let mut lines = Vec::new();
        for Check { name, outcome, detail, remedy } in &self.checks {
            let outcome = match outcome {
                Health::Ok => "ok",
                Health::Warning => "warning",
                Health::Failed => "FAILED",
                Health::NotChecked => "not checked",
            };
            lines.push(format!("{outcome:<11}  {name}: {detail}"));
            if let Some(remedy) = remedy {
                lines.push(format!("{:<11}  do: {remedy}", ""));
            }
        }
        lines.join("\n")
    }
}
