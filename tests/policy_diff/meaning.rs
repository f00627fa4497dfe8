//! Sets that mean the same, sets that cannot be compared, and policies that come and go.

use std::fs;

use serde_json::{Value, json};

use crate::change::{Change, Edit, only};

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
