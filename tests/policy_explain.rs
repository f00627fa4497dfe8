//! `muster policy explain`: claims that differ in one field are explained by that field, with file,
//! line and column; so are facts of the instance. Generated from what the methods declare.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; clippy.toml allows it in test functions only"
)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use muster::methods::{ALL, Field, Source};
use serde_json::{Value, json};

const ACCOUNTS: &str = r#"apiVersion: muster/v1
kind: AccountSet
metadata: {name: production}
spec: {partition: aws, accounts: [{id: "111122223333"}]}
"#;
const HEAD: &str = "apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: web, owner: platform, description: web tier}
spec:
  method: ec2
  roles: [node]
  ec2: {look_up: none}
  allow:
    - name: every-field
";
const AT: &str = "2026-06-01T12:00:00Z";

fn claims() -> Value {
    json!({
        "partition": "aws", "account_id": "111122223333", "region": "us-east-1",
        "availability_zone": "us-east-1a", "instance_id": "i-0123456789abcdef0",
        "image_id": "ami-0aaaaaaaaaaaaaaa1", "instance_type": "m7g.large",
        "architecture": "arm64", "private_ip": "10.0.12.7",
        "pending_time": "2026-06-01T11:50:00Z", "signing_time": null, "certificate_serial": null,
    })
}

/// How the rule asks for what `claims` has, and another value that it does not have.
fn condition(field: &Field) -> (&'static str, &'static str) {
    match field.name {
        "accounts" => ("[production]", "999988887777"),
        "partition" => ("aws", "aws-cn"),
        "regions" => ("[us-east-1, us-west-2]", "eu-west-1"),
        "availability_zones" => ("us-east-1*", "us-west-2a"),
        "images" => ("[ami-0aaaaaaaaaaaaaaa1]", "ami-0bbbbbbbbbbbbbbb1"),
        "instance_types" => ("[m7g.*, c7g.*]", "m7i.large"),
        other => panic!("the field `{other}` is new: say here how it is written"),
    }
}

fn claim_fields() -> impl Iterator<Item = &'static Field> {
    let ec2 = ALL.iter().filter(|method| method.name == "ec2");
    ec2.flat_map(|method| method.fields).filter(|field| field.source == Source::Claim)
}

fn explain(directory: &Path, claims: &Value, more: &[&str]) -> (Option<i32>, Value) {
    let directory = directory.to_str().unwrap();
    let mut arguments = vec!["policy", "explain", directory, "--claims", "-", "--at", AT];
    arguments.extend(["--output", "json"]);
    arguments.extend(more);
    let mut child = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that refuses earlier does not read what it is given.
    let _closed = child.stdin.take().unwrap().write_all(claims.to_string().as_bytes());
    let Output { status, stdout, .. } = child.wait_with_output().unwrap();
    let text = String::from_utf8(stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "one value on stdout: {text}");
    (status.code(), serde_json::from_str(&text).unwrap())
}

/// The set, and the text of its policy.
fn set(rule: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let text = format!("{HEAD}{rule}");
    std::fs::write(directory.path().join("accounts.yaml"), ACCOUNTS).unwrap();
    std::fs::write(directory.path().join("web.yaml"), &text).unwrap();
    (directory, text)
}

fn every_field() -> (tempfile::TempDir, String) {
    let lines =
        claim_fields().map(|field| format!("      {}: {}\n", field.name, condition(field).0));
    set(&lines.collect::<String>())
}

#[test]
fn the_baseline_is_admitted() {
    let (directory, _) = every_field();
    let (exit, explained) = explain(directory.path(), &claims(), &[]);
    assert_eq!(exit, Some(0), "{explained:#}");
    assert_eq!(explained["outcome"], "admitted");
    assert_eq!(explained["policy"], "web");
    assert_eq!(explained["rule"], "every-field");
    assert_eq!((&explained["file"], &explained["line"]), (&json!("web.yaml"), &json!(9)));
    assert_eq!(explained["hypothetical"], true);
}

