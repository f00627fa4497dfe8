//! What `deploy/` says must be true of the program: units that systemd takes, flags, metrics, codes
//! and sections that there are, and no secret in user data.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; clippy.toml allows it in test functions only"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use saphyr_parser::{Event, Parser};
use syn::visit::Visit;
use tempfile::TempDir;

const MUSTER: &str = env!("CARGO_BIN_EXE_muster");

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn names_in(directory: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root().join(directory))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What `muster` prints for these arguments, whatever its exit code.
fn muster(arguments: &[&str]) -> String {
    let output = Command::new(MUSTER).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A unit as it is, but for the programs it runs: they need not be installed where tests run.
fn unit(path: &str) -> String {
    read(path).replace("/usr/bin/muster ", &format!("{MUSTER} ")).replace("/usr/bin/kill", MUSTER)
}

/// What systemd has to say about a unit with these drop-ins; nothing if all is well.
fn findings(name: &str, text: &str, drop_ins: &[(&str, &str)]) -> String {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    // A path unit is judged together with the service that it starts.
    let partner = "deploy/systemd/examples/muster-certificate.service";
    fs::write(directory.path().join("muster-certificate.service"), read(partner)).unwrap();
    for (drop_in, text) in drop_ins {
        let below = directory.path().join(format!("{name}.d"));
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join(drop_in), text).unwrap();
    }
    let output =
        Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
    let mut said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        said.push_str("not verified");
    }
    said
}

/// Whether units cannot be verified here; never on the CI.
fn systemd_is_missing() -> bool {
    let is_missing = Command::new("systemd-analyze").arg("--version").output().is_err();
    if is_missing {
        let is_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!is_ci, "on the CI: systemd-analyze is not installed");
        eprintln!("skipped: systemd-analyze is not installed");
    }
    is_missing
}

#[test]
fn systemd_takes_every_unit_and_every_drop_in() {
    if systemd_is_missing() {
        return;
    }
    let server = unit("deploy/systemd/muster-server.service");
    let agent = unit("deploy/systemd/muster-agent.service");
    assert_eq!(findings("muster-server.service", &server, &[]), "");
    assert_eq!(findings("muster-agent.service", &agent, &[]), "");

    for name in names_in("deploy/systemd/drop-ins") {
        let text = read(&format!("deploy/systemd/drop-ins/{name}"));
        let (service, of) = if name.starts_with("server-") {
            ("muster-server.service", &server)
        } else {
            assert!(name.starts_with("agent-"), "{name}: whose drop-in is it?");
            ("muster-agent.service", &agent)
        };
        assert!(text.contains(&format!("/etc/systemd/system/{service}.d/")), "{name}: where to");
        assert_eq!(findings(service, of, &[(&name, &text)]), "", "{name}");
    }

    for name in names_in("deploy/systemd/examples") {
        let text = read(&format!("deploy/systemd/examples/{name}"));
        let said = match Path::new(&name).extension().and_then(|it| it.to_str()) {
            Some("conf") => {
                let web = "[Service]\nExecStart=/bin/true\n";
                findings("web.service", web, &[(&name, &text)])
            }
            _ => findings(&name, &text, &[]),
        };
        assert_eq!(said, "", "{name}");
    }
}

#[test]
fn a_mistake_in_a_unit_or_a_drop_in_would_be_seen() {
    if systemd_is_missing() {
        return;
    }
    let server = unit("deploy/systemd/muster-server.service");
    let misspelt = server.replace("NoNewPrivileges=", "NoNewPrivilege=");
    assert!(findings("muster-server.service", &misspelt, &[]).contains("NoNewPrivilege"));
    let drop_in = ("port.conf", "[Service]\nAmbientCapability=CAP_NET_BIND_SERVICE\n");
    assert!(findings("muster-server.service", &server, &[drop_in]).contains("AmbientCapability"));
}

