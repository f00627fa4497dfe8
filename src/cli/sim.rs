//! `muster sim`: simulated instances on loopback.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, Failure, Outcome, Printer, input};
use crate::clock::Clock;
use crate::domain::Code;
use crate::sim::{self, Scenario, SimulationFailed, Simulator};

const MAX_SCENARIO_BYTES: usize = 1024 * 1024;
/// How many instances are shown to people.
const SHOWN: usize = 10;

/// Simulates instances and their metadata services on loopback, for trying policies out. Their
/// documents are signed by a key of this process: no server trusts it without --simulation.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  muster sim
  muster sim --scenario instances.toml --out ./sim --output json
  muster server --simulation ./sim

A scenario:
  [server]
  account = \"111122223333\"               # whose user the server is
  [[instances]]
  account = \"111122223333\"
  region = \"us-west-2\"
  count = 100                            # 1 unless given
  image = \"ami-0123456789abcdef0\"
  instance_type = \"t3.micro\"
  pending_time = \"2026-01-02T03:04:05Z\"  # now unless given
  hop_limit = 1                          # 0: the metadata service never answers
  state = \"running\"
  visible_after = \"30s\"                  # EC2 knows it that late; at once unless given
  instance_profile = \"web\"               # none unless given
  tags = {Name = \"web\"}
  # id = \"i-0123456789abcdef0\"           # made up unless given
  [[roles]]
  account = \"444455556666\"
  name = \"muster-verifier\"
  external_id = \"muster-example\"         # any unless given
  trusted = [\"111122223333\"]             # the server's account unless given")]
pub(super) struct Arguments {
    /// The instances, as TOML; three of them in two accounts unless given.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Where the metadata services listen; loopback only.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// An emulator of AWS such as moto, on loopback, which gets every signed request that is not
    /// answered here.
    #[arg(long, value_name = "URL", value_parser = plain_http)]
    upstream: Option<SocketAddr>,
    /// Where certificates and addresses are written for `muster server --simulation`.
    #[arg(long, value_name = "DIR", default_value = "sim")]
    out: PathBuf,
}

/// The line that says that the simulation can be used.
#[derive(Serialize)]
struct Announcement {
    ready: bool,
    simulation: PathBuf,
    imds: BTreeMap<String, String>,
    sts: String,
    ec2: String,
    ssm: String,
    certificates_dir: PathBuf,
}

pub(super) fn run(arguments: &Arguments, printer: Printer) -> Outcome {
    let scenario = match &arguments.scenario {
        None => Scenario::default(),
        Some(file) => {
            let contents = input::read(file, MAX_SCENARIO_BYTES)?;
            let broken = |reason: String| {
                let message = format!("`{}`: {reason}", file.display());
                Failure::new(Code::ConfigurationInvalid, message)
            };
            let text = String::from_utf8(contents).map_err(|_| broken("not text".to_owned()))?;
            Scenario::parse(&text).map_err(|error| broken(error.to_string()))?
        }
    };
    let mut simulator = Simulator::new(&scenario, Clock::system())?;
    if let Some(upstream) = arguments.upstream {
        simulator = simulator.with_upstream(upstream)?;
    }
    let simulator = Arc::new(simulator);
    let runtime =
        tokio::runtime::Runtime::new().map_err(|error| unusable("the runtime", &error))?;
    runtime.block_on(simulate(arguments, printer, simulator))
}

async fn simulate(arguments: &Arguments, printer: Printer, simulator: Arc<Simulator>) -> Outcome {
    if !arguments.listen.ip().is_loopback() {
        return Err(SimulationFailed::NotLoopback(arguments.listen).into());
    }
    let listener = TcpListener::bind(arguments.listen)
        .await
        .map_err(|error| unusable(&format!("--listen {}", arguments.listen), &error))?;
    let address = listener.local_addr().map_err(|error| unusable("--listen", &error))?;
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| unusable("SIGTERM", &error))?;
    // Absolute, so that a server that was started elsewhere finds it.
    let simulation =
        std::path::absolute(&arguments.out).map_err(|error| unusable("--out", &error))?;
    let certificates_dir = simulator.write(&simulation, address)?;
    let imds = simulator
        .instances()
        .iter()
        .map(|instance| &instance.instance_id)
        .map(|id| (id.to_string(), format!("http://{address}/{id}")))
        .collect();
    let url = format!("http://{address}");
    let (sts, ec2, ssm) = (url.clone(), url.clone(), url);
    let ready = Announcement { ready: true, simulation, imds, sts, ec2, ssm, certificates_dir };
    printer.result(&ready, || ready.in_words());
    let until = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    sim::serve(simulator, listener, until).await?;
    Ok(Exit::Yes)
}

impl Announcement {
    fn in_words(&self) -> String {
        let mut text =
            "SIMULATION: these instances exist nowhere else, and AWS signed nothing.\n".to_owned();
        for (id, url) in self.imds.iter().take(SHOWN) {
            let _infallible = writeln!(text, "  {id}  {url}");
        }
        if self.imds.len() > SHOWN {
            let _infallible = writeln!(text, "  and {} more", self.imds.len() - SHOWN);
        }
        let simulation = self.simulation.display();
        let _infallible = write!(text, "Next: muster server --simulation {simulation}");
        text
    }
}

/// `http://ADDRESS:PORT`, and nothing else.
fn plain_http(url: &str) -> Result<SocketAddr, String> {
    url.strip_prefix("http://")
        .and_then(|rest| rest.trim_end_matches('/').parse().ok())
        .ok_or_else(|| "expected a URL such as http://127.0.0.1:5000".to_owned())
}

fn unusable(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(Code::ConfigurationInvalid, format!("{what}: {error}"))
}

impl From<SimulationFailed> for Failure {
    fn from(error: SimulationFailed) -> Self {
        let code = match error {
            SimulationFailed::Key => Code::Internal,
            SimulationFailed::NotLoopback(_) | SimulationFailed::Io { .. } => {
                Code::ConfigurationInvalid
            }
        };
        Self::new(code, error.to_string())
    }
}
