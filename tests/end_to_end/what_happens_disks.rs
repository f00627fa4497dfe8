//! What happens to a node, second part: its disk is replaced, copied or restored while its instance
//! runs on.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use muster::clock::{Clock, Stopwatch};
use muster::domain::{Lifetime, Timestamp};
use serde_json::{Value, json};

use crate::agent::{ask, await_status, start};
use crate::agent_renewal;
use crate::harness::{MORE_WORKERS, OTHER_WORKER, POLICY, PROOFLESS, Process, Site, WORKER};
use crate::what_happens::{
    PATIENCE, assert_no_harm, await_revoked, copy, failed_with, history, hurry, key, launch, node,
};

const UNPROVEN: &str = "{fresh_proof: not_required, document_ttl: 24h, look_up: none}";

/// A policy that requires proofs and has this beside.
fn proven(settings: &str) -> String {
    POLICY.replace(UNPROVEN, &format!("{{fresh_proof: required, look_up: none{settings}}}"))
}

/// Which codes stand in the security events, each once.
fn suspicions(site: &Site) -> Vec<String> {
    let mut codes: Vec<String> = agent_renewal::security_events(site)
        .iter()
        .filter_map(|event| event["code"].as_str().map(str::to_owned))
        .collect();
    codes.sort();
    codes.dedup();
    codes
}

fn allow_rejoin(site: &Site) {
    site.local(&["nodes", "allow-rejoin", WORKER, "--reason", "disk replaced"]).yes();
}

/// The disk is replaced by one that has never seen muster.
fn replace_disk(site: &Site, mut agent: Process) {
    agent.kill();
    fs::remove_dir_all(site.path("node")).unwrap();
}

// K7. A container that comes back without its volume is the same to the server: another key in the
// same run of the instance.
#[test]
fn root_volume_replaced() {
    let site = Site::new();
    let agent = start(&site, WORKER, "node");
    let serial = agent.ready["serial"].clone();
    replace_disk(&site, agent);

    let agent = launch(&site, "node");
    let status = await_status(&site, "node", failed_with("ENROLLMENT_CONFLICT"));
    let hint = status["last_error"]["hint"].as_str().unwrap();
    assert!(hint.contains("enrolled with another key"), "{hint}");
    assert_eq!(suspicions(&site), ["ENROLLMENT_CONFLICT"]);
    assert_eq!(node(&site)["serial"], serial, "the holder keeps what it has");

    allow_rejoin(&site);
    hurry(&site, &agent, "node", |status| status["joined"] == true);
    assert_eq!(history(&site), ["enrolled", "rejoin allowed", "rebound"]);
    await_revoked(&site, &serial);
}

#[test]
fn root_volume_replaced_under_a_policy_that_lets_silent_nodes_back_in() {
    let rejoin = proven(", rejoin: {when_silent: 1s, limit: 1}");
    let site = Site::under(&rejoin.replace("ttl: 12h", "ttl: 6s"));
    let agent = start(&site, WORKER, "node");
    let silent_from = silence(&agent.ready);
    replace_disk(&site, agent);

    // Nobody does anything, but for the hang-ups that stand for patience.
    let agent = launch(&site, "node");
    await_status(&site, "node", failed_with("ENROLLMENT_CONFLICT"));
    let back = hurry(&site, &agent, "node", |status| status["last_success"].is_string());
    assert!(time(&back["last_success"]) > silent_from, "{back}");
    assert_eq!(history(&site), ["enrolled", "rejoined"]);

    // Once means once, however long it waits.
    let silent_from = silence(&back);
    replace_disk(&site, agent);
    let agent = launch(&site, "node");
    await_status(&site, "node", failed_with("ENROLLMENT_CONFLICT"));
    hurry(&site, &agent, "node", |status| {
        assert_eq!(status["joined"], false, "{status}");
        time(&status["last_error"]["time"]) > silent_from.plus(Lifetime::from_seconds(1))
    });
    assert_eq!(history(&site), ["enrolled", "rejoined"]);
}

