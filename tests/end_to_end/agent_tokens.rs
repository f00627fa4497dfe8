//! Nodes that join with a token: from a file, SSM or standard input, after a denial or at once.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};

use muster::aws::{AwsHttp, Endpoints, OwnCredentials, PutParameter, Service, Ssm, SsmAccess};
use muster::clock::Clock;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::agent::{await_status, stop};
use crate::harness::{Answer, MUSTER, POLICY, PROFILED, Process, Site, WORKER, mortal};
use crate::tokens::TOKEN_POLICY;

const WRONG_PIN: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
const FOLDER: &str = "/muster/simulation.internal/web";

/// Makes a token; its text, and a file with it.
fn token(site: &Site, more: &[&str]) -> (String, PathBuf) {
    let added = site.local(&[&["tokens", "add", "--policy", "web"], more].concat());
    let text = added.yes()["token"].as_str().unwrap().to_owned();
    let path = site.path(added.yes()["name"].as_str().unwrap());
    fs::write(&path, &text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    (text, path)
}

/// `muster join` or `muster agent` of a machine without a metadata service.
fn node(site: &Site, command: &str, state: &str) -> Command {
    let mut node = mortal(Path::new(MUSTER));
    node.arg(command).arg("--state").arg(site.path(state));
    node.args(["--imds-endpoint", "http://127.0.0.1:1"]);
    if command == "join" {
        node.args(["--output", "json", "--timeout", "60s"]);
    }
    node
}

fn to_server<'a>(site: &Site, node: &'a mut Command) -> &'a mut Command {
    node.args(["--server", site.address(), "--pin", site.pin()])
}

/// With SSM of the simulator, and credentials that it takes.
fn with_ssm<'a>(site: &Site, node: &'a mut Command) -> &'a mut Command {
    let text = fs::read_to_string(site.path("sim/server-credentials.json")).unwrap();
    let own: Value = serde_json::from_str(&text).unwrap();
    node.env("AWS_ACCESS_KEY_ID", own["access_key_id"].as_str().unwrap());
    node.env("AWS_SECRET_ACCESS_KEY", own["secret_access_key"].as_str().unwrap());
    if let Some(token) = own["session_token"].as_str() {
        node.env("AWS_SESSION_TOKEN", token);
    }
    let endpoint = site.simulator.said("ssm");
    node.args(["--ssm-region", "us-west-2", "--ssm-endpoint", endpoint, "--ssm-insecure-endpoint"])
}

/// Writes parameters as the publisher of this site does.
async fn publish(site: &Site, folder: &str, token: &str) {
    let (server, pin) = (site.address(), site.pin());
    let values = [("token", token), ("server", server), ("pin", pin), ("policy", "web")];
    write(site, folder, &values).await;
}

async fn write(site: &Site, folder: &str, values: &[(&str, &str)]) {
    let mut endpoints = Endpoints::new(false);
    endpoints.replace(Service::Ssm, None, site.simulator.said("ssm"), true).unwrap();
    let own = OwnCredentials::of_file(&site.path("sim/server-credentials.json")).unwrap();
    let http = AwsHttp::plain().unwrap();
    let ssm = Ssm::new(http, endpoints, own, Clock::system(), std::sync::Arc::default());
    let access = SsmAccess { region: "us-west-2".parse().unwrap(), role: None };
    let tags = BTreeMap::new();
    for (name, value) in values {
        let parameter = PutParameter {
            name: &format!("{folder}/{name}"),
            value,
            is_secure: *name == "token",
            kms_key: None,
            tags: &tags,
            description: "",
        };
        // Boxed: the SDK's futures are nested so deeply that a test around them has no layout.
        let put: Pin<Box<dyn Future<Output = _>>> = Box::pin(ssm.put(&access, &parameter));
        put.await.unwrap();
    }
}

/// What the audit log says of joins and renewals, the oldest first.
fn attempts(site: &Site) -> Vec<Value> {
    let mut records = site.local(&["audit", "ls"]).values;
    records.retain(|record| !record["detail"]["boot"].is_null());
    records.sort_by_key(|record| record["seq"].as_u64());
    records
}

/// Everything in these files, and in all files below a directory.
fn contents(path: &Path) -> Vec<u8> {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap();
        return entries.flat_map(|entry| contents(&entry.unwrap().path())).collect();
    }
    fs::read(path).unwrap_or_default()
}

