//! Explanations of facts of the instance; `tests/policy_explain.rs` has them through the command.

use super::world::{ACCOUNTS, Node, now, policy, set, time, worker};
use crate::methods::{ALL, FactsNeeded, LookUp, Source, Value};
use crate::policy::{Fit, Hypothesis, Outcome, explain};

const RULE: &str = "
allow:
  - accounts: [production]
    regions: [us-east-1]
    instance_profile: web-*
    tags: {Tier: web}
    vpc: [vpc-0123456789abcdef0]
    subnet: [subnet-0123456789abcdef0]
    security_groups: [sg-0123456789abcdef0]
    auto_scaling_group: web-*
    imds: {v2_only: true, max_hop_limit: 1}
    launched_within: 1h
ec2: {look_up: own}
";

/// A node that differs in what one field reads.
fn differing(field: &str, reads: &'static str) -> Node {
    let value = match field {
        "tags" => return worker().with_tag("Tier", "db"),
        "security_groups" => Value::List(vec!["sg-0f0f0f0f".to_owned()]),
        "imds" => Value::MetadataOptions { v2_only: true, hop_limit: 2 },
        "launched_within" => Value::Time(time("2026-06-01T10:00:00Z")),
        _ => Value::Text("another".to_owned()),
    };
    worker().with_fact(reads, value)
}

#[test]
fn every_field_of_the_instance_is_explained_by_itself() {
    let text = policy(RULE);
    let set = set(&[ACCOUNTS, &text]);
    let fields = ALL[0].fields.iter().filter(|field| field.source == Source::Instance);
    for field in fields {
        let node = differing(field.name, field.reads);
        let hypothesis = Hypothesis { method: "ec2", values: &node.values, epoch: node.epoch };
        let explained = explain(&set, &hypothesis, Some(&node.facts), None, now());
        assert_eq!(explained.outcome, Outcome::Refused, "{}", field.name);
        assert_eq!(explained.field.as_deref(), Some(field.name));
        assert_eq!(explained.file.as_deref(), Some("b.yaml"));
        let needle = format!("{}: ", field.name);
        let (index, line) = text
            .lines()
            .enumerate()
            .find(|(_, line)| line.trim_start().starts_with(&needle))
            .unwrap();
        let column = line.find(&needle).unwrap() + needle.len() + 1;
        let place = (u32::try_from(index + 1).ok(), u32::try_from(column).ok());
        assert_eq!((explained.line, explained.column), place, "{}", field.name);
        let rule = &explained.policies[0].rules[0];
        for explained in &rule.fields {
            let expected = if explained.field == field.name { Fit::NoMatch } else { Fit::Match };
            assert_eq!(explained.outcome, expected, "{} by {}", field.name, explained.field);
        }
    }
}

#[test]
fn what_was_not_read_needs_facts() {
    let set = set(&[ACCOUNTS, &policy(RULE)]);
    let node = worker().unseen();
    let hypothesis = Hypothesis { method: "ec2", values: &node.values, epoch: node.epoch };
    let explained = explain(&set, &hypothesis, Some(&node.facts), None, now());
    assert_eq!(explained.outcome, Outcome::NeedsFacts);
    assert_eq!(explained.field.as_deref(), Some("instance_profile"));
    // And it is asked for (I3).
    let candidates = node.candidates(&set, "web").unwrap();
    let expected = FactsNeeded { proof_required: true, look_up: LookUp::Own };
    assert_eq!(*candidates.needed(), expected);
}

#[test]
fn other_tags_of_an_instance_stay_out_of_explanations() {
    let set = set(&[ACCOUNTS, &policy(RULE)]);
    let node = worker().with_tag("Secret", "hunter2");
    let denial = node.joins(&set, "web").unwrap_err();
    let text = serde_json::to_string(&denial.explanation().unwrap()).unwrap();
    assert!(!text.contains("hunter2") && text.contains("Tier: absent"), "{text}");
}