/// From when on the holder of this certificate counts as silent under `when_silent: 1s`.
fn silence(status: &Value) -> Timestamp {
    time(&status["renew_after"]).plus(Lifetime::from_seconds(1))
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

// K6, T62
#[test]
fn image_baked_from_a_joined_node() {
    let site = Site::new();
    let mut golden = start(&site, WORKER, "node");
    let copies = [OTHER_WORKER, MORE_WORKERS[0], MORE_WORKERS[1]];
    let mut keys = vec![key(&site, "node")];
    for instance in copies {
        copy(&site.path("node"), &site.path(instance));
    }
    let agents: Vec<_> = copies.iter().map(|instance| start(&site, instance, instance)).collect();
    for (agent, instance) in agents.iter().zip(copies) {
        assert_eq!(agent.said("instance_id"), instance);
        keys.push(key(&site, instance));
    }
    hurry(&site, &golden, "node", |status| status["serial"] != golden.ready["serial"]);
    keys.push(key(&site, "node"));
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 5, "each has a key of its own, and the first one two");
    assert_no_harm(&site);

    // The better way: nothing of the node is in the image.
    golden.kill();
    ask(&site, &["seal", "--yes"], "node").yes();
    let left = fs::read_dir(site.path("node")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
}

/// A node that joins and whose disk is put back, so many renewals later, to what it was after the
/// join. Returns what the agent said of its first certificate.
fn restore_snapshot(site: &Site, instance: &str, renewals: u32) -> Value {
    let agent = start(site, instance, "node");
    copy(&site.path("node"), &site.path("snapshot"));
    let (first, mut serial) = (agent.ready.clone(), agent.ready["serial"].clone());
    for _ in 0..renewals {
        let status = hurry(site, &agent, "node", |status| status["serial"] != serial);
        serial = status["serial"].clone();
    }
    replace_disk(site, agent);
    fs::rename(site.path("snapshot"), site.path("node")).unwrap();
    first
}

#[test]
fn restored_snapshot() {
    // A proof that is offered counts as much as one that is required.
    for policy in [&proven(""), POLICY] {
        restored_snapshot_under(policy);
    }
}

fn restored_snapshot_under(policy: &str) {
    let site = Site::under(policy);
    restore_snapshot(&site, WORKER, 2);
    let agent = start(&site, WORKER, "node");
    // Its certificate was given up, so it makes a fresh key, and that one needs a person's word.
    hurry(&site, &agent, "node", failed_with("ENROLLMENT_CONFLICT"));
    assert_eq!(suspicions(&site), ["CLONE_SUSPECTED", "ENROLLMENT_CONFLICT"]);
    assert_eq!(site.local(&["nodes", "locks"]).yes()["locks"], json!([]));
    allow_rejoin(&site);
    let serial = agent.ready["serial"].clone();
    hurry(&site, &agent, "node", |status| status["serial"] != serial);
    assert_eq!(history(&site), ["enrolled", "renewed", "renewed", "rejoin allowed", "rebound"]);
}

// The certificate of the snapshot has ended: then the agent can only show its key.
#[test]
fn restored_snapshot_whose_certificate_has_ended() {
    let site = Site::under(&proven("").replace("ttl: 12h", "ttl: 6s"));
    let first = restore_snapshot(&site, WORKER, 2);
    await_time(time(&first["not_after"]));

    let agent = launch(&site, "node");
    await_status(&site, "node", failed_with("CLONE_SUSPECTED"));
    hurry(&site, &agent, "node", failed_with("ENROLLMENT_CONFLICT"));
    assert_eq!(suspicions(&site), ["CLONE_SUSPECTED", "ENROLLMENT_CONFLICT"]);
    allow_rejoin(&site);
    hurry(&site, &agent, "node", |status| status["joined"] == true);
}

fn await_time(time: Timestamp) {
    let watch = Stopwatch::start();
    while Clock::system().now() <= time {
        assert!(watch.elapsed() < PATIENCE);
        sleep(Duration::from_millis(50));
    }
}

// T56: nobody can tell a node that never proves itself from its copy.
#[test]
fn restored_snapshot_without_a_proof() {
    let site = Site::new();
    restore_snapshot(&site, PROOFLESS, 2);
    let agent = start(&site, PROOFLESS, "node");
    hurry(&site, &agent, "node", failed_with("NOT_ADMITTED"));
    let locks = site.local(&["nodes", "locks"]).yes()["locks"].clone();
    assert_eq!(locks.as_array().unwrap().len(), 1, "that node alone: {locks}");
    assert!(locks[0]["reason"].as_str().unwrap().contains("clone signal"), "{locks}");
    start(&site, OTHER_WORKER, "other");

    // In this order the agent is not refused once more in between.
    let id = agent.said("node_id");
    site.local(&["nodes", "allow-rejoin", id, "--reason", "restored"]).yes();
    site.local(&["nodes", "unlock", "--node", id, "--reason", "restored"]).yes();
    let serial = agent.ready["serial"].clone();
    hurry(&site, &agent, "node", |status| status["serial"] != serial);
    assert_eq!(suspicions(&site), ["CLONE_SUSPECTED"]);
}

// One renewal back is no harm: the server still has the certificate of then, and the proof tells.
#[test]
fn restored_snapshot_of_one_certificate_ago() {
    let site = Site::under(&proven(""));
    restore_snapshot(&site, WORKER, 1);
    let agent = start(&site, WORKER, "node");
    let serial = agent.ready["serial"].clone();
    hurry(&site, &agent, "node", |status| status["serial"] != serial);
    assert_eq!(history(&site), ["enrolled", "renewed", "renewed by another key"]);
    assert_eq!(site.local(&["nodes", "locks"]).yes()["locks"], json!([]));
}
