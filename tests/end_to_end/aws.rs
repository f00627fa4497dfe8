//! Nodes that prove themselves and instances that are looked at, through the real processes: in a
//! simulation, and with endpoints of the configuration in place of AWS's.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use muster::aws::Imds;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    Answer, MUSTER, Process, STRANGER, WORKER, join_command, local_command, mortal, on_loopback,
    provider, server_command, write_policy,
};

const SCENARIO: &str = r#"
[server]
account = "555566667777"
[[roles]]
account = "111122223333"
name = "muster-verifier"
external_id = "muster-example"
[[instances]]
id = "i-0a000000000000001"
account = "111122223333"
region = "us-west-2"
instance_profile = "web-1"
tags = {Tier = "web"}
[[instances]]
id = "i-0b000000000000001"
account = "999988887777"
region = "us-west-2"
"#;
const POLICY: &str = r#"
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: web, description: "web tier", owner: "platform"}
spec:
  method: ec2
  roles: [node]
  allow:
    - {name: web, accounts: ["111122223333"], partition: aws, regions: [us-west-2], tags: {Tier: web}}
  ec2:
    fresh_proof: required
    look_up: {role: "arn:{partition}:iam::{account}:role/muster-verifier", external_id: muster-example}
"#;

struct Aws {
    simulator: Process,
    directory: TempDir,
}

impl Aws {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let scenario = directory.path().join("scenario.toml");
        fs::write(&scenario, SCENARIO).unwrap();
        write_policy(directory.path(), POLICY);
        let mut command = mortal(Path::new(MUSTER));
        command.args(["sim", "--scenario"]).arg(scenario);
        command.arg("--out").arg(directory.path().join("sim"));
        let simulator = Process::start(command, &directory.path().join("sim.log"));
        Self { simulator, directory }
    }

    fn simulated_server(&self) -> Process {
        let command = server_command(mortal(Path::new(MUSTER)), self.directory.path());
        Process::start(command, &self.directory.path().join("server.log"))
    }

    /// A server that is no simulation, with the simulator's addresses in its configuration.
    fn real_server_command(&self) -> Command {
        let directory = self.directory.path();
        let config = directory.join("server.toml");
        let url = self.simulator.said("sts");
        let certificates = directory.join("sim/certificates");
        let text = format!(
            "[aws]\ncertificates_dir = '{}'\ninsecure_endpoints = true\n\
             [aws.endpoints]\nsts = '{url}'\nec2 = '{url}'\n",
            certificates.display(),
        );
        fs::write(&config, text).unwrap();
        let mut command = mortal(Path::new(MUSTER));
        command.arg("server").arg("--config").arg(&config).args(["--trust-domain", "prod.example"]);
        on_loopback(&mut command, directory);
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        command
    }

    fn join(&self, server: &Process, instance: &str) -> Answer {
        self.join_within(server, instance, "20s")
    }

    /// Without patience.
    fn join_once(&self, server: &Process, instance: &str) -> Answer {
        self.join_within(server, instance, "1s")
    }

    fn join_within(&self, server: &Process, instance: &str, timeout: &str) -> Answer {
        let endpoint = self.simulator.ready["imds"][instance].as_str().unwrap();
        let state = self.directory.path().join(format!("state-{instance}"));
        let mut command = join_command(endpoint, &state, timeout);
        Answer::of(command.args(["--server", server.said("join"), "--pin", server.said("pin")]))
    }

    fn calls(&self) -> Value {
        serde_json::from_str(&get(self.simulator.said("sts"), "/_sim/calls")).unwrap()
    }
}

