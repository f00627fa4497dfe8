//! What happens to a node, first part: its machine is rebooted, stopped and started, or hibernated.
//! Each row of the table "What happens when" in docs/operations.md has its test here or beside.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use muster::clock::{Clock, Stopwatch};
use muster::domain::{Lifetime, Timestamp};
use rustix::process::Signal;
use serde_json::{Value, json};
use x509_parser::prelude::{CertificateRevocationList, FromDer, RevokedCertificate};

use crate::agent::{agent_command, ask, await_status, start, stop};
use crate::agent_renewal;
use crate::harness::{Process, Site, WORKER};

/// How long anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An agent that need not get a certificate.
pub(crate) fn launch(site: &Site, state: &str) -> Process {
    Process::launch(agent_command(site, WORKER, state), &site.path(&format!("{state}.log")))
}

/// The private key of the certificate in use.
pub(crate) fn key(site: &Site, state: &str) -> Vec<u8> {
    fs::read(site.path(state).join("current/key.pem")).unwrap()
}

/// The node, as the server has it.
pub(crate) fn node(site: &Site) -> Value {
    site.local(&["nodes", "show", WORKER]).yes().clone()
}

/// What has happened to the node, as the server has it.
pub(crate) fn history(site: &Site) -> Vec<String> {
    let node = node(site);
    let events = node["history"].as_array().unwrap().iter();
    events.map(|event| event["what"].as_str().unwrap().to_owned()).collect()
}

/// Nothing is held against any node.
pub(crate) fn assert_no_harm(site: &Site) {
    assert_eq!(agent_renewal::security_events(site), Vec::<Value>::new());
    assert_eq!(site.local(&["nodes", "locks"]).yes()["locks"], json!([]));
}

/// Sends hang-ups until the status is as wanted: an agent that was refused tries again by itself, but
/// not often. It must have begun, or the first one would end it.
pub(crate) fn hurry(
    site: &Site,
    agent: &Process,
    state: &str,
    is_it: impl Fn(&Value) -> bool,
) -> Value {
    let watch = Stopwatch::start();
    loop {
        agent.signal(Signal::HUP);
        sleep(Duration::from_millis(100));
        let status = ask(site, &["status"], state).values.remove(0);
        if is_it(&status) {
            return status;
        }
        assert!(watch.elapsed() < PATIENCE, "{status}\n{}", agent.log());
    }
}

/// Whether the agent was refused with this code.
pub(crate) fn failed_with(code: &str) -> impl Fn(&Value) -> bool {
    move |status| status["last_error"]["code"] == code
}

/// A copy of the state directory, as a disk is copied.
pub(crate) fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Waits until a certificate is on the revocation list.
pub(crate) fn await_revoked(site: &Site, serial: &Value) {
    let serial = serial.as_str().unwrap();
    let watch = Stopwatch::start();
    loop {
        let list = fs::read(site.path("data/crl.der")).unwrap();
        let (_, list) = CertificateRevocationList::from_der(&list).unwrap();
        let mut serials = list.iter_revoked_certificates().map(RevokedCertificate::raw_serial);
        if serials.any(|one| hex::encode_upper(one) == serial) {
            return;
        }
        assert!(watch.elapsed() < PATIENCE, "{serial} is not on the list");
        sleep(Duration::from_millis(50));
    }
}

