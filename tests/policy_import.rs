//! `muster policy import`: documents in the form that Teleport's documentation shows, and hostile
//! ones. What comes out passes `policy check`, admits no more, and holds no secret.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests; clippy.toml allows it in test functions only"
)]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use muster::policy::{Import, import_teleport};
use serde_json::{Value, json};

const MUSTER: &str = env!("CARGO_BIN_EXE_muster");

/// The forms of the guides to the join methods `ec2` and `token` (Teleport 18), with other values.
const EC2: &str = r#"kind: token
version: v2
metadata:
  # not a secret: instances prove where they run
  name: ec2-token
spec:
  roles: [Node]
  join_method: ec2
  aws_iid_ttl: 5m
  allow:
  - aws_account: "111122223333"
    aws_regions:
    - us-west-1
    - us-east-1
"#;
const TWO_ACCOUNTS: &str = r#"kind: token
version: v2
metadata:
  name: both_accounts
  expires: "2036-01-01T00:00:00Z"
spec:
  roles: [Node, App]
  join_method: ec2
  allow:
  - aws_account: "111122223333"
    aws_role: "arn:aws:iam::111122223333:role/teleport-describe"
    aws_regions: ["us-west-2", "us-gov-east-1"]
  - aws_account: "444455556666"
    aws_role: "arn:aws:iam::444455556666:role/teleport-describe"
"#;
const BY_SECRET: &str = r#"kind: token
version: v2
metadata:
  name: canary-3ad7f5c0b1e2
  expires: "2036-01-01T00:00:00Z"
spec:
  roles: [Node]
  join_method: token
"#;

/// The exit status, what stdout says as JSON, and all that was said.
fn import(text: &str, more: &[&str]) -> (Option<i32>, Value, String) {
    let mut child = Command::new(MUSTER)
        .args(["policy", "import", "-", "--output", "json"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout.clone(), output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
}

fn run(arguments: &[&str], directory: &Path) -> Value {
    let output = Command::new(MUSTER)
        .args(arguments)
        .current_dir(directory)
        .args(["--output", "json"])
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A directory with what was imported, which `policy check` has nothing against.
fn checked(imported: &Value) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("policies")).unwrap();
    for policy in imported["policies"].as_array().unwrap() {
        let name = format!("policies/{}.yaml", policy["name"].as_str().unwrap());
        std::fs::write(directory.path().join(name), policy["text"].as_str().unwrap()).unwrap();
    }
    let report = run(&["policy", "check", "policies"], directory.path());
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.iter().all(|one| one["severity"] != "error"), "{findings:#?}");
    directory
}

/// What the imported policies say of an instance that EC2 says was launched then.
fn explained(directory: &Path, account: &str, region: &str, launched: &str) -> Value {
    let claims = json!({
        "partition": "aws", "account_id": account, "region": region,
        "availability_zone": format!("{region}a"), "instance_id": "i-0123456789abcdef0",
        "image_id": "ami-0aaaaaaaaaaaaaaa1", "instance_type": "m7g.large", "architecture": "arm64",
        "private_ip": "10.0.12.7", "pending_time": launched, "signing_time": null,
        "certificate_serial": null,
    });
    let instance = json!({"state": "running", "launch_time": launched});
    std::fs::write(directory.join("claims.json"), claims.to_string()).unwrap();
    std::fs::write(directory.join("instance.json"), instance.to_string()).unwrap();
    let arguments = [
        "policy",
        "explain",
        "policies",
        "--claims",
        "claims.json",
        "--instance",
        "instance.json",
        "--at",
        "2026-06-01T12:00:00Z",
    ];
    run(&arguments, directory)["outcome"].clone()
}

#[test]
fn a_document_of_method_ec2_admits_what_it_admitted() {
    let (exit, imported, _) = import(EC2, &[]);
    assert_eq!(exit, Some(0), "{imported:#}");
    assert_eq!(imported["policies"][0]["name"], "ec2-token");
    let directory = checked(&imported);
    let outcome =
        |account, region, launched| explained(directory.path(), account, region, launched);
    let young = "2026-06-01T11:56:00Z";
    assert_eq!(outcome("111122223333", "us-west-1", young), "admitted");
    assert_eq!(outcome("111122223333", "us-west-2", young), "refused");
    assert_eq!(outcome("444455556666", "us-west-1", young), "refused");
    assert_eq!(outcome("111122223333", "us-west-1", "2026-06-01T11:54:59Z"), "refused");
}

