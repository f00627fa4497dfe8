//! The command line: one file per command group, each turning arguments into calls and results
//! into text or JSON.

mod agent;
mod audit;
mod ca;
mod doctor;
mod iid;
mod input;
mod join;
mod local;
mod means;
mod nodes;
mod output;
mod policy;
mod publications;
mod regions;
mod server;
mod shell;
mod sim;
mod tokens;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use output::{Failure, Format, Printer};

/// How a command ended, as documented in `docs/reference.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, yes, verified, admitted.
    Yes = 0,
    /// The answer is no: refused, invalid content, findings.
    No = 1,
    /// Usage, a file that cannot be read, broken configuration.
    Usage = 2,
    /// Not now: a retry may help.
    NotNow = 3,
    /// Not permitted.
    NotPermitted = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What a command returns: its exit, or a failure that is printed for it.
pub type Outcome = Result<Exit, Failure>;

/// Lets cloud machines join without a secret.
#[derive(Debug, Parser)]
#[command(name = "muster", version, propagate_version = true, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How results are printed on stdout.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Looks at instance identity documents.
    Iid(iid::Arguments),
    /// The regions whose documents are accepted.
    #[command(alias = "region")]
    Regions(regions::Arguments),
    /// Checks join policies and explains what they say of a node.
    #[command(alias = "policy")]
    Policies(policy::Arguments),
    /// Runs the join service.
    Server(server::ServerArguments),
    /// Joins this machine.
    Join(join::JoinArguments),
    /// Keeps this machine's certificate fresh.
    Agent(agent::AgentArguments),
    /// Lists nodes, locks them and lets them back in.
    #[command(alias = "node")]
    Nodes(nodes::NodesArguments),
    /// Adds, lists, removes and audits join tokens.
    #[command(alias = "token")]
    Tokens(tokens::TokensArguments),
    /// Reads and verifies the audit log.
    #[command(alias = "audits")]
    Audit(audit::AuditArguments),
    /// Shows the tokens that the server publishes, and publishes new ones.
    #[command(alias = "publication")]
    Publications(publications::PublicationsArguments),
    /// Shows, tries and exports the authorities.
    Ca(ca::CaArguments),
    Sim(sim::Arguments),
    Doctor(doctor::Arguments),
    Completions(shell::Completions),
    Man(shell::Man),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let printer = Printer::new(arguments.output);
    let outcome = run(arguments.command, printer);
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => printer.failure(&failure).into(),
    }
}

fn run(command: Command, printer: Printer) -> Outcome {
    match command {
        Command::Iid(arguments) => iid::run(&arguments, printer),
        Command::Regions(arguments) => regions::run(&arguments, printer),
        Command::Policies(arguments) => policy::run(&arguments, printer),
        Command::Server(arguments) => server::run(arguments, printer),
        Command::Join(arguments) => join::run(arguments, printer),
        Command::Agent(arguments) => agent::run(arguments, printer),
        Command::Nodes(arguments) => nodes::run(arguments, printer),
        Command::Tokens(arguments) => tokens::run(arguments, printer),
        Command::Audit(arguments) => audit::run(arguments, printer),
        Command::Publications(arguments) => publications::run(arguments, printer),
        Command::Ca(arguments) => ca::run(arguments, printer),
        Command::Sim(arguments) => sim::run(&arguments, printer),
        Command::Doctor(arguments) => doctor::run(&arguments, printer),
        Command::Completions(arguments) => Ok(arguments.run(printer)),
        Command::Man(arguments) => arguments.run(printer),
    }
}

/// The asynchronous runtime of a command.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(crate::domain::Code::Internal, error.to_string()))
}
