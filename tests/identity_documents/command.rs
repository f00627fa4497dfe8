//! `muster iid verify` and `muster regions ls` as their callers see them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::forge::{AWS, DOCUMENT};

pub(crate) fn muster(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses early does not read to the end.
    let _closed = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn directory() -> &'static str {
    AWS.directory.path().to_str().unwrap()
}

/// Exit status, and the one JSON value on stdout.
pub(crate) fn json(arguments: &[&str], input: &[u8]) -> (i32, Value) {
    let output = muster(&[arguments, &["--output", "json"]].concat(), input);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed.lines().count(), 1, "{printed}");
    (output.status.code().unwrap(), serde_json::from_str(&printed).unwrap())
}

#[test]
fn a_document_on_stdin_is_verified() {
    let message = AWS.message(DOCUMENT);
    let verify = ["iid", "verify", "-", "--certificates-dir", directory()];
    let (exit, printed) = json(&verify, &message);
    assert_eq!((exit, &printed["account_id"]), (0, &Value::from("111122223333")));

    let words = muster(&verify, &message);
    let words = String::from_utf8(words.stdout).unwrap();
    assert!(words.contains("i-0123456789abcdef0"), "{words}");
    assert!(words.contains("not judged"), "{words}");
}

#[test]
fn what_is_wrong_is_an_error_with_its_exit_status() {
    let message = AWS.message(DOCUMENT);
    let blanks = vec![b' '; 65 * 1024];
    let verify = ["iid", "verify", "-"];
    let broken = tempfile::tempdir().unwrap();
    std::fs::write(broken.path().join("us-west-2.pem"), "nothing").unwrap();
    let broken = broken.path().to_str().unwrap();
    for (arguments, input, exit, code) in [
        (&verify[..], &message[..], 1, "DOCUMENT_SIGNER_UNKNOWN"),
        (&verify, b"!", 1, "DOCUMENT_MALFORMED"),
        (&verify, b"{}", 1, "DOCUMENT_FORM_UNSUPPORTED"),
        (&verify, &blanks, 1, "FILE_TOO_LARGE"),
        (&["iid", "verify", "/nonexistent"], b"", 2, "FILE_UNREADABLE"),
        (&["iid", "verify", "-", "--certificates-dir", "/nonexistent"], b"", 2, "FILE_UNREADABLE"),
        (&["iid", "verify", "-", "--certificates-dir", broken], b"", 2, "CERTIFICATES_INVALID"),
        (&["regions", "ls", "--certificates-dir", broken], b"", 2, "CERTIFICATES_INVALID"),
    ] {
        let (status, printed) = json(arguments, input);
        assert_eq!(printed["error"]["code"], code, "{arguments:?}");
        assert_eq!(status, exit, "{arguments:?}");
    }
}

#[test]
fn regions_are_listed_in_order_with_their_source() {
    for noun in ["regions", "region"] {
        let (exit, printed) = json(&[noun, "ls", "--certificates-dir", directory()], b"");
        let rows = printed.as_array().unwrap();
        assert_eq!((exit, rows.len()), (0, 37));
        let names: Vec<_> = rows.iter().map(|row| row["region"].as_str().unwrap()).collect();
        assert!(names.is_sorted());
        let ours = rows.iter().find(|row| row["source"] != "embedded").unwrap();
        let source = Path::new(directory()).join("us-west-2.pem");
        assert_eq!(ours["source"], source.to_str().unwrap());
        assert_eq!((&ours["serial"], &ours["partition"]), (&"2A".into(), &"aws".into()));
    }
}
