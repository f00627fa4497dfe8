//! `muster ca`: the authorities of a running server.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::local::{DataDir, call_one, text};
use super::{Exit, Failure, Format, Outcome, Printer};
use crate::domain::Code;
use crate::server::{BundleFormat, Command};

/// Shows, tries and exports the authorities, over the server's local socket.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  muster ca status
  muster join --server muster.prod.example.org --pin \"$(muster ca pin)\"
  muster ca check || echo 'the CA does not sign'
  muster ca export > node-ca.pem
  muster ca export --format spiffe > bundle.json")]
pub(super) struct CaArguments {
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Shows the three authorities and the backend that signs nodes.
    Status {
        #[command(flatten)]
        server: DataDir,
    },
    /// Prints the pin of the join root: what nodes trust the server by.
    Pin {
        #[command(flatten)]
        server: DataDir,
    },
    /// Has the backend sign something worthless and compares; issues no certificate.
    Check {
        #[command(flatten)]
        server: DataDir,
    },
    /// Prints the node CA's trust bundle: what relying parties verify nodes with.
    Export {
        /// How it is written.
        #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
        format: ExportFormat,
        #[command(flatten)]
        server: DataDir,
    },
}

/// The form of the bundle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// Certificates, PEM.
    #[default]
    Pem,
    /// Certificates, DER, one after the other.
    Der,
    /// A SPIFFE trust bundle: a JWK set.
    Spiffe,
}

/// Runs the command.
pub(super) fn run(arguments: CaArguments, printer: Printer) -> Outcome {
    match arguments.command {
        CaCommand::Status { server } => {
            let value = call_one(&server.data_dir, &Command::CaStatus {})?;
            printer.result(&value, || status(&value));
            Ok(Exit::Yes)
        }
        CaCommand::Pin { server } => {
            let value = call_one(&server.data_dir, &Command::CaPin {})?;
            printer.result(&value, || text(&value, "pin"));
            Ok(Exit::Yes)
        }
        CaCommand::Check { server } => {
            let value = call_one(&server.data_dir, &Command::CaCheck {})?;
            let is_good = value.get("ok") == Some(&Value::Bool(true));
            printer.result(&value, || checked(&value, is_good));
            Ok(if is_good { Exit::Yes } else { Exit::No })
        }
        CaCommand::Export { format, server } => export(format, &server, printer),
    }
}

fn export(format: ExportFormat, server: &DataDir, printer: Printer) -> Outcome {
    let format = match format {
        ExportFormat::Pem => BundleFormat::Pem,
        ExportFormat::Der => BundleFormat::Der,
        ExportFormat::Spiffe => BundleFormat::Spiffe,
    };
    let value = call_one(&server.data_dir, &Command::CaExport { format })?;
    match format {
        BundleFormat::Pem => printer.result(&value, || text(&value, "bundle")),
        // The document is JSON already.
        BundleFormat::Spiffe => printer.result(&value, || value.to_string()),
        BundleFormat::Der if printer.format() == Format::Json => {
            printer.result(&value, String::new);
        }
        BundleFormat::Der => {
            let der = STANDARD
                .decode(text(&value, "bundle"))
                .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
            printer.bytes(&der);
        }
    }
    Ok(Exit::Yes)
}

fn status(value: &Value) -> String {
    let mut lines = Vec::new();
    for (name, title) in
        [("join_root", "join root"), ("node_ca", "node CA"), ("user_ca", "user CA")]
    {
        let authority = value.get(name).cloned().unwrap_or_default();
        let of = |member| text(&authority, member);
        lines.push(format!("{title}: {}, {}", of("subject"), of("phase")));
        if authority.get("backend").is_some() {
            lines.push(format!("  backend {}", of("backend")));
        }
        lines.push(format!("  serial {}, until {}", of("serial"), of("not_after")));
        lines.push(format!("  sha256 {}", of("sha256")));
    }
    lines.join("\n")
}

fn checked(value: &Value, is_good: bool) -> String {
    if is_good {
        return format!("the backend {} signs what it is asked to", text(value, "backend"));
    }
    format!("the backend {} does not: {}", text(value, "backend"), text(value, "problem"))
}
