//! The rotation soak: a new token is published every 5 s, SSM fails a fifth of all calls, and 50
//! agents fetch and join all the time. The tests run it for 30 s, `make soak` for 3 minutes.
//!
//! No agent may fail for longer than one period, no more than two tokens of the publication may be
//! live at a time, and no secret may stand in a log, in the server's data or in a command line.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests; clippy.toml allows it in test functions only"
)]

#[path = "support/emulator.rs"]
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use muster::agent::{AgentConfig, AgentOverrides, JoinOptions, SsmSettings, join};
use muster::clock::{Clock, Stopwatch};
use serde_json::{Value, json};
use support::Emulator;

const MUSTER: &str = env!("CARGO_BIN_EXE_muster");
const AGENTS: u64 = 50;
const PERIOD: Duration = Duration::from_secs(5);
/// How long an agent rests between two joins at most: on two cores all of them have their turn.
const REST_MAX: Duration = Duration::from_secs(4);
/// What every text of a token begins with.
const SECRET: &[u8] = b"muster-token-1.";
const POLICIES: &str = r#"
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: web, description: "web tier", owner: "platform"}
spec:
  method: token
  roles: [node]
  allow: [{tokens: any}]
---
apiVersion: muster/v1
kind: TokenPublication
metadata: {name: web, description: "rotates fast", owner: "platform"}
spec:
  policy: web
  targets: [{region: us-west-2}]
  period: 5s
  overlap: 2s
  token: {life: 30s, max_uses: unlimited}
"#;

#[test]
fn rotation_goes_on_while_ssm_fails() {
    let Some(emulator) = Emulator::start(&[]) else { return };
    let server = Server::start(&emulator);
    // The first publication is on its way; from now on every fifth call fails.
    server.wait_until_published();
    emulator.control(
        "PUT",
        "/_sim/faults",
        r#"{"service":"ssm","fault":"unavailable","percent":20}"#,
    );
    let watching = Watching::default();
    let seconds = std::env::var_os("MUSTER_SOAK_SECONDS");
    let seconds = seconds.and_then(|text| text.to_str()?.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(30));
    let crowd = thread::scope(|scope| {
        scope.spawn(|| watching.tokens(&server));
        scope.spawn(|| watching.command_lines());
        let crowd = run_crowd(&emulator, &server, length);
        watching.is_over.store(true, Ordering::Relaxed);
        crowd
    });
    let (live, rotations) = (watching.live_max.load(Ordering::Relaxed), server.rotations());
    println!(
        "soak: {} s, {AGENTS} agents, {} joins, {} attempts that failed; the longest an agent failed \
         for was {} ms; {rotations} rotations; at most {live} live tokens",
        length.as_secs(),
        crowd["joins"],
        crowd["failures"],
        crowd["longest_failure_ms"],
    );
    let longest = Duration::from_millis(crowd["longest_failure_ms"].as_u64().unwrap());
    assert!(longest <= PERIOD, "an agent failed for {longest:?}");
    assert!(crowd["joins"].as_u64().unwrap() >= AGENTS, "{crowd}");
    assert!((1..=2).contains(&live), "{live} tokens were live at a time");
    // Each rotation may have to wait for SSM; half of them is far from all at once.
    assert!(rotations >= length.as_secs() / PERIOD.as_secs() / 2, "{rotations} rotations");
    assert!(watching.looks.load(Ordering::Relaxed) > 0, "nobody looked");
    assert_eq!(watching.in_command_lines.load(Ordering::Relaxed), 0, "a secret was an argument");
    for directory in [emulator.directory.path(), server.directory.path()] {
        assert_no_secret_below(directory);
    }
}

