//! A boot storm: thousands of instances that start at once, each with a new TCP and TLS connection
//! and a whole join. The server runs in a process of its own; this one plays the nodes and the cloud,
//! whose STS and EC2 throttle as AWS's do.
//!
//! ```text
//! make bench                                            everything that follows, and more
//! cargo bench --bench boot_storm                        everything that follows, but for --known
//! cargo bench --bench boot_storm -- --baseline          the exchange with nothing behind it
//! cargo bench --bench boot_storm -- --document-only     joins by the document alone
//! cargo bench --bench boot_storm -- --with-proof        with an STS proof and an EC2 look-up
//! cargo bench --bench boot_storm -- --hostile 90%       nine of ten who come are strangers
//! cargo bench --bench boot_storm -- --known 1000000     the registry knows a million nodes already
//! ```
//!
//! Everything is measured in three rounds, of which the middle one counts, figure by figure: between
//! two minutes of one machine the same build differs by a fifth. Ratios are of storms of one round.
//! Joins per second depend on the machine, and on this program, which takes the same cores. Joins per
//! server-CPU-second and the ratios within one run depend on it less.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::format_push_string,
    reason = "a benchmark: what cannot be measured ends it"
)]

mod cores;
mod figures;
mod hostile;
mod known;
mod node;
mod site;

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use muster::clock::Clock;
use muster::server::{AnswerSizes, Config, Overrides, start_baseline};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use cores::Apart;
use figures::{Figures, Outcome};
use hostile::Crowd;
use node::Node;
use site::{Cloud, Server, Size};

/// How many nodes are on their way at a time where a crowd of strangers is measured: it is larger by
/// its part, and all of them have to fit.
const AT_ONCE_IN_A_CROWD: usize = 100;

/// Measures a boot storm. What is named is measured; if nothing is, all is but `--known`.
#[derive(Debug, Clone, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
struct Options {
    /// How many instances start.
    #[arg(long, default_value_t = 5_000)]
    instances: usize,
    /// Of how many accounts.
    #[arg(long, default_value_t = 1)]
    accounts: usize,
    /// How many are on their way at a time; all of them unless given.
    #[arg(long)]
    at_once: Option<usize>,
    /// A handshake and an empty exchange of the same sizes.
    #[arg(long)]
    baseline: bool,
    /// Joins by the document alone.
    #[arg(long)]
    document_only: bool,
    /// Joins with proof and look-up.
    #[arg(long)]
    with_proof: bool,
    /// How many of those who come are strangers, in percent.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    hostile: Option<usize>,
    /// How many nodes the registry knows before.
    #[arg(long, value_name = "N")]
    known: Option<usize>,
    /// How often everything is measured; of the rounds the middle counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// text or json.
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    output: String,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn percent(text: &str) -> Result<usize, String> {
    let number = text.trim_end_matches('%').parse().ok();
    number.filter(|percent| (1..=95).contains(percent)).ok_or("expected 1% to 95%".to_owned())
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("--serve-baseline") {
        return serve_baseline();
    }
    let mut options = Options::parse();
    let has_named = options.baseline || options.document_only || options.with_proof;
    if !(has_named || options.hostile.is_some() || options.known.is_some()) {
        options.baseline = true;
        options.document_only = true;
        options.with_proof = true;
        options.hostile = Some(90);
    }
    raise_file_limit();
    tokio::runtime::Runtime::new().unwrap().block_on(measure(&options));
}

/// Measures what is wanted, and prints it: every round, then the middle of them.
async fn measure(options: &Options) {
    let is_json = options.output == "json";
    let storm = Storm::prepare(options).await;
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        let round = storm.round(options).await;
        if !is_json {
            print(&format!("round {number} of {}", options.rounds), &round);
        }
        rounds.push(round);
    }
    let middle = medians(&rounds);
    let ratios = figures::median_ratios(&rounds);
    if is_json {
        let machine = figures::machine();
        let whole =
            json!({"machine": machine, "storms": middle, "ratios": ratios, "rounds": rounds});
        return println!("{whole}");
    }
    print(&format!("the middle of {} rounds", options.rounds), &middle);
    for (name, ratio) in ratios {
        println!("{name:<40} {ratio:.2}");
    }
}

fn print(title: &str, storms: &[Figures]) {
    println!("{title}");
    for figures in storms {
        println!("{}", figures.in_words());
    }
}

/// The middle of each storm.
fn medians(rounds: &[Vec<Figures>]) -> Vec<Figures> {
    let of = |name: &str| -> Vec<&Figures> {
        rounds.iter().flatten().filter(|figures| figures.name == name).collect()
    };
    rounds[0].iter().map(|figures| figures::median(&of(figures.name))).collect()
}

/// The nodes and the cloud.
struct Storm {
    cloud: Cloud,
    nodes: Vec<Arc<Node>>,
    strangers: Vec<Arc<Node>>,
    /// The data of a server that knows very many nodes already: made once, and copied for each round.
    known: Option<TempDir>,
}

/// One storm.
#[derive(Clone, Copy)]
struct Run {
    name: &'static str,
    at_once: usize,
    with_proof: bool,
    /// The server on a core of its own.
    apart: bool,
}

/// What stands behind the listener.
#[derive(Clone, Copy)]
enum Behind {
    /// A new server.
    Joins,
    /// Empty answers, as long as these.
    Nobody([usize; 4]),
    /// A server that knows very many nodes already.
    Known,
}

