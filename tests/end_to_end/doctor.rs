//! `muster doctor`: each thing that is wrong is named, with what to do about it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use muster::aws::Imds;
use serde_json::{Value, json};

use crate::harness::{Answer, MUSTER, POLICY, Site, WORKER, is_missing, skip, write_policy};

/// A doctor of the server of a site; `change` is what is different this time.
fn of_server(site: &Site, change: impl FnOnce(&mut Command)) -> Answer {
    let mut command = Command::new(MUSTER);
    command.args(["doctor", "server", "--output", "json"]);
    command.arg("--simulation").arg(site.path("sim"));
    command.arg("--policies").arg(site.path("policies"));
    command.arg("--data-dir").arg(site.path("data"));
    change(&mut command);
    Answer::of(&mut command)
}

fn of_node(site: &Site, imds: &str, more: &[&str]) -> Answer {
    let mut command = Command::new(MUSTER);
    command.args(["doctor", "node", "--output", "json", "--imds-endpoint", imds, "--state"]);
    command.arg(site.path("node")).args(more);
    Answer::of(&mut command)
}

/// Outcome, detail and remedy of a check.
fn check<'a>(answer: &'a Answer, name: &str) -> (&'a str, &'a str, &'a str) {
    let checks = answer.values[0]["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name).expect(name);
    let text = |member: &str| check[member].as_str().unwrap_or_default();
    (text("outcome"), text("detail"), text("remedy"))
}

fn failed(answer: &Answer) -> Vec<&str> {
    let checks = answer.values[0]["checks"].as_array().unwrap();
    let failed = checks.iter().filter(|check| check["outcome"] == "failed");
    failed.map(|check| check["name"].as_str().unwrap()).collect()
}

fn imds(site: &Site) -> &str {
    site.simulator.ready["imds"][WORKER].as_str().unwrap()
}

#[test]
fn a_good_server_and_a_good_node_are_well() {
    let site = Site::new();
    let answer = of_server(&site, |_| ());
    let report = answer.yes();
    assert_eq!(report["ok"], true);
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 9);
    let outcome = |check: &Value| if check["name"] == "ec2" { "not checked" } else { "ok" };
    assert!(checks.iter().all(|check| check["outcome"] == outcome(check)), "{report}");
    assert!(checks.iter().all(|check| check["remedy"] == Value::Null), "{report}");

    assert_eq!(site.join(WORKER, "node").exit, 0);
    let server = ["--server", site.address(), "--pin", site.pin()];
    let answer = of_node(&site, imds(&site), &server);
    let checks = answer.yes()["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["outcome"] == "ok"), "{answer:?}");
    assert!(check(&answer, "state directory").1.ends_with("joined"));
    let answer = of_node(&site, imds(&site), &[]);
    assert_eq!((answer.exit, check(&answer, "server").0), (0, "not checked"));
}

#[test]
fn a_wrong_clock_is_named_with_both_times() {
    if is_missing("faketime") {
        return;
    }
    let site = Site::new();
    let mut command = Command::new("faketime");
    command.args(["-f", "+10m", MUSTER, "doctor", "server", "--output", "json", "--simulation"]);
    command.arg(site.path("sim")).arg("--data-dir").arg(site.path("data"));
    command.arg("--policies").arg(site.path("policies"));
    let answer = Answer::of(command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1"));
    assert_eq!((answer.exit, failed(&answer)), (1, vec!["clock"]), "{answer:?}");
    let (_, detail, remedy) = check(&answer, "clock");
    assert!(detail.contains("this machine says") && detail.contains("AWS"), "{detail}");
    assert!(remedy.contains("chrony"), "{remedy}");
}

#[test]
fn a_disk_is_full_by_the_servers_own_bound() {
    let site = Site::new();
    let config = site.path("server.toml");
    fs::write(&config, "[store]\nlow_mib = 1000000000\n").unwrap();
    let answer = of_server(&site, |command| {
        command.arg("--config").arg(&config);
    });
    assert_eq!((answer.exit, failed(&answer)), (1, vec!["disk space"]), "{answer:?}");
}

// Its own mount namespace, so that the small disk is gone with the command.
#[test]
fn a_full_disk_is_named() {
    let ways = [&["--mount"][..], &["--user", "--map-root-user", "--mount"]];
    let may_mount = |way: &&&[&str]| {
        let mount = ["mount", "-t", "tmpfs", "none", "/mnt"];
        let tried = Command::new("unshare").args(**way).args(mount).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let Some(way) = ways.iter().find(may_mount) else {
        skip("this user may not mount, not even in a namespace of its own");
        return;
    };
    let site = Site::new();
    let full = site.path("full");
    fs::create_dir(&full).unwrap();
    let script = "mount -t tmpfs -o size=1m,mode=700 none \"$1\" && \
                  { head -c 2000000 /dev/zero > \"$1/fill\" 2>/dev/null; \
                  exec \"$2\" doctor server --output json --simulation \"$3\" --policies \"$4\" \
                  --data-dir \"$1\"; }";
    let mut command = Command::new("unshare");
    command.args(*way).args(["sh", "-c", script, "sh"]);
    command.arg(&full).arg(MUSTER).arg(site.path("sim")).arg(site.path("policies"));
    let answer = Answer::of(&mut command);
    assert_eq!(answer.exit, 1, "{answer:?}");
    let (outcome, detail, remedy) = check(&answer, "disk space");
    assert_eq!(outcome, "failed");
    assert!(detail.starts_with("0 MiB free on"), "{detail}");
    assert!(remedy.contains("store.low_mib"), "{remedy}");
    // No server runs on that directory.
    assert_eq!(failed(&answer), ["disk space", "server"]);
}

#[test]
fn a_directory_that_is_open_to_others_and_policies_that_do_not_load_are_named() {
    let site = Site::new();
    let data = site.path("data");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let empty = site.path("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("a.yaml"), "kind: Nonsense\n").unwrap();
    let answer = of_server(&site, |command| {
        command.arg("--config").arg("/nonexistent");
    });
    assert_eq!((answer.exit, failed(&answer)), (1, vec!["configuration"]));

    let mut command = Command::new(MUSTER);
    command.args(["doctor", "server", "--output", "json", "--simulation"]).arg(site.path("sim"));
    command.arg("--data-dir").arg(&data).arg("--policies").arg(&empty);
    let answer = Answer::of(&mut command);
    assert_eq!((answer.exit, failed(&answer)), (1, vec!["data directory", "policies"]));
    assert!(check(&answer, "data directory").2.contains("mode 700"));
    assert!(check(&answer, "policies").2.contains("muster policy check"));
}

#[test]
fn an_sts_that_is_not_reached_is_named() {
    let site = Site::new();
    let path = site.path("sim/simulation.json");
    let mut simulation: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    simulation["sts"] = format!("http://{}", nowhere()).into();
    fs::write(&path, simulation.to_string()).unwrap();
    let answer = of_server(&site, |_| ());
    assert_eq!((answer.exit, failed(&answer)), (1, vec!["sts"]), "{answer:?}");
    assert!(check(&answer, "sts").2.contains("port 443"));
    assert_eq!(check(&answer, "clock").0, "not checked");
}

// An instance's own role may not look at instances, so it stands for a server without the right.
#[tokio::test]
async fn a_missing_permission_is_named() {
    let site = Site::new();
    let imds = Imds::at(imds(&site)).unwrap();
    let role = imds.session().await.unwrap().identity_credentials().await.unwrap();
    let path = site.path("sim/simulation.json");
    let simulation: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let credentials = site.path("sim").join(simulation["credentials"].as_str().unwrap());
    let of_role = json!({
        "access_key_id": role.access_key_id,
        "secret_access_key": role.secret_access_key,
        "session_token": role.session_token,
    });
    fs::write(credentials, of_role.to_string()).unwrap();
    let answer = of_server(&site, |_| ());
    assert_eq!((answer.exit, check(&answer, "ec2").0), (0, "not checked"), "no policy looks");
    let looks = POLICY
        .replace("fresh_proof: not_required, document_ttl: 24h, look_up: none", "look_up: own");
    write_policy(site.directory.path(), &looks);
    let answer = of_server(&site, |_| ());
    assert_eq!((answer.exit, failed(&answer)), (1, vec!["ec2"]), "{answer:?}");
    assert!(check(&answer, "ec2").2.contains("ec2:DescribeInstances"), "{answer:?}");
}

#[test]
fn an_unreachable_metadata_service_and_a_wrong_server_are_named() {
    let site = Site::new();
    let nowhere = nowhere();
    let wrong_pin = format!("sha256:{}", "0".repeat(64));
    let server = ["--server", site.address(), "--pin", &wrong_pin];
    let answer = of_node(&site, &format!("http://{nowhere}"), &server);
    assert_eq!((answer.exit, failed(&answer)), (1, vec!["metadata service", "server"]));
    assert!(check(&answer, "metadata service").2.contains("hop limit"));
    assert_eq!(check(&answer, "identity document").0, "not checked");
    assert!(check(&answer, "server").1.contains("SERVER_UNTRUSTED"), "{answer:?}");

    let answer = of_node(&site, imds(&site), &["--server", &nowhere, "--pin", site.pin()]);
    assert_eq!(failed(&answer), ["server"]);
    assert!(check(&answer, "server").1.contains("SERVER_UNREACHABLE"), "{answer:?}");
}

#[test]
fn what_the_agent_wrote_is_told() {
    let site = Site::new();
    let state = site.path("node");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    let write = |text: &str| fs::write(Path::new(&state).join("agent.json"), text).unwrap();
    write(
        r#"{"last_error":{"code":"NOT_ADMITTED","message":"no","hint":null,
            "correlation_id":"k-1","time":"2026-01-01T00:00:00Z"},"next_try":null}"#,
    );
    let answer = of_node(&site, imds(&site), &[]);
    assert_eq!((answer.exit, failed(&answer)), (1, vec!["state directory", "agent"]));
    let (_, detail, remedy) = check(&answer, "agent");
    assert!(detail.contains("NOT_ADMITTED") && detail.contains("k-1"), "{detail}");
    assert!(remedy.contains("muster audit show"), "{remedy}");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    write(r#"{"last_error":null}"#);
    assert_eq!(of_node(&site, imds(&site), &[]).exit, 0);
    write("not json");
    assert_eq!(of_node(&site, imds(&site), &[]).exit, 0);
}

/// An address where nobody listens.
fn nowhere() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}
