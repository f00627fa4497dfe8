//! `muster server`: runs the join service.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Exit, Failure, Outcome, Printer, runtime};
use crate::clock::Clock;
use crate::domain::{Code, TrustDomain};
use crate::server::{Config, EXAMPLE, Overrides, Running, StartError, start};

/// Runs the join service.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  muster server --trust-domain prod.example.org
  muster server --config /etc/muster/server.toml
  muster server --simulation ./sim --data-dir ./data --policies ./policies
  muster server config --example > server.toml"
)]
pub(super) struct ServerArguments {
    #[command(subcommand)]
    command: Option<ServerCommand>,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Subcommand)]
enum ServerCommand {
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
    /// Configuration file (TOML); `muster server config --example` prints one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where state is kept [default: /var/lib/muster].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where policy files are [default: DATA/policies].
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// The root of all names; needed at the first start, for ever the same afterwards.
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<TrustDomain>,
    /// A simulator's directory: its certificates instead of AWS's. Never for real nodes.
    #[arg(long, value_name = "DIR")]
    simulation: Option<PathBuf>,
    /// Address of the join and node services; port 7443 of all addresses unless given.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Loopback address of health and metrics [default: 127.0.0.1:7445].
    #[arg(long, value_name = "ADDR")]
    diagnostics_listen: Option<SocketAddr>,
    /// Address of the revocation list, plain HTTP at `/crl.der`; off unless given.
    #[arg(long, value_name = "ADDR")]
    crl_listen: Option<SocketAddr>,
    /// Key of the audit log's checkpoints [default: DATA/ca/audit-checkpoint.key].
    #[arg(long, value_name = "FILE")]
    audit_checkpoint_key: Option<PathBuf>,
    /// How logs are written to stderr.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
    /// What is logged, for example `info` or `muster=debug`.
    #[arg(long, default_value = "info", value_name = "FILTER")]
    log: String,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Runs the command.
pub(super) fn run(arguments: ServerArguments, printer: Printer) -> Outcome {
    if let Some(ServerCommand::Config(ConfigArguments { example: _ })) = arguments.command {
        printer.result(&serde_json::json!({"example": EXAMPLE}), || EXAMPLE.to_owned());
        return Ok(Exit::Yes);
    }
    let run = arguments.run;
    start_logging(run.log_format, &run.log)?;
    let flags = Overrides {
        data_dir: run.data_dir,
        policies: run.policies,
        trust_domain: run.trust_domain,
        simulation: run.simulation,
        listen: run.listen,
        diagnostics_listen: run.diagnostics_listen,
        crl_listen: run.crl_listen,
        audit_checkpoint_key: run.audit_checkpoint_key,
    };
    let config = Config::load(run.config.as_deref(), flags)
        .map_err(|error| Failure::new(Code::ConfigurationInvalid, error.to_string()))?;
    if config.simulation.is_some() {
        write_banner("SIMULATION: documents of a simulator are believed, not AWS's.");
    } else if config.cloud.is_insecure() {
        write_banner("INSECURE ENDPOINTS: whoever is between can vouch for any instance.");
    }
    raise_descriptor_limit();
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        // From here on a signal is heard, however early it comes.
        let mut signals = Signals::listen()?;
        // A task of its own: a file that is a pipe, or a disk that hangs, blocks its thread.
        let starting = tokio::spawn(start(config, Clock::system()));
        let started = tokio::select! {
            started = starting => started,
            () = signals.end() => return Ok(Exit::Yes),
        };
        let started = started.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        let running = started.map_err(|error| failure(&error))?;
        printer.result(&running.ready, || ready_text(&running));
        notify(&[NotifyState::Ready]);
        while let Wish::Reload = signals.next().await {
            running.reload();
        }
        tracing::info!("stopping");
        notify(&[NotifyState::Stopping]);
        running.stop().await;
        Ok(Exit::Yes)
    });
    // A call into a token that hangs never ends; everything of ours has ended by now.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Tells the service manager, if there is one that listens (`NOTIFY_SOCKET`).
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(error = %error, "the service manager was not told");
    }
}

fn ready_text(running: &Running) -> String {
    let ready = &running.ready;
    format!(
        "ready: join {}, diagnostics {}, trust domain {}, data {}, policy set {}, \
         nodes join with --pin {}",
        ready.join,
        ready.diagnostics,
        ready.trust_domain,
        ready.data_dir.display(),
        ready.policy_hash,
        ready.pin,
    )
}

/// Every connection is a descriptor, and the usual soft limit is 1024: a small crowd of strangers
/// would keep nodes out (T55).
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) =
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(error = %error, "the limit of open files was not raised");
    }
}

fn write_banner(what: &str) {
    let _closed = writeln!(std::io::stderr(), "*** {what} Never for real nodes. ***");
}

/// What a signal asks for.
enum Wish {
    Reload,
    End,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::new(Code::Internal, error.to_string()));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::End,
            _ = self.interrupt.recv() => Wish::End,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    /// Waits for the end alone; what would be loaded anew is being loaded.
    async fn end(&mut self) {
        while let Wish::Reload = self.next().await {}
    }
}

fn failure(error: &StartError) -> Failure {
    let code = match error {
        StartError::DataDirectory(_) | StartError::Keys(_) => Code::DataDirectoryUnusable,
        StartError::AuditKey(_) => Code::AuditKeyUnusable,
        StartError::Store(_) => Code::StoreUnavailable,
        StartError::Authority(_) => Code::CaUnavailable,
        StartError::Tls(_)
        | StartError::Listen { .. }
        | StartError::ListenerCertificate(_)
        | StartError::Cloud(_)
        | StartError::Token(_)
        | StartError::StaticTokens(_) => Code::ConfigurationInvalid,
        StartError::PolicyFiles(_) => Code::FileUnreadable,
        StartError::Policies { .. } => Code::PolicySetInvalid,
    };
    Failure::new(code, error.to_string())
}

/// Sends logs to stderr.
pub(super) fn start_logging(format: LogFormat, filter: &str) -> Result<(), Failure> {
    use std::io::IsTerminal;
    use tracing_subscriber::filter::{EnvFilter, FilterExt, FilterFn};
    use tracing_subscriber::layer::{Layer, SubscriberExt};
    use tracing_subscriber::util::SubscriberInitExt;
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| Failure::new(Code::ConfigurationInvalid, format!("--log: {error}")))?;
    let filter = filter.and(FilterFn::new(tells_no_secret));
    let logs = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // It would report a full disk on the same stderr, and panic when that fails as well.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let logs = match format {
        LogFormat::Text => logs.with_filter(filter).boxed(),
        LogFormat::Json => logs.json().with_filter(filter).boxed(),
    };
    // A second start in one process keeps the first logger.
    let _kept = tracing_subscriber::registry().with(logs).try_init();
    Ok(())
}

/// The SDK writes whole requests, the server's session token among them, at its lowest level;
/// nothing of it below a warning is let through, whatever the filter says (I10).
fn tells_no_secret(event: &tracing::Metadata<'_>) -> bool {
    !event.target().starts_with("aws_") || *event.level() <= tracing::Level::WARN
}
