//! Renewals of `muster agent` against a real server, with certificates of seconds.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::agent::{await_status, start};
use crate::harness::{POLICY, Site, WORKER, await_that};

/// A server whose certificates last so long.
pub(crate) fn site(ttl: &str) -> Site {
    Site::under(&POLICY.replace("ttl: 12h", &format!("ttl: {ttl}")))
}

fn current(site: &Site, name: &str) -> Vec<u8> {
    fs::read(site.path("node/current").join(name)).unwrap()
}

/// Waits for another certificate than this one.
fn await_other(site: &Site, serial: &Value) -> Value {
    await_status(site, "node", |status| status["serial"] != *serial && status["joined"] == true)
}

/// What the server holds against the node.
pub(crate) fn security_events(site: &Site) -> Vec<Value> {
    let mut events = site.local(&["audit", "ls", "--class", "security"]).values;
    events.retain(|event| event["kind"] != "server-start" && event["kind"] != "local-command");
    events
}

fn verify(site: &Site) {
    let current = site.path("node/current");
    let verified = Command::new("openssl")
        .args(["verify", "-CAfile", "bundle.pem", "-untrusted", "certificate.pem"])
        .arg("certificate.pem")
        .current_dir(current)
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn renewals_bring_a_new_key_each_and_one_node_keeps_its_name() {
    let site = site("12s");
    let agent = start(&site, WORKER, "node");
    let (mut serial, node_id) = (agent.ready["serial"].clone(), agent.ready["node_id"].clone());
    let mut keys = BTreeSet::from([current(&site, "key.pem")]);
    for _ in 0..3 {
        let status = await_other(&site, &serial);
        assert_eq!((&status["node_id"], &status["last_error"]), (&node_id, &Value::Null));
        assert!(keys.insert(current(&site, "key.pem")), "a new key");
        verify(&site);
        serial = status["serial"].clone();
    }
    assert_eq!(security_events(&site), Vec::<Value>::new());
    agent.says("renewed");
    // A hang-up does not wait for the time.
    agent.signal(Signal::HUP);
    await_other(&site, &serial);
}

// I5: whenever it is killed, the node finds its way back and is never taken for a clone.
#[test]
fn an_agent_that_is_killed_again_and_again_is_never_taken_for_a_clone() {
    let site = site("12s");
    let mut serial = Value::Null;
    for round in 0..12 {
        let agent = start(&site, WORKER, "node");
        serial = agent.ready["serial"].clone();
        agent.signal(Signal::HUP);
        std::thread::sleep(Duration::from_millis(3 * round));
        agent.signal(Signal::KILL);
        agent.ended();
    }
    let agent = start(&site, WORKER, "node");
    agent.signal(Signal::HUP);
    let status = await_other(&site, &serial);
    assert_eq!(status["last_error"], Value::Null);
    assert_eq!(security_events(&site), Vec::<Value>::new());
}

#[test]
fn a_forgotten_node_comes_back_with_a_fresh_key() {
    let site = site("30s");
    let agent = start(&site, WORKER, "node");
    let key = current(&site, "key.pem");
    let node_id = agent.said("node_id").to_owned();
    site.local(&["nodes", "forget", &node_id, "--reason", "test"]).yes();
    agent.signal(Signal::HUP);
    await_other(&site, &agent.ready["serial"]);
    assert_ne!(current(&site, "key.pem"), key);
    agent.says("NODE_UNKNOWN");
}

#[test]
fn a_node_that_slept_through_the_end_of_its_certificate_joins_with_its_key() {
    let site = site("4s");
    let agent = start(&site, WORKER, "node");
    agent.signal(Signal::STOP);
    let (serial, key) = (agent.ready["serial"].clone(), current(&site, "key.pem"));
    await_status(&site, "node", |status| status["joined"] == false);
    agent.signal(Signal::CONT);
    await_other(&site, &serial);
    assert_eq!(current(&site, "key.pem"), key);
    await_that("it says that it joined twice", || agent.log().matches("joined").count() == 2);
    assert_eq!(security_events(&site), Vec::<Value>::new());
}