#[test]
fn units_use_commands_flags_and_users_that_there_are() {
    let commands = muster(&["--help"]);
    for name in ["muster-server", "muster-agent"] {
        let text = read(&format!("deploy/systemd/{name}.service"));
        let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let words: Vec<&str> = start.split(' ').skip(1).collect();
        let (command, arguments) = words.split_first().unwrap();
        // Until it is there, the unit is for a later binary, and then this is strict by itself.
        if *command == "agent" && !commands.contains("\n  agent") {
            continue;
        }
        let help = muster(&[command, "--help"]);
        for flag in arguments.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(flag), "{name}: `muster {command}` does not know {flag}");
        }
        let users = read("deploy/systemd/sysusers.d/muster.conf");
        let user = text.lines().find_map(|line| line.strip_prefix("User=")).unwrap();
        assert!(
            users.lines().any(|line| line.split_whitespace().nth(1) == Some(user)),
            "{name}: nobody makes the user {user}"
        );
    }
}

/// The string literals of a file: names of metrics stand in one each.
#[derive(Default)]
struct Literals(BTreeSet<String>);

impl Visit<'_> for Literals {
    fn visit_lit_str(&mut self, literal: &syn::LitStr) {
        self.0.insert(literal.value());
    }

    // Names stand among the arguments of macros too, if somebody writes them so.
    fn visit_macro(&mut self, invocation: &syn::Macro) {
        for token in invocation.tokens.to_string().split('"').skip(1).step_by(2) {
            self.0.insert(token.to_owned());
        }
    }
}

/// Every `muster_…` of a text.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.split(|it: char| !(it.is_ascii_alphanumeric() || it == '_'))
        .filter(|word| word.starts_with("muster_"))
        .collect()
}

#[test]
fn alert_rules_name_metrics_and_codes_that_there_are() {
    let mut registered = Literals::default();
    for file in ["src/server/metrics.rs", "src/server/store_metrics.rs", "src/server/shared.rs"] {
        registered.visit_file(&syn::parse_file(&read(file)).unwrap());
    }
    let rules = read("deploy/prometheus/alerts.yaml");
    let used = metrics_in(&rules);
    assert!(used.len() > 5, "the rules were not read: {used:?}");
    for metric in used {
        let name = metric.trim_start_matches("muster_");
        let family = ["_total", "_bucket", "_count", "_sum"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        assert!(registered.0.contains(family), "{metric} is not registered");
    }

    let codes = read("docs/errors.md");
    let quoted = rules.split("code=").skip(1).filter_map(|rest| rest.split('"').nth(1));
    for code in quoted.flat_map(|codes| codes.split('|')).filter(|code| *code != "OK") {
        let is_there = match code.strip_suffix(".*") {
            Some(start) => codes.contains(&format!("\n| {start}")),
            None => codes.contains(&format!("\n| {code} |")),
        };
        assert!(is_there, "no code {code}");
    }
}

/// As the addresses of headings are made: lower case, no punctuation, hyphens for spaces.
fn anchor(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(|it| it.is_alphanumeric() || *it == ' ' || *it == '-')
        .map(|it| if it == ' ' { '-' } else { it })
        .collect()
}

#[test]
fn every_alert_has_a_test_and_a_section_to_read() {
    let operations = read("docs/operations.md");
    let sections: BTreeSet<String> =
        operations.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
    let rules = read("deploy/prometheus/alerts.yaml");
    let tests = read("deploy/prometheus/tests.yaml");
    let after = |line: &str, key: &str| line.trim().strip_prefix(key).map(str::to_owned);
    let alerts: Vec<String> = rules.lines().filter_map(|it| after(it, "- alert: ")).collect();
    let runbooks: Vec<String> =
        rules.lines().filter_map(|it| after(it, "runbook: docs/operations.md#")).collect();
    assert_eq!(alerts.len(), runbooks.len(), "a runbook for each alert");
    for alert in alerts {
        assert!(tests.contains(&alert), "tests.yaml has nothing of {alert}");
    }
    for runbook in runbooks {
        assert!(sections.contains(&runbook), "docs/operations.md has no section #{runbook}");
    }
}

/// The scalars of a YAML file, in order. Fails if it is not YAML.
fn scalars(text: &str) -> Vec<String> {
    Parser::new_from_str(text)
        .filter_map(|event| {
            let (Event::Scalar(value, ..), _) = event.unwrap() else { return None };
            Some(value.into_owned())
        })
        .collect()
}

#[test]
fn user_data_is_yaml_and_tells_no_secret() {
    for (name, key) in [("user-data.yaml", "server"), ("user-data-from-ssm.yaml", "from_ssm")] {
        let text = read(&format!("deploy/cloud-init/{name}"));
        assert!(text.starts_with("#cloud-config\n"), "cloud-init goes by the first line");
        let values = scalars(&text);
        for value in &values {
            for word in ["PRIVATE KEY", "password", "passwd", "secret", "token", "AKIA", "ASIA"] {
                assert!(!value.contains(word), "`{word}` in {value}");
            }
            // A pin and a hash are the only long words; the ones here are made of zeros.
            let words = value.split(|it: char| !it.is_ascii_alphanumeric());
            let longest = words.max_by_key(|it| it.len()).unwrap_or_default();
            assert!(longest.len() < 40 || longest.bytes().all(|it| it == b'0'), "{longest}");
        }

        // The agent's file that it writes is TOML, and the agent takes it but for its values.
        let at = values.iter().position(|value| value == "/etc/muster/agent.toml").unwrap();
        let begins = format!("{key} = ");
        let written = values.iter().skip(at).find(|value| value.contains(&begins)).unwrap();
        let written: toml::Table = toml::from_str(written).unwrap();
        // Every key of the example of the package, commented out or not.
        let example = read("deploy/debian/agent.toml");
        let example = example.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line));
        let example: toml::Table = toml::from_str(&example.collect::<Vec<_>>().join("\n")).unwrap();
        for key in written.keys() {
            assert!(example.contains_key(key), "the example has no {key}");
        }
    }
}