#[test]
fn a_claim_that_differs_in_one_field_is_explained_by_that_field() {
    let (directory, text) = every_field();
    for field in claim_fields() {
        let mut claims = claims();
        claims[field.reads] = json!(condition(field).1);
        let (exit, explained) = explain(directory.path(), &claims, &[]);
        assert_eq!(exit, Some(1), "{}", field.name);
        assert_eq!(explained["outcome"], "refused", "{}", field.name);

        let key = format!("{}: ", field.name);
        let mut lines = text.lines().enumerate();
        let (index, line) = lines.find(|(_, line)| line.trim_start().starts_with(&key)).unwrap();
        let column = line.find(&key).unwrap() + key.len() + 1;
        let place = json!([field.name, "web.yaml", index + 1, column]);
        let top =
            json!([explained["field"], explained["file"], explained["line"], explained["column"]]);
        assert_eq!(top, place);

        let fields = explained["policies"][0]["rules"][0]["fields"].as_array().unwrap();
        assert_eq!(fields.len(), claim_fields().count());
        for explained in fields {
            // An account is an account of a partition (T44), so the partition differs in both.
            let differs = explained["field"] == field.name
                || (field.name == "partition" && explained["field"] == "accounts");
            let outcome = if differs { "no_match" } else { "match" };
            assert_eq!(explained["outcome"], outcome, "{} by {explained}", field.name);
            if explained["field"] == field.name {
                let actual = explained["actual"].as_str().unwrap();
                assert!(actual.contains(condition(field).1), "{actual}");
            }
        }
    }
}

#[test]
fn an_absent_claim_is_explained_too() {
    let (directory, _) = every_field();
    for field in claim_fields() {
        let mut claims = claims();
        claims[field.reads] = Value::Null;
        let (exit, explained) = explain(directory.path(), &claims, &[]);
        assert_eq!((exit, &explained["field"]), (Some(1), &json!(field.name)));
    }
}

/// How the rule asks for what `instance` has, and values that do not match.
fn fact_condition(field: &Field) -> (&'static str, Vec<Value>) {
    match field.name {
        "instance_profile" => ("web-*", vec![json!("db-1"), json!("web-/x"), json!("")]),
        "tags" => (
            "{Tier: [web, api], Owner: present, Quarantine: absent}",
            vec![
                json!({"Tier": "db", "Owner": "x"}),
                json!({"Tier": "web"}),
                json!({"tier": "web", "Owner": "x"}),
                json!({"Tier": "web", "Owner": "x", "Quarantine": ""}),
                json!({"Tier": "*", "Owner": "x"}),
                json!({}),
            ],
        ),
        "vpc" => ("[vpc-0123456789abcdef0]", vec![json!("vpc-0123456789abcdef1")]),
        "subnet" => ("[subnet-0123456789abcdef0]", vec![json!("subnet-0")]),
        "security_groups" => ("[sg-0123456789abcdef0]", vec![json!([]), json!(["sg-1"])]),
        "auto_scaling_group" => ("web-*", vec![json!("db-asg")]),
        "imds" => (
            "{v2_only: true, max_hop_limit: 1}",
            vec![
                json!({"v2_only": false, "hop_limit": 1}),
                json!({"v2_only": true, "hop_limit": 2}),
            ],
        ),
        "launched_within" => ("1h", vec![json!("2026-06-01T10:59:59Z")]),
        other => panic!("the fact `{other}` is new: say here how it is written"),
    }
}

fn instance() -> Value {
    json!({
        "state": "running", "instance_profile": "web-1",
        "tags": {"Tier": "web", "Owner": "x"}, "vpc": "vpc-0123456789abcdef0",
        "subnet": "subnet-0123456789abcdef0",
        "security_groups": ["sg-0a0a0a0a", "sg-0123456789abcdef0"],
        "auto_scaling_group": "web-asg", "launch_time": "2026-06-01T11:50:00Z",
        "imds": {"v2_only": true, "hop_limit": 1},
    })
}

fn fact_fields() -> impl Iterator<Item = &'static Field> {
    ALL.iter().flat_map(|method| method.fields).filter(|field| field.source == Source::Instance)
}

fn every_fact() -> tempfile::TempDir {
    let lines =
        fact_fields().map(|field| format!("      {}: {}\n", field.name, fact_condition(field).0));
    let (directory, text) = set(&format!("{RULE}{}", lines.collect::<String>()));
    let text = text.replace("{look_up: none}", "{look_up: own}");
    std::fs::write(directory.path().join("web.yaml"), text).unwrap();
    directory
}

fn explain_instance(directory: &Path, instance: &Value, proof: &str) -> (Option<i32>, Value) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(instance.to_string().as_bytes()).unwrap();
    let file = file.path().to_str().unwrap();
    explain(directory, &claims(), &["--instance", file, "--proof", proof])
}