/// The body of an answer over plain HTTP.
fn get(base: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn a_node_proves_itself_and_is_looked_at() {
    let aws = Aws::new();
    let server = aws.simulated_server();
    assert_eq!(aws.join(&server, STRANGER).failure(), (1, "NOT_ADMITTED"));
    let calls = aws.calls();
    assert_eq!((&calls["sts"], &calls["ec2"]), (&serde_json::json!({}), &serde_json::json!({})));

    let joined = aws.join(&server, WORKER);
    assert_eq!(joined.yes()["instance_id"], WORKER);
    let calls = aws.calls();
    assert_eq!(calls["sts"]["GetCallerIdentity"], 1, "{calls}");
    assert_eq!(calls["sts"]["AssumeRole"], 1, "{calls}");
    assert_eq!(calls["ec2"]["DescribeInstances"], 1, "{calls}");

    // The metrics say so too.
    let metrics = get(&format!("http://{}", server.said("diagnostics")), "/metrics");
    for line in [
        "muster_aws_calls_total{service=\"sts\"} 2",
        "muster_aws_calls_total{service=\"ec2\"} 1",
        "muster_aws_calls_throttled_total{service=\"ec2\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let success = "muster_aws_last_success_seconds{service=\"sts\"} 1";
    assert!(metrics.contains(success), "{metrics}");

    // The node record and the audit log tell what the enrollment rests on.
    let data = aws.directory.path().join("data");
    let shown = local_command(mortal(Path::new(MUSTER)), &["nodes", "ls"], &data).output();
    let text = String::from_utf8(shown.unwrap().stdout).unwrap();
    let nodes: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(nodes["nodes"][0]["strength"], "proof");
}

// I10, T38: what opens something is printed nowhere, at any level; not by the SDK either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_credential_is_printed_anywhere() {
    let aws = Aws::new();
    let directory = aws.directory.path();
    let copy = directory.join("audit.jsonl");
    let config = directory.join("server.toml");
    fs::write(&config, format!("[audit]\nfile = {copy:?}\n")).unwrap();
    let mut command = server_command(mortal(Path::new(MUSTER)), directory);
    command.args(["--log", "trace", "--config"]).arg(&config);
    let server = Process::start(command, &directory.join("server.log"));

    let mut needles = vec!["AWS4-HMAC-SHA256".to_owned()];
    let keys = fs::read(directory.join("sim/server-credentials.json")).unwrap();
    let keys: Value = serde_json::from_slice(&keys).unwrap();
    needles.push(keys["secret_access_key"].as_str().unwrap().to_owned());
    // A role's token says whose it is; in base64 that stands nowhere else.
    let role = b"muster-verifier";
    needles.extend((0..3).map(|skipped| STANDARD.encode(&role[skipped..skipped + 12])));
    let imds = Imds::at(aws.simulator.ready["imds"][WORKER].as_str().unwrap()).unwrap();
    let mut printed = Vec::new();
    for instance in [WORKER, STRANGER, WORKER] {
        let credentials = imds.session().await.unwrap().identity_credentials().await.unwrap();
        needles.push(credentials.secret_access_key.clone());
        needles.push(credentials.session_token[..40].to_owned());
        printed.push(format!("{:?}", aws.join(&server, instance)));
    }
    // A proof that is refused, and answers that cannot be read, are told of without themselves.
    for fault in ["html", "other_action", "error_with_200", "throttled"] {
        for service in ["sts", "ec2"] {
            put_fault(&aws, service, fault);
            printed.push(format!("{:?}", aws.join_once(&server, WORKER)));
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(1200));
    printed.push(server.log());
    printed.push(fs::read_to_string(&copy).unwrap());
    printed.push(get(&format!("http://{}", server.said("diagnostics")), "/metrics"));
    assert!(printed.iter().any(|text| text.contains("TRACE")), "the log is at its lowest level");
    for text in &printed {
        for needle in &needles {
            assert!(!text.contains(needle.as_str()), "{needle} stands in\n{text}");
        }
    }
}

// The SDK writes whole requests at its lowest level, with the server's own session token in a header.
#[test]
fn the_servers_own_session_token_is_not_logged() {
    let aws = Aws::new();
    let directory = aws.directory.path();
    let mut command = aws.real_server_command();
    command
        .args(["--log", "trace"])
        .env("AWS_ACCESS_KEY_ID", "ASIARTX3GSDSTI32LOY6")
        .env("AWS_SECRET_ACCESS_KEY", "canary-secret-key-0123456789")
        .env("AWS_SESSION_TOKEN", "canary-session-token-0123456789");
    let server = Process::start(command, &directory.join("server.log"));
    // These credentials are nobody's, so the role is not assumed; an outage, and no denial.
    assert_eq!(aws.join_once(&server, WORKER).failure(), (3, "EC2_UNAVAILABLE"));
    let log = server.log();
    assert!(log.contains("TRACE") && aws.calls()["sts"]["AssumeRole"] == 1, "{log}");
    assert!(!log.contains("canary"), "{log}");
}

fn put_fault(aws: &Aws, service: &str, fault: &str) {
    let body = serde_json::json!({"service": service, "fault": fault, "count": 1}).to_string();
    let base = aws.simulator.said("sts").strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(base).unwrap();
    write!(
        stream,
        "PUT /_sim/faults HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

/// Counts who connects, and says nothing.
fn trap() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let visits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&visits);
    std::thread::spawn(move || {
        for _ in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, visits)
}

// T75, T48: endpoints stand in the configuration or nowhere; the environment names a trap.
#[test]
fn the_environment_does_not_say_where_aws_is() {
    let aws = Aws::new();
    let directory = aws.directory.path();
    let credentials = fs::read(directory.join("sim/server-credentials.json")).unwrap();
    let credentials: Value = serde_json::from_slice(&credentials).unwrap();
    let (trap, visits) = trap();

    let mut command = aws.real_server_command();
    command
        .env("AWS_ACCESS_KEY_ID", credentials["access_key_id"].as_str().unwrap())
        .env("AWS_SECRET_ACCESS_KEY", credentials["secret_access_key"].as_str().unwrap())
        .env("SSL_CERT_FILE", directory.join("nothing.pem"))
        .env("AWS_CA_BUNDLE", directory.join("nothing.pem"));
    for name in [
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_STS",
        "AWS_ENDPOINT_URL_EC2",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "http_proxy",
        "https_proxy",
        "ALL_PROXY",
    ] {
        command.env(name, &trap);
    }
    let server = Process::start(command, &directory.join("server.log"));
    assert_eq!(aws.join(&server, WORKER).yes()["instance_id"], WORKER);
    assert_eq!(visits.load(Ordering::SeqCst), 0, "somebody went where the environment said");
    let ready = get(&format!("http://{}", server.said("diagnostics")), "/readyz");
    assert!(ready.contains("insecure_endpoints"), "{ready}");
    let log = server.log();
    for word in ["INSECURE", "AWS_ENDPOINT_URL_STS", "HTTPS_PROXY", "SSL_CERT_FILE"] {
        assert!(log.contains(word), "{word} is not in\n{log}");
    }
}

/// A TLS server on this machine that counts who finishes the handshake; the PEM of its root.
fn tls_trap() -> (String, Arc<AtomicUsize>, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(params, ca_key)).unwrap();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let visits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&visits);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let shaken = tls.complete_io(&mut stream);
            // With TLS 1.3 the client's word comes with its first bytes.
            if shaken.is_ok() && tls.complete_io(&mut stream).is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    (url, visits, root)
}

// T75, S6: whoever may set a variable does not say who AWS is; `aws.tls_roots` does.
#[test]
fn the_environment_does_not_say_who_aws_is() {
    let aws = Aws::new();
    let directory = aws.directory.path();
    let (url, visits, root) = tls_trap();
    let root_file = directory.join("root.pem");
    fs::write(&root_file, root).unwrap();
    for is_configured in [false, true] {
        let mut command = aws.real_server_command();
        let config = directory.join("server.toml");
        let text = fs::read_to_string(&config).unwrap();
        let text = text.replace(aws.simulator.said("sts"), &url);
        let roots = format!("[aws]\ntls_roots = '{}'\n", root_file.display());
        let text = if is_configured { text.replace("[aws]\n", &roots) } else { text };
        fs::write(&config, text).unwrap();
        command.env("SSL_CERT_FILE", &root_file).env("AWS_CA_BUNDLE", &root_file);
        let server = Process::start(command, &directory.join("server.log"));
        assert_eq!(aws.join_once(&server, WORKER).failure(), (3, "STS_UNAVAILABLE"));
        assert_eq!(visits.load(Ordering::SeqCst) > 0, is_configured);
    }
}

// Plain http without the switch, and a simulation that is not on this machine: no server.
#[test]
fn an_endpoint_that_anybody_could_answer_for_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    write_policy(directory.path(), POLICY);
    let config = directory.path().join("server.toml");
    for text in [
        "[aws.endpoints]\nsts = 'http://127.0.0.1:1'\n",
        "[aws]\ninsecure_endpoints = true\n[aws.endpoints]\nsts = 'https://u:p@host'\n",
        "[aws]\nproxy = 'http://user:password@proxy:1'\n",
        "[aws]\ntls_roots = '/nonexistent'\n",
    ] {
        fs::write(&config, text).unwrap();
        let mut command = mortal(Path::new(MUSTER));
        command.args(["server", "--output", "json", "--trust-domain", "prod.example", "--config"]);
        command.arg(&config);
        on_loopback(&mut command, directory.path());
        assert_eq!(Answer::of(&mut command).failure(), (2, "CONFIGURATION_INVALID"), "{text}");
    }
}
