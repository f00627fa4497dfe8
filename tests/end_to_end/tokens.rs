//! `muster tokens`: what is shown and when, what is refused, and what stands in the audit log.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use muster::clock::Stopwatch;
use muster::domain::TokenSecret;
use serde_json::{Value, json};

use crate::harness::{Answer, MUSTER, Site, await_that, write_policy};

pub(crate) const TOKEN_POLICY: &str = r#"
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: web, description: "web tier", owner: "platform"}
spec:
  method: token
  roles: [node]
  allow: [{tokens: any, lifetime: 24h, uses: 100}]
"#;

fn audited(site: &Site, kind: &str) -> Vec<Value> {
    let mut records = site.local(&["audit", "ls"]).values;
    records.retain(|record| record["kind"] == kind);
    records
}

#[test]
fn a_token_is_added_shown_used_up_and_removed() {
    let site = Site::under(TOKEN_POLICY);
    let add = ["tokens", "add", "--policy", "web", "--label", "tier=web", "--cidr", "10.0.0.0/8"];
    let added = site.local(&add);
    let secret = added.yes()["token"].as_str().unwrap().to_owned();
    let name = added.yes()["name"].as_str().unwrap();
    assert_eq!(TokenSecret::parse(&secret).ok().unwrap().name().as_str(), name);
    let command = added.yes()["command"].as_str().unwrap();
    for part in ["muster join --server", site.pin(), "--policy web", "--token-file"] {
        assert!(command.contains(part), "{command}");
    }
    assert!(!command.contains(&secret), "a secret is never an argument");

    let shown = site.local(&["tokens", "show", name]);
    for member in
        ["name", "policy", "expires_at", "max_uses", "uses", "created_by", "cidrs", "labels"]
    {
        assert!(shown.yes().get(member).is_some(), "{member}");
    }
    assert_eq!(shown.yes()["cidrs"], json!(["10.0.0.0/8"]));
    assert_eq!(shown.yes()["labels"], json!({"tier": "web"}));
    assert_eq!((&shown.yes()["max_uses"], &shown.yes()["uses"]), (&json!(1), &json!(0)));
    assert!(shown.yes()["created_by"].as_str().unwrap().starts_with("uid "));
    let listed = site.local(&["tokens", "ls"]);
    assert_eq!(listed.yes()["tokens"][0], *shown.yes());
    // Once is once.
    let digits = &secret[secret.len() - 72..];
    assert!(!shown.yes().to_string().contains(digits) && !site.server.log().contains(digits));

    let removed = site.local(&["tokens", "rm", name, "--reason", "rollout is over"]);
    assert_eq!(removed.yes()["removed"], name);
    assert_eq!(site.local(&["tokens", "show", name]).failure(), (1, "NOT_FOUND"));
    let records = audited(&site, "token-add");
    assert_eq!(records[0]["detail"]["token"], name);
    assert!(records[0]["detail"]["by"].as_str().unwrap().starts_with("uid "));
    assert_eq!(audited(&site, "token-remove")[0]["detail"]["reason"], "rollout is over");
}