#[test]
fn a_node_joins_with_a_token_of_a_file_and_renews_without_it() {
    let site = Site::under(TOKEN_POLICY);
    let (secret, file) = token(&site, &[]);
    let mut command = node(&site, "agent", "node");
    to_server(&site, &mut command).args(["--log", "trace", "--token-file"]).arg(&file);
    let agent = Process::start(command, &site.path("node.log"));
    assert_eq!(agent.ready["method"], "token");
    let first = agent.ready["serial"].clone();

    // I10: the secret is nowhere but in its file.
    let digits = &secret[secret.len() - 72..];
    let process = PathBuf::from(format!("/proc/{}", agent.id()));
    let (logs, data) = ([agent.log(), site.server.log()].concat(), contents(&site.path("data")));
    assert!(logs.contains("TRACE"), "{logs}");
    for (place, text) in [
        ("the logs", logs.into_bytes()),
        ("the arguments", fs::read(process.join("cmdline")).unwrap()),
        ("the environment", fs::read(process.join("environ")).unwrap()),
        ("the state directory", contents(&site.path("node"))),
        ("the server's data", data),
    ] {
        assert!(!String::from_utf8_lossy(&text).contains(digits), "the secret is in {place}");
    }

    // The token is gone, and used up: a renewal needs none.
    fs::remove_file(&file).unwrap();
    agent.signal(Signal::HUP);
    let status = await_status(&site, "node", |status| status["serial"] != first);
    assert_eq!((&status["method"], &status["last_error"]), (&json!("token"), &Value::Null));
    let attempts = attempts(&site);
    assert_eq!(attempts.len(), 2, "{attempts:#?}");
    let boot = attempts[0]["detail"]["boot"].as_str().unwrap();
    assert!(boot.len() == 16 && attempts[1]["detail"]["boot"] == boot, "one boot: {attempts:#?}");
    stop(agent);
}

