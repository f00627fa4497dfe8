//! Processes of muster that end with their test, and what they answer.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use muster::clock::Stopwatch;
use rustix::process::{Pid, Signal, kill_process};
use rustls::client::WantsClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, SignatureScheme, version};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) const MUSTER: &str = env!("CARGO_BIN_EXE_muster");
/// Far longer than anything takes that a test waits for.
const PATIENCE: Duration = Duration::from_mins(2);
/// Instances of the account that `POLICY` lists, and a stranger of an account that it does not.
pub(crate) const WORKER: &str = "i-0a000000000000001";
pub(crate) const OTHER_WORKER: &str = "i-0a000000000000002";
pub(crate) const MORE_WORKERS: [&str; 2] = ["i-0a000000000000003", "i-0a000000000000004"];
/// Likewise, without credentials to prove itself with.
pub(crate) const PROOFLESS: &str = "i-0a000000000000005";
/// Likewise, with an instance profile, whose role may read parameters.
pub(crate) const PROFILED: &str = "i-0a000000000000006";
pub(crate) const STRANGER: &str = "i-0b000000000000001";
const SCENARIO: &str = r#"
[[instances]]
id = "i-0a000000000000001"
account = "111122223333"
region = "us-west-2"
[[instances]]
id = "i-0a000000000000002"
account = "111122223333"
region = "us-west-2"
[[instances]]
id = "i-0a000000000000003"
account = "111122223333"
region = "us-west-2"
[[instances]]
id = "i-0a000000000000004"
account = "111122223333"
region = "us-west-2"
[[instances]]
id = "i-0a000000000000005"
account = "111122223333"
region = "us-west-2"
identity_role = false
[[instances]]
id = "i-0a000000000000006"
account = "111122223333"
region = "us-west-2"
instance_profile = "web"
[[instances]]
id = "i-0b000000000000001"
account = "999988887777"
region = "us-west-2"
[[roles]]
account = "444455556666"
name = "muster-publisher"
external_id = "muster-example"
"#;
pub(crate) const POLICY: &str = r#"
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: web, description: "web tier", owner: "platform"}
spec:
  method: ec2
  roles: [node]
  allow:
    - {name: production, accounts: ["111122223333"], partition: aws, regions: [us-west-2]}
  ec2: {fresh_proof: not_required, document_ttl: 24h, look_up: none}
  certificate: {ttl: 12h, dns_names: ["{instance_id}.web.internal.example"]}
"#;

/// Whether a test can be told without this tool; never on the CI.
pub(crate) fn is_missing(tool: &str) -> bool {
    let is_missing = Command::new(tool).arg("--version").output().is_err();
    if is_missing {
        skip(&format!("{tool} is not installed"));
    }
    is_missing
}

/// Says that a test, or a part of one, is skipped; on the CI it fails.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "on the CI: {why}");
    eprintln!("skipped: {why}");
}

