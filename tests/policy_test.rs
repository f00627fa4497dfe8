//! `muster policy test`: the cases of a directory are put to the decision, and so are boundary cases
//! that are made from its policies. A set that is wider than the one they were made of does not hold
//! them.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy.toml allows it in test functions only"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use quick_xml::XmlVersion;
use quick_xml::events::Event;
use serde_json::{Value, json};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/policies");
const AT: &str = "2026-06-01T12:00:00Z";
const SET: &str = r#"apiVersion: muster/v1
kind: AccountSet
metadata: {name: production}
spec: {partition: aws, accounts: [{id: "111122223333"}]}
---
apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: web, owner: platform, description: web tier}
spec:
  method: ec2
  roles: [node]
  ec2: {look_up: none}
  allow:
    - {name: production, accounts: [production], regions: [us-east-1]}
"#;
const TEST: &str = r#"apiVersion: muster/v1
kind: PolicyTest
metadata: {name: web}
spec:
  node:
    claims: {partition: aws, account_id: "111122223333", region: us-east-1}
  cases:
    - {name: a web node joins, policy: web, expect: admitted, rule: production}
    - name: another region does not
      policy: web
      claims: {region: us-west-2}
      expect: refused
      field: regions
"#;

fn muster(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_muster")).args(arguments).output().unwrap()
}

/// The exit status and the one JSON value.
fn test(directory: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let mut arguments = vec!["policy", "test", directory.to_str().unwrap(), "--output", "json"];
    arguments.extend(more);
    let output = muster(&arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "one value on stdout: {text}");
    (output.status.code(), serde_json::from_str(&text).unwrap())
}

fn said(directory: &Path, more: &[&str]) -> (Option<i32>, String) {
    let mut arguments = vec!["policy", "test", directory.to_str().unwrap()];
    arguments.extend(more);
    let output = muster(&arguments);
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

/// A copy of the example policies, without their own tests.
fn examples() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(EXAMPLES).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if name != "tests.yaml" {
            fs::copy(&path, directory.path().join(name)).unwrap();
        }
    }
    directory
}

#[test]
fn the_examples_hold_whatever_the_day() {
    for at in ["2026-06-01T12:00:00Z", "2031-01-01T00:00:00Z"] {
        let (exit, result) = test(Path::new(EXAMPLES), &["--at", at]);
        assert_eq!((exit, &result["failed"]), (Some(0), &json!(0)), "{result:#}");
        let passed = result["passed"].as_u64().unwrap();
        assert!(passed >= 12, "only {passed} cases");
        assert_eq!(result["cases"].as_array().unwrap().len() as u64, passed);
        assert_eq!(result["generated"], json!([]));
    }
}

#[test]
fn a_case_is_reported_with_all_that_is_known() {
    let directory = directory(&[("set.yaml", SET), ("test.yaml", TEST)]);
    let (exit, result) = test(directory.path(), &[]);
    assert_eq!(exit, Some(0), "{result:#}");
    let check =
        muster(&["policy", "check", directory.path().to_str().unwrap(), "--output", "json"]);
    let check: Value = serde_json::from_slice(&check.stdout).unwrap();
    assert_eq!(result["hash"], check["hash"]);
    assert_eq!((&check["policies"], &check["findings"]), (&json!(1), &json!([])));
    let expected = json!({
        "document": "web", "case": "another region does not", "file": "test.yaml", "line": 9,
        "expect": "refused", "outcome": "refused", "code": "POLICY_NO_MATCH", "policy": "web",
        "rule": "production", "field": "regions", "ok": true,
        "message": "no allow rule matches; the nearest is `production`: `regions` wants us-east-1, \
                    the node has us-west-2",
    });
    assert_eq!(result["cases"][1], expected);
}

#[test]
fn a_case_that_does_not_hold_is_shown_with_its_place_and_the_reason() {
    let widened = SET.replace("regions: [us-east-1]", "regions: [us-east-1, us-west-2]");
    let directory = directory(&[("set.yaml", &widened), ("test.yaml", TEST)]);
    let (exit, result) = test(directory.path(), &[]);
    assert_eq!((exit, &result["passed"], &result["failed"]), (Some(1), &json!(1), &json!(1)));
    assert_eq!(
        (&result["cases"][1]["ok"], &result["cases"][0]["ok"]),
        (&json!(false), &json!(true))
    );

    let (exit, text) = said(directory.path(), &[]);
    assert_eq!(exit, Some(1));
    let place = |name: &str| directory.path().join(name).display().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..3],
        [
            format!(
                "{}: web: another region does not: expected refused, came admitted",
                place("test.yaml:9")
            ),
            "    the rule `production` admits".to_owned(),
            format!("    by policy `web`, rule `production`, at {}", place("set.yaml:14:7")),
        ]
    );
    assert!(lines[3].starts_with("1 cases hold, 1 do not; set "), "{text}");
    assert_eq!(lines.len(), 4);
}