impl Storm {
    async fn prepare(options: &Options) -> Self {
        let cloud =
            Cloud::start(Size { instances: options.instances, accounts: options.accounts }).await;
        let (mut nodes, mut strangers) = (Vec::new(), Vec::new());
        for instance in cloud.simulator.instances() {
            let node = Arc::new(Node::new(&cloud.simulator, &instance));
            if instance.account_id.as_str() == site::STRANGERS_ACCOUNT {
                strangers.push(node);
            } else if nodes.len() < options.instances {
                nodes.push(node);
            }
        }
        let mut storm = Self { cloud, nodes, strangers, known: None };
        if let Some(many) = options.known {
            storm.known = Some(storm.data_with_known(many).await);
        }
        storm
    }

    /// Every storm that is wanted, once. What is measured against another one is measured beside it.
    async fn round(&self, options: &Options) -> Vec<Figures> {
        let mut round = Vec::new();
        let at_once = options.at_once.unwrap_or(options.instances);
        let document = Run { name: "document-only", at_once, with_proof: false, apart: false };
        if options.baseline || options.document_only || options.known.is_some() {
            let (figures, sizes) = self.breaks(document, Behind::Joins, 0).await;
            round.push(figures);
            if options.baseline {
                let run = Run { name: "baseline", ..document };
                round.push(self.breaks(run, Behind::Nobody(sizes), 0).await.0);
            }
        }
        if options.with_proof {
            let run = Run { name: "with-proof", with_proof: true, ..document };
            round.push(self.breaks(run, Behind::Joins, 0).await.0);
        }
        if let Some(percent) = options.hostile {
            let calm = Run { name: "calm", at_once: AT_ONCE_IN_A_CROWD, apart: true, ..document };
            round.push(self.breaks(calm, Behind::Joins, 0).await.0);
            let strangers = AT_ONCE_IN_A_CROWD * percent / (100 - percent);
            let run = Run { name: "hostile", ..calm };
            round.push(self.breaks(run, Behind::Joins, strangers).await.0);
        }
        if options.known.is_some() {
            let run = Run { name: "known", ..document };
            round.push(self.breaks(run, Behind::Known, 0).await.0);
        }
        round
    }

    /// Lets all nodes join this server, amidst so many strangers.
    async fn breaks(&self, run: Run, behind: Behind, strangers: usize) -> (Figures, [usize; 4]) {
        let data = tempfile::tempdir().unwrap();
        let server = Arc::new(match behind {
            Behind::Joins => Server::start(&self.cloud, data.path()),
            Behind::Nobody(sizes) => Server::baseline(&self.cloud, data.path(), sizes),
            Behind::Known => {
                let known = self.known.as_ref().unwrap();
                known::copy(known.path(), data.path());
                // Gigabytes that still have to be written would slow the disk down for the storm.
                rustix::fs::sync();
                Server::start(&self.cloud, data.path())
            }
        });
        let _apart = run.apart.then(|| Apart::from(server.id()));
        let crowd = Crowd::gather(strangers, &self.strangers, &server);
        if strangers > 0 {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let places = Arc::new(Semaphore::new(run.at_once));
        let (usage, calls, came) = (server.usage(), self.cloud.calls(), crowd.came());
        let begun = Instant::now();
        let mut running = JoinSet::new();
        for node in &self.nodes {
            let (node, server, places) =
                (Arc::clone(node), Arc::clone(&server), Arc::clone(&places));
            running.spawn(async move {
                let _place = places.acquire_owned().await.unwrap();
                node.join(&server, run.with_proof).await
            });
        }
        let mut outcome = Outcome::default();
        while let Some(joined) = running.join_next().await {
            outcome.add(joined.unwrap());
        }
        outcome.seconds = begun.elapsed().as_secs_f64();
        let calls_now = self.cloud.calls();
        outcome.calls = (calls_now.0 - calls.0, calls_now.1 - calls.1);
        outcome.strangers = crowd.came() - came;
        let sizes = outcome.sizes;
        (Figures::new(run.name, outcome, usage, server.usage()), sizes)
    }

    /// The data of a server whose registry holds so many nodes.
    async fn data_with_known(&self, many: usize) -> TempDir {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(&self.cloud, data.path());
        Arc::clone(&self.nodes[0]).join(&server, false).await.unwrap();
        server.end(Signal::TERM);
        known::fill(&site::store_in(data.path()), many).await;
        data
    }
}

/// The listener with nobody behind it, started by this program as a server is by its command line.
fn serve_baseline() {
    let given: Vec<String> = std::env::args().collect();
    let value = |flag: &str| {
        let place = given.iter().position(|argument| argument == flag)?;
        given.get(place + 1).cloned()
    };
    let sizes: Vec<usize> =
        value("--sizes").unwrap().split(',').map(|size| size.parse().unwrap()).collect();
    let overrides = Overrides {
        data_dir: value("--data-dir").map(Into::into),
        policies: value("--policies").map(Into::into),
        simulation: value("--simulation").map(Into::into),
        listen: value("--listen").map(|address| address.parse().unwrap()),
        diagnostics_listen: value("--diagnostics-listen").map(|address| address.parse().unwrap()),
        ..Overrides::default()
    };
    let config = Config::load(None, overrides).unwrap();
    let sizes = AnswerSizes {
        certificate: sizes[0],
        anchor: sizes[1],
        join_root: sizes[2],
        record: sizes[3],
    };
    raise_file_limit();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let running = start_baseline(config, Clock::system(), sizes).await.unwrap();
        println!("{}", serde_json::to_string(&running.ready).unwrap());
        std::future::pending::<()>().await;
    });
}

/// Thousands of connections at a time.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}
