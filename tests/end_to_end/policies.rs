//! What a server does not start with, and what it says loudly when it does.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{
    Answer, MUSTER, POLICY, Process, Site, WORKER, await_that, mortal, on_loopback, server_command,
    simulator, write_policy,
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

/// Another set than `POLICY`, and no less good.
fn another() -> String {
    POLICY.replace("name: web,", "name: web2,")
}

// Part 5: what was in force at some time can be read again, and "is what runs what I reviewed" is one
// command.
#[test]
fn every_set_that_was_in_force_can_be_shown_beside_the_server_and_without_it() {
    let mut site = Site::new();
    let first = site.local(&["policy", "status"]).yes()["hash"].as_str().unwrap().to_owned();
    write_policy(site.directory.path(), &another());
    // Two starts within one second have no order.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    site.restart(|command| command);
    let second = site.local(&["policy", "status"]).yes()["hash"].as_str().unwrap().to_owned();
    assert_ne!(first, second);

    for is_running in [true, false] {
        if !is_running {
            site.server.kill();
        }
        let listed = site.local(&["policy", "show"]);
        let sets = listed.yes()["sets"].as_array().unwrap();
        let hashes: Vec<_> = sets.iter().map(|set| set["hash"].as_str().unwrap()).collect();
        assert_eq!(hashes, [first.as_str(), second.as_str()], "the newest last");
        assert!(sets.iter().all(|set| !set["loaded_at"].as_array().unwrap().is_empty()));

        let shown = site.local(&["policy", "show", "--hash", &first[..8]]);
        let (set, files) = (shown.yes(), &shown.yes()["files"]);
        assert_eq!(set["hash"], first.as_str());
        assert_eq!(files[0]["name"], "policies.yaml");
        assert_eq!(files[0]["text"], POLICY);
    }
    let unknown = site.local(&["policy", "show", "--hash", "0123456789abcdef"]);
    assert_eq!(unknown.failure(), (1, "NOT_FOUND"));

    // The same files give the same hash again.
    let out = site.path("then");
    site.local(&["policy", "show", "--hash", &first, "--out", out.to_str().unwrap()]).yes();
    let checked =
        Answer::of(Command::new(MUSTER).args(["policy", "check", "--output", "json"]).arg(&out));
    assert_eq!(checked.yes()["hash"], first.as_str());
}

#[test]
fn text_that_somebody_changed_in_the_store_is_not_shown() {
    let mut site = Site::new();
    let hash = site.local(&["policy", "status"]).yes()["hash"].as_str().unwrap().to_owned();
    site.server.kill();
    let store = rusqlite::Connection::open(site.path("data/muster.db")).unwrap();
    let table = "UPDATE entries SET value = CAST(replace(CAST(value AS TEXT), 'roles: [node]', \
                 'roles: [mine]') AS BLOB) WHERE key LIKE 'policy-set/%/000000'";
    assert_eq!(store.execute(table, []).unwrap(), 1);
    drop(store);

    let shown = site.local(&["policy", "show", "--hash", &hash]);
    assert_eq!(shown.failure(), (1, "POLICY_SET_ALTERED"));
}

#[test]
fn what_runs_is_what_was_reviewed_or_the_exit_says_no() {
    let site = Site::new();
    let reviewed = tempfile::tempdir().unwrap();
    fs::write(reviewed.path().join("policies.yaml"), POLICY).unwrap();
    let path = reviewed.path().to_str().unwrap();
    let status = || site.local(&["policy", "status", "--reviewed", path]);

    let same = status();
    assert_eq!(same.yes()["reviewed"]["same"], true);
    assert_eq!(same.yes()["reviewed"]["hash"], same.yes()["hash"]);

    fs::write(reviewed.path().join("policies.yaml"), another()).unwrap();
    let other = status();
    assert_eq!((other.exit, &other.values[0]["reviewed"]["same"]), (1, &false.into()));

    fs::write(reviewed.path().join("policies.yaml"), "kind: JoinPolicy\n").unwrap();
    assert_eq!(status().failure(), (2, "POLICY_SET_INVALID"));
    assert!(site.local(&["policy", "status"]).yes().get("reviewed").is_none());
}

// I14: a secret that comes through a pipe may never come; the server is not stuck with it.
#[test]
fn a_server_that_is_not_ready_yet_ends_when_it_is_told_to() {
    let directory = prepared(POLICY);
    let path = |name| directory.path().join(name);
    let pipe = path("passphrase");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::write(path("server.toml"), format!("[ca]\npassphrase_file = {pipe:?}\n")).unwrap();
    let mut command = server(directory.path());
    command.arg("--config").arg(path("server.toml"));
    let server = Process::launch(command, &path("server.log"));
    await_that("it has begun", || path("data/installation.json").exists());
    server.signal(Signal::TERM);
    assert_eq!(server.ended(), Some(0));
}
