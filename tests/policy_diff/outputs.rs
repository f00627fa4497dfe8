//! What is compared, and how it is told: revisions and formats.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::change::{AT, Change};

#[test]
fn revisions_of_a_repository_are_compared() {
    let change =
        Change::of(&[], &[("web.yaml", "instance_profile: web-*", "instance_profile: we*")]);
    let git = |arguments: &[&str]| {
        let identity =
            ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"];
        let output = Command::new("git")
            .args(identity)
            .args(arguments)
            .current_dir(change.directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    fs::create_dir(change.path("policies")).unwrap();
    let copy = |from: &str| {
        for entry in fs::read_dir(change.path(from)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), change.path("policies").join(entry.file_name())).unwrap();
        }
    };
    git(&["init", "-q", "-b", "main"]);
    copy("old");
    git(&["add", "policies"]);
    git(&["commit", "-q", "-m", "one"]);
    copy("new");
    git(&["add", "policies"]);
    git(&["commit", "-q", "-m", "two"]);
    let between = |old: &str, new: &str| {
        change.run(&["policy", "diff", old, new, "--at", AT, "--output", "json"])
    };
    let (_, by_directory) = change.diff(&[]);
    for (old, new) in [
        ("HEAD~1:policies", "HEAD:policies"),
        ("main~1:policies/", "policies"),
        ("old", "main:policies"),
    ] {
        let (code, answer) = between(old, new);
        assert_eq!((code, &answer["changes"]), (0, &by_directory["changes"]));
        assert_eq!((&answer["old"], &answer["new"]), (&by_directory["old"], &by_directory["new"]));
    }
    for wrong in ["HEAD~7:policies", "HEAD:nowhere", "HEAD:policies/web.yaml"] {
        let (code, answer) = between(wrong, "policies");
        assert_eq!(
            (code, &answer["error"]["code"]),
            (2, &json!("FILE_UNREADABLE")),
            "{wrong} {answer}"
        );
    }
}

// What a pull request shows is Markdown; what fails it is an exit status; what code scanning shows is SARIF.
#[test]
fn every_format_tells_every_change() {
    let change = Change::of(
        &[],
        &[
            ("batch.yaml", "ttl: 2h", "ttl: 20h"),
            ("web.yaml", "instance_profile: web-*", "instance_profile: we*"),
        ],
    );
    for format in ["text", "json", "markdown", "sarif", "junit", "github"] {
        let (code, text, _) =
            change.run_as_it_is(&["policy", "diff", "old", "new", "--format", format, "--at", AT]);
        assert_eq!(code, 0, "{format}");
        for word in ["web", "batch", "20h", "production-web", "111122223333"] {
            assert!(text.contains(word), "{format} does not say {word}: {text}");
        }
    }
}

// What a pull request brings with it does not stand in for what it is compared with.
#[test]
fn a_directory_named_like_a_revision_is_not_taken_for_one() {
    let change = Change::of(&[], &[]);
    let trap = change.path("main:policies");
    fs::create_dir(&trap).unwrap();
    for entry in fs::read_dir(change.path("new")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), trap.join(entry.file_name())).unwrap();
    }
    let arguments = ["policy", "diff", "main:policies", "new", "--output", "json"];
    let (code, answer) = change.run(&arguments);
    assert_eq!((code, &answer["error"]["code"]), (2, &json!("FILE_UNREADABLE")), "{answer}");
    assert_eq!(change.run(&["policy", "diff", "./main:policies", "new", "--output", "json"]).0, 0);
}
