//! Local commands over the server's socket: what they show, what they change, and who may.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{
    Answer, MUSTER, OTHER_WORKER, STRANGER, Site, WORKER, is_missing, local_command, mortal,
};

fn members(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The members of an object are these and no others.
fn has_members(value: &Value, expected: &[&str]) {
    let mut expected = expected.to_vec();
    let mut found = members(value);
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[rustfmt::skip]
const LISTED: &[&str] = &[
    "node_id", "spiffe_id", "method", "policy", "partition", "account_id", "region", "instance_id",
    "slot", "state", "epoch", "strength", "serial", "not_after", "renewed_at",
];
#[rustfmt::skip]
const RECORD: &[&str] = &[
    "seq", "chain", "time", "class", "kind", "outcome", "code", "correlation_id", "policy",
    "policy_hash", "account_id", "instance_id", "node_id", "serial", "source", "detail",
];

#[test]
fn nodes_are_listed_in_pages_and_shown_with_their_history() {
    let site = Site::new();
    assert_eq!(site.local(&["nodes", "ls"]).yes(), &json!({"nodes": [], "next": null}));
    let joined = site.join(WORKER, "node");
    site.join(OTHER_WORKER, "other").yes();

    let first = site.local(&["nodes", "ls", "--limit", "1"]);
    let next = first.yes()["next"].as_str().expect("one more page");
    let second = site.local(&["nodes", "ls", "--limit", "1", "--page", next]);
    let pages = [first.yes(), second.yes()];
    let mut instances: Vec<_> = pages.iter().map(|page| &page["nodes"][0]["instance_id"]).collect();
    instances.sort_by_key(|id| id.as_str());
    assert_eq!(instances, [WORKER, OTHER_WORKER]);
    assert_eq!(second.yes()["next"], Value::Null);
    has_members(&first.yes()["nodes"][0], LISTED);
    let none = site.local(&["nodes", "ls", "--account", "999988887777"]);
    assert_eq!(none.yes()["nodes"], json!([]));
    let all = site.local(&["nodes", "ls", "--account", "111122223333", "--policy", "web"]);
    assert_eq!(all.yes()["nodes"].as_array().unwrap().len(), 2);

    let by_instance = site.local(&["nodes", "show", WORKER]);
    let by_node = site.local(&["nodes", "show", joined.yes()["node_id"].as_str().unwrap()]);
    assert_eq!(by_instance.yes(), by_node.yes());
    assert_eq!(by_node.yes()["serial"], joined.yes()["serial"]);
    assert!(by_node.yes()["history"].as_array().is_some_and(|history| !history.is_empty()));
    for name in LISTED {
        assert!(by_node.yes().get(name).is_some(), "{name}");
    }
    assert_eq!(site.local(&["nodes", "show", "i-0dddddddddddddddd"]).failure(), (1, "NOT_FOUND"));
}

#[test]
fn the_policy_set_in_force_is_shown() {
    let site = Site::new();
    let status = site.local(&["policy", "status"]);
    has_members(status.yes(), &["hash", "loaded_at", "policies", "error"]);
    assert_eq!(status.yes()["hash"], site.server.ready["policy_hash"]);
    assert_eq!(status.yes()["policies"], 1);
    assert_eq!(status.yes()["error"], Value::Null);
    let mut check = Command::new(MUSTER);
    check.args(["policy", "check", "--output", "json"]).arg(site.path("policies"));
    check.arg("--certificates-dir").arg(site.path("sim/certificates"));
    assert_eq!(Answer::of(&mut check).yes()["hash"], status.yes()["hash"]);
}

#[test]
fn a_correlation_id_leads_to_the_whole_explanation() {
    let site = Site::new();
    let refused = site.join(STRANGER, "stranger");
    // The node learns nothing of the policies.
    assert_eq!(refused.failure(), (1, "NOT_ADMITTED"));
    let id = refused.values[0]["error"]["correlation_id"].as_str().unwrap();

    let story = site.local(&["audit", "show", id]);
    assert_eq!(story.yes()["code"], "POLICY_NO_MATCH");
    let fields = &story.yes()["explanation"].to_string();
    assert!(fields.contains("accounts"), "the field that differs is named: {fields}");
    assert_eq!(site.local(&["audit", "show", "k-00000000000000000000"]).exit, 1);
}

#[test]
fn audit_records_have_the_documented_members_and_can_be_picked() {
    let site = Site::new();
    site.join(WORKER, "node").yes();
    assert_eq!(site.join(WORKER, "thief").failure(), (1, "ENROLLMENT_CONFLICT"));

    let all = site.local(&["audit", "ls"]);
    assert_eq!(all.exit, 0);
    for record in &all.values {
        for name in RECORD {
            assert!(record.get(name).is_some(), "{name} in {record}");
        }
    }
    let thefts = site.local(&["audit", "ls", "--class", "security", "--outcome", "refused"]);
    assert_eq!(thefts.values.len(), 1, "{thefts:?}");
    assert_eq!(thefts.values[0]["code"], "ENROLLMENT_CONFLICT");
    assert_eq!(thefts.values[0]["account_id"], "111122223333");
    let of_nobody = site.local(&["audit", "ls", "--account", "222222222222"]);
    assert_eq!((of_nobody.exit, of_nobody.values.len()), (0, 0));
    assert_eq!(site.local(&["audit", "ls", "--class", "gossip"]).exit, 1);
    assert_eq!(site.local(&["audit", "verify"]).yes()["ok"], true);
}

#[test]
fn allow_rejoin_lets_one_other_key_in_and_keeps_the_floor() {
    let site = Site::new();
    let lost = site.join(WORKER, "lost-disk");
    assert_eq!(site.join(WORKER, "new-disk").failure(), (1, "ENROLLMENT_CONFLICT"));
    let floor = site.local(&["nodes", "show", WORKER]).yes()["floor"].clone();

    let reason = "root volume replaced, OPS-7";
    let allowed = site.local(&["nodes", "allow-rejoin", WORKER, "--for", "1h", "--reason", reason]);
    assert_eq!(allowed.yes()["grant"]["reason"], reason);

    let back = site.join(WORKER, "new-disk");
    assert_ne!(back.yes()["serial"], lost.yes()["serial"]);
    assert_eq!(back.yes()["node_id"], lost.yes()["node_id"]);
    let shown = site.local(&["nodes", "show", WORKER]);
    assert_eq!(shown.yes()["floor"], floor);
    assert_eq!(shown.yes()["grant"], Value::Null, "it was for one join");
    assert_eq!(site.join(WORKER, "third").exit, 1);
    assert_eq!(site.join(WORKER, "lost-disk").exit, 1, "the key that was replaced never returns");
    is_on_record(&site, "allow-rejoin", reason);
}

#[test]
fn forget_lets_another_key_in_and_keeps_the_floor() {
    let site = Site::new();
    let lost = site.join(WORKER, "lost-disk");
    assert_eq!(site.join(WORKER, "new-disk").exit, 1);
    let floor = site.local(&["nodes", "show", WORKER]).yes()["floor"].clone();

    let reason = "decommissioned";
    let node = lost.yes()["node_id"].as_str().unwrap();
    let forgotten = site.local(&["nodes", "forget", node, "--reason", reason]);
    assert_eq!(forgotten.yes()["state"], "forgotten");
    assert_eq!(forgotten.yes()["floor"], floor);

    site.join(WORKER, "new-disk").yes();
    assert_eq!(site.local(&["nodes", "show", WORKER]).yes()["floor"], floor);
    is_on_record(&site, "forget", reason);
    assert_eq!(site.local(&["nodes", "forget", node, "--reason", " "]).exit, 2, "say why");
}

/// A change by hand: one security record with the reason, beside that of the use.
fn is_on_record(site: &Site, kind: &str, reason: &str) {
    let security = site.local(&["audit", "ls", "--class", "security"]);
    let changes: Vec<_> = security.values.iter().filter(|one| one["kind"] == kind).collect();
    assert_eq!(changes.len(), 1, "{security:?}");
    assert_eq!(changes[0]["detail"]["reason"], reason);
    assert_eq!(changes[0]["instance_id"], WORKER);
    assert!(uses(&security.values).contains(&format!("nodes {kind}").as_str()));
}

fn uses(records: &[Value]) -> Vec<&str> {
    let uses = records.iter().filter(|one| one["kind"] == "local-command");
    uses.map(|one| one["detail"]["command"].as_str().unwrap()).collect()
}

#[test]
fn every_use_is_a_security_record_that_says_who() {
    let site = Site::new();
    site.local(&["nodes", "ls"]).yes();
    site.local(&["policy", "status"]).yes();
    site.local(&["audit", "show", "k-00000000000000000000"]);

    let records = site.local(&["audit", "ls", "--class", "security"]).values;
    assert_eq!(uses(&records), ["nodes ls", "policy status", "audit show", "audit ls"]);
    let one = records.iter().find(|one| one["kind"] == "local-command").unwrap();
    assert_eq!(one["detail"]["uid"], rustix::process::geteuid().as_raw());
    assert!(one["detail"]["pid"].is_u64());
}

#[test]
fn another_user_cannot_use_the_socket() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    if is_missing("setpriv") {
        return;
    }
    let site = Site::new();
    // Where everybody can run it.
    let muster = site.path("muster");
    fs::copy(MUSTER, &muster).unwrap();
    let chmod =
        |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    chmod(site.directory.path(), 0o755);
    chmod(&muster, 0o755);
    let as_nobody = || {
        let mut command = mortal(Path::new("setpriv"));
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&muster);
        Answer::of(&mut local_command(command, &["nodes", "ls"], &site.path("data")))
    };

    // The directory alone keeps others out.
    assert_eq!(as_nobody().failure(), (4, "NOT_PERMITTED"));
    let refusals = || {
        let found = site.local(&["audit", "ls", "--class", "security", "--outcome", "refused"]);
        found.values.iter().filter(|one| one["code"] == "NOT_PERMITTED").count()
    };
    assert_eq!(refusals(), 0, "the server was not even reached");

    // And so does the kernel's word, if the modes are broken.
    chmod(&site.path("data"), 0o755);
    chmod(&site.path("data/muster.sock"), 0o666);
    assert_eq!(as_nobody().failure(), (4, "NOT_PERMITTED"));
    assert_eq!(refusals(), 1, "the attempt is on record");
}

