//! An agent whose disk is full, and one whose reload command is bad.
//!
//! A full disk is pretended by a limit on the size of files: every write beyond it fails, as on a
//! disk without room, and no privilege is needed. What it does not show is a directory that cannot
//! take another name.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use muster::clock::Stopwatch;
use rustix::process::Signal;

use crate::agent::{agent_command, ask, await_status, start};
use crate::harness::{Process, Site, WORKER};

/// The command with files of at most so many blocks of 512 bytes.
fn on_full_disk(command: &Command, blocks: u32) -> Command {
    let mut limited = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    limited.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
    limited
}

#[test]
fn a_disk_that_fills_up_between_question_and_answer_costs_no_key() {
    let site = Site::new();
    // A key has room, a certificate has not.
    let mut agent = on_full_disk(&agent_command(&site, WORKER, "node"), 1)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = await_status(&site, "node", |status| status["last_error"].is_object());
    assert_eq!(status["last_error"]["code"], "STATE_UNUSABLE");
    assert!(status["next_try"].is_string(), "it tries again: {status}");
    assert!(!site.path("node/current").exists());
    let key = fs::read(site.path("node/pending/key.pem")).unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();

    let serial = site.local(&["nodes", "show", WORKER]).yes()["serial"].clone();
    let agent = start(&site, WORKER, "node");
    assert_eq!(agent.ready["serial"], serial, "the order that the server remembers");
    assert_eq!(fs::read(site.path("node/current/key.pem")).unwrap(), key);
}

#[test]
fn an_agent_on_a_full_disk_keeps_its_certificate_and_runs_on() {
    let site = Site::new();
    start(&site, WORKER, "node").signal(Signal::TERM);
    let current = || {
        ["key.pem", "certificate.pem", "node.json", "bundle.pem"]
            .map(|name| fs::read(site.path("node/current").join(name)).unwrap())
    };
    let before = current();

    let mut agent = on_full_disk(&agent_command(&site, WORKER, "node"), 0)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(agent.stderr.take().unwrap());
    let mut lines = log.lines().map(Result::unwrap);
    let mut hears = |wanted: &str| {
        assert!(lines.by_ref().any(|line| line.contains(wanted)), "`{wanted}` was never logged");
    };
    hears("certificate found");
    let id = rustix::process::Pid::from_raw(i32::try_from(agent.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, Signal::HUP).unwrap();
    hears("STATE_UNUSABLE");
    assert_eq!(current(), before);
    assert_eq!(ask(&site, &["status"], "node").exit, 0);
    assert_eq!(agent.try_wait().unwrap(), None);
    rustix::process::kill_process(id, Signal::TERM).unwrap();
    hears("stopping");
    assert_eq!(agent.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reload_command_runs_for_a_new_certificate_and_holds_up_nothing() {
    let site = Site::new();
    let with = |words: &[&str]| {
        let mut command = agent_command(&site, WORKER, "node");
        command.arg("--reload-command").args(words);
        Process::start(command, &site.path("agent.log"))
    };
    // It hangs, and neither the ready line nor the end waits for it.
    let hanging = with(&["sleep", "1000"]);
    let watch = Stopwatch::start();
    hanging.signal(Signal::TERM);
    assert_eq!(hanging.ended(), Some(0));
    assert!(watch.elapsed() < Duration::from_secs(5), "{:?}", watch.elapsed());

    // It was not run to its end for this certificate: the next agent does it.
    let marker = site.path("marker");
    let agent = with(&["touch", marker.to_str().unwrap()]);
    let status = await_status(&site, "node", |status| status["last_reload"].is_object());
    assert_eq!(status["last_reload"]["serial"], agent.ready["serial"]);
    assert!(status["last_reload"]["error"].is_null() && marker.exists(), "{status}");
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended(), Some(0));

    // And the one after that does not run it again.
    fs::remove_file(&marker).unwrap();
    let agent = with(&["touch", marker.to_str().unwrap()]);
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended(), Some(0));
    assert!(!marker.exists());
}