// A node that was off too long: its key lets it back in as often as the policy says, and then a token.
#[test]
fn a_node_comes_back_with_its_key_and_then_with_a_new_token() {
    let settings = "  token: {come_back: {within: 1h, limit: 1}}\n  certificate: {ttl: 6s}\n";
    let site = Site::under(&format!("{TOKEN_POLICY}{settings}"));
    let (_, file) = token(&site, &[]);
    let start = || {
        let mut command = node(&site, "agent", "node");
        to_server(&site, &mut command).arg("--token-file").arg(&file);
        Process::launch(command, &site.path("node.log"))
    };
    let has_ended = || await_status(&site, "node", |status| status["joined"] == false);
    let is_joined = || await_status(&site, "node", |status| status["joined"] == true);
    let mut agent = start();
    let first = is_joined();
    agent.kill();
    fs::remove_file(&file).unwrap();

    has_ended();
    let mut agent = start();
    let second = is_joined();
    assert_eq!(first["node_id"], second["node_id"], "it is who it was");
    agent.kill();

    has_ended();
    let agent = start();
    let code = |status: &Value| status["last_error"]["code"].clone();
    let status = await_status(&site, "node", |it| code(it) == "TOKEN_SOURCE_DENIED");
    assert_eq!(status["last_error"]["method"], "token");
    let earlier = &status["last_error"]["earlier"];
    assert_eq!(earlier[0]["method"], "token (key alone)", "{earlier}");
    assert_eq!((earlier[0]["code"].as_str(), earlier[1].is_null()), (Some("NOT_ADMITTED"), true));
    let (secret, _) = token(&site, &[]);
    fs::write(&file, secret).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    agent.signal(Signal::HUP);
    is_joined();
    stop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_document_is_followed_by_a_token_of_ssm() {
    // A policy that knows the account, so that its refusals are kept, and does not admit the worker.
    let elsewhere =
        POLICY.replace("name: web,", "name: machines,").replace("us-west-2", "eu-west-1");
    let site = Site::under(&format!("{TOKEN_POLICY}---{elsewhere}"));
    let (secret, _) = token(&site, &[]);
    publish(&site, FOLDER, &secret).await;
    let mut command = mortal(Path::new(MUSTER));
    // The policy is that of `ec2`; the token knows its own.
    command.args(["agent", "--method", "ec2", "--method", "token", "--policy", "machines"]);
    command.args(["--imds-endpoint", site.simulator.ready["imds"][WORKER].as_str().unwrap()]);
    command.arg("--state").arg(site.path("node"));
    to_server(&site, &mut command).args(["--token-source", &format!("ssm:{FOLDER}/token")]);
    with_ssm(&site, &mut command);
    let agent = Process::start(command, &site.path("node.log"));
    assert_eq!((&agent.ready["method"], &agent.ready["policy"]), (&json!("token"), &json!("web")));
    let attempts = attempts(&site);
    let seen: Vec<_> =
        attempts.iter().map(|it| (&it["detail"]["method"], &it["outcome"])).collect();
    assert_eq!(seen, [(&json!("ec2"), &json!("refused")), (&json!("token"), &json!("admitted"))]);
    assert_eq!(attempts[0]["detail"]["boot"], attempts[1]["detail"]["boot"], "linked by the boot");
    agent.says("the next method of the list is tried");
    stop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_learns_all_that_it_needs_from_ssm() {
    let site = Site::under(TOKEN_POLICY);
    let (secret, _) = token(&site, &["--max-uses", "3"]);
    publish(&site, FOLDER, &secret).await;
    for (state, path) in [("a", FOLDER), ("b", "/muster/simulation.internal")] {
        let mut command = node(&site, "join", state);
        with_ssm(&site, &mut command).args(["--from-ssm", path]);
        let joined = Answer::of(&mut command);
        assert_eq!(
            (&joined.yes()["method"], &joined.yes()["policy"]),
            (&json!("token"), &json!("web"))
        );
    }
    // Two policies, and none is guessed.
    publish(&site, "/muster/simulation.internal/db", &secret).await;
    let mut command = node(&site, "join", "c");
    with_ssm(&site, &mut command).args(["--from-ssm", "/muster/simulation.internal"]);
    let refused = Answer::of(&mut command);
    assert_eq!(refused.failure(), (1, "TOKEN_SOURCE_DENIED"));
    let message = refused.values[0]["error"]["message"].as_str().unwrap();
    assert!(message.contains("/db") && message.contains("/web"), "{message}");
}

// B2: whoever can write the parameters decides for new nodes, and cannot move one that has joined.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_joined_goes_to_no_other_server_whatever_ssm_says() {
    let (site, evil) = (Site::under(TOKEN_POLICY), Site::under(TOKEN_POLICY));
    let (secret, _) = token(&site, &["--max-uses", "2"]);
    publish(&site, FOLDER, &secret).await;
    let join = |state: &str| {
        let mut command = node(&site, "join", state);
        Answer::of(with_ssm(&site, &mut command).args(["--from-ssm", FOLDER]))
    };
    let serial = join("node").yes()["serial"].clone();

    write(&site, FOLDER, &[("server", evil.address()), ("pin", evil.pin())]).await;
    assert_eq!(join("node").failure(), (1, "SERVER_UNTRUSTED"));
    assert_eq!(attempts(&evil), Vec::<Value>::new());
    // A new node has only SSM to believe. Even so the other server learns nothing that it could use.
    assert_eq!(join("new").failure(), (1, "TOKEN_UNKNOWN"));
    assert!(!evil.server.log().contains(&secret[secret.len() - 72..]));
    let mut command = node(&site, "join", "wary");
    with_ssm(&site, &mut command).args(["--from-ssm", FOLDER, "--pin", site.pin()]);
    assert_eq!(Answer::of(&mut command).failure(), (1, "SERVER_UNTRUSTED"), "its own pin holds");

    // The right server again, and a pin that no longer says so: the state directory knows it.
    write(&site, FOLDER, &[("server", site.address()), ("pin", WRONG_PIN)]).await;
    assert_eq!(join("node").yes()["serial"], serial);
    assert_eq!(join("other").failure(), (1, "SERVER_UNTRUSTED"));
}

// As in a fleet: the role of the instance profile reads SSM, in the instance's own region.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_reads_ssm_with_the_role_of_its_profile() {
    let site = Site::under(TOKEN_POLICY);
    let (secret, _) = token(&site, &[]);
    publish(&site, FOLDER, &secret).await;
    let join = |instance: &str, state: &str| {
        let imds = site.simulator.ready["imds"][instance].as_str().unwrap();
        let mut command = mortal(Path::new(MUSTER));
        command.args(["join", "--output", "json", "--timeout", "60s", "--from-ssm", FOLDER]);
        command.args(["--ssm-endpoint", site.simulator.said("ssm"), "--ssm-insecure-endpoint"]);
        command.args(["--imds-endpoint", imds, "--state"]).arg(site.path(state));
        Answer::of(command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", imds))
    };
    assert_eq!(join(PROFILED, "node").yes()["method"], "token");
    // One that has no role may not read, and AWS's word for it is final.
    assert_eq!(join(WORKER, "other").failure(), (1, "TOKEN_SOURCE_DENIED"));
}

// Throttling and silence are outages: they are tried again, from the top of the list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_ssm_is_asked_again() {
    let site = Site::under(TOKEN_POLICY);
    let (secret, _) = token(&site, &[]);
    publish(&site, FOLDER, &secret).await;
    put_fault(&site, &json!({"service": "ssm", "fault": "throttled", "count": 2}));
    let mut command = node(&site, "join", "node");
    to_server(&site, &mut command).args(["--token-source", &format!("ssm:{FOLDER}/token")]);
    Answer::of(with_ssm(&site, &mut command)).yes();
}

