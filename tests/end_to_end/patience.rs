//! A node that finds no server waits for one, as long as it was told to.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{MUSTER, Process, Site, WORKER, mortal, server_command};

/// The usual server, on this address instead of any free port.
fn server_on(address: &str, directory: &Path) -> Command {
    let usual = server_command(mortal(Path::new(MUSTER)), directory);
    let mut command = Command::new(usual.get_program());
    let mut is_listen = false;
    for argument in usual.get_args() {
        if is_listen {
            command.arg(address)
        } else {
            command.arg(argument)
        };
        is_listen = argument == "--listen";
    }
    command
}

#[test]
fn a_node_joins_when_its_server_comes_back() {
    let Site { server, simulator, directory } = Site::new();
    let (address, pin) = (server.said("join").to_owned(), server.said("pin").to_owned());
    drop(server);

    let endpoint = simulator.ready["imds"][WORKER].as_str().unwrap();
    let mut node = mortal(Path::new(MUSTER))
        .args(["join", "--policy", "web", "--output", "json", "--timeout", "60s"])
        .args(["--server", &address, "--pin", &pin, "--imds-endpoint", endpoint, "--state"])
        .arg(directory.path().join("node"))
        .stdout(File::create(directory.path().join("answer")).unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It says that it waits, and why.
    let mut waiting = String::new();
    BufReader::new(node.stderr.take().unwrap()).read_line(&mut waiting).unwrap();
    assert!(
        waiting.contains("SERVER_UNREACHABLE") && waiting.contains("trying again"),
        "{waiting}"
    );

    let log = directory.path().join("again.log");
    let again = Process::start(server_on(&address, directory.path()), &log);
    assert_eq!(again.said("join"), address);
    assert!(node.wait().unwrap().success());
    let answer = std::fs::read_to_string(directory.path().join("answer")).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["instance_id"], WORKER);
}
