//! `muster policy diff`: twelve widenings that are easy to overlook, each with a witness that `muster
//! policy explain` confirms; and texts that changed without a change in meaning.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test ends where it is wrong"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

const MUSTER: &str = env!("CARGO_BIN_EXE_muster");
const AT: &str = "2026-06-01T12:00:00Z";

/// An edit of one file: what stands there, and what is to stand there instead.
type Edit = (&'static str, &'static str, &'static str);

/// Two sets: the examples with some edits, and with some more.
struct Change {
    directory: TempDir,
}

impl Change {
    fn of(before: &[Edit], after: &[Edit]) -> Self {
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

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> (i32, Value) {
        let (code, stdout, stderr) = self.run_as_it_is(arguments);
        let value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}\n{stderr}"));
        (code, value)
    }

    fn run_as_it_is(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(MUSTER);
        let output = command.args(arguments).current_dir(self.directory.path()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn diff(&self, more: &[&str]) -> (i32, Value) {
        let arguments = ["policy", "diff", "old", "new", "--at", AT, "--output", "json"];
        self.run(&[&arguments, more].concat())
    }

    /// What `explain` says of a witness under one of the two sets.
    fn explained(&self, set: &str, witness: &Value) -> (i32, Value) {
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
fn only<'a>(answer: &'a Value, kind: &str, what: &str) -> &'a Value {
    let changes = answer["changes"].as_array().unwrap();
    let found: Vec<&Value> =
        changes.iter().filter(|one| one["kind"] == kind && one["what"] == what).collect();
    assert_eq!(found.len(), 1, "{answer:#}");
    found[0]
}

/// Acceptance 3: reported, with a witness that the new set admits and the old one refuses.
fn is_newly_admitted(change: &Change) -> Value {
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

#[test]
fn a_wider_glob() {
    let edit = ("web.yaml", "instance_profile: web-*", "instance_profile: we*");
    let found = is_newly_admitted(&Change::of(&[], &[edit]));
    assert!(found["message"].as_str().unwrap().contains("instance_profile"), "{found:#}");
}

#[test]
fn a_prohibition_that_was_dropped() {
    let rule = "    - name: cve-2026-1234\n      images: [ami-0bbbbbbbbbbbbbbb1]\n      \
                reason: a back door in the base image\n      ticket: SEC-881\n";
    let change = Change::of(&[], &[("quarantine.yaml", rule, "")]);
    let (_, answer) = change.diff(&[]);
    // A deny list holds for every policy, so each is a way in.
    let found = answer["changes"].as_array().unwrap();
    let policies: Vec<&Value> = found.iter().map(|one| &one["policy"]).collect();
    assert!(["bastion", "batch", "web"].iter().all(|name| policies.contains(&&json!(name))));
    for one in found {
        assert_eq!(one["kind"], "newly_admitted");
        assert_eq!(one["witness"]["claims"]["image_id"], "ami-0bbbbbbbbbbbbbbb1");
        assert_eq!(one["old"]["rule"], "cve-2026-1234");
        assert_eq!(change.explained("new", &one["witness"]).0, 0);
        assert_eq!(change.explained("old", &one["witness"]).0, 1);
    }
}

#[test]
fn an_exception_that_was_removed() {
    let change = Change::of(&[], &[("accounts.yaml", "  except: [\"444455556666\"]\n", "")]);
    let found = is_newly_admitted(&change);
    assert_eq!(found["accounts"], json!([{"partition": "aws", "account_id": "444455556666"}]));
}

#[test]
fn another_partition() {
    let change = Change::of(
        &[],
        &[
            ("bastion.yaml", "partition: aws", "partition: aws-cn"),
            ("bastion.yaml", "[eu-central-1]", "[cn-north-1]"),
            ("bastion.yaml", "[eu-central-1a, eu-central-1b]", "[cn-north-1a]"),
        ],
    );
    let found = is_newly_admitted(&change);
    assert_eq!(found["accounts"], json!([{"partition": "aws-cn", "account_id": "555566667777"}]));
    let (_, answer) = change.diff(&[]);
    let lost = only(&answer, "no_longer_admitted", "rules");
    assert_eq!(lost["accounts"], json!([{"partition": "aws", "account_id": "555566667777"}]));
    assert_eq!(change.explained("old", &lost["witness"]).0, 0);
    assert_eq!(change.explained("new", &lost["witness"]).0, 1);
}

#[test]
fn a_permission_that_ends_later() {
    let reason = "reason: the web tier runs in two regions";
    let change = Change::of(
        &[(
            "web.yaml",
            reason,
            "reason: the web tier runs in two regions\n      until: 2026-07-01T00:00:00Z",
        )],
        &[("web.yaml", "2026-07-01", "2026-09-01")],
    );
    let found = is_newly_admitted(&change);
    assert_eq!(found["witness"]["at"], "2026-07-01T00:00:01Z");
}

#[test]
fn a_prohibition_that_ends_earlier() {
    let ticket = "      ticket: SEC-702\n";
    let change = Change::of(
        &[("bastion.yaml", ticket, "      ticket: SEC-702\n      until: 2027-06-01T00:00:00Z\n")],
        &[("bastion.yaml", "2027-06-01", "2026-07-01")],
    );
    let found = is_newly_admitted(&change);
    assert_eq!(found["witness"]["at"], "2026-07-01T00:00:01Z");
    assert_eq!(found["old"]["rule"], "old-builds");
}

#[test]
fn an_account_set_that_includes_another() {
    let sandbox = "---\napiVersion: muster/v1\nkind: AccountSet\nmetadata: {name: sandbox, owner: lab}\n\
                   spec: {partition: aws, accounts: [{id: \"999900001111\"}]}\n---\n# The same digits";
    let change = Change::of(
        &[("accounts.yaml", "---\n# The same digits", sandbox)],
        &[("accounts.yaml", "include: [production]", "include: [production, sandbox]")],
    );
    let found = is_newly_admitted(&change);
    assert_eq!(found["accounts"], json!([{"partition": "aws", "account_id": "999900001111"}]));
}

#[test]
fn a_tag_that_may_have_any_value() {
    let change = Change::of(&[], &[("web.yaml", "{Tier: web}", "{Tier: present}")]);
    let found = is_newly_admitted(&change);
    assert_ne!(found["witness"]["instance"]["tags"]["Tier"], "web");
}

#[test]
fn a_proof_that_is_no_longer_required() {
    let bare: &[Edit] = &[("guardrails.yaml", "", ""), ("quarantine.yaml", "", "")];
    let look_up = "    fresh_proof: required\n    look_up:\n      \
                   role: arn:{partition}:iam::{account}:role/muster-verifier\n      \
                   external_id: muster-example\n";
    let none = "    fresh_proof: required\n    look_up: none\n";
    let weak = "    fresh_proof: not_required\n    document_ttl: 15m\n    look_up: none\n";
    let before = [bare, &[("batch.yaml", look_up, none)]].concat();
    let change = Change::of(&before, &[("batch.yaml", none, weak)]);
    let (code, answer) = change.diff(&["--fail-on-new-access"]);
    assert_eq!(code, 1);
    let found = only(&answer, "weaker", "fresh_proof");
    assert_eq!(found["witness"]["proof"], "none");
    assert_eq!(change.explained("new", &found["witness"]).0, 0);
    assert_eq!(change.explained("old", &found["witness"]).0, 1);
    // The age of a document counts where the proof does not.
    let lost = only(&answer, "stronger", "document_ttl");
    assert_eq!(change.explained("old", &lost["witness"]).0, 0);
    assert_eq!(change.explained("new", &lost["witness"]).0, 1);

    // Nobody looks any more: one that was stopped gets in.
    let change = Change::of(bare, &[("batch.yaml", look_up, none)]);
    let (_, answer) = change.diff(&[]);
    let found = only(&answer, "weaker", "look_up");
    assert_eq!(found["witness"]["instance"]["state"], "stopped");
    assert_eq!(change.explained("new", &found["witness"]).0, 0);
    assert_eq!(change.explained("old", &found["witness"]).0, 1);
}

#[test]
fn a_longer_life_and_another_name() {
    let change = Change::of(&[], &[("batch.yaml", "ttl: 2h", "ttl: 20h")]);
    let (code, answer) = change.diff(&["--fail-on-new-access"]);
    assert_eq!(code, 1);
    let witness = &only(&answer, "weaker", "ttl")["witness"];
    let given = |set: &str, name: &str| {
        let (code, explained) = change.explained(set, witness);
        assert_eq!(code, 0);
        explained["policies"][0]["grants"][name].clone()
    };
    assert_eq!((given("old", "ttl"), given("new", "ttl")), (json!("2h"), json!("20h")));

    let names = "dns_names: [\"{instance_id}.web.internal.example\"]";
    let more =
        "dns_names: [\"{instance_id}.web.internal.example\", \"{instance_id}.internal.example\"]";
    let change = Change::of(&[], &[("web.yaml", names, more)]);
    let (_, answer) = change.diff(&[]);
    let witness = &only(&answer, "weaker", "dns_names")["witness"];
    let name = json!("i-0123456789abcdef0.internal.example");
    let given = |set: &str| {
        let (_, explained) = change.explained(set, witness);
        explained["policies"][0]["grants"]["dns_names"].as_array().unwrap().contains(&name)
    };
    assert_eq!((given("old"), given("new")), (false, true));
}

#[test]
fn guardrails_that_let_more_pass() {
    // With this list a policy that does not look does not load anyway.
    let bare = ("quarantine.yaml", "", "");
    for (from, to) in [
        ("max_ttl: 24h", "max_ttl: 48h"),
        ("fresh_proof: required\n  look_up: required\n", "fresh_proof: required\n"),
        ("require: [owner, description, reason]", "require: [owner, description]"),
        ("dns_suffixes: [internal.example]", "dns_suffixes: [internal.example, corp.example]"),
    ] {
        let change = Change::of(&[bare], &[("guardrails.yaml", from, to)]);
        let (code, answer) = change.diff(&["--fail-on-new-access"]);
        assert_eq!(code, 1, "{answer:#}");
        let found = only(&answer, "weaker", "guardrails");
        let document = found["witness"]["document"].as_str().unwrap();
        for (set, expected) in [("old", 1), ("new", 0)] {
            fs::write(change.path(set).join("witness.yaml"), document).unwrap();
            let (code, checked) = change.run(&["policy", "check", set, "--output", "json"]);
            assert_eq!(code, expected, "{checked:#}");
            let findings = checked["findings"].as_array().unwrap().iter();
            let errors: Vec<_> = findings.filter(|one| one["severity"] == "error").collect();
            assert!(errors.iter().all(|one| one["code"] == "GUARDRAIL_EXCEEDED"), "{errors:#?}");
        }
        // The way back is stricter, and fails nothing.
        let change =
            Change::of(&[bare, ("guardrails.yaml", from, to)], &[("guardrails.yaml", to, from)]);
        let (code, answer) = change.diff(&["--fail-on-new-access"]);
        assert_eq!(code, 0);
        only(&answer, "stronger", "guardrails");
    }
}

fn means_the_same(before: &[Edit], after: &[Edit]) {
    let change = Change::of(before, after);
    let (code, answer) = change.diff(&["--fail-on-new-access"]);
    assert_eq!((code, &answer["same_meaning"]), (0, &json!(true)), "{answer:#}");
    assert_eq!(answer["changes"], json!([]));
    assert_ne!(answer["old"], answer["new"], "the text did change");
    let (_, text, _) = change.run_as_it_is(&["policy", "diff", "old", "new"]);
    assert_eq!(text, "no change in meaning\n");
}

// Acceptance 2.
#[test]
fn another_format_and_another_order_mean_the_same() {
    means_the_same(
        &[],
        &[
            (
                "web.yaml",
                "regions: [us-east-1, us-west-2]",
                "regions:\n        - us-west-2\n        - \"us-east-1\"",
            ),
            ("web.yaml", "{Tier: web}", "\n        Tier:\n          - web"),
            ("web.yaml", "reason: the web tier runs in two regions", "reason: as ever"),
            ("quarantine.yaml", "owner: security", "owner: somebody-else"),
        ],
    );
    let commercial = "    - name: commercial\n      accounts: [batch]\n      regions: any # workers follow spot prices\n      \
                      instance_types: [c7g.*, m7g.*]\n      reason: workers are built for Graviton only\n";
    let later = format!("      ticket: DATA-417\n{commercial}").leak();
    means_the_same(
        &[],
        &[("batch.yaml", commercial, ""), ("batch.yaml", "      ticket: DATA-417\n", later)],
    );
    // A rule that another one says already.
    let twice = format!(
        "{commercial}{}",
        commercial
            .replace("name: commercial", "name: again")
            .replace("[c7g.*, m7g.*]", "c7g.large")
    );
    means_the_same(&[], &[("batch.yaml", commercial, twice.leak())]);
}

#[test]
fn a_set_that_is_written_out_and_an_account_that_moves_mean_the_same() {
    means_the_same(
        &[],
        &[(
            "web.yaml",
            "accounts: [production]",
            "accounts: [\"111122223333\", \"444455556666\"]\n      partition: aws",
        )],
    );
    let moved = "---\napiVersion: muster/v1\nkind: AccountSet\nmetadata: {name: staging, owner: shop-team}\n\
                 spec: {partition: aws, accounts: [{id: \"444455556666\"}]}\n---\n# Batch works";
    means_the_same(
        &[
            ("accounts.yaml", "---\n# Batch works", moved),
            (
                "accounts.yaml",
                "    - {id: \"444455556666\", name: shop-staging, owner: shop-team}\n",
                "",
            ),
            (
                "accounts.yaml",
                "    - {id: \"111122223333\", name: shop-prod, owner: shop-team}\n",
                "    - {id: \"111122223333\", name: shop-prod, owner: shop-team}\n  include: [staging]\n",
            ),
        ],
        &[("accounts.yaml", "  include: [staging]\n", "    - {id: \"444455556666\"}\n")],
    );
}

#[test]
fn a_set_that_does_not_load_is_no_answer() {
    let change = Change::of(&[], &[("web.yaml", "method: ec2", "method: ec3")]);
    let (code, answer) = change.diff(&[]);
    assert_eq!((code, &answer["error"]["code"]), (2, &json!("POLICY_SET_INVALID")));
    let (code, _, _) = change.run_as_it_is(&["policy", "diff", "old", "nowhere"]);
    assert_eq!(code, 2);
}

// A policy that comes or goes is reported with all its accounts, and so is what nodes that name none get.
#[test]
fn policies_that_come_and_go() {
    let change = Change::of(
        &[("bastion.yaml", "", ""), ("batch.yaml", "", "")],
        &[("web.yaml", "name: web\n", "name: shop\n")],
    );
    let (code, answer) = change.diff(&["--fail-on-new-access"]);
    assert_eq!(code, 1);
    let gained = only(&answer, "newly_admitted", "policy");
    assert_eq!((&gained["policy"], &gained["old"]), (&json!("shop"), &Value::Null));
    assert_eq!(only(&answer, "no_longer_admitted", "policy")["policy"], "web");
    let unnamed = only(&answer, "changed", "unnamed");
    assert!(
        unnamed["message"]
            .as_str()
            .unwrap()
            .contains("now join by `shop`; before they join by `web`")
    );
}

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

// Each prohibition that was dropped is told, however many others stay.
#[test]
fn no_change_hides_behind_another() {
    let kept: Vec<String> = (0..8)
        .map(|n| format!("    - {{tags: {{T{n}: present}}, security_groups: [sg-0000000{n}]}}\n"))
        .collect();
    let kept = kept.concat();
    let head = "apiVersion: muster/v1\nkind: JoinPolicy\nmetadata: {name: many, owner: o}\nspec:\n  \
                method: ec2\n  roles: [node]\n  ec2: {look_up: own}\n  allow:\n    \
                - {accounts: [production], regions: [us-east-1], instance_types: m7g.*}\n  deny:\n";
    let dropped = "    - {name: image, images: [ami-0ddddddddddddddd1]}\n    \
                   - {name: profile, instance_profile: old-*}\n    \
                   - {name: quarantine, tags: {Q: present}}\n";
    let before = format!("{head}{kept}{dropped}").leak();
    let after = format!("{head}{kept}")
        .replace("[us-east-1]", "[us-east-1, us-west-2]")
        .replace("m7g.*", "[m7g.*, c7g.*]")
        .leak();
    let bare = ("guardrails.yaml", "", "");
    let change = Change::of(&[bare, ("many.yaml", "", before)], &[("many.yaml", "", after)]);
    let (_, answer) = change.diff(&[]);
    let changes = answer["changes"].as_array().unwrap();
    let by = |rule: &str| changes.iter().filter(|one| one["old"]["rule"] == rule).count();
    assert_eq!((by("image"), by("profile"), by("quarantine")), (1, 1, 1), "{answer:#}");
    // Two fields of one rule are two changes.
    assert_eq!(by("allow[0]"), 2, "{answer:#}");
    for one in changes {
        assert_eq!(change.explained("new", &one["witness"]).0, 0);
        assert_eq!(change.explained("old", &one["witness"]).0, 1);
    }
}

// What is too large to be compared is said, by name, and hides nothing of the others.
#[test]
fn what_is_too_large_is_named() {
    let rules: Vec<String> = (0..16)
        .map(|n| {
            format!("    - {{accounts: [production], regions: any, security_groups: [sg-000000{n:02}]}}\n")
        })
        .collect();
    let rules = rules.concat();
    let head = "apiVersion: muster/v1\nkind: JoinPolicy\nmetadata: {name: large, owner: o}\nspec:\n  \
                method: ec2\n  roles: [node]\n  ec2: {look_up: own}\n  allow:\n";
    let before = format!("{head}{rules}").leak();
    let after = format!("{head}{rules}").replace("regions: any", "regions: [us-east-1]").leak();
    let bare = ("guardrails.yaml", "", "");
    let large = ("large.yaml", "", &*before);
    let same = Change::of(&[bare, large], &[("web.yaml", "# For a team", "# For the team")]);
    assert_eq!(same.diff(&["--fail-on-new-access"]).1["same_meaning"], true);
    let change = Change::of(
        &[bare, large],
        &[
            ("large.yaml", "", after),
            ("web.yaml", "instance_profile: web-*", "instance_profile: we*"),
        ],
    );
    let (code, answer) = change.diff(&["--fail-on-new-access"]);
    assert_eq!((code, &answer["incomplete"]), (1, &json!(["large"])));
    assert!(answer["changes"].as_array().unwrap().iter().any(|one| one["policy"] == "web"));
    let arguments = ["policy", "diff", "old", "new", "--format"];
    for format in ["text", "sarif", "junit", "github", "markdown"] {
        let (_, said, _) = change.run_as_it_is(&[&arguments[..], &[format]].concat());
        assert!(said.contains("INCOMPLETE") && said.contains("large"), "{format}: {said}");
    }
}

#[test]
fn the_text_of_others_makes_no_line_of_its_own() {
    let change =
        Change::of(&[], &[("web.yaml", "instance_profile: web-*", "instance_profile: we*")]);
    let hostile = "zz\nno change in meaning\n\u{1b}[8m.yaml";
    fs::rename(change.path("new").join("web.yaml"), change.path("new").join(hostile)).unwrap();
    let (_, said, _) = change.run_as_it_is(&["policy", "diff", "old", "new"]);
    assert!(said.contains("newly admitted") && !said.contains('\u{1b}'), "{said}");
    assert!(!said.lines().any(|line| line == "no change in meaning"), "{said}");
    let (_, said, _) = change.run_as_it_is(&["policy", "access", "new", "--policy", "web"]);
    assert!(!said.contains('\u{1b}') && !said.lines().any(|line| line == "no change in meaning"));
}