fn put_fault(site: &Site, fault: &Value) {
    let body = fault.to_string();
    let base = site.simulator.said("sts").strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(base).unwrap();
    let head = "PUT /_sim/faults HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let length = body.len();
    write!(
        stream,
        "{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

// B2: what is wrong with the source shows only once the server is authenticated.
#[test]
fn the_source_is_not_opened_for_a_server_that_is_not_trusted() {
    let site = Site::under(TOKEN_POLICY);
    let (_, open) = token(&site, &[]);
    fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
    let garbage = site.path("garbage");
    fs::write(&garbage, "canary-of-garbage").unwrap();
    fs::set_permissions(&garbage, Permissions::from_mode(0o600)).unwrap();
    let absent = site.path("absent");
    for (file, code) in [
        (&absent, "TOKEN_SOURCE_DENIED"),
        (&open, "TOKEN_SOURCE_DENIED"),
        (&garbage, "TOKEN_MALFORMED"),
    ] {
        for (pin, expected) in [(WRONG_PIN, "SERVER_UNTRUSTED"), (site.pin(), code)] {
            let mut command = node(&site, "join", "node");
            command.args(["--server", site.address(), "--pin", pin, "--token-file"]).arg(file);
            let answer = Answer::of(&mut command);
            assert_eq!(answer.failure(), (1, expected), "{}", file.display());
            assert!(!answer.values[0].to_string().contains("canary"), "{}", answer.values[0]);
        }
    }
    assert_eq!(attempts(&site), Vec::<Value>::new(), "the server has heard of none of it");
}

// T58: the source of an agent that is to use ec2 alone is not opened, whatever the server answers.
#[test]
fn a_node_of_ec2_alone_never_opens_its_token() {
    let site = Site::under(TOKEN_POLICY);
    let (_, file) = token(&site, &[]);
    let join = |methods: &[&str]| {
        let mut command = site.join_command(WORKER, "node");
        to_server(&site, &mut command).args(methods).arg("--token-file");
        Answer::of(command.arg(&file))
    };
    let (ec2, both) = (&["--method", "ec2"][..], &["--method", "ec2", "--method", "token"][..]);
    // A file that others can read is refused as soon as it is opened, so opening it would show.
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(join(ec2).failure(), (1, "NOT_ADMITTED"));
    assert_eq!(join(both).failure(), (1, "TOKEN_SOURCE_DENIED"));
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(join(ec2).failure(), (1, "NOT_ADMITTED"));
    assert_eq!(join(both).yes()["method"], "token");
}

#[test]
fn a_token_comes_on_standard_input_and_never_as_an_argument() {
    let site = Site::under(TOKEN_POLICY);
    let (secret, _) = token(&site, &[]);
    let mut command = node(&site, "join", "node");
    to_server(&site, &mut command).args(["--token-source", "-"]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{secret}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let mut command = node(&site, "join", "other");
    to_server(&site, &mut command).args(["--token-source", &secret]);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("this is a token") && !said.contains(&secret), "{said}");
}
