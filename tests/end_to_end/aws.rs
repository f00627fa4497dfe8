//! Nodes that prove themselves and instances that are looked at, through the real processes: in a
//! simulation, and with endpoints of the configuration in place of AWS's.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    Answer, MUSTER, Process, STRANGER, WORKER, join_command, local_command, mortal, on_loopback,
    server_command, write_policy,
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

    fn join(&self, server: &Process, instance: &str) -> Answer {
        let endpoint = self.simulator.ready["imds"][instance].as_str().unwrap();
        let state = self.directory.path().join(format!("state-{instance}"));
        let mut command = join_command(endpoint, &state, "20s");
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
    let config = directory.join("server.toml");
    let url = aws.simulator.said("sts");
    let text = format!(
        "[aws]\ncertificates_dir = {:?}\ninsecure_endpoints = true\n\
         [aws.endpoints]\nsts = {url:?}\nec2 = {url:?}\n",
        directory.join("sim/certificates"),
    );
    fs::write(&config, text).unwrap();
    let credentials = fs::read(directory.join("sim/server-credentials.json")).unwrap();
    let credentials: Value = serde_json::from_slice(&credentials).unwrap();
    let (trap, visits) = trap();

    let mut command = mortal(Path::new(MUSTER));
    command.arg("server").arg("--config").arg(&config).args(["--trust-domain", "prod.example"]);
    on_loopback(&mut command, directory);
    command
        .env("AWS_ACCESS_KEY_ID", credentials["access_key_id"].as_str().unwrap())
        .env("AWS_SECRET_ACCESS_KEY", credentials["secret_access_key"].as_str().unwrap())
        .env("AWS_EC2_METADATA_DISABLED", "true")
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
    let log = server.log();
    for word in ["INSECURE", "AWS_ENDPOINT_URL_STS", "HTTPS_PROXY", "SSL_CERT_FILE"] {
        assert!(log.contains(word), "{word} is not in\n{log}");
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
