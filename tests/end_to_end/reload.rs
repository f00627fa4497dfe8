//! Policies and locks while the server runs: a change is in force at once, whole or not at all.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use muster::clock::Stopwatch;
use serde_json::Value;

use crate::harness::{
    Answer, MUSTER, OTHER_WORKER, POLICY, Site, WORKER, mortal, on_loopback, write_policy,
};

/// What a change of files is given (acceptance 4).
const IN_FORCE_WITHIN: Duration = Duration::from_secs(2);

fn status(site: &Site) -> (i32, Value) {
    let answer = site.local(&["policy", "status"]);
    (answer.exit, answer.values[0].clone())
}

/// Waits until the status is as wanted; fails when it takes longer than it may.
fn status_within(site: &Site, wanted: impl Fn(&(i32, Value)) -> bool) -> Value {
    let watch = Stopwatch::start();
    loop {
        let found = status(site);
        if wanted(&found) {
            return found.1;
        }
        assert!(watch.elapsed() < IN_FORCE_WITHIN, "{found:?}\n{}", site.server.log());
        sleep(Duration::from_millis(50));
    }
}

// T52, acceptance 4: a broken edit leaves the last good set in force, loudly; the mended one is in
// force within two seconds.
#[test]
fn a_broken_edit_leaves_the_set_before_in_force() {
    let site = Site::new();
    let (_, before) = status(&site);
    assert_eq!(before["error"], Value::Null);
    let directory = site.directory.path();

    write_policy(directory, &POLICY.replace("roles: [node]", "roles: []"));
    let broken = status_within(&site, |(exit, _)| *exit == 1);
    assert_eq!(broken["hash"], before["hash"]);
    assert!(broken["error"].as_str().unwrap().contains("policies.yaml:7:"), "{broken}");
    assert!(site.page("/metrics").contains("muster_policy_reload_failed 1"));
    let ready = site.page("/readyz");
    assert!(ready.starts_with("HTTP/1.0 200") && ready.contains("not in force"), "{ready}");
    site.join(WORKER, "node").yes();

    write_policy(directory, &POLICY.replace("name: web,", "name: web2,"));
    let mended = status_within(&site, |(exit, _)| *exit == 0);
    assert_ne!(mended["hash"], before["hash"]);
    assert!(site.page("/metrics").contains("muster_policy_reload_failed 0"));
    assert_eq!(site.join(OTHER_WORKER, "other").failure(), (1, "NOT_ADMITTED"));
    // The change, and whom it ends, is on record.
    let records = site.local(&["audit", "ls", "--class", "security"]).values;
    let of_kind = |kind: &str| records.iter().find(|one| one["kind"] == kind).cloned();
    let change = of_kind("policy-set").expect("a record of the change");
    assert_eq!(change["policy_hash"], mended["hash"]);
    assert_eq!(change["detail"]["before"], before["hash"]);
    let effect = of_kind("policy-effect").expect("a record of its effect");
    assert_eq!(effect["detail"]["nodes"], 1);
    site.server.says("renews these nodes no more");
}

// T52: unreadable, half-written, gone: never an empty set.
#[test]
fn a_directory_that_is_gone_or_unreadable_changes_nothing() {
    let site = Site::new();
    let policies = site.path("policies");
    let hash = status(&site).1["hash"].clone();

    fs::rename(&policies, site.path("elsewhere")).unwrap();
    assert_eq!(status_within(&site, |(exit, _)| *exit == 1)["hash"], hash);
    fs::rename(site.path("elsewhere"), &policies).unwrap();
    status_within(&site, |(exit, _)| *exit == 0);

    fs::write(policies.join("half.yaml"), "apiVersion: muster/v1\nkind: Join").unwrap();
    assert_eq!(status_within(&site, |(exit, _)| *exit == 1)["hash"], hash);
    site.join(WORKER, "node").yes();
    fs::remove_file(policies.join("half.yaml")).unwrap();
    assert_eq!(status_within(&site, |(exit, _)| *exit == 0)["hash"], hash);
}

// The way of Kubernetes: `..data` is switched from one directory to another.
#[test]
fn a_link_that_is_switched_is_seen() {
    let site = Site::with(|command| {
        let policies = path_after(&command, "--policies");
        fs::create_dir(policies.join("..one")).unwrap();
        fs::rename(policies.join("policies.yaml"), policies.join("..one/policies.yaml")).unwrap();
        symlink("..one", policies.join("..data")).unwrap();
        symlink("..data/policies.yaml", policies.join("policies.yaml")).unwrap();
        command
    });
    let (policies, before) = (site.path("policies"), status(&site).1);
    fs::create_dir(policies.join("..two")).unwrap();
    let other = POLICY.replace("ttl: 12h", "ttl: 6h");
    fs::write(policies.join("..two/policies.yaml"), other).unwrap();
    symlink("..two", policies.join("..data_tmp")).unwrap();
    fs::rename(policies.join("..data_tmp"), policies.join("..data")).unwrap();
    status_within(&site, |(exit, now)| *exit == 0 && now["hash"] != before["hash"]);
}

#[test]
fn a_hangup_loads_anew() {
    let site = Site::new();
    let before = status(&site).1["loaded_at"].clone();
    sleep(Duration::from_millis(1100));
    let pid = site.server.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    status_within(&site, |(exit, now)| *exit == 0 && now["loaded_at"] != before);
}

