//! A document that AWS signed, where there is one: its owner has not published it for this
//! repository, so it is read from the directory that `MUSTER_GENUINE_DOCUMENTS` names.

use std::path::PathBuf;
use std::process::Command;

use muster::aws::RegionCertificates;
use muster::domain::Code;
use muster::methods::ec2::IdentityDocument;
use serde_json::Value;

use crate::flips;

const NAME: &str = "iid-us-west-2-2021";

/// The directory, or nothing where the tests are to be skipped; never nothing on the CI.
fn directory() -> Option<PathBuf> {
    let directory = std::env::var_os("MUSTER_GENUINE_DOCUMENTS").map(PathBuf::from);
    if directory.is_none() {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "MUSTER_GENUINE_DOCUMENTS has to be set on the CI"
        );
        eprintln!("skipped: MUSTER_GENUINE_DOCUMENTS names no directory of genuine documents");
    }
    directory
}

fn message(text: &str) -> Vec<u8> {
    use base64::Engine;
    let dense: String = text.split_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(dense).unwrap()
}

#[test]
fn a_genuine_document_verifies_as_it_is() {
    let Some(directory) = directory() else { return };
    let output = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["iid", "verify", "--output", "json"])
        .arg(directory.join(format!("{NAME}.rsa2048.b64")))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["account_id"], "278576220453");
    assert_eq!(printed["region"], "us-west-2");
    assert_eq!(printed["instance_id"], "i-078517ca8a70a1dde");
    assert_eq!(printed["pending_time"], "2021-09-03T21:25:44Z");
    assert_eq!(printed["signing_time"], "2021-09-03T21:25:47Z");
    assert_eq!(printed["certificate_serial"], "B64BDE5AD00924CC");
}

#[test]
fn flips_of_a_genuine_document_are_told_apart() {
    let Some(directory) = directory() else { return };
    let text = std::fs::read_to_string(directory.join(format!("{NAME}.rsa2048.b64"))).unwrap();
    let content = std::fs::read(directory.join(format!("{NAME}.json"))).unwrap();
    let accepted = flips::every_flip(&message(&text), &RegionCertificates::embedded(), &content);
    assert!(accepted < 100, "{accepted} flips were accepted");
}

#[test]
fn a_genuine_document_of_a_stranger_to_the_trust_store_is_refused() {
    let Some(directory) = directory() else { return };
    let text = std::fs::read(directory.join(format!("{NAME}.rsa2048.b64"))).unwrap();
    let only_ours = &crate::forge::AWS.trusted;
    let rejection = IdentityDocument::verify(&text, only_ours).unwrap_err();
    assert_eq!(rejection.code, Code::DocumentSignerUnknown);
}