#[test]
fn junit_says_the_same_and_is_xml_whatever_the_names_are() {
    let hostile = TEST
        .replace("another region does not", "\"</testcase><x a='&amp;' \\\"\"")
        .replace("expect: refused", "expect: admitted")
        .replace("\n      field: regions", "");
    let directory = directory(&[("set.yaml", SET), ("test.yaml", &hostile)]);
    let (exit, xml) = said(directory.path(), &["--format", "junit"]);
    assert_eq!(exit, Some(1));

    let mut reader = quick_xml::Reader::from_str(&xml);
    let (mut names, mut failures) = (Vec::new(), Vec::new());
    loop {
        let event = reader.read_event().unwrap();
        if event == Event::Eof {
            break;
        }
        let (Event::Start(tag) | Event::Empty(tag)) = event else { continue };
        let attribute = |name: &str| {
            let found = tag.try_get_attribute(name).unwrap()?;
            Some(found.normalized_value(XmlVersion::Explicit1_0).unwrap().into_owned())
        };
        match tag.name().as_ref() {
            "testsuites" | "testsuite" => {
                let counts = (attribute("tests"), attribute("failures"));
                assert_eq!(counts, (Some("2".to_owned()), Some("1".to_owned())));
            }
            "testcase" => names.push(attribute("name").unwrap()),
            "failure" => failures.push(attribute("message").unwrap()),
            other => panic!("{other}"),
        }
    }
    assert_eq!(names, ["a web node joins", "</testcase><x a='&amp;' \""]);
    assert_eq!(failures, ["expected admitted, came refused"]);
}

