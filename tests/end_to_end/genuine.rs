//! A document that AWS signed, joining a server with AWS's certificates, at the time when it was
//! made: acceptance 3.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{
    Answer, MUSTER, Process, is_missing, join_command, local_command, mortal, on_loopback, skip,
    write_policy,
};

const INSTANCE: &str = "i-078517ca8a70a1dde";
const POLICY: &str = r#"
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: web, description: "the account of the document", owner: "platform"}
spec:
  method: ec2
  roles: [node]
  allow:
    - {name: genuine, accounts: ["278576220453"], partition: aws, regions: [us-west-2]}
  ec2: {fresh_proof: not_required, document_ttl: 30m, look_up: none}
  certificate: {ttl: 12h}
"#;

/// The genuine document and the library that fakes the time, or nothing where the test is to be
/// skipped; never nothing on the CI.
fn prerequisites() -> Option<(String, String)> {
    let Some(directory) = std::env::var_os("MUSTER_GENUINE_DOCUMENTS").map(PathBuf::from) else {
        skip("MUSTER_GENUINE_DOCUMENTS names no directory of genuine documents");
        return None;
    };
    if is_missing("faketime") {
        return None;
    }
    // The wrapper would stay between us and the processes, so only its library is used.
    let asked = Command::new("faketime").args(["-m", "now", "printenv", "LD_PRELOAD"]).output();
    let library = asked.unwrap();
    let library = String::from_utf8(library.stdout).unwrap().trim().to_owned();
    let document = fs::read_to_string(directory.join("iid-us-west-2-2021.rsa2048.b64")).unwrap();
    Some((document, library))
}

/// A process whose clock goes on from a time of the past; its timers do not notice.
fn at(time: &str, library: &str) -> Command {
    let mut command = mortal(Path::new(MUSTER));
    command.env("LD_PRELOAD", library).env("FAKETIME", format!("@{time}"));
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("TZ", "UTC");
    command
}

struct World {
    directory: TempDir,
    server: Process,
}

/// A new server of that time.
fn server_at(time: &str, library: &str) -> World {
    let directory = tempfile::tempdir().unwrap();
    write_policy(directory.path(), POLICY);
    let mut command = at(time, library);
    command.args(["server", "--trust-domain", "prod.example.org"]);
    on_loopback(&mut command, directory.path());
    let server = Process::start(command, &directory.path().join("server.log"));
    World { directory, server }
}

/// A new node of that time.
fn join_at(time: &str, library: &str, world: &World, imds: SocketAddr) -> Answer {
    let state = world.directory.path().join("node");
    let usual = join_command(&format!("http://{imds}"), &state, "30s");
    let mut command = at(time, library);
    command.args(usual.get_args().skip_while(|one| *one != "join"));
    command.args(["--server", world.server.said("join"), "--pin", world.server.said("pin")]);
    Answer::of(&mut command)
}

#[test]
fn a_genuine_document_joins_when_it_is_young_and_is_refused_an_hour_later() {
    let Some((document, library)) = prerequisites() else { return };
    let imds = metadata_service(document);

    let early = "2021-09-03 21:27:00";
    let world = server_at(early, &library);
    let joined = join_at(early, &library, &world, imds);
    let joined = joined.yes();
    assert_eq!(joined["instance_id"], INSTANCE);
    assert_eq!(joined["account_id"], "278576220453");
    assert!(joined["not_before"].as_str().unwrap().starts_with("2021-09-03T21:2"), "{joined}");
    assert!(joined["not_after"].as_str().unwrap().starts_with("2021-09-04T09:2"), "{joined}");

    let late = "2021-09-03 22:27:00";
    let world = server_at(late, &library);
    let refused = join_at(late, &library, &world, imds);
    assert_eq!(refused.failure(), (1, "NOT_ADMITTED"));
    let error = &refused.values[0]["error"];
    let hint = error["hint"].as_str().unwrap();
    assert!(hint.contains("old"), "the node is told the age of its document: {hint}");
    let id = error["correlation_id"].as_str().unwrap();
    let data = world.directory.path().join("data");
    let story = Answer::of(&mut local_command(Command::new(MUSTER), &["audit", "show", id], &data));
    assert_eq!(story.yes()["code"], "DOCUMENT_TOO_OLD");
    assert_eq!(story.yes()["records"][0]["instance_id"], INSTANCE);
}

/// A metadata service that has one document and knows just enough HTTP.
fn metadata_service(document: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _gone = answer(&stream.unwrap(), &document);
        }
    });
    address
}

fn answer(mut stream: &TcpStream, document: &str) -> std::io::Result<()> {
    const TOKEN: &str = "the-session";
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let headers: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .map(|line| line.to_lowercase())
        .collect();
    let may_read = headers.contains(&format!("x-aws-ec2-metadata-token: {TOKEN}"));
    let path = request.strip_suffix(" HTTP/1.1").unwrap_or_default();
    let (status, body) = match path {
        "PUT /latest/api/token" => ("200 OK", TOKEN),
        _ if !may_read => ("401 Unauthorized", ""),
        "GET /latest/meta-data/instance-id" => ("200 OK", INSTANCE),
        "GET /latest/dynamic/instance-identity/rsa2048" => ("200 OK", document),
        _ => ("404 Not Found", ""),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