#[test]
fn a_token_beyond_its_policy_is_not_made() {
    let site = Site::under(TOKEN_POLICY);
    let add = |more: &[&str]| site.local(&[&["tokens", "add", "--policy", "web"], more].concat());
    assert_eq!(add(&["--ttl", "25h"]).failure(), (1, "TOKEN_TOO_WIDE"));
    assert_eq!(add(&["--never-expires"]).failure(), (1, "TOKEN_TOO_WIDE"));
    assert_eq!(add(&["--max-uses", "101"]).failure(), (1, "TOKEN_TOO_WIDE"));
    assert_eq!(add(&["--max-uses", "unlimited"]).failure(), (1, "TOKEN_TOO_WIDE"));
    add(&["--name", "one", "--max-uses", "100"]).yes();
    assert_eq!(add(&["--name", "one"]).failure(), (1, "NAME_TAKEN"));
    assert_eq!(site.local(&["tokens", "add", "--policy", "no"]).failure(), (1, "POLICY_UNKNOWN"));
    // Empty and nothing never mean any.
    for wrong in [["--max-uses", "0"], ["--max-uses", ""], ["--cidr", "any"], ["--node", "k-1"]] {
        let mut command = Command::new(MUSTER);
        command.args(["tokens", "add", "--policy", "web"]).args(wrong);
        assert_eq!(command.output().unwrap().status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_secret_goes_to_a_file_that_nobody_else_can_read() {
    let site = Site::under(TOKEN_POLICY);
    let path = site.path("token");
    let out = path.to_str().unwrap();
    let added = site.local(&["tokens", "add", "--policy", "web", "--out", out]);
    assert_eq!(added.yes().get("token"), None);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let written = fs::read_to_string(&path).unwrap();
    assert_eq!(TokenSecret::parse(&written).ok().unwrap().name().as_str(), added.yes()["name"]);
    // What is there already is left alone, and no token is made in vain.
    let again = site.local(&["tokens", "add", "--policy", "web", "--out", out]);
    assert_eq!(again.failure(), (2, "FILE_UNREADABLE"));
    assert_eq!(fs::read_to_string(&path).unwrap(), written);
    assert_eq!(site.local(&["tokens", "ls"]).yes()["tokens"].as_array().unwrap().len(), 1);
}

// The file has no secrets; its tokens come and go with it, and the audit finds each of them.
#[test]
fn static_tokens_follow_their_file() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("server.toml");
    let file = directory.path().join("tokens.toml");
    let mut command = Command::new(MUSTER);
    command.args(["tokens", "keygen", "ci", "--output", "json"]);
    let made = Answer::of(&mut command);
    assert!(TokenSecret::parse(made.yes()["token"].as_str().unwrap()).is_ok());
    let key = made.yes()["public_key"].as_str().unwrap();
    let entry = format!(
        "[[token]]\nname = \"ci\"\npublic_key = \"{key}\"\npolicy = \"web\"\n\
         expires_at = \"never\"\nmax_uses = \"unlimited\"\n"
    );
    fs::write(&file, &entry).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    fs::write(&config, format!("[tokens]\nfile = {file:?}\n")).unwrap();
    let site = Site::with(|mut command| {
        command.arg("--config").arg(&config);
        command
    });
    write_policy(&site.path("."), TOKEN_POLICY);

    let listed = site.local(&["tokens", "ls"]);
    assert_eq!(listed.yes()["tokens"][0]["created_by"], "static");
    let refused = site.local(&["tokens", "rm", "ci", "--reason", "no"]);
    assert_eq!(refused.failure(), (1, "MALFORMED_REQUEST"));

    let mut audit = Command::new(MUSTER);
    audit.args(["tokens", "audit", "--output", "json", "--data-dir"]).arg(site.path("data"));
    let deadline = Stopwatch::start();
    let expected =
        ["TOKEN_NEVER_EXPIRES", "TOKEN_UNLIMITED", "TOKEN_STATIC", "TOKEN_WIDER_THAN_POLICY"];
    loop {
        let output = audit.output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let codes: Vec<_> =
            found["findings"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect();
        assert_eq!(output.status.code(), Some(1));
        // The policies are loaded anew within two seconds.
        if codes == expected {
            break;
        }
        assert!(deadline.elapsed() < Duration::from_secs(30), "{codes:?}");
        std::thread::sleep(Duration::from_millis(100));
    }

    // A broken file changes nothing, and an empty one takes its tokens away.
    let tokens = || site.local(&["tokens", "ls"]).yes()["tokens"].as_array().unwrap().len();
    fs::write(&file, "[[token]]\nname = 1\n").unwrap();
    site.server.says("the static tokens were not loaded");
    assert_eq!(tokens(), 1);
    fs::write(&file, "").unwrap();
    await_that("the tokens are gone", || tokens() == 0);
    assert!(site.local(&["tokens", "audit"]).yes()["findings"].as_array().unwrap().is_empty());
}
