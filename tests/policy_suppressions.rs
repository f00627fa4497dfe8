//! `muster policy check` and suppressed warnings: each output has them and marks them, `--strict`
//! does not count them, and they hide nothing else.

#![expect(clippy::unwrap_used, reason = "helpers of tests; clippy.toml allows it in tests only")]

use std::process::{Command, Output};

use serde_json::{Value, json};

const WEB: &str = r#"apiVersion: muster/v1
kind: JoinPolicy
metadata:
  name: web
  owner: platform
  description: web tier
  suppress:
    - {code: LOOK_UP_DEFAULT, reason: "the look comes | with SEC-7", until: UNTIL}
spec:
  method: ec2
  roles: [node]
  allow:
    - accounts: ["111122223333"]
      partition: aws
      regions: [us-east-1]
"#;

/// So many days from now.
fn until(days: i64) -> String {
    let format = time::format_description::well_known::Rfc3339;
    let until = time::OffsetDateTime::now_utc() + time::Duration::days(days);
    until.replace_nanosecond(0).unwrap().format(&format).unwrap()
}

fn check(text: &str, arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("policies")).unwrap();
    std::fs::write(directory.path().join("policies/web.yaml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.current_dir(directory.path()).args(["policy", "check", "policies"]);
    command.args(arguments).output().unwrap()
}

fn printed(text: &str, format: &str) -> String {
    let output = check(text, &["--strict", "--format", format]);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_output_has_what_is_suppressed_and_marks_it() {
    let until = until(30);
    let web = WEB.replace("UNTIL", &until);
    let value: Value = serde_json::from_str(&printed(&web, "json")).unwrap();
    let findings = value["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{value:#}");
    assert_eq!(findings[0]["code"], "LOOK_UP_DEFAULT");
    let suppressed = json!({"reason": "the look comes | with SEC-7", "until": until});
    assert_eq!(findings[0]["suppressed"], suppressed);
    let text = printed(&web, "text");
    assert!(
        text.contains("policies/web.yaml:4:9: suppressed: the look comes | with SEC-7"),
        "{text}"
    );
    assert!(text.contains("0 errors, 0 warnings and 1 suppressed"), "{text}");
    let sarif: Value = serde_json::from_str(&printed(&web, "sarif")).unwrap();
    let suppressions = &sarif["runs"][0]["results"][0]["suppressions"];
    assert_eq!(suppressions[0]["kind"], "inSource");
    assert!(suppressions[0]["justification"].as_str().unwrap().starts_with("the look comes"));
    let junit = printed(&web, "junit");
    assert!(junit.contains("<skipped ") && !junit.contains("<failure"), "{junit}");
    let github = printed(&web, "github");
    assert!(github.starts_with("::notice file=policies/web.yaml,line=4"), "{github}");
    let markdown = printed(&web, "markdown");
    assert!(markdown.contains("| suppressed<br><code>LOOK&#95;UP&#95;DEFAULT"), "{markdown}");
}

#[test]
fn strict_counts_what_is_not_suppressed() {
    let strict = |text: &str| check(text, &["--strict"]).status.code();
    let web = WEB.replace("UNTIL", &until(30));
    assert_eq!(strict(&web), Some(0));
    assert_eq!(strict(&web.replace("  owner: platform\n", "")), Some(1), "another warning");
    assert_eq!(strict(&WEB.replace("UNTIL", &until(-1))), Some(1), "it is past");
    assert_eq!(strict(&WEB.replace("UNTIL", &until(367))), Some(1), "too far ahead");
    let mended = format!("{web}  ec2: {{look_up: none}}\n");
    assert_eq!(strict(&mended), Some(1), "it is of no use any more");
    assert_eq!(check(&mended, &[]).status.code(), Some(0));
    let broken = web.replace("[us-east-1]", "[us-esat-1]");
    assert_eq!(check(&broken, &[]).status.code(), Some(1));
    let of_error =
        web.replace("LOOK_UP_DEFAULT", "REGION_UNKNOWN").replace("us-east-1", "us-esat-1");
    assert_eq!(check(&of_error, &[]).status.code(), Some(1));
}

#[test]
fn findings_that_are_not_suppressed_say_so_with_null() {
    let plain = WEB.replace("UNTIL", &until(-1));
    let value: Value = serde_json::from_str(&printed(&plain, "json")).unwrap();
    for finding in value["findings"].as_array().unwrap() {
        assert!(finding.as_object().unwrap().contains_key("suppressed"), "{finding}");
        assert_eq!(finding["suppressed"], Value::Null);
    }
}