/// Waits until it is so; no test waits for ever.
pub(crate) fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let watch = Stopwatch::start();
    while !is_so() {
        assert!(watch.elapsed() < PATIENCE, "it did not happen in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A command that dies with this thread, even if the test is killed and cannot clean up.
pub(crate) fn mortal(program: &Path) -> Command {
    static IS_SETPRIV_HERE: LazyLock<bool> =
        LazyLock::new(|| Command::new("setpriv").arg("--version").output().is_ok());
    if !*IS_SETPRIV_HERE {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A running server or simulator; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) ready: Value,
    log: PathBuf,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts a command that prints a line of JSON when it is ready; its log goes to the file.
    pub(crate) fn start(command: Command, log: &Path) -> Self {
        let mut process = Self::launch(command, log);
        let mut line = String::new();
        process.stdout.read_line(&mut line).unwrap();
        process.ready = serde_json::from_str(&line).unwrap_or_default();
        assert_eq!(process.ready["ready"], true, "{line}{}", process.log());
        process
    }

    /// Likewise, without waiting until it is ready.
    pub(crate) fn launch(mut command: Command, log: &Path) -> Self {
        let log_file = File::create(log).unwrap();
        let mut child = command
            .args(["--output", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, ready: Value::Null, log: log.to_owned(), stdout }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until its log has this; a line comes after what it tells of.
    pub(crate) fn says(&self, text: &str) {
        await_that(text, || self.log().contains(text));
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Waits for the process, which was told to end, and returns its exit status.
    pub(crate) fn ended(mut self) -> Option<i32> {
        self.wait()
    }

    /// Likewise, of a process whose data are looked at afterwards.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        await_that("the process has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    /// A string of the ready line.
    pub(crate) fn said(&self, name: &str) -> &str {
        self.ready[name].as_str().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// How a command ended, and the values that it printed.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) exit: i32,
    pub(crate) values: Vec<Value>,
    /// Shown when a test fails.
    #[expect(dead_code, reason = "read by the derived Debug alone")]
    stderr: String,
}

impl Answer {
    /// Runs a command to its end. Whatever it prints must be JSON, one value a line.
    pub(crate) fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8(stdout).unwrap();
        let values = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        Self { exit: status.code().expect("ended by a signal"), values, stderr }
    }

    /// The one value of a command that said yes.
    pub(crate) fn yes(&self) -> &Value {
        assert_eq!(self.exit, 0, "{self:?}");
        assert_eq!(self.values.len(), 1, "exactly one value: {self:?}");
        &self.values[0]
    }

    /// The exit status and code of a command that failed.
    pub(crate) fn failure(&self) -> (i32, &str) {
        assert_eq!(self.values.len(), 1, "exactly one value: {self:?}");
        (self.exit, self.values[0]["error"]["code"].as_str().unwrap_or("no error object"))
    }
}

/// A simulator, a server that believes it, and a directory for everything.
pub(crate) struct Site {
    pub(crate) server: Process,
    pub(crate) simulator: Process,
    pub(crate) directory: TempDir,
}

impl Site {
    /// With the policy `web`.
    pub(crate) fn new() -> Self {
        Self::with(|command| command)
    }

    /// Likewise, with a server that is started by another command: `change` gets the usual one.
    pub(crate) fn with(change: impl FnOnce(Command) -> Command) -> Self {
        Self::build(POLICY, change)
    }

    /// With this policy.
    pub(crate) fn under(policy: &str) -> Self {
        Self::build(policy, |command| command)
    }

    fn build(policy: &str, change: impl FnOnce(Command) -> Command) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let simulator = simulator(directory.path());
        write_policy(directory.path(), policy);
        let command = change(server_command(mortal(Path::new(MUSTER)), directory.path()));
        let server = Process::start(command, &directory.path().join("server.log"));
        Self { server, simulator, directory }
    }

    /// Stops the server at once and starts it again on the same data.
    pub(crate) fn restart(&mut self, change: impl FnOnce(Command) -> Command) {
        self.server.kill();
        let command = change(server_command(mortal(Path::new(MUSTER)), self.directory.path()));
        self.server = Process::start(command, &self.path("server.log"));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn pin(&self) -> &str {
        self.server.said("pin")
    }

    pub(crate) fn address(&self) -> &str {
        self.server.said("join")
    }

    /// A join of this instance with this state directory; the server and how to trust it are still
    /// to be said.
    pub(crate) fn join_command(&self, instance: &str, state: &str) -> Command {
        let endpoint = self.simulator.ready["imds"][instance].as_str().unwrap();
        join_command(endpoint, &self.path(state), "30s")
    }

    /// Joins as nodes do.
    pub(crate) fn join(&self, instance: &str, state: &str) -> Answer {
        Answer::of(self.join_command(instance, state).args([
            "--server",
            self.address(),
            "--pin",
            self.pin(),
        ]))
    }

    /// What the diagnostics listener answers.
    pub(crate) fn page(&self, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(self.server.said("diagnostics")).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A command for the local socket.
    pub(crate) fn local(&self, arguments: &[&str]) -> Answer {
        Answer::of(&mut local_command(Command::new(MUSTER), arguments, &self.path("data")))
    }
}

/// A simulator with the scenario, writing to `sim` in the directory.
pub(crate) fn simulator(directory: &Path) -> Process {
    let scenario = directory.join("scenario.toml");
    fs::write(&scenario, SCENARIO).unwrap();
    let mut command = mortal(Path::new(MUSTER));
    command.args(["sim", "--scenario"]).arg(scenario).arg("--out").arg(directory.join("sim"));
    Process::start(command, &directory.join("sim.log"))
}

pub(crate) fn write_policy(directory: &Path, text: &str) {
    let policies = directory.join("policies");
    fs::create_dir_all(&policies).unwrap();
    fs::write(policies.join("policies.yaml"), text).unwrap();
}

/// A simulation's server on `data`, `policies` and `sim` in the directory.
pub(crate) fn server_command(mut muster: Command, directory: &Path) -> Command {
    muster.arg("server").arg("--simulation").arg(directory.join("sim"));
    on_loopback(&mut muster, directory);
    muster
}

/// The arguments of every server.
pub(crate) fn on_loopback(command: &mut Command, directory: &Path) {
    command.arg("--data-dir").arg(directory.join("data"));
    command.arg("--policies").arg(directory.join("policies"));
    command.args(["--listen", "127.0.0.1:0", "--diagnostics-listen", "127.0.0.1:0"]);
}

/// A join with this metadata service and state directory under the policy `web`.
pub(crate) fn join_command(imds: &str, state: &Path, timeout: &str) -> Command {
    let mut command = mortal(Path::new(MUSTER));
    command.args(["join", "--policy", "web", "--output", "json", "--timeout", timeout]);
    command.args(["--imds-endpoint", imds, "--state"]).arg(state);
    command
}

/// A command for the socket of a data directory.
pub(crate) fn local_command(mut muster: Command, arguments: &[&str], data: &Path) -> Command {
    muster.args(arguments).args(["--output", "json", "--data-dir"]).arg(data);
    muster
}

/// The certificates of a PEM file.
pub(crate) fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().collect::<Result<_, _>>().unwrap()
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A bare TLS connection to a join listener, of somebody who does not care who answers.
pub(crate) async fn careless_connection(address: &str) -> TlsStream<TcpStream> {
    careless_connection_from("127.0.0.1", address).await.unwrap()
}

/// Likewise, from this address of the loopback interface: each /24 of them is a network of its own.
pub(crate) async fn careless_connection_from(
    source: &str,
    address: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = tcp_connection_from(source, address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(careless_config()).connect(name, stream).await
}

pub(crate) async fn tcp_connection_from(source: &str, address: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0))?;
    socket.connect(address.parse().unwrap()).await
}

pub(crate) fn careless_config() -> Arc<ClientConfig> {
    careless(ConfigBuilder::<ClientConfig, WantsClientCert>::with_no_client_auth)
}

/// Likewise, of somebody with a certificate or without, as this says.
pub(crate) fn careless(
    identify: impl FnOnce(ConfigBuilder<ClientConfig, WantsClientCert>) -> ClientConfig,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Careless));
    let mut config = identify(builder);
    config.enable_sni = false;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Believes every certificate.
#[derive(Debug)]
pub(crate) struct Careless;

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
