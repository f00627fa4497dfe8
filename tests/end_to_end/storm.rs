//! Acceptance 7, T45: many processes with the metadata of one instance.

use std::process::{Child, Stdio};

use serde_json::Value;

use crate::harness::{POLICY, Site, WORKER};

const RACERS: usize = 64;

#[test]
fn of_64_processes_with_one_instances_document_one_gets_a_certificate() {
    // With a proof from each: a document alone gives way, once, to a proof, and when STS is slow to
    // answer one of the racers has only the document.
    let terms = "fresh_proof: not_required, document_ttl: 24h";
    let site = Site::under(&POLICY.replace(terms, "fresh_proof: required"));
    let racers: Vec<Child> = (0..RACERS)
        .map(|number| {
            site.join_command(WORKER, &format!("state-{number}"))
                .args(["--server", site.address(), "--pin", site.pin()])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let answers: Vec<Value> = racers
        .into_iter()
        .map(|racer| serde_json::from_slice(&racer.wait_with_output().unwrap().stdout).unwrap())
        .collect();

    let winners: Vec<usize> =
        (0..RACERS).filter(|number| answers[*number]["serial"].is_string()).collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    let refused = answers.iter().filter(|one| one["error"]["code"] == "ENROLLMENT_CONFLICT");
    assert_eq!(refused.count(), RACERS - 1);

    let conflicts = site.local(&["audit", "ls", "--class", "security", "--outcome", "refused"]);
    assert_eq!(conflicts.values.len(), RACERS - 1);
    let nodes = site.local(&["nodes", "ls"]);
    assert_eq!(nodes.yes()["nodes"].as_array().unwrap().len(), 1);

    // The winner asks again: the same serial.
    let winner = winners[0];
    let again = site.join(WORKER, &format!("state-{winner}"));
    assert_eq!(again.yes()["serial"], answers[winner]["serial"]);
    assert_eq!(site.local(&["audit", "verify"]).yes()["ok"], true);
}
