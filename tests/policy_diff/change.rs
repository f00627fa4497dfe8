//! Two policy sets, and what `muster` says of their difference.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

const MUSTER: &str = env!("CARGO_BIN_EXE_muster");
pub(crate) const AT: &str = "2026-06-01T12:00:00Z";

/// An edit of one file: what stands there, and what is to stand there instead.
pub(crate) type Edit = (&'static str, &'static str, &'static str);

/// Two sets: the examples with some edits, and with some more.
pub(crate) struct Change {
    pub(crate) directory: TempDir,
}

impl Change {
    pub(crate) fn of(before: &[Edit], after: &[Edit]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["old", "new"] {
            let target = directory.path().join(name);
            fs::create_dir(&target).unwrap();
            for entry in fs::read_dir("policies").unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
            }
            for edit in before {
                apply(&target, edit);
            }
        }
        for edit in after {
            apply(&directory.path().join("new"), edit);
        }
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, Value) {
        let (code, stdout, stderr) = self.run_as_it_is(arguments);
        let value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}\n{stderr}"));
        (code, value)
    }

    pub(crate) fn run_as_it_is(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(MUSTER);
        let output = command.args(arguments).current_dir(self.directory.path()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    pub(crate) fn diff(&self, more: &[&str]) -> (i32, Value) {
        let arguments = ["policy", "diff", "old", "new", "--at", AT, "--output", "json"];
        self.run(&[&arguments, more].concat())
    }

    /// What `explain` says of a witness under one of the two sets.
    pub(crate) fn explained(&self, set: &str, witness: &Value) -> (i32, Value) {
        fs::write(self.path("claims.json"), witness["claims"].to_string()).unwrap();
        let text = |name: &str| witness[name].as_str().unwrap().to_owned();
        let (policy, proof, at) = (text("policy"), text("proof"), text("at"));
        let mut arguments = vec!["policy", "explain", set, "--claims", "claims.json"];
        arguments.extend(["--policy", &policy, "--proof", &proof, "--at", &at]);
        if !witness["instance"].is_null() {
            fs::write(self.path("instance.json"), witness["instance"].to_string()).unwrap();
            arguments.extend(["--instance", "instance.json"]);
        }
        arguments.extend(["--output", "json"]);
        self.run(&arguments)
    }
}

/// An empty `from` is the whole file; an empty `to` with it takes the file away.
fn apply(set: &Path, (file, from, to): &Edit) {
    let path = set.join(file);
    match (from.is_empty(), to.is_empty()) {
        (true, true) => fs::remove_file(path).unwrap(),
        (true, false) => fs::write(path, to).unwrap(),
        (false, _) => {
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(text.matches(from).count(), 1, "{file}: {from}");
            fs::write(path, text.replace(from, to)).unwrap();
        }
    }
}

/// The one change of this kind and what, and its witness.
pub(crate) fn only<'a>(answer: &'a Value, kind: &str, what: &str) -> &'a Value {
    let changes = answer["changes"].as_array().unwrap();
    let found: Vec<&Value> =
        changes.iter().filter(|one| one["kind"] == kind && one["what"] == what).collect();
    assert_eq!(found.len(), 1, "{answer:#}");
    found[0]
}

/// Acceptance 3: reported, with a witness that the new set admits and the old one refuses.
pub(crate) fn is_newly_admitted(change: &Change) -> Value {
    let (code, answer) = change.diff(&["--fail-on-new-access"]);
    assert_eq!((code, &answer["same_meaning"]), (1, &json!(false)), "{answer:#}");
    let found = only(&answer, "newly_admitted", "rules").clone();
    let (admitted, explained) = change.explained("new", &found["witness"]);
    assert_eq!(admitted, 0, "{explained:#}");
    assert_eq!(explained["rule"], found["new"]["rule"]);
    assert_eq!(change.explained("old", &found["witness"]).0, 1);
    assert!(found["new"]["line"].is_u64() && found["old"]["line"].is_u64());
    found
}
