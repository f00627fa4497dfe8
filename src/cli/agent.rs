//! `muster agent`: keeps this machine's certificate fresh, and what is asked of its state.

mod removal;
mod status;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sd_notify::NotifyState;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::join::{TrustArguments, joined_text};
use super::means::MeansArguments;
use super::server::{LogFormat, start_logging};
use super::{Exit, Failure, Outcome, Printer};
use crate::agent::{
    AgentConfig, AgentOptions, AgentOverrides, EXAMPLE, Event, UnusableConfig, Wish,
    run as run_agent,
};
use crate::client::Endpoint;
use crate::clock::Clock;
use crate::domain::Code;

/// Keeps this machine's certificate fresh: joins, renews, and joins again if it must.
///
/// Prints one line when the machine has a certificate, and then nothing more on stdout. SIGTERM ends
/// it, SIGHUP renews at once.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  muster agent --server muster.prod.example.org --policy web --pin sha256:3f0a…
  muster agent --config /etc/muster/agent.toml --log-format json
  muster agent --from-ssm /muster/prod.example.org/web
  muster agent config --example > agent.toml
  muster agent status --output json
  muster agent leave --yes

Exit status: 0 ended by a signal, 2 usage, configuration, or a state directory that it cannot have."
)]
pub(super) struct AgentArguments {
    #[command(subcommand)]
    command: Option<AgentCommand>,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Shows until when the certificate counts, and how the agent fares. Works while it runs.
    Status(status::StatusArguments),
    /// Removes this node's keys and certificates from the disk. The server is not told.
    Leave(removal::RemovalArguments),
    /// The same as `leave`, for builders of images: no copy of the image starts with this state.
    Seal(removal::RemovalArguments),
    /// Shows the configuration file's format.
    Config(ConfigArguments),
}

#[derive(Debug, Args)]
struct ConfigArguments {
    /// Prints a file with every key explained.
    #[arg(long, required = true)]
    example: bool,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Configuration file (TOML); `muster agent config --example` prints one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The join server.
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<Endpoint>,
    /// The join policy; may be left out if the server has exactly one.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    #[command(flatten)]
    trust: TrustArguments,
    /// Where key and certificate are kept [default: /var/lib/muster-agent].
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The instance metadata service; that of EC2 unless given.
    #[arg(long, value_name = "URL")]
    imds_endpoint: Option<String>,
    #[command(flatten)]
    means: MeansArguments,
    /// Run after each new certificate, without a shell: the program and its arguments. Arguments
    /// that begin with `-` go into the configuration file (`reload`).
    #[arg(long, value_name = "WORD", num_args = 1..)]
    reload_command: Vec<String>,
    /// How logs are written to stderr.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
    /// What is logged, for example `info` or `muster=debug`.
    #[arg(long, default_value = "info", value_name = "FILTER")]
    log: String,
}

/// Runs the command.
pub(super) fn run(arguments: AgentArguments, printer: Printer) -> Outcome {
    match arguments.command {
        None => keep_fresh(arguments.run, printer),
        Some(AgentCommand::Status(arguments)) => status::run(&arguments, printer),
        Some(AgentCommand::Leave(arguments)) => removal::leave(&arguments, printer),
        Some(AgentCommand::Seal(arguments)) => removal::seal(&arguments, printer),
        Some(AgentCommand::Config(ConfigArguments { example: _ })) => {
            printer.result(&json!({"example": EXAMPLE}), || EXAMPLE.to_owned());
            Ok(Exit::Yes)
        }
    }
}

fn keep_fresh(arguments: RunArguments, printer: Printer) -> Outcome {
    start_logging(arguments.log_format, &arguments.log)?;
    let means = arguments.means.into_given()?;
    let flags = AgentOverrides {
        methods: means.methods,
        token_source: means.token_source,
        from_ssm: means.from_ssm,
        ssm: means.ssm,
        server: arguments.server,
        policy: arguments.policy,
        trust: arguments.trust.into_source(),
        state: arguments.state,
        imds_endpoint: arguments.imds_endpoint,
        reload: arguments.reload_command,
    };
    let config = AgentConfig::load(arguments.config.as_deref(), flags)?;
    let options =
        AgentOptions { means: config.means()?, state: config.state, reload: config.reload };
    let failed = |error: std::io::Error| Failure::new(Code::Internal, error.to_string());
    // One thread does: the agent waits nearly always, and every machine pays for its memory.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let wishes = wishes().map_err(failed)?;
        let tell = |event: &Event<'_>| tell(event, printer);
        run_agent(options, Clock::system(), wishes, &tell)
            .await
            .map_err(|error| Failure::new(error.code(), error.to_string()))?;
        Ok(Exit::Yes)
    })
}

/// Turns signals into wishes.
fn wishes() -> std::io::Result<mpsc::Receiver<Wish>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (sender, wishes) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let wish = tokio::select! {
                _ = terminate.recv() => Wish::Stop,
                _ = interrupt.recv() => Wish::Stop,
                _ = hangup.recv() => Wish::RenewNow,
            };
            if sender.send(wish).await.is_err() {
                break;
            }
        }
    });
    Ok(wishes)
}

/// Tells the reader of stdout, and the service manager if there is one.
fn tell(event: &Event<'_>, printer: Printer) {
    let said = match event {
        Event::Ready(node) => {
            printer.result(&ready(node), || format!("ready: {}", joined_text(node)));
            sd_notify::notify(&[NotifyState::Ready])
        }
        Event::Status(line) => sd_notify::notify(&[NotifyState::Status(line)]),
        Event::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
    };
    if let Err(error) = said {
        tracing::warn!(%error, "the service manager was not told");
    }
}

fn ready(node: &Value) -> Value {
    let mut ready = node.clone();
    if let Some(members) = ready.as_object_mut() {
        members.insert("ready".to_owned(), Value::Bool(true));
    }
    ready
}

impl From<UnusableConfig> for Failure {
    fn from(error: UnusableConfig) -> Self {
        Self::new(error.code, error.to_string())
    }
}
