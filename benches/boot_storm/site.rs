//! What a storm breaks over: a simulated cloud in this process, and a server in a process of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster::client::{Endpoint, ServerTrust, parse_pin};
use muster::clock::Clock;
use muster::sim::{self, Scenario, Simulator};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

const MUSTER: &str = env!("CARGO_BIN_EXE_muster");
/// The regions' first; what is measured here does not depend on how many there are.
const REGION: &str = "us-west-2";
/// Whose user the server is.
const SERVER_ACCOUNT: &str = "555566667777";
/// An account that no policy names, and how many instances of it show their documents.
pub(crate) const STRANGERS_ACCOUNT: &str = "999988887777";
const STRANGERS: usize = 64;

/// How large the cloud is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) instances: usize,
    pub(crate) accounts: usize,
}

/// The cloud: instances, and STS and EC2 with AWS's limits, served on loopback.
pub(crate) struct Cloud {
    pub(crate) simulator: Arc<Simulator>,
    pub(crate) directory: TempDir,
}

impl Cloud {
    pub(crate) async fn start(size: Size) -> Self {
        let scenario = Scenario::parse(&scenario(size)).unwrap();
        let simulator = Arc::new(Simulator::new(&scenario, Clock::system()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(sim::serve(Arc::clone(&simulator), listener, std::future::pending()));
        let directory = tempfile::tempdir().unwrap();
        simulator.write(&directory.path().join("sim"), address).unwrap();
        let policies = directory.path().join("policies");
        fs::create_dir(&policies).unwrap();
        fs::write(policies.join("storm.yaml"), self::policies(size)).unwrap();
        Self { simulator, directory }
    }

    /// Calls of STS and EC2 until now.
    pub(crate) fn calls(&self) -> (u64, u64) {
        let calls = self.simulator.calls();
        (calls.sts.values().sum(), calls.ec2.values().sum())
    }
}

/// The accounts of the storm.
fn accounts(size: Size) -> impl Iterator<Item = String> {
    (0..size.accounts).map(|number| format!("{:012}", 100_000_000_000_u64 + number as u64))
}

/// STS as AWS's default quota has it; EC2 by the smaller of the buckets that AWS's documentation
/// names for `DescribeInstances`.
fn scenario(size: Size) -> String {
    let mut text = format!(
        "[server]\naccount = \"{SERVER_ACCOUNT}\"\n\
         [limits]\nsts = {{bucket = 600, refill = 600}}\nec2 = {{bucket = 50, refill = 10}}\n\
         [[instances]]\naccount = \"{STRANGERS_ACCOUNT}\"\nregion = \"{REGION}\"\ncount = {STRANGERS}\n"
    );
    let each = size.instances.div_ceil(size.accounts);
    for account in accounts(size) {
        text.push_str(&format!(
            "[[instances]]\naccount = \"{account}\"\nregion = \"{REGION}\"\ncount = {each}\n\
             tags = {{Tier = \"web\"}}\n\
             [[roles]]\naccount = \"{account}\"\nname = \"muster-verifier\"\n\
             external_id = \"muster-example\"\n"
        ));
    }
    text
}

/// Two policies for the same accounts: the document alone, and proof and look-up.
fn policies(size: Size) -> String {
    let accounts: Vec<String> =
        accounts(size).map(|account| format!("{{id: \"{account}\"}}")).collect();
    format!(
        r#"apiVersion: muster/v1
kind: AccountSet
metadata: {{name: storm, owner: "platform"}}
spec: {{partition: aws, accounts: [{}]}}
---
apiVersion: muster/v1
kind: JoinPolicy
metadata: {{name: document, description: "the document alone", owner: "platform"}}
spec:
  method: ec2
  roles: [node]
  allow: [{{name: all, accounts: [storm], regions: [{REGION}]}}]
  ec2: {{fresh_proof: not_required, document_ttl: 24h, look_up: none}}
---
apiVersion: muster/v1
kind: JoinPolicy
metadata: {{name: proven, description: "proof and look-up", owner: "platform"}}
spec:
  method: ec2
  roles: [node]
  allow: [{{name: web, accounts: [storm], regions: [{REGION}], tags: {{Tier: web}}}}]
  ec2:
    fresh_proof: required
    look_up: {{role: "arn:{{partition}}:iam::{{account}}:role/muster-verifier", external_id: muster-example}}
"#,
        accounts.join(", ")
    )
}

/// A server in a process of its own, on a new data directory.
pub(crate) struct Server {
    process: Mutex<Child>,
    ready: Value,
    pub(crate) endpoint: Endpoint,
    pub(crate) address: SocketAddr,
    pub(crate) trust: ServerTrust,
}

impl Server {
    /// The server that is measured, on this directory.
    pub(crate) fn start(cloud: &Cloud, data: &Path) -> Self {
        Self::run(cloud, Command::new(MUSTER), data)
    }

    /// This program once more, as the listener with nobody behind it.
    pub(crate) fn baseline(cloud: &Cloud, data: &Path, sizes: [usize; 4]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--serve-baseline",
            "--sizes",
            &sizes.map(|size| size.to_string()).join(","),
        ]);
        Self::run(cloud, command, data)
    }

