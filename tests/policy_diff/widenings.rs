//! What a change newly admits or makes weaker.

use std::fs;

use serde_json::{Value, json};

use crate::change::{Change, Edit, is_newly_admitted, only};

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
