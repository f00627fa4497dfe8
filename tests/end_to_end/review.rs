//! What reviewers ask of a server that ran: since when, who used it, and what a change would mean for
//! the nodes that are there.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Answer, MUSTER, POLICY, Site, WORKER, await_that, mortal, write_policy};

const LATER: &str = r#"
---
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: later, description: "of later", owner: "platform"}
spec:
  method: ec2
  roles: [node]
  allow: [{accounts: ["999988887777"], partition: aws, regions: [us-west-2]}]
  ec2: {look_up: none}
"#;

fn ask(site: &Site, arguments: &[&str]) -> Answer {
    let mut command = mortal(Path::new(MUSTER));
    command.current_dir(site.directory.path()).args(arguments).args(["--output", "json"]);
    Answer::of(&mut command)
}

/// The only account of a policy.
fn account<'a>(answer: &'a Value, policy: &str) -> &'a Value {
    let groups = answer["access"].as_array().unwrap();
    &groups.iter().find(|group| group["policy"] == policy).unwrap()["accounts"][0]
}

#[test]
fn since_when_who_uses_it_and_what_a_change_would_mean() {
    let narrow = POLICY.replace("regions: [us-west-2]", "regions: [us-east-1]");
    let site = Site::under(&narrow);
    let directory = site.directory.path();
    assert_eq!(site.join(WORKER, "node").failure(), (1, "NOT_ADMITTED"));
    let before = site.path("before");
    fs::create_dir(&before).unwrap();
    fs::write(before.join("policies.yaml"), &narrow).unwrap();

    std::thread::sleep(std::time::Duration::from_secs(1));
    write_policy(directory, &format!("{POLICY}{LATER}"));
    site.server.signal(Signal::HUP);
    let live = ask(&site, &["policy", "check", "policies"]);
    let hash = live.yes()["hash"].clone();
    let is_live = || site.local(&["policy", "status"]).values[0]["hash"] == hash;
    await_that("the new set is in force", is_live);
    let other = site.local(&["policy", "status", "--reviewed", before.to_str().unwrap()]);
    assert_eq!(other.exit, 1, "another set stands there");
    let policies = site.path("policies");
    let same = site.local(&["policy", "status", "--reviewed", policies.to_str().unwrap()]);
    assert_eq!(same.yes()["reviewed"]["same"], true);

    // Since when, and who uses it.
    let node = site.join(WORKER, "node");
    let node_id = node.yes()["node_id"].as_str().unwrap().to_owned();
    let reason = ["--for", "1h", "--reason", "a new disk"];
    site.local(&[&["nodes", "allow-rejoin", &node_id], &reason[..]].concat());
    let found = ask(&site, &["policy", "access", "policies", "--data-dir", "data"]);
    let (web, later) = (account(found.yes(), "web"), account(found.yes(), "later"));
    assert!(web["since"].as_str().unwrap() < later["since"].as_str().unwrap(), "{:#}", found.yes());
    assert_eq!((&web["live_nodes"], &later["live_nodes"]), (&json!(1), &json!(0)));
    assert_eq!(later["last_used"], Value::Null);
    assert!(web["last_used"].is_string());
    assert_eq!(web["grants"][0]["reason"], "a new disk");
    let unused =
        ask(&site, &["policy", "access", "policies", "--data-dir", "data", "--unused", "90d"]);
    assert_eq!(unused.exit, 1);
    let unused = unused.values[0]["access"].as_array().unwrap();
    assert!(unused.iter().all(|row| row["policy"] == "later") && unused.len() == 1);

    // What a change would mean.
    let records = site.local(&["audit", "ls"]);
    let lines: Vec<String> = records.values.iter().map(|record| format!("{record}\n")).collect();
    fs::write(site.path("audit.jsonl"), lines.concat()).unwrap();
    let forth = ask(&site, &["policy", "diff", "before", "policies", "--impact", "audit.jsonl"]);
    assert_eq!(forth.yes()["impact"]["refusals"]["would_be_admitted"], 0, "nobody was asked then");
    assert_eq!(forth.yes()["impact"]["refusals"]["might_be_admitted"], 1, "{:#}", forth.yes());
    let back = ask(&site, &["policy", "diff", "policies", "before", "--impact", "audit.jsonl"]);
    let impact = &back.yes()["impact"];
    assert_eq!((&impact["live_nodes"], &impact["loses_renewal"]["nodes"]), (&json!(1), &json!(1)));
    assert_eq!(impact["loses_renewal"]["last_not_after"], node.yes()["not_after"]);
    assert_eq!(impact["joins"]["would_be_refused"], 1);
    // The set of before is still there to be read.
    let kept = ask(&site, &["policy", "show", "--data-dir", "data"]);
    assert_eq!(kept.yes()["sets"].as_array().unwrap().len(), 2);
}

// The same questions of the server that runs a set of 400 accounts.
#[test]
fn a_large_set_is_what_was_reviewed_and_says_since_when() {
    let site = Site::new();
    let policies = site.path("policies");
    let reviewed = site.path("reviewed");
    fs::create_dir(&reviewed).unwrap();
    for entry in fs::read_dir("tests/data/review").unwrap() {
        let entry = entry.unwrap();
        for target in [&policies, &reviewed] {
            fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
        }
    }
    fs::remove_file(policies.join("policies.yaml")).unwrap();
    site.server.signal(Signal::HUP);
    let is_same = || {
        let arguments = ["policy", "status", "--reviewed", reviewed.to_str().unwrap()];
        site.local(&arguments).values[0]["reviewed"]["same"] == true
    };
    await_that("the reviewed set is in force", is_same);
    let asked = ["policy", "access", "policies", "--account", "100034713592"];
    let found = ask(&site, &[&asked[..], &["--data-dir", "data"]].concat());
    let groups = found.yes()["access"].as_array().unwrap();
    assert!(groups.iter().any(|group| group["policy"] == "search"));
    for group in groups {
        assert!(group["accounts"][0]["since"].is_string(), "{group:#}");
        assert_eq!(group["accounts"][0]["last_used"], Value::Null);
    }
}