#[test]
fn accounts_roles_partitions_and_the_end_are_carried_over() {
    let (exit, imported, _) = import(TWO_ACCOUNTS, &[]);
    assert_eq!(exit, Some(0), "{imported:#}");
    // A name that is none here is another one, and that is said.
    assert_eq!(imported["policies"][0]["name"], "both-accounts");
    let notes = imported["notes"].to_string();
    assert!(notes.contains("both-accounts") && notes.contains("no regions"), "{notes}");
    let text = imported["policies"][0]["text"].as_str().unwrap();
    for part in [
        "partition: aws-us-gov\n      regions: [us-gov-east-1]",
        "partition: aws\n      regions: [us-west-2]",
        "arn:{partition}:iam::{account}:role/teleport-describe",
        "until: \"2036-01-01T00:00:00Z\"",
        "launched_within: 5m",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let directory = checked(&imported);
    let young = "2026-06-01T11:56:00Z";
    assert_eq!(explained(directory.path(), "444455556666", "eu-west-1", young), "admitted");
    assert_eq!(explained(directory.path(), "111122223333", "eu-west-1", young), "refused");
}

// P11: of a document of method `token` the name is the secret.
#[test]
fn a_secret_is_written_nowhere() {
    let broken = format!("{BY_SECRET}  more: [");
    let repeated = format!("{BY_SECRET}  roles: [App]\n");
    for (text, arguments) in [
        (BY_SECRET, vec![]),
        (&BY_SECRET.replace("  join_method: token\n", ""), vec![]),
        (&BY_SECRET.replace("[Node]", "[]"), vec!["--partial"]),
        (&BY_SECRET.replace("2036-01-01T00:00:00Z", "soon"), vec![]),
        (&BY_SECRET.replace("token\n", "iam\n"), vec![]),
        (&broken, vec![]),
        (&repeated, vec![]),
    ] {
        let (_, _, said) = import(text, &arguments);
        assert!(!said.contains("canary-3ad7"), "{said}");
    }
    let (exit, imported, _) = import(BY_SECRET, &[]);
    assert_eq!(exit, Some(0));
    assert_eq!(imported["policies"][0]["name"], "imported-1");
    assert!(imported["notes"].to_string().contains("muster tokens add --policy imported-1"));
    checked(&imported);
}

// What cannot be said is listed, and nothing becomes wider by leaving a condition out.
#[test]
fn what_cannot_be_carried_over_is_listed() {
    let rule = |text: &str| EC2.replace("  - aws_account: \"111122223333\"\n", text);
    for (text, expected) in [
        (EC2.replace("join_method: ec2", "join_method: iam"), "no join method `iam` yet"),
        (EC2.replace("  roles", "  bot_name: robot\n  roles"), "`spec.bot_name`"),
        (EC2.replace("name: ec2", "labels: {a: b}\n  name: ec2"), "`metadata.labels`"),
        (rule("  - aws_arn: \"arn:aws:sts::111122223333:assumed-role/a/*\"\n"), "`aws_arn`"),
        (rule("  - aws_account: \"*\"\n"), "every AWS customer"),
        (rule("  - {}\n  - aws_role: x\n"), "every AWS customer"),
        (EC2.replace("version: v2", "version: v1"), "only `version: v2`"),
        (EC2.replace("kind: token", "kind: role"), "no `kind: token`"),
        (EC2.replace("aws_iid_ttl: 5m", "aws_iid_ttl: 5m30"), "`aws_iid_ttl`"),
        (EC2.replace("us-west-1", "us-wst-1"), "REGION_UNKNOWN"),
        (EC2.replace("[Node]", "[]"), "`roles` is empty"),
        (TWO_ACCOUNTS.replace("444455556666:role", "777788889999:role"), "own account"),
        (
            TWO_ACCOUNTS.replace("::444455556666:role/teleport", "::444455556666:role/other"),
            "different roles",
        ),
        (format!("{EC2}---\n{EC2}"), "there is a policy `ec2-token` already"),
    ] {
        let (exit, imported, _) = import(&text, &[]);
        assert_eq!(exit, Some(1), "{text}");
        let losses = imported["losses"].to_string();
        assert!(losses.contains(expected), "{expected}: {losses}");
        let (exit, ..) = import(&text, &["--partial"]);
        assert_eq!(exit, Some(0));
    }
    // With one condition less a rule would admit more, so it is not written at all.
    let (_, imported, _) =
        import(&rule("  - aws_arn: \"a\"\n    aws_account: \"111122223333\"\n"), &[]);
    assert_eq!(imported["policies"], json!([]));
}

// A key that stands twice says two things, and the first of them may be the wider one.
#[test]
fn nothing_of_a_broken_file_is_written() {
    let twice = EC2.replace(
        "    aws_regions:\n    - us-west-1\n    - us-east-1\n",
        "    aws_regions: []\n    aws_regions: [us-east-1]\n",
    );
    assert_ne!(twice, EC2);
    let (exit, imported, _) = import(&twice, &["--partial"]);
    assert_eq!((exit, &imported["policies"]), (Some(0), &json!([])));
    assert!(imported["losses"].to_string().contains("KEY_REPEATED"), "{imported:#}");
}

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("imported.yaml");
    let arguments = ["--out", out.to_str().unwrap()];
    let lossy = EC2.replace("  roles", "  bot_name: robot\n  roles");
    assert_eq!(import(&lossy, &arguments).0, Some(1));
    assert!(!out.exists());
    assert_eq!(import(EC2, &arguments).0, Some(0));
    assert_eq!(import(EC2, &arguments).0, Some(2), "what is there is not overwritten");
}

// A name was looked for among all names of before, from the first number on: hours, for 1 MiB.
#[test]
fn very_many_documents_are_named_in_no_time() {
    let mut import = Import::default();
    import_teleport("tokens.yaml", &vec![BY_SECRET; 5_000].join("---\n"), &mut import);
    let names: BTreeSet<_> = import.policies.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!(names.len(), 5_000);
    assert_eq!(import.policies.last().unwrap().name.as_str(), "imported-5000");
}