#[test]
fn without_a_server_the_answer_is_not_now() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [&["nodes", "ls"], &["audit", "ls"], &["policy", "status"]] {
        let answer =
            Answer::of(&mut local_command(Command::new(MUSTER), arguments, directory.path()));
        assert_eq!(answer.failure(), (3, "SERVER_NOT_RUNNING"), "{arguments:?}");
    }
    // The socket of a server that was killed is not one either.
    let site = Site::new();
    let Site { server, simulator: _simulator, directory } = site;
    drop(server);
    let data = directory.path().join("data");
    assert!(data.join("muster.sock").exists());
    let answer = Answer::of(&mut local_command(Command::new(MUSTER), &["nodes", "ls"], &data));
    assert_eq!(answer.failure(), (3, "SERVER_NOT_RUNNING"));
}

#[test]
fn garbage_on_the_socket_is_answered_with_an_error_and_is_on_record() {
    let site = Site::new();
    let endless = vec![b'['; 100_000];
    let garbage: &[&[u8]] = &[
        b"\n",
        b"{\"command\":\"nodes-ls\"}\n",
        b"{\"command\":\"shell\"}\n",
        b"\xff\xfe\x00\n",
        &endless,
        b"",
    ];
    for line in garbage {
        let mut stream = UnixStream::connect(site.path("data/muster.sock")).unwrap();
        // The server need not read to the end what is too long.
        let _cut_off = stream.write_all(line);
        let _cut_off = stream.shutdown(Shutdown::Write);
        let mut text = String::new();
        let _cut_off = stream.read_to_string(&mut text);
        let shown: String = String::from_utf8_lossy(line).chars().take(20).collect();
        let answer: Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{shown}: {text}"));
        assert_eq!(answer["error"]["code"], "MALFORMED_REQUEST", "{shown}");
    }
    let records = site.local(&["audit", "ls", "--class", "security"]).values;
    let unreadable = uses(&records).iter().filter(|one| **one == "unreadable").count();
    assert_eq!(unreadable, garbage.len());
}
