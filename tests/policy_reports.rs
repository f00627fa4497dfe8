//! `muster policy check --format`: what other programs read of it. The SARIF is held to the
//! published schema, the XML is parsed, the workflow commands are read as the runner reads them.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; clippy.toml allows it in test functions only"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const SCHEMA: &str = include_str!("data/sarif-schema-2.1.0.json");

/// A set that loads, with warnings: nobody is named, and nobody looks at instances.
const WEB: &str = r#"apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: web, description: web tier}
spec:
  method: ec2
  roles: [node]
  allow:
    - accounts: ["111122223333"]
      partition: aws
      regions: [us-east-1]
"#;

fn check(at: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
    command.current_dir(at).args(["policy", "check"]).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A repository with its policies in `policies`.
fn repository(files: &[(&str, &str)]) -> tempfile::TempDir {
    let repository = tempfile::tempdir().unwrap();
    fs::create_dir(repository.path().join("policies")).unwrap();
    for (name, text) in files {
        fs::write(repository.path().join("policies").join(name), text).unwrap();
    }
    repository
}

fn sarif(at: &Path, arguments: &[&str]) -> Value {
    let output = check(at, &[arguments, &["--format", "sarif"]].concat());
    let value: Value = serde_json::from_str(&text(&output)).unwrap();
    let wrong = wrong_in(&value);
    assert!(wrong.is_empty(), "{wrong:#?}\n{value:#}");
    value
}

/// What the published schema says against a report.
fn wrong_in(report: &Value) -> Vec<String> {
    // This pattern of the first edition is no regular expression; errata 01 of the standard mend it so.
    let mended =
        SCHEMA.replace("^[a-zA-Z]{2}|^[a-zA-Z]{2}-[a-zA-Z]{2}]?$", "^[a-zA-Z]{2}(-[a-zA-Z]{2})?$");
    assert_ne!(mended, SCHEMA);
    let schema: Value = serde_json::from_str(&mended).unwrap();
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    validator.iter_errors(report).map(|error| error.to_string()).collect()
}

#[test]
fn the_sarif_of_a_real_run_is_valid() {
    let broken = WEB.replace("[us-east-1]", "[us-esat-1]").replace("name: web", "name: api");
    let files = [("web.yaml", WEB), ("api.yaml", &broken), ("wëb 1:2%.yaml", "# nothing\n")];
    let repository = repository(&files);
    let report = sarif(repository.path(), &["policies"]);
    let run = &report["runs"][0];
    assert_eq!(run["columnKind"], "unicodeCodePoints");
    let results = run["results"].as_array().unwrap();
    let of = |code: &str| results.iter().find(|result| result["ruleId"] == code).unwrap();
    let place = |code: &str| of(code)["locations"][0]["physicalLocation"].clone();
    assert_eq!(of("REGION_UNKNOWN")["level"], "error");
    let region = place("REGION_UNKNOWN");
    assert_eq!(region["artifactLocation"]["uri"], "policies/api.yaml");
    assert_eq!(
        (&region["region"]["startLine"], &region["region"]["startColumn"]),
        (&10.into(), &17.into())
    );
    // A blank, a colon and a percent sign are no part of a relative path.
    let uri = &place("FILE_EMPTY")["artifactLocation"]["uri"];
    assert_eq!(uri, "policies/w%C3%ABb%201%3A2%25.yaml");
    // Each result finds its rule, and each rule says what it is.
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    for result in results {
        let rule = &rules[usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
        assert_eq!(rule["id"], result["ruleId"]);
        let page = format!("docs/findings.md#{}", rule["id"].as_str().unwrap().to_lowercase());
        assert!(rule["help"]["text"].as_str().unwrap().contains(&page), "{rule}");
    }
}

// Without this the test above would hold nothing.
#[test]
fn the_schema_refuses_what_is_no_sarif() {
    let repository = repository(&[("web.yaml", WEB)]);
    let good = sarif(repository.path(), &["policies"]);
    let break_it = |pointer: &str, value: Value| {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        bad
    };
    for bad in [
        break_it("/version", "2.0.0".into()),
        break_it("/runs/0/columnKind", "characters".into()),
        break_it("/runs/0/results/0/level", "fatal".into()),
        break_it("/runs/0/results/0/message", Value::Null),
        break_it("/runs/0/results/0/locations/0/physicalLocation/region/startLine", 0.into()),
        break_it(
            "/runs/0/results/0/locations/0/physicalLocation/artifactLocation/uri",
            "a b".into(),
        ),
        break_it("/runs/0/results/0/suppressions", serde_json::json!([{"kind": "mine"}])),
        break_it("/runs/0/tool/driver/name", 1.into()),
    ] {
        assert!(!wrong_in(&bad).is_empty(), "{bad:#}");
    }
}

#[test]
fn paths_are_those_of_the_repository_however_the_directory_is_named() {
    let repository = repository(&[("web.yaml", WEB)]);
    let absolute = fs::canonicalize(repository.path()).unwrap().join("policies");
    for (at, directory, expected) in [
        (repository.path(), "policies", "policies/web.yaml"),
        (repository.path(), "./policies/", "policies/web.yaml"),
        (repository.path(), absolute.to_str().unwrap(), "policies/web.yaml"),
        (&absolute, ".", "web.yaml"),
    ] {
        let report = sarif(at, &[directory]);
        let uri = &report["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(uri["artifactLocation"]["uri"], expected, "{directory}");
    }
}

#[test]
fn fingerprints_stay_when_lines_move() {
    let prints = |text: &str| -> Vec<String> {
        let repository = repository(&[("web.yaml", text)]);
        let report = sarif(repository.path(), &["policies"]);
        let results = report["runs"][0]["results"].as_array().unwrap();
        results.iter().map(|result| result["partialFingerprints"].to_string()).collect()
    };
    assert_eq!(prints(WEB), prints(&format!("# one\n# two\n{WEB}")));
}

#[test]
fn junit_and_github_say_what_the_text_says() {
    let repository = repository(&[("web.yaml", WEB)]);
    let xml = text(&check(repository.path(), &["policies", "--format", "junit", "--strict"]));
    let name = r#"name="OWNER_MISSING in policies/web.yaml" file="policies/web.yaml""#;
    assert!(xml.contains(name), "{xml}");
    assert!(xml.contains(r#"<failure type="OWNER_MISSING""#), "{xml}");
    let lenient = text(&check(repository.path(), &["policies", "--format", "junit"]));
    assert!(!lenient.contains("<failure"), "{lenient}");
    let commands = text(&check(repository.path(), &["policies", "--format", "github"]));
    let expected = "::warning file=policies/web.yaml,line=3,col=18,title=OWNER_MISSING::the policy \
                    `web` names nobody to ask%0AInstead: ";
    assert!(commands.contains(expected), "{commands}");
    let markdown = text(&check(repository.path(), &["policies", "--format", "markdown"]));
    assert!(markdown.contains("<br><code>OWNER&#95;MISSING</code> |"), "{markdown}");
}

// A pull request chooses the names of its files.
#[test]
fn the_name_of_a_file_gives_no_command_in_any_format() {
    let name = "a\n::error file=x::mine\n##[error]mine.yaml";
    let repository = repository(&[(name, "")]);
    for format in ["text", "github", "junit", "markdown", "json", "sarif"] {
        let written = text(&check(repository.path(), &["policies", "--format", format]));
        for line in written.split(['\n', '\r']) {
            let own = format == "github" && line.starts_with("::warning file=policies");
            let is_command = line.trim_start().starts_with("::") || line.starts_with("##[");
            assert!(own || !is_command, "{format}: {line}");
        }
    }
}

#[test]
fn the_format_changes_nothing_but_the_format() {
    let repository = repository(&[("web.yaml", WEB)]);
    let broken = self::repository(&[("web.yaml", "kind: 1\n")]);
    for format in ["text", "json", "sarif", "junit", "github", "markdown"] {
        for (at, strict, exit) in
            [(&repository, false, 0), (&repository, true, 1), (&broken, false, 1)]
        {
            let mut arguments = vec!["policies", "--format", format];
            arguments.extend(strict.then_some("--strict"));
            assert_eq!(check(at.path(), &arguments).status.code(), Some(exit), "{format}");
        }
    }
    let json = |arguments: &[&str]| text(&check(repository.path(), arguments));
    let by_format = json(&["policies", "--format", "json"]);
    assert_eq!(by_format, json(&["policies", "--output", "json"]));
    assert_eq!(by_format, json(&["policies", "--output", "json", "--format", "json"]));
    let both = check(repository.path(), &["policies", "--output", "json", "--format", "junit"]);
    assert_eq!(both.status.code(), Some(2));
    let error: Value = serde_json::from_str(&text(&both)).unwrap();
    assert_eq!(error["error"]["code"], "CONFIGURATION_INVALID");
}