#[test]
fn the_package_has_the_version_of_the_program() {
    let first = format!("muster ({}-1) ", env!("CARGO_PKG_VERSION"));
    assert!(read("deploy/debian/changelog").starts_with(&first), "deploy/debian/changelog");
}

/// The IAM documents, by name.
fn iam() -> Vec<(String, serde_json::Value)> {
    let names = names_in("deploy/aws/iam");
    let read = |name: String| {
        let document = serde_json::from_str(&read(&format!("deploy/aws/iam/{name}"))).unwrap();
        (name, document)
    };
    names.into_iter().map(read).collect()
}

// Least privilege: what is shipped names its actions and, where AWS lets it, what they are for.
#[test]
fn iam_documents_are_narrow_and_explained() {
    let readme = read("deploy/aws/README.md");
    let documents = iam();
    assert!(documents.len() >= 8, "{documents:#?}");
    for (name, document) in documents {
        assert!(readme.contains(&format!("| `{name}` |")), "{name} is not in the README");
        assert_eq!(document["Version"], "2012-10-17", "{name}");
        for statement in document["Statement"].as_array().unwrap() {
            assert!(statement["Sid"].is_string() && statement["Effect"] == "Allow", "{name}");
            let text = statement["Action"].to_string();
            assert!(!text.contains('*'), "{name}: {text}");
            let is_listing = statement["Action"] == "ec2:DescribeInstances";
            let resource = &statement["Resource"];
            assert!(is_listing || *resource != "*", "{name}: {resource}");
            if text.contains("kms:") {
                assert!(statement["Condition"].to_string().contains("kms:ViaService"), "{name}");
            }
        }
    }
}

// A session of the publishing role may do these and no more (src/aws/ssm/client.rs); the role needs all.
#[test]
fn the_publishing_role_may_do_what_its_sessions_ask_for() {
    let documents = iam();
    let named = |wanted: &str| {
        let found = documents.iter().find(|(name, _)| name == wanted).unwrap();
        found.1["Statement"].to_string()
    };
    let role = named("publisher-role-policy.json");
    let session = read("src/aws/ssm/client.rs");
    let asked =
        session.split('"').filter(|part| part.starts_with("ssm:") || part.starts_with("kms:"));
    let asked: BTreeSet<&str> = asked.filter(|part| *part != "kms:ViaService").collect();
    assert_eq!(asked.len(), 7, "{asked:?}");
    for action in &asked {
        assert!(role.contains(&format!("\"{action}\"")), "{action}");
    }
    let node = named("node-token-policy.json");
    for action in ["ssm:PutParameter", "ssm:DeleteParameter", "kms:Encrypt", "kms:GenerateDataKey"]
    {
        assert!(!node.contains(action), "a node only reads");
    }
}
