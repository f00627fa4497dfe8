//! `muster join`: joins this machine once.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::local::text;
use super::means::MeansArguments;
use super::{Exit, Failure, Outcome, Printer, runtime};
use crate::agent::{AgentConfig, AgentOverrides, JoinOptions, TrustSource, join};
use crate::client::{Endpoint, parse_pin};
use crate::clock::Clock;
use crate::domain::{KeyDigest, Lifetime};

/// Joins this machine: proves which one it is and writes a certificate.
#[derive(Debug, Args)]
#[command(
    mut_arg("pin", |pin| pin.required_unless_present_any(["ca_file", "system_roots", "from_ssm"])),
    after_help = "Examples:
  muster join --server muster.prod.example.org:7443 --policy web --pin sha256:3f0a…
  muster join --server muster.prod.example.org --policy web --system-roots --output json
  muster join --server muster.prod.example.org --pin sha256:3f0a… --token-file /run/muster/token
  muster join --from-ssm /muster/prod.example.org/web

Exit status: 0 joined, 1 refused, 2 usage or a broken state directory, 3 not now (try again).")]
pub(super) struct JoinArguments {
    /// The join server; needed without --from-ssm.
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "from_ssm")]
    server: Option<Endpoint>,
    /// The join policy; may be left out if the server has exactly one, or for a token.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    #[command(flatten)]
    trust: TrustArguments,
    #[command(flatten)]
    means: MeansArguments,
    /// Where key and certificate are kept.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/muster-agent")]
    state: PathBuf,
    /// The instance metadata service.
    #[arg(long, value_name = "URL", default_value = "http://169.254.169.254")]
    imds_endpoint: String,
    /// How long to go on trying when the answer is "not now".
    #[arg(long, value_name = "D", default_value = "5m")]
    timeout: Lifetime,
}

/// How the server is known. `muster join` demands one of them, and no command takes two.
#[derive(Debug, Clone, Args)]
#[group(id = "trust", multiple = false)]
pub(super) struct TrustArguments {
    /// A pin of the join root, as the server prints it; may be given twice while it is changed.
    #[arg(long, value_name = "PIN", value_parser = parse_pin)]
    pin: Vec<KeyDigest>,
    /// The join root's certificate, PEM.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Verify the server by the machine's public roots and its DNS name.
    #[arg(long)]
    system_roots: bool,
}

impl TrustArguments {
    pub(super) fn into_source(self) -> TrustSource {
        let Self { pin, ca_file, system_roots } = self;
        TrustSource { pins: pin, ca_file, system_roots }
    }
}

/// Runs the command.
pub(super) fn run(arguments: JoinArguments, printer: Printer) -> Outcome {
    let means = arguments.means.into_given()?;
    let flags = AgentOverrides {
        server: arguments.server,
        policy: arguments.policy,
        trust: arguments.trust.into_source(),
        state: Some(arguments.state),
        imds_endpoint: Some(arguments.imds_endpoint),
        methods: means.methods,
        token_source: means.token_source,
        from_ssm: means.from_ssm,
        ssm: means.ssm,
        reload: Vec::new(),
    };
    let config = AgentConfig::load(None, flags)?;
    let seconds = u64::try_from(arguments.timeout.seconds()).unwrap_or_default();
    let options = JoinOptions {
        means: config.means()?,
        state: config.state,
        timeout: Duration::from_secs(seconds),
    };
    let clock = Clock::system();
    // Whoever closed stderr wants to hear nothing, not to end the join.
    let report = |words: &str| drop(writeln!(std::io::stderr(), "muster join: {words}"));
    let record = runtime()?.block_on(join(&options, &clock, &report)).map_err(|error| {
        let mut failure = Failure::new(error.code, error.message);
        failure.hint = error.hint.or(failure.hint);
        failure.correlation_id = error.correlation_id;
        failure
    })?;
    printer.result(&record, || joined_text(&record));
    Ok(Exit::Yes)
}

pub(super) fn joined_text(record: &Value) -> String {
    format!(
        "joined as {}\ncertificate {} until {}, renew after {}",
        text(record, "spiffe_id"),
        text(record, "serial"),
        text(record, "not_after"),
        text(record, "renew_after"),
    )
}