#[test]
fn every_fact_of_the_instance_is_explained_by_its_field() {
    let directory = every_fact();
    let (exit, explained) = explain_instance(directory.path(), &instance(), "proven");
    assert_eq!((exit, &explained["outcome"]), (Some(0), &json!("admitted")), "{explained:#}");
    let (exit, explained) = explain_instance(directory.path(), &instance(), "none");
    assert_eq!((exit, &explained["outcome"]), (Some(1), &json!("refused")));
    assert_eq!(explained["field"], "fresh_proof");
    for field in fact_fields() {
        let mut instance = instance();
        for wrong in fact_condition(field).1.into_iter().chain([Value::Null]) {
            instance[field.reads] = wrong;
            let (exit, explained) = explain_instance(directory.path(), &instance, "proven");
            assert_eq!((exit, &explained["outcome"]), (Some(1), &json!("refused")), "{explained}");
            assert_eq!(explained["field"], field.name, "{instance}");
        }
    }
}

// I11: what nobody read is not what the instance does not have.
#[test]
fn a_fact_that_is_missing_is_needed() {
    let directory = every_fact();
    for field in fact_fields() {
        let mut instance = instance();
        instance.as_object_mut().unwrap().remove(field.reads);
        let (exit, explained) = explain_instance(directory.path(), &instance, "proven");
        assert_eq!((exit, &explained["outcome"]), (Some(1), &json!("needs_facts")));
        assert_eq!(explained["field"], field.name);
    }
    let (exit, explained) = explain(directory.path(), &claims(), &[]);
    assert_eq!((exit, &explained["outcome"]), (Some(1), &json!("needs_facts")));
}

#[test]
fn an_instance_that_does_not_run_is_refused() {
    let directory = every_fact();
    for (state, exits) in [("pending", 0), ("running", 0), ("stopping", 1), ("terminated", 1)] {
        let mut instance = instance();
        instance["state"] = json!(state);
        let (exit, explained) = explain_instance(directory.path(), &instance, "proven");
        assert_eq!(exit, Some(exits), "{state}");
        assert_eq!(explained["field"] == "state", exits == 1, "{explained}");
    }
}

const RULE: &str = "      accounts: [production]\n      regions: any\n";

#[test]
fn the_terms_beside_the_rules_are_explained() {
    let (directory, _) = set(RULE);
    let (exit, explained) = explain(directory.path(), &claims(), &["--proof", "none"]);
    assert_eq!((exit, &explained["field"]), (Some(1), &json!("fresh_proof")));

    let (directory, text) = set(RULE);
    let documents = "{look_up: none, fresh_proof: not_required, document_ttl: 15m}";
    let text = text.replace("{look_up: none}", documents);
    std::fs::write(directory.path().join("web.yaml"), text).unwrap();
    let (exit, _) = explain(directory.path(), &claims(), &["--proof", "none"]);
    assert_eq!(exit, Some(0));
    let mut old = claims();
    old["pending_time"] = json!("2026-06-01T11:13:00Z");
    let (exit, explained) = explain(directory.path(), &old, &["--proof", "none"]);
    assert_eq!((exit, &explained["field"]), (Some(1), &json!("document_ttl")));
    assert_eq!((&explained["line"], &explained["column"]), (&json!(7), &json!(65)));
    assert!(explained["message"].as_str().unwrap().contains("47 min old"));
}

#[test]
fn a_deny_rule_is_named_with_its_place() {
    let (directory, _) =
        set(&format!("{RULE}  deny:\n    - {{name: bad, regions: [us-east-1]}}\n"));
    let (exit, explained) = explain(directory.path(), &claims(), &[]);
    assert_eq!(exit, Some(1));
    assert_eq!((&explained["rule"], &explained["line"]), (&json!("bad"), &json!(13)));
}

#[test]
fn exit_codes_are_those_of_the_reference() {
    let (directory, _) = set(RULE);
    let (exit, failure) = explain(directory.path(), &claims(), &["--policy", "wbe"]);
    assert_eq!((exit, &failure["error"]["code"]), (Some(1), &json!("POLICY_UNKNOWN")));
    let (exit, failure) = explain(directory.path(), &json!({"acount_id": "1"}), &[]);
    assert_eq!((exit, &failure["error"]["code"]), (Some(1), &json!("CLAIMS_INVALID")));
    let (exit, failure) = explain(Path::new("/nonexistent"), &claims(), &[]);
    assert_eq!((exit, &failure["error"]["code"]), (Some(2), &json!("FILE_UNREADABLE")));
    let (broken, _) = set("      accounts: any\n      regions: any\n");
    let (exit, failure) = explain(broken.path(), &claims(), &[]);
    assert_eq!((exit, &failure["error"]["code"]), (Some(2), &json!("POLICY_SET_INVALID")));
    assert!(failure["error"]["message"].as_str().unwrap().starts_with("web.yaml:10:17: "));
}
