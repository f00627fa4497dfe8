//! Boundary cases that are made from policies: all of them are refused, and each kind of them finds
//! what it is for.

use std::collections::BTreeSet;

use super::world::{ACCOUNTS, load, named_policy, now, policy, set, vocabulary};
use crate::policy::{Boundaries, Outcome, PolicySet, PolicyTest, boundaries, document_of_tests};

/// A rule with every field of `ec2`, and prohibitions beside it.
const EVERY_FIELD: &str = "
allow:
  - name: everything
    accounts: [production]
    partition: aws
    regions: [us-east-1, us-west-2]
    availability_zones: us-east-1*
    images: [ami-0aaaaaaaaaaaaaaa1]
    instance_types: [m7g.*, \"*.metal\"]
    instance_profile: [web-*, api]
    tags: {Tier: [web, api], Owner: present, Legacy: absent}
    vpc: [vpc-0123456789abcdef0]
    subnet: [subnet-0123456789abcdef0]
    security_groups: [sg-0123456789abcdef0]
    auto_scaling_group: web-*
    imds: {v2_only: true, max_hop_limit: 1}
    launched_within: 1h
    until: 2026-07-01T00:00:00Z
deny:
  - {name: quarantined, tags: {Quarantine: present}}
  - {name: staging-metal, accounts: [\"444455556666\"], partition: aws, instance_types: \"*.metal\"}
ec2: {look_up: own}
certificate: {dns_names: [\"{instance_id}.{availability_zone}.web.internal.example\"]}
";
const DOCUMENTS: &str = "
allow: [{name: any, accounts: [production], regions: [us-east-1]}]
ec2: {fresh_proof: not_required, document_ttl: 15m, look_up: none}
";
const TOKENS: &str = "apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: edge}
spec:
  method: token
  roles: [node]
  allow:
    - name: edge
      tokens: [edge-*]
      nodes: [\"*-edge\", hub]
      networks: [10.0.0.0/8, \"fd00::/8\"]
      token_labels: {tier: edge}
      lifetime: 1h
      uses: 10
  certificate: {dns_names: [\"{node}.edge.internal.example\"]}
";

fn made(set: &PolicySet, most: usize) -> Boundaries {
    boundaries(set, &vocabulary().regions, None, most, now())
}

fn names<'m>(made: &'m Boundaries, step: &str) -> Vec<&'m str> {
    made.cases.iter().filter(|one| one.step == step).map(|one| one.case.name()).collect()
}

/// Every case is refused, and so is every one that was written down and read again.
fn all_hold(texts: &[&str], most: usize) -> Boundaries {
    let old = set(texts);
    let made = made(&old, most);
    for one in &made.cases {
        let result = one.case.run(&old, now());
        assert_eq!(
            result.mismatch,
            None,
            "{} beside {}: {}",
            one.case.name(),
            one.rule,
            result.message
        );
    }
    let written = document_of_tests(&made);
    let again = set(&[texts, &[&written]].concat());
    let cases: Vec<_> = again.tests().flat_map(PolicyTest::cases).collect();
    let rules: BTreeSet<_> = made.cases.iter().map(|one| (one.case.policy(), &one.rule)).collect();
    // The admitted node of each rule beside them.
    assert_eq!(cases.len(), made.cases.len() + rules.len());
    assert_eq!(
        cases.iter().filter(|case| case.expected() == Outcome::Admitted).count(),
        rules.len()
    );
    for case in cases {
        let result = case.run(&again, now());
        assert_eq!(result.mismatch, None, "{}: {}", case.name(), result.message);
    }
    made
}

#[test]
fn each_field_of_a_rule_has_its_neighbours() {
    let made = all_hold(&[ACCOUNTS, &policy(EVERY_FIELD)], 10_000);
    assert!(made.not_tried.is_empty(), "{:?}", made.not_tried);
    for (step, expected) in [
        (
            "account",
            &["account_id 111122223334", "account_id 111122223332", "account_id 444455556665"][..],
        ),
        ("partition", &["partition aws-cn", "partition aws-us-gov"]),
        ("partition-and-region", &["partition aws-cn and its cn-north-1"]),
        ("region", &["region eu-west-1"]),
        ("id", &["image_id ami-0aaaaaaaaaaaaaaa2", "vpc vpc-0123456789abcdef1"]),
        ("glob-separator", &["instance_profile web-a/a"]),
        ("glob-prefix", &["instance_profile eb-a", "auto_scaling_group eb-a"]),
        ("glob-suffix", &["instance_profile apib"]),
        ("tag-value", &["tag Tier: webx", "tag Tier: apix"]),
        ("tag-case", &["tag Tier: Web", "tag tier: api"]),
        ("tag-absent", &["no tag Owner", "no tag Tier"]),
        ("tag-present", &["tag Legacy: x"]),
        ("absent", &["no instance_profile", "no launch_time"]),
        ("age", &["launch_time 2026-06-01T10:59:59Z"]),
        ("metadata-options", &["imds v2_only: false", "imds hop_limit: 2"]),
        ("proof", &["no proof"]),
        ("state", &["state stopped"]),
        ("until", &["ended at 2026-07-01T00:00:00Z"]),
        ("denied", &["denied by quarantined"]),
    ] {
        let names = names(&made, step);
        for name in expected {
            assert!(names.contains(name), "{step}: no `{name}` in {names:?}");
        }
    }
}

#[test]
fn a_document_that_joins_alone_has_a_neighbour_a_second_older() {
    let made = all_hold(&[ACCOUNTS, &policy(DOCUMENTS)], 100);
    assert_eq!(names(&made, "document-age"), ["pending_time 2026-06-01T11:44:59Z"]);
    assert_eq!((names(&made, "proof").len(), names(&made, "state").len()), (0, 0));
}

#[test]
fn neighbours_are_made_of_kinds_and_not_of_a_method() {
    let made = all_hold(&[TOKENS], 100);
    for (step, expected) in [
        (
            "network",
            &["source_address 9.255.255.255", "source_address 11.0.0.0", "source_address fe00::"][..],
        ),
        ("span", &["token_lifetime 3601s"]),
        ("count", &["token_max_uses 11"]),
        ("absent", &["no token_lifetime", "no token_max_uses", "no node"]),
        ("glob-prefix", &["token_name dge-a"]),
        ("glob-suffix", &["node a-edgea", "node aedge", "node huba"]),
        ("tag-value", &["tag tier: edgex"]),
    ] {
        let names = names(&made, step);
        for name in expected {
            assert!(names.contains(name), "{step}: no `{name}` in {names:?}");
        }
    }
}

// A deny list speaks of fields of EC2, which a node of a token has not: it is not about that node.
#[test]
fn a_deny_list_holds_for_the_policies_whose_method_has_its_fields() {
    let head = "apiVersion: muster/v1\nkind: DenyList\nmetadata: {name: q}\n";
    let deny_list = format!("{head}spec: {{deny: [{{regions: [eu-west-1]}}]}}\n");
    let made = all_hold(&[TOKENS, &deny_list], 100);
    assert!(made.not_tried.is_empty(), "{:?}", made.not_tried);
}

#[test]
fn few_cases_touch_every_policy_and_every_kind_and_are_always_the_same() {
    let (one, two) = (named_policy("one", EVERY_FIELD), named_policy("two", EVERY_FIELD));
    let set = set(&[ACCOUNTS, &one, &two, TOKENS]);
    let all = made(&set, 10_000);
    let kinds = all.made().len();
    let few = made(&set, kinds);
    assert_eq!((few.cases.len(), few.made().len()), (kinds, kinds));
    let policies: BTreeSet<_> = few.cases.iter().filter_map(|one| one.case.policy()).collect();
    assert_eq!(policies.len(), 3);
    let listed = |made: &Boundaries| -> Vec<String> {
        let cases = made.cases.iter();
        cases
            .map(|one| format!("{:?} {} {}", one.case.policy(), one.rule, one.case.name()))
            .collect()
    };
    assert_eq!(listed(&few), listed(&made(&set, kinds)));
    assert_eq!(made(&set, 0).cases.len(), 0);
}

#[test]
fn what_another_rule_admits_is_no_boundary() {
    let rules = "
allow:
  - {name: one, accounts: [production], regions: [us-east-1]}
  - {name: two, accounts: [production], regions: [us-west-2]}
";
    let made = all_hold(&[ACCOUNTS, &policy(rules)], 1000);
    assert_eq!(made.admitted_elsewhere, 2, "each is the other's neighbour");
    assert_eq!(names(&made, "region"), ["region eu-west-1", "region eu-west-1"]);
}

#[test]
fn a_rule_that_admits_nobody_is_said_to() {
    let rules = "
allow:
  - {name: ended, accounts: [production], regions: any, until: 2026-05-31T00:00:00Z}
  - {name: dead, accounts: [production], regions: [us-east-1]}
  - {name: alive, accounts: [production], regions: [us-east-1, us-west-2]}
deny: [{name: east, regions: [us-east-1]}]
";
    let made = all_hold(&[ACCOUNTS, &policy(rules)], 1000);
    let not_tried: Vec<_> = made.not_tried.iter().map(|one| (&*one.rule, one.message)).collect();
    assert_eq!(
        not_tried,
        [("ended", "it has ended"), ("dead", "no node was found that it admits")]
    );
    assert!(made.cases.iter().all(|one| one.rule == "alive"));
}

/// How many cases of the old set, written down, do not hold in the new one.
fn found(old: &str, new: &str) -> Vec<String> {
    let written = document_of_tests(&made(&set(&[ACCOUNTS, &policy(old)]), 1000));
    let new = set(&[ACCOUNTS, &policy(new), &written]);
    let cases = new.tests().flat_map(PolicyTest::cases);
    let failed = cases.filter(|case| case.run(&new, now()).mismatch.is_some());
    failed.map(|case| case.name().to_owned()).collect()
}

#[test]
fn a_widened_set_does_not_hold_the_cases_of_the_old_one() {
    for (from, to, expected) in [
        ("  - {name: quarantined, tags: {Quarantine: present}}\n", "", "denied by quarantined"),
        ("launched_within: 1h", "launched_within: 2h", "launch_time 2026-06-01T10:59:59Z"),
        ("Tier: [web, api]", "Tier: present", "tag Tier: webx"),
        ("regions: [us-east-1, us-west-2]", "regions: any", "region eu-west-1"),
        ("web-*, api]", "web*, api]", "instance_profile weba"),
        ("max_hop_limit: 1", "max_hop_limit: 2", "imds hop_limit: 2"),
        ("v2_only: true, ", "", "imds v2_only: false"),
        (
            "ami-0aaaaaaaaaaaaaaa1]",
            "ami-0aaaaaaaaaaaaaaa1, ami-0aaaaaaaaaaaaaaa2]",
            "image_id ami-0aaaaaaaaaaaaaaa2",
        ),
        ("2026-07-01T00:00:00Z", "2026-07-02T00:00:00Z", "ended at 2026-07-01T00:00:00Z"),
        (", Legacy: absent", "", "tag Legacy: x"),
        ("    vpc: [vpc-0123456789abcdef0]\n", "", "vpc vpc-0123456789abcdef1"),
    ] {
        let new = EVERY_FIELD.replace(from, to);
        assert_ne!(new, EVERY_FIELD, "{from}");
        assert_eq!(found(EVERY_FIELD, EVERY_FIELD), [""; 0]);
        let found = found(EVERY_FIELD, &new);
        assert!(found.iter().any(|name| name == expected), "{from}: {found:?}");
    }
    let older = DOCUMENTS.replace("15m", "16m");
    assert_eq!(found(DOCUMENTS, &older), ["pending_time 2026-06-01T11:44:59Z"]);
    let one_more = "allow: [{name: any, accounts: [production, \"111122223334\"], partition: aws, regions: [us-east-1]}]";
    let wider = DOCUMENTS
        .replace("allow: [{name: any, accounts: [production], regions: [us-east-1]}]", one_more);
    assert!(found(DOCUMENTS, &wider).contains(&"account_id 111122223334".to_owned()));
}

// The text of a policy becomes text of a test, whatever it is.
#[test]
fn hostile_text_comes_back_as_it_went() {
    let rules = "
allow:
  - name: everything
    accounts: [production]
    regions: [us-east-1]
    tags: {\"a\\\"b: {c}\": [\"x\\\\ # y\", \"é, [\"], \"on\": \"no\"}
ec2: {look_up: own}
";
    let loaded = load(&[ACCOUNTS, &policy(rules)]);
    assert!(loaded.set.is_some(), "{:#?}", loaded.findings);
    all_hold(&[ACCOUNTS, &policy(rules)], 1000);
}