/// A server with a publication, and where it is.
struct Server {
    child: Child,
    ready: Value,
    directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Server {
    fn start(emulator: &Emulator) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let policies = directory.path().join("policies");
        fs::create_dir(&policies).unwrap();
        fs::write(policies.join("policies.yaml"), POLICIES).unwrap();
        let log = fs::File::create(directory.path().join("server.log")).unwrap();
        let mut child = Command::new(MUSTER)
            .args(["server", "--output", "json", "--log", "debug"])
            .args(["--listen", "127.0.0.1:0", "--diagnostics-listen", "127.0.0.1:0"])
            .arg("--simulation")
            .arg(emulator.ready["simulation"].as_str().unwrap())
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .arg("--policies")
            .arg(policies)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, ready: serde_json::from_str(&line).unwrap(), directory }
    }

    fn local(&self, arguments: &[&str]) -> Value {
        let output = Command::new(MUSTER)
            .args(arguments)
            .args(["--output", "json", "--data-dir"])
            .arg(self.directory.path().join("data"))
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    fn live_tokens(&self) -> usize {
        let listed = self.local(&["tokens", "ls"]);
        let tokens = listed["tokens"].as_array().unwrap();
        tokens.iter().filter(|token| token["state"] == "live").count()
    }

    fn wait_until_published(&self) {
        let deadline = Stopwatch::start();
        while self.local(&["publications", "ls"])["publications"][0]["version"].is_null() {
            assert!(deadline.elapsed() < Duration::from_mins(1), "nothing was published");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// How often a token was published.
    fn rotations(&self) -> u64 {
        let shown = self.local(&["publications", "ls"]);
        shown["publications"][0]["version"].as_u64().unwrap()
    }
}

/// What is looked at all the time.
#[derive(Default)]
struct Watching {
    is_over: AtomicBool,
    live_max: AtomicU64,
    looks: AtomicU64,
    in_command_lines: AtomicU64,
}

impl Watching {
    fn tokens(&self, server: &Server) {
        while !self.is_over.load(Ordering::Relaxed) {
            let live = u64::try_from(server.live_tokens()).unwrap();
            self.live_max.fetch_max(live, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(250));
        }
    }

    fn command_lines(&self) {
        while !self.is_over.load(Ordering::Relaxed) {
            let found = fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter(|entry| {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                has_secret(&line)
            });
            let found = u64::try_from(found.count()).unwrap();
            self.in_command_lines.fetch_add(found, Ordering::Relaxed);
            self.looks.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn has_secret(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|window| window == SECRET)
}

/// Every file that was written: logs, the audit log, the store. What moto keeps in memory is not.
fn assert_no_secret_below(directory: &Path) {
    let mut files: Vec<PathBuf> = vec![directory.to_owned()];
    let mut seen = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.is_file() {
            seen += 1;
            assert!(!has_secret(&fs::read(&path).unwrap()), "a secret in {}", path.display());
        }
    }
    assert!(seen > 0);
}

/// Runs `crowd` in a process of its own, which has the credentials in its environment.
fn run_crowd(emulator: &Emulator, server: &Server, length: Duration) -> Value {
    let simulation = Path::new(emulator.ready["simulation"].as_str().unwrap());
    let keys = fs::read(simulation.join("server-credentials.json")).unwrap();
    let keys: Value = serde_json::from_slice(&keys).unwrap();
    let task = json!({
        "server": server.ready["join"], "pin": server.ready["pin"], "ssm": emulator.endpoint(),
        "parameter": format!("ssm:/muster/{}/web/token", server.ready["trust_domain"].as_str().unwrap()),
        "seconds": length.as_secs(), "states": server.directory.path().join("states"),
    });
    let mut crowd = Command::new(std::env::current_exe().unwrap());
    crowd.args(["--exact", "crowd", "--nocapture"]);
    crowd.env("MUSTER_SOAK_CROWD", task.to_string());
    for (variable, member) in [
        ("AWS_ACCESS_KEY_ID", "access_key_id"),
        ("AWS_SECRET_ACCESS_KEY", "secret_access_key"),
        ("AWS_SESSION_TOKEN", "session_token"),
    ] {
        if let Some(value) = keys[member].as_str() {
            crowd.env(variable, value);
        }
    }
    let output = crowd.stderr(Stdio::inherit()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!has_secret(text.as_bytes()));
    let line = text.lines().find_map(|line| line.strip_prefix("crowd: "));
    serde_json::from_str(line.unwrap_or(&text)).unwrap()
}

/// The agents, in a process of their own that `rotation_goes_on_while_ssm_fails` starts; by itself it
/// does nothing.
#[test]
fn crowd() {
    let Some(task) = std::env::var_os("MUSTER_SOAK_CROWD") else { return };
    let task: Arc<Value> = Arc::new(serde_json::from_str(task.to_str().unwrap()).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let total = runtime.block_on(async {
        let agents: Vec<_> =
            (0..AGENTS).map(|number| tokio::spawn(agent(Arc::clone(&task), number))).collect();
        let mut total = Tally::default();
        for agent in agents {
            let tally = agent.await.unwrap();
            total.joins += tally.joins;
            total.failures += tally.failures;
            total.longest = total.longest.max(tally.longest);
        }
        total
    });
    let Tally { joins, failures, longest } = total;
    let longest = u64::try_from(longest.as_millis()).unwrap();
    println!(
        "crowd: {}",
        json!({"joins": joins, "failures": failures, "longest_failure_ms": longest})
    );
}

#[derive(Default)]
struct Tally {
    joins: u64,
    failures: u64,
    /// From the first attempt that failed to the end of the one that did not.
    longest: Duration,
}

/// Joins as a new node again and again; each time it fetches the token.
async fn agent(task: Arc<Value>, number: u64) -> Tally {
    let text = |name: &str| task[name].as_str().unwrap().to_owned();
    let ssm = SsmSettings {
        region: Some("us-west-2".parse().unwrap()),
        endpoint: Some(text("ssm")),
        insecure_endpoint: true,
    };
    let (watch, mut tally) = (Stopwatch::start(), Tally::default());
    let length = Duration::from_secs(task["seconds"].as_u64().unwrap());
    // They do not come all at once.
    tokio::time::sleep(REST_MAX.mul_f64(f64::from(u32::try_from(number).unwrap()) / 50.0)).await;
    while watch.elapsed() < length {
        let state = Path::new(&text("states")).join(format!("{number}-{}", tally.joins));
        fs::create_dir_all(state.parent().unwrap()).unwrap();
        let flags = AgentOverrides {
            server: Some(text("server").parse().unwrap()),
            trust: muster::agent::TrustSource {
                pins: vec![muster::client::parse_pin(&text("pin")).unwrap()],
                ..muster::agent::TrustSource::default()
            },
            state: Some(state.clone()),
            imds_endpoint: Some("http://127.0.0.1:1".to_owned()),
            token_source: Some(text("parameter").parse().unwrap()),
            ssm: ssm.clone(),
            ..AgentOverrides::default()
        };
        let config = AgentConfig::load(None, flags).unwrap();
        let failed = AtomicU64::new(0);
        let attempt = Stopwatch::start();
        let options = JoinOptions {
            means: config.means().unwrap(),
            state: config.state,
            timeout: PERIOD * 4,
        };
        let report = |_: &str| {
            failed.fetch_add(1, Ordering::Relaxed);
        };
        let joined = join(&options, &Clock::system(), &report).await;
        let failures = failed.into_inner() + u64::from(joined.is_err());
        tally.failures += failures;
        if failures > 0 {
            tally.longest = tally.longest.max(attempt.elapsed());
        }
        if let Err(error) = &joined {
            eprintln!("agent {number}: {} {:?}", error.code, error.hint);
        }
        tally.joins += u64::from(joined.is_ok());
        fs::remove_dir_all(&state).unwrap();
        let rest = u32::try_from((number * 37 + tally.joins * 101) % 100).unwrap();
        tokio::time::sleep(REST_MAX / 2 + REST_MAX.mul_f64(f64::from(rest) / 200.0)).await;
    }
    tally
}
