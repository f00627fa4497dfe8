//! What a server does not start with, and what it says loudly when it does.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::{
    Answer, MUSTER, POLICY, Process, Site, WORKER, mortal, on_loopback, server_command, simulator,
    write_policy,
};

/// A server command that is expected to end by itself.
fn refused(mut command: Command) -> Answer {
    Answer::of(command.args(["--output", "json"]))
}

/// A simulator's directory and this policy text, and no server yet.
fn prepared(policy: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    drop(simulator(directory.path()));
    write_policy(directory.path(), policy);
    directory
}

fn server(directory: &Path) -> Command {
    server_command(mortal(Path::new(MUSTER)), directory)
}

#[test]
fn a_broken_policy_set_stops_the_start() {
    let directory = prepared(&POLICY.replace("roles: [node]", "roles: []"));

    let answer = refused(server(directory.path()));

    assert_eq!(answer.failure(), (2, "POLICY_SET_INVALID"));
    let message = answer.values[0]["error"]["message"].as_str().unwrap();
    assert!(message.contains("policies.yaml:7:"), "where it is: {message}");
}

#[test]
fn one_broken_policy_is_enough() {
    let directory = prepared(POLICY);
    fs::write(directory.path().join("policies/other.yaml"), "kind: JoinPolicy\n").unwrap();
    assert_eq!(refused(server(directory.path())).failure(), (2, "POLICY_SET_INVALID"));
}

#[test]
fn with_no_policy_nobody_can_join_and_the_server_says_so() {
    let site = Site::with(|command| {
        let data = command.get_args().skip_while(|one| *one != "--policies").nth(1).unwrap();
        fs::remove_file(Path::new(data).join("policies.yaml")).unwrap();
        command
    });

    assert!(site.server.log().contains("nobody can join"), "{}", site.server.log());
    assert_eq!(site.local(&["policy", "status"]).yes()["policies"], 0);
    assert_eq!(site.join(WORKER, "node").failure(), (1, "NOT_ADMITTED"));
}

#[test]
fn simulation_and_reality_never_share_a_data_directory() {
    let directory = prepared(POLICY);
    let log = directory.path().join("server.log");
    drop(Process::start(server(directory.path()), &log));
    let mut real = mortal(Path::new(MUSTER));
    real.args(["server", "--trust-domain", "simulation.internal"]);
    on_loopback(&mut real, directory.path());
    assert_eq!(refused(real).failure(), (2, "DATA_DIRECTORY_UNUSABLE"));

    let directory = prepared(POLICY);
    let log = directory.path().join("server.log");
    let mut real = mortal(Path::new(MUSTER));
    real.args(["server", "--trust-domain", "prod.example.org"]);
    on_loopback(&mut real, directory.path());
    drop(Process::start(real, &log));
    assert_eq!(refused(server(directory.path())).failure(), (2, "DATA_DIRECTORY_UNUSABLE"));
}

#[test]
fn a_simulation_says_that_it_is_one() {
    let site = Site::new();
    assert!(site.server.log().contains("*** SIMULATION"), "{}", site.server.log());
}

#[test]
fn the_example_of_a_configuration_is_one() {
    let directory = prepared(POLICY);
    let example = Command::new(MUSTER).args(["server", "config", "--example"]).output().unwrap();
    let file = directory.path().join("server.toml");
    fs::write(&file, example.stdout).unwrap();
    let mut command = server(directory.path());
    command.arg("--config").arg(&file);

    drop(Process::start(command, &directory.path().join("server.log")));

    fs::write(&file, "trust_domian = 'prod.example.org'\n").unwrap();
    let mut command = server(directory.path());
    command.arg("--config").arg(&file);
    assert_eq!(refused(command).failure(), (2, "CONFIGURATION_INVALID"));
}

#[test]
fn authorities_that_are_gone_are_not_made_anew() {
    let directory = prepared(POLICY);
    let log = directory.path().join("server.log");
    drop(Process::start(server(directory.path()), &log));
    fs::rename(directory.path().join("data/ca"), directory.path().join("kept")).unwrap();

    assert_eq!(refused(server(directory.path())).failure(), (2, "DATA_DIRECTORY_UNUSABLE"));

    fs::remove_dir(directory.path().join("data/ca")).unwrap();
    fs::rename(directory.path().join("kept"), directory.path().join("data/ca")).unwrap();
    drop(Process::start(server(directory.path()), &log));
}