/// The machine is started anew at this time, by EC2's word.
fn start_machine(site: &Site, pending_time: Timestamp) {
    let simulator = site.simulator.said("ec2").strip_prefix("http://").unwrap();
    let body = json!({"pending_time": pending_time}).to_string();
    let mut stream = TcpStream::connect(simulator).unwrap();
    write!(
        stream,
        "PUT /_sim/instances/{WORKER} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

/// A start that is certainly later than the one before. Documents may be a little ahead of the
/// server's clock.
fn later() -> Timestamp {
    Clock::system().now().plus(Lifetime::from_seconds(10))
}

/// The epoch on record.
fn epoch(site: &Site) -> Timestamp {
    node(site)["epoch"].as_str().unwrap().parse().unwrap()
}

/// The one directory with state that was set aside.
fn set_aside(site: &Site) -> PathBuf {
    let entries = fs::read_dir(site.path("node")).unwrap().map(|entry| entry.unwrap().path());
    let mut found = entries.filter(|path| path.to_str().unwrap().contains("/set-aside-"));
    let path = found.next().expect("state that was set aside");
    assert_eq!(found.next(), None);
    path
}

#[test]
fn the_table_names_these_tests() {
    let (_, section) =
        include_str!("../../docs/operations.md").split_once("## What happens").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let named: BTreeSet<_> =
        rows.map(|row| row.trim_end_matches(" |").rsplit(' ').next().unwrap()).collect();
    let here = [
        include_str!("what_happens.rs"),
        include_str!("what_happens_disks.rs"),
        include_str!("what_happens_replies.rs"),
    ];
    let tests = here.iter().flat_map(|file| file.split("#[test]\nfn ").skip(1));
    let tests = tests.map(|test| format!("`{}`", test.split_once('(').unwrap().0));
    let mut tests: BTreeSet<_> = tests.collect();
    tests.remove("`the_table_names_these_tests`");
    assert_eq!(named, tests.iter().map(String::as_str).collect());
}

#[test]
fn reboot() {
    let site = Site::new();
    let mut agent = start(&site, WORKER, "node");
    let (before, key_before) = (node(&site), key(&site, "node"));
    agent.kill();
    let again = start(&site, WORKER, "node");
    assert_eq!(again.ready["serial"], agent.ready["serial"]);
    assert_eq!(key(&site, "node"), key_before);
    assert_eq!(node(&site), before, "the server was not asked");
    hurry(&site, &again, "node", |status| status["serial"] != agent.ready["serial"]);
    assert_eq!(history(&site), ["enrolled", "renewed"]);
    assert_no_harm(&site);
}

#[test]
fn stop_and_start() {
    let site = Site::new();
    let agent = start(&site, WORKER, "node");
    let (serial, key_before, first) =
        (agent.ready["serial"].clone(), key(&site, "node"), epoch(&site));
    stop(agent);
    let second = later();
    start_machine(&site, second);

    let agent = start(&site, WORKER, "node");
    assert_ne!(agent.ready["serial"], serial);
    assert_ne!(key(&site, "node"), key_before);
    assert_eq!(epoch(&site), second);
    assert_eq!(history(&site), ["enrolled", "rebound"]);
    await_revoked(&site, &serial);
    assert_no_harm(&site);

    // Whoever kept the document of the first run, even with its key, is refused from now on.
    copy(&set_aside(&site), &site.path("old"));
    start_machine(&site, first);
    assert_eq!(site.join(WORKER, "old").failure(), (1, "EPOCH_STALE"));
    assert_eq!(key(&site, "old"), key_before);
}

// K11: memory and key survive together.
#[test]
fn hibernate() {
    let site = Site::new();
    let agent = start(&site, WORKER, "node");
    let second = later();
    agent.signal(Signal::STOP);
    start_machine(&site, second);
    agent.signal(Signal::CONT);
    hurry(&site, &agent, "node", |status| status["serial"] != agent.ready["serial"]);
    assert_eq!(epoch(&site), second);
    assert_eq!(history(&site), ["enrolled", "renewed"], "over the certificate that it had");
    assert_no_harm(&site);
}

#[test]
fn hibernate_past_the_end_of_the_certificate() {
    let site = agent_renewal::site("6s");
    let agent = start(&site, WORKER, "node");
    let (second, key_before) = (later(), key(&site, "node"));
    agent.signal(Signal::STOP);
    start_machine(&site, second);
    await_status(&site, "node", |status| status["joined"] == false);
    agent.signal(Signal::CONT);
    await_status(&site, "node", |status| status["joined"] == true);
    assert_eq!(key(&site, "node"), key_before);
    assert_eq!(epoch(&site), second);
    assert_eq!(history(&site), ["enrolled", "reordered"], "with the key that it had");
    assert_no_harm(&site);
}