// Red team P12: whoever may write a region's certificate can forge its instances.
#[test]
fn certificates_that_others_may_write_are_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = directory.path().join("certificates");
    fs::create_dir(&certificates).unwrap();
    fs::create_dir(directory.path().join("policies")).unwrap();
    let config = directory.path().join("server.toml");
    fs::write(&config, format!("[aws]\ncertificates_dir = {certificates:?}\n")).unwrap();
    fs::set_permissions(&certificates, fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = mortal(Path::new(MUSTER));
    command.arg("server").arg("--config").arg(&config);
    command.args(["--trust-domain", "prod.example.org"]);
    on_loopback(&mut command, directory.path());
    let answer = Answer::of(command.args(["--output", "json"]));
    assert_eq!(answer.exit, 2, "{answer:?}");
    assert!(answer.values[0]["error"]["message"].as_str().unwrap().contains("others may write"));
}

// A policy of a region that nobody knows does not load; the import makes it known while the server
// runs.
#[test]
fn a_region_is_imported_while_the_server_runs() {
    // The usual server, but one that believes AWS's certificates and those of a directory.
    let site = Site::with(|usual| {
        let home = path_after(&usual, "--data-dir").parent().unwrap().to_owned();
        let certificates = home.join("certificates");
        fs::create_dir(&certificates).unwrap();
        let config = home.join("server.toml");
        fs::write(&config, format!("[aws]\ncertificates_dir = {certificates:?}\n")).unwrap();
        let mut command = mortal(Path::new(MUSTER));
        command.arg("server").arg("--config").arg(&config);
        command.args(["--trust-domain", "prod.example.org"]);
        on_loopback(&mut command, &home);
        command
    });
    let (_, before) = status(&site);
    assert_eq!(before["error"], Value::Null);
    let of_moon = POLICY.replace("regions: [us-west-2]", "regions: [xx-moon-1]");
    write_policy(site.directory.path(), &of_moon);
    let unknown = status_within(&site, |(exit, _)| *exit == 1);
    assert!(unknown["error"].as_str().unwrap().contains("xx-moon-1"), "{unknown}");

    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
    let certificate = rcgen::CertificateParams::default().self_signed(&key.unwrap()).unwrap();
    let page = format!("## Moon — xx-moon-1\n#### [ RSA-2048 ]\n{}\n", certificate.pem());
    fs::write(site.path("page.md"), page).unwrap();
    let mut import = Command::new(MUSTER);
    import.args(["regions", "import", "--yes", "--output", "json", "--dir"]);
    import.arg(site.path("certificates")).arg(site.path("page.md"));
    Answer::of(&mut import).yes();
    let known = status_within(&site, |(exit, _)| *exit == 0);
    assert_ne!(known["hash"], before["hash"]);
}

fn path_after(command: &Command, flag: &str) -> std::path::PathBuf {
    let mut arguments = command.get_args().skip_while(|one| *one != flag);
    arguments.nth(1).map(std::path::PathBuf::from).unwrap()
}

#[test]
fn locks_are_placed_listed_and_lifted() {
    let site = Site::new();
    let node = site.join(WORKER, "node").yes().clone();
    let serial = node["serial"].as_str().unwrap();
    let id = node["node_id"].as_str().unwrap();
    for (flag, value) in [
        ("--node", id),
        ("--instance", WORKER),
        ("--account", "111122223333"),
        ("--account", "aws/111122223333"),
        ("--policy", "web"),
        ("--serial", serial),
    ] {
        let locked = site.local(&["nodes", "lock", flag, value, "--reason", "INC-42"]);
        assert_eq!(locked.yes()["nodes"], 1, "{flag}");
        assert_eq!(site.join(WORKER, "node").failure(), (1, "NOT_ADMITTED"), "{flag}");
        let shown = site.local(&["nodes", "show", id]);
        assert_eq!(shown.yes()["locks"][0]["reason"], "INC-42", "{flag}");
        site.local(&["nodes", "unlock", flag, value, "--reason", "closed"]).yes();
        assert_eq!(site.local(&["nodes", "locks"]).yes()["locks"], serde_json::json!([]));
        site.join(WORKER, "node").yes();
    }
    let again = site.local(&["nodes", "unlock", "--policy", "web", "--reason", "closed"]);
    assert_eq!(again.failure(), (1, "NOT_FOUND"));
    let unknown = "4F".repeat(16);
    let held = site.local(&["nodes", "lock", "--serial", &unknown, "--reason", "x"]);
    assert_eq!(held.failure(), (1, "NOT_FOUND"));
    // Each is on record with who, why and what.
    let records = site.local(&["audit", "ls", "--class", "security"]).values;
    let count = |kind: &str| records.iter().filter(|one| one["kind"] == kind).count();
    assert_eq!(count("unlock"), 6 + 7, "an account without a partition is locked in all eight");
    // The refusal names the lock to the operator, and not to the node.
    let records = site.local(&["audit", "ls", "--class", "known"]).values;
    let refused = records.iter().find(|one| one["code"] == "LOCKED").unwrap();
    assert!(refused["detail"]["message"].as_str().unwrap().contains("INC-42"));
}