    fn run(cloud: &Cloud, mut command: Command, data: &Path) -> Self {
        let directory = cloud.directory.path();
        let log_path = data.join("server.log");
        let log = fs::OpenOptions::new().create(true).append(true).open(&log_path).unwrap();
        let mut process = command
            .arg("server")
            .arg("--simulation")
            .arg(directory.join("sim"))
            .arg("--policies")
            .arg(directory.join("policies"))
            .arg("--data-dir")
            .arg(data.join("data"))
            .args(["--listen", "127.0.0.1:0", "--diagnostics-listen", "127.0.0.1:0"])
            .args(["--output", "json"])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("the server did not start: {}", read(&log_path)));
        let pin = parse_pin(ready["pin"].as_str().unwrap()).unwrap();
        let join = ready["join"].as_str().unwrap();
        let (endpoint, address) = (join.parse().unwrap(), join.parse().unwrap());
        let (process, trust) = (Mutex::new(process), ServerTrust::Pins(vec![pin]));
        Self { process, ready, endpoint, address, trust }
    }

    /// Ends it: in good order, or at once by `Signal::KILL`.
    pub(crate) fn end(&self, signal: Signal) {
        let mut process = self.process();
        kill_process(Pid::from_child(&process), signal).unwrap();
        process.wait().unwrap();
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.process().id()
    }

    fn process(&self) -> MutexGuard<'_, Child> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it has used of the machine until now.
    pub(crate) fn usage(&self) -> Usage {
        let id = self.id();
        let commits = self.metric("muster_store_commits_total");
        Usage { cpu_seconds: cpu_seconds(id), peak_mib: peak_mib(id), commits }
    }

    fn metric(&self, name: &str) -> u64 {
        let address = self.ready["diagnostics"].as_str().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut process = self.process();
        let _gone = process.kill();
        let _gone = process.wait();
    }
}

/// The store of a server that was started on this directory.
pub(crate) fn store_in(data: &Path) -> PathBuf {
    muster::server::store_path(&data.join("data"))
}

/// What a process has used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_mib: u64,
    /// Commits of the store, each of which waited for the disk.
    pub(crate) commits: u64,
}

/// User and system time of a process and its ended threads (proc(5), fields 14 and 15).
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let text = read(Path::new(&format!("/proc/{process}/stat")));
    let (_, fields) = text.rsplit_once(')').unwrap();
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    // USER_HZ, which Linux shows to programs as 100 whatever the kernel's own is.
    ticks as f64 / 100.0
}

fn peak_mib(process: u32) -> u64 {
    let text = read(Path::new(&format!("/proc/{process}/status")));
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