#[test]
fn the_format_that_is_asked_for_goes_before_the_output_of_all_commands() {
    let directory = directory(&[("set.yaml", SET), ("test.yaml", TEST)]);
    let (_, text) = said(directory.path(), &["--output", "json", "--format", "text"]);
    assert!(text.starts_with("2 cases hold, 0 do not; set "), "{text}");
    let (_, text) = said(directory.path(), &["--format", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["passed"], 2);
}

// In CI "nothing was run" must not look like "everything holds".
#[test]
fn nothing_to_run_is_no_success() {
    let none = directory(&[("set.yaml", SET)]);
    let (exit, result) = test(none.path(), &[]);
    assert_eq!((exit, &result["passed"], &result["failed"]), (Some(1), &json!(0), &json!(0)));
    let output = muster(&["policy", "test", none.path().to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing to run"));

    let other = SET.replace("name: web,", "name: api,");
    let other = other.split_once("---\n").unwrap().1;
    let directory = directory(&[("set.yaml", SET), ("api.yaml", other), ("test.yaml", TEST)]);
    assert_eq!(test(directory.path(), &["--policy", "api"]).0, Some(1));
    assert_eq!(test(directory.path(), &["--policy", "web"]).1["passed"], 2);
    assert_eq!(test(directory.path(), &["--policy", "api", "--generate", "10"]).0, Some(0));
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(test(empty.path(), &["--generate", "10"]).0, Some(1));
}

#[test]
fn exit_codes_are_those_of_the_reference() {
    let directory = directory(&[("set.yaml", SET), ("test.yaml", TEST)]);
    let code = |(exit, result): (Option<i32>, Value)| (exit, result["error"]["code"].clone());
    assert_eq!(
        code(test(directory.path(), &["--policy", "wbe"])),
        (Some(1), json!("POLICY_UNKNOWN"))
    );
    assert_eq!(code(test(Path::new("/nonexistent"), &[])), (Some(2), json!("FILE_UNREADABLE")));
    for more in [&["--generate", "0"][..], &["--generate", "10001"], &["--write", "x.yaml"]] {
        assert_eq!(said(directory.path(), more).0, Some(2), "{more:?}");
    }
    let broken = TEST.replace("us-west-2", "us-wset-2");
    fs::write(directory.path().join("test.yaml"), broken).unwrap();
    let (exit, failure) = test(directory.path(), &[]);
    assert_eq!((exit, &failure["error"]["code"]), (Some(2), &json!("POLICY_SET_INVALID")));
    assert!(failure["error"]["message"].as_str().unwrap().starts_with("test.yaml:11:24: "));
}

// A policy that is taken away in a hurry is gone, whatever its tests say.
#[test]
fn a_test_that_is_left_behind_keeps_no_set_from_loading() {
    let set = SET.replace("name: web,", "name: api,");
    let directory = directory(&[("set.yaml", &set), ("test.yaml", TEST)]);
    let path = directory.path().to_str().unwrap();
    assert_eq!(muster(&["policy", "check", path]).status.code(), Some(0));
    assert_eq!(muster(&["policy", "check", path, "--strict"]).status.code(), Some(1));
    let (exit, result) = test(directory.path(), &[]);
    assert_eq!((exit, &result["failed"]), (Some(1), &json!(2)), "{result:#}");
    assert_eq!(result["cases"][1]["code"], "POLICY_UNKNOWN");
}

#[test]
fn every_boundary_case_of_the_examples_is_refused() {
    let examples = examples();
    let (exit, result) = test(examples.path(), &["--generate", "500", "--at", AT]);
    assert_eq!((exit, &result["failed"]), (Some(0), &json!(0)), "{result:#}");
    let generated = result["generated"].as_array().unwrap();
    assert!(generated.len() > 100, "only {} cases", generated.len());
    assert!(
        generated.iter().all(|case| case["outcome"] == "refused" && case["document"].is_null())
    );
    assert_eq!(result["not_tried"], json!([]));
    let made = result["made"].as_object().unwrap();
    for kind in [
        "account",
        "partition",
        "partition-and-region",
        "region",
        "id",
        "glob-separator",
        "glob-prefix",
        "glob-suffix",
        "tag-value",
        "tag-case",
        "tag-absent",
        "absent",
        "age",
        "metadata-options",
        "proof",
        "state",
        "denied",
    ] {
        assert!(made[kind].as_u64().unwrap() > 0, "{kind}");
    }
    for policy in ["bastion", "batch", "web"] {
        assert!(generated.iter().any(|case| case["policy"] == policy), "{policy}");
    }
    assert_eq!(test(examples.path(), &["--generate", "7", "--at", AT]).1["passed"], 7);
}

/// Writes the boundary cases of the examples as a file of tests.
fn written(examples: &Path, to: &Path) {
    let to = to.to_str().unwrap();
    let (exit, result) = test(examples, &["--generate", "500", "--at", AT, "--write", to]);
    assert_eq!(exit, Some(0), "{result:#}");
}

#[test]
fn what_was_written_can_be_kept() {
    let examples = examples();
    let file = examples.path().join("neighbours.yaml");
    written(examples.path(), &file);
    let path = examples.path().to_str().unwrap();
    let check = muster(&["policy", "check", path, "--output", "json"]);
    let check: Value = serde_json::from_slice(&check.stdout).unwrap();
    let findings = check["findings"].as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["file"] != "neighbours.yaml"), "{findings:#?}");
    let (exit, result) = test(examples.path(), &[]);
    assert_eq!((exit, &result["failed"]), (Some(0), &json!(0)), "{result:#}");
    assert!(result["passed"].as_u64().unwrap() > 100);

    // What somebody keeps is never overwritten.
    let before = fs::read(&file).unwrap();
    let (exit, failure) =
        test(examples.path(), &["--generate", "5", "--write", file.to_str().unwrap()]);
    assert_eq!((exit, &failure["error"]["code"]), (Some(2), &json!("FILE_UNREADABLE")));
    assert_eq!(fs::read(&file).unwrap(), before);
}

// A reviewer keeps the cases of the set that was reviewed; each of these changes admits somebody new.
#[test]
fn a_widened_copy_does_not_hold_the_cases_of_the_original() {
    for (file, from, to, expected) in [
        (
            "quarantine.yaml",
            "    - name: under-investigation
      tags: {Quarantine: present}
      reason: incident response sets the tag, and the node is out at its next join
",
            "",
            "denied by under-investigation",
        ),
        (
            "bastion.yaml",
            "launched_within: 30d",
            "launched_within: 31d",
            "launch_time 2026-05-02T11:59:59Z",
        ),
        ("web.yaml", "tags: {Tier: web}", "tags: {Tier: present}", "tag Tier: webx"),
        ("web.yaml", "regions: [us-east-1, us-west-2]", "regions: any", "region eu-west-1"),
        ("web.yaml", "max_hop_limit: 1", "max_hop_limit: 2", "imds hop_limit: 2"),
        (
            "accounts.yaml",
            "id: \"444455556666\"",
            "id: \"111122223334\"",
            "account_id 111122223334",
        ),
        ("batch.yaml", "[c7g.*, m7g.*]", "[c7*, m7g.*]", "instance_type c7ga"),
    ] {
        let examples = examples();
        written(examples.path(), &examples.path().join("neighbours.yaml"));
        let path = examples.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        let widened = text.replacen(from, to, 1);
        assert_ne!(widened, text, "{from}");
        fs::write(&path, widened).unwrap();
        let (exit, result) = test(examples.path(), &["--at", AT]);
        assert_eq!(exit, Some(1), "{from}: {result:#}");
        let cases = result["cases"].as_array().unwrap();
        let found = cases.iter().any(|case| case["ok"] == false && case["case"] == expected);
        let failed: Vec<&Value> =
            cases.iter().filter(|case| case["ok"] == false).map(|case| &case["case"]).collect();
        assert!(found, "{from}: {failed:?}");
    }
}
