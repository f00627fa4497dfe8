//! `muster ca`, and a node CA whose key is in a PKCS#11 token.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    Answer, MUSTER, OTHER_WORKER, Process, Site, WORKER, certificates, is_missing, join_command,
    local_command, mortal, server_command,
};
use crate::softhsm::{CONFIGURATION, PIN, SoftHsm};

/// What `muster ca status` says of an authority, sorted.
const AUTHORITY: [&str; 5] = ["not_after", "phase", "serial", "sha256", "subject"];

fn members(value: &Value) -> Vec<&str> {
    let mut members: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    members
}

#[test]
fn the_authorities_are_shown_tried_and_exported() {
    let site = Site::new();
    site.join(WORKER, "node").yes();

    let status = site.local(&["ca", "status"]);
    let status = status.yes();
    assert_eq!(members(status), ["join_root", "node_ca", "user_ca"]);
    assert_eq!(members(&status["join_root"]), AUTHORITY);
    assert_eq!(members(&status["user_ca"]), AUTHORITY);
    assert_eq!(status["node_ca"]["backend"], "builtin");
    assert_eq!(status["node_ca"]["phase"], "active");
    assert_eq!(status["node_ca"]["subject"], "CN=muster node CA of simulation.internal");

    assert_eq!(site.local(&["ca", "pin"]).yes()["pin"], site.pin());
    let pin = Command::new(MUSTER)
        .args(["ca", "pin", "--data-dir"])
        .arg(site.path("data"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(pin.stdout).unwrap(), format!("{}\n", site.pin()));

    let nodes = site.local(&["nodes", "ls"]).yes().clone();
    let checked = site.local(&["ca", "check"]);
    assert_eq!(checked.yes()["ok"], true);
    assert_eq!(checked.yes()["problem"], Value::Null);
    assert_eq!(site.local(&["nodes", "ls"]).yes(), &nodes, "a check issues nothing");

    exports_are_the_bundle_of_nodes(&site);
}

/// Every form of the bundle holds the anchor that the node got.
fn exports_are_the_bundle_of_nodes(site: &Site) {
    let bundle = certificates(&site.path("node/current/bundle.pem"));
    let export = |format| site.local(&["ca", "export", "--format", format]);

    let pem = site.path("exported.pem");
    fs::write(&pem, export("pem").yes()["bundle"].as_str().unwrap()).unwrap();
    assert_eq!(certificates(&pem), bundle);
    assert_eq!(site.local(&["ca", "export"]).yes(), export("pem").yes());

    let der = STANDARD.decode(export("der").yes()["bundle"].as_str().unwrap()).unwrap();
    assert_eq!(der, bundle[0].to_vec());
    let raw = Command::new(MUSTER)
        .args(["ca", "export", "--format", "der", "--data-dir"])
        .arg(site.path("data"))
        .output()
        .unwrap();
    assert_eq!(raw.stdout, der, "as text it is the bytes themselves");

    let spiffe = export("spiffe");
    let spiffe = spiffe.yes();
    assert_eq!(members(spiffe), ["keys", "spiffe_refresh_hint", "spiffe_sequence"]);
    let key = &spiffe["keys"][0];
    assert_eq!(members(key), ["crv", "kty", "use", "x", "x5c", "y"]);
    assert_eq!((&key["use"], &key["kty"]), (&Value::from("x509-svid"), &Value::from("EC")));
    assert_eq!(key["x5c"], Value::from(vec![STANDARD.encode(&der)]));
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    assert_eq!(parsed.public_key().subject_public_key.data, point);
}

#[test]
fn without_a_server_it_is_not_now() {
    let directory = tempfile::tempdir().unwrap();
    for command in ["status", "pin", "check", "export"] {
        let mut muster = local_command(Command::new(MUSTER), &["ca", command], directory.path());
        assert_eq!(Answer::of(&mut muster).failure(), (3, "SERVER_NOT_RUNNING"), "{command}");
    }
}

/// A server's configuration with the node CA in the token `muster` of the directory.
fn configure(path: &Path, keep: &TempDir) {
    let text = format!(
        "[ca]\nbackend = 'pkcs11'\n[ca.pkcs11]\nmodule = '{}'\ntoken_label = 'muster'\n\
         key_label = 'node-ca'\npin_file = '{}'\nsessions = 2\ncreate_key = true\n",
        SoftHsm::module().unwrap(),
        SoftHsm::pin_file(keep.path()).display()
    );
    fs::write(path, text).unwrap();
}

/// The command of a server at that site, with the token.
fn with_token(mut command: Command, hsm: &SoftHsm, keep: &TempDir) -> Command {
    let file = keep.path().join("server.toml");
    configure(&file, keep);
    command.arg("--config").arg(file).env(CONFIGURATION, &hsm.configuration);
    command.args(["--log", "trace"]);
    command
}

fn restarted(directory: &Path, hsm: &SoftHsm, keep: &TempDir) -> Command {
    with_token(server_command(mortal(Path::new(MUSTER)), directory), hsm, keep)
}

#[test]
fn a_node_ca_in_a_token_serves_nodes_over_restarts() {
    let keep = tempfile::tempdir().unwrap();
    let Some(hsm) = SoftHsm::new(keep.path(), "muster") else { return };
    let mut site = Site::with(|command| with_token(command, &hsm, &keep));
    site.join(WORKER, "node").yes();

    let current = site.path("node/current");
    if !is_missing("openssl") {
        let verified = Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile"])
            .args([current.join("bundle.pem"), current.join("certificate.pem")])
            .output()
            .unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    }
    let status = site.local(&["ca", "status"]).yes().clone();
    assert_eq!(status["node_ca"]["backend"], "pkcs11");
    assert_eq!(site.local(&["ca", "check"]).yes()["ok"], true);
    exports_are_the_bundle_of_nodes(&site);
    assert!(!site.path("data/ca/node-ca.key").exists(), "the key is in the token alone");
    assert!(site.path("data/ca/node-ca.pem").exists());

    // The same token after a restart: the same authorities, and nodes go on.
    let log = site.server.log();
    drop(site.server);
    let second = site.directory.path().join("second.log");
    site.server = Process::start(restarted(site.directory.path(), &hsm, &keep), &second);
    assert_eq!(site.local(&["ca", "status"]).yes(), &status);
    site.join(OTHER_WORKER, "other").yes();

    // I10: the PIN is in no log, at any level.
    assert!(log.contains("TRACE") && !log.contains(PIN));
    assert!(!site.server.log().contains(PIN));
}

// I14: a token that is away is an outage, and over when the token is back.
#[test]
fn a_token_may_go_away_and_come_back() {
    let keep = tempfile::tempdir().unwrap();
    let Some(hsm) = SoftHsm::new(keep.path(), "muster") else { return };
    let site = Site::with(|command| with_token(command, &hsm, &keep));
    site.join(WORKER, "node").yes();
    let (tokens, away) = (keep.path().join("tokens"), keep.path().join("away"));

    for _ in 0..2 {
        fs::rename(&tokens, &away).unwrap();
        for _ in 0..3 {
            assert_eq!(site.local(&["ca", "check"]).failure(), (3, "CA_UNAVAILABLE"));
        }
        let endpoint = site.simulator.ready["imds"][OTHER_WORKER].as_str().unwrap();
        let mut join = join_command(endpoint, &site.path("other"), "1s");
        let answer = Answer::of(join.args(["--server", site.address(), "--pin", site.pin()]));
        assert_eq!(answer.failure(), (3, "CA_UNAVAILABLE"));

        fs::rename(&away, &tokens).unwrap();
        for _ in 0..3 {
            assert_eq!(site.local(&["ca", "check"]).yes()["ok"], true);
        }
    }
    site.join(OTHER_WORKER, "other").yes();
}

#[test]
fn another_token_or_backend_or_pin_is_refused() {
    let keep = tempfile::tempdir().unwrap();
    let Some(hsm) = SoftHsm::new(keep.path(), "muster") else { return };
    let site = Site::with(|command| with_token(command, &hsm, &keep));
    let Site { server, simulator: _simulator, directory } = site;
    drop(server);
    let refusal = |command: &mut Command| {
        let answer = Answer::of(command.args(["--output", "json"]));
        let error = &answer.values[0]["error"];
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        assert!(!format!("{answer:?}").contains(PIN), "{answer:?}");
        (answer.exit, text("code"), text("message"))
    };

    // A token of the same name without the key: none is made, this is not the first start.
    let other_keep = tempfile::tempdir().unwrap();
    let other = SoftHsm::new(other_keep.path(), "muster").unwrap();
    let (exit, code, message) = refusal(&mut restarted(directory.path(), &other, &other_keep));
    assert_eq!((exit, code.as_str()), (2, "CONFIGURATION_INVALID"), "{message}");
    assert!(message.contains("has no key `node-ca`"), "{message}");

    // With a key of the same name, which another installation made.
    let elsewhere = Site::with(|command| with_token(command, &other, &other_keep));
    drop(elsewhere);
    let (exit, code, message) = refusal(&mut restarted(directory.path(), &other, &other_keep));
    assert_eq!((exit, code.as_str()), (2, "DATA_DIRECTORY_UNUSABLE"), "{message}");
    assert!(message.contains("it is for another key"), "{message}");

    // No such token.
    let empty_keep = tempfile::tempdir().unwrap();
    let empty = SoftHsm::new(empty_keep.path(), "elsewhere").unwrap();
    let (exit, code, message) = refusal(&mut restarted(directory.path(), &empty, &empty_keep));
    assert_eq!((exit, code.as_str()), (3, "CA_UNAVAILABLE"), "{message}");
    assert!(message.contains("the token `muster` is not there"), "{message}");

    // The built-in backend, on a directory whose node CA is in a token.
    let (exit, code, message) =
        refusal(&mut server_command(mortal(Path::new(MUSTER)), directory.path()));
    assert_eq!((exit, code.as_str()), (2, "DATA_DIRECTORY_UNUSABLE"), "{message}");
    assert!(message.contains("set ca.backend"), "{message}");

    // Another PIN, and one that others can read.
    let pin_file = SoftHsm::pin_file(keep.path());
    fs::write(&pin_file, "another-pin\n").unwrap();
    let (exit, code, message) = refusal(&mut restarted(directory.path(), &hsm, &keep));
    assert_eq!((exit, code.as_str()), (2, "CONFIGURATION_INVALID"), "{message}");
    assert!(message.contains("refused the PIN") && !message.contains("another-pin"), "{message}");
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&pin_file, readable).unwrap();
    let (exit, _, message) = refusal(&mut restarted(directory.path(), &hsm, &keep));
    assert_eq!(exit, 2);
    assert!(message.contains("chmod 600"), "{message}");
}
