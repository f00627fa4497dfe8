//! "Never" sentences, tried on everything that proptest can think of.

use proptest::prelude::*;

use super::world::{
    ACCOUNTS, Node, false_proof, files, named_policy, now, policy, set, vocabulary, worker,
};
use crate::domain::Code;
use crate::methods::{Instance, Proof, Value};
use crate::policy::{Fit, Hypothesis, Outcome, PolicyFile, explain, load};

const RULES: &str = "
allow:
  - {accounts: [production], regions: [us-east-1, us-west-2], images: [ami-0aaaaaaaaaaaaaaa1]}
  - {accounts: [production], regions: [eu-west-1], tags: {Tier: web}, instance_profile: web-*}
  - {accounts: [\"999988887777\"], partition: aws-cn, regions: [cn-north-1]}
deny:
  - {images: [ami-0bbbbbbbbbbbbbbb1]}
  - {tags: {Quarantine: present}}
ec2: {look_up: own}
";

fn any_node() -> impl Strategy<Value = Node> {
    let account = prop_oneof!["111122223333", "444455556666", "999988887777", "[0-9]{12}", ".*"];
    let partition = prop_oneof!["aws", "aws-cn", "aws-us-gov", ".*"];
    let region = prop_oneof!["us-east-1", "eu-west-1", "cn-north-1", ".*"];
    let image = prop_oneof!["ami-0aaaaaaaaaaaaaaa1", "ami-0bbbbbbbbbbbbbbb1", ".*"];
    let tag = prop_oneof!["Tier", "Quarantine", ".*"];
    let proof = prop_oneof![
        Just(Proof::Proven),
        Just(Proof::NotOffered),
        Just(Proof::NotChecked("no".to_owned())),
        Just(false_proof())
    ];
    let texts = (account, partition, region, image, tag, prop_oneof!["web", ".*"]);
    (texts, proof, any::<bool>()).prop_map(|(texts, proof, is_seen)| {
        let (account, partition, region, image, tag, value) = texts;
        let node = worker()
            .claiming("account_id", &account)
            .claiming("partition", &partition)
            .claiming("region", &region)
            .claiming("image_id", &image)
            .with_tag(&tag, &value)
            .with_proof(proof);
        if is_seen { node } else { node.unseen() }
    })
}

fn text<'n>(node: &'n Node, name: &str) -> Option<&'n str> {
    let value = &node.values.get(name)?.value;
    if let Value::Text(text) = value { Some(text) } else { None }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    // I2, I3, T44: whatever else is true of a node, its account was written down.
    #[test]
    fn an_account_that_is_not_listed_is_never_admitted(node in any_node()) {
        let set = set(&[ACCOUNTS, &policy(RULES)]);
        let account = (text(&node, "partition").unwrap(), text(&node, "account_id").unwrap());
        if node.joins(&set, "web").is_ok() {
            let listed = [("aws", "111122223333"), ("aws", "444455556666"), ("aws-cn", "999988887777")];
            prop_assert!(listed.contains(&account), "{account:?}");
            prop_assert!(set.names_account(account.0, account.1));
        }
    }

    // I11, T65: with a deny rule on tags, a node at which nobody looked is never admitted.
    #[test]
    fn an_unknown_prohibition_never_approves(node in any_node()) {
        let set = set(&[ACCOUNTS, &policy(RULES)]);
        let node = node.unseen();
        prop_assert!(node.joins(&set, "web").is_err());
    }

    // A prohibition beats every permission, and a false proof beats both.
    #[test]
    fn what_is_denied_is_never_approved(node in any_node()) {
        let set = set(&[ACCOUNTS, &policy(RULES)]);
        let has_bad_image = text(&node, "image_id") == Some("ami-0bbbbbbbbbbbbbbb1");
        let is_quarantined = matches!(&node.facts.instance, Instance::Known(facts)
            if matches!(facts.get("tags"), Some(Some(Value::Tags(tags))) if tags.contains_key("Quarantine")));
        let is_false = matches!(node.facts.proof, Proof::Disproven(_));
        if has_bad_image || is_quarantined || is_false {
            prop_assert!(node.joins(&set, "web").is_err());
        }
    }

    // I3, T26: a claim that the node merely makes can lose it a certificate and never win one.
    #[test]
    fn a_hint_can_only_refuse(node in any_node(), name in prop_oneof![
        Just("account_id"), Just("partition"), Just("region"), Just("image_id"),
    ]) {
        let set = set(&[ACCOUNTS, &policy(RULES)]);
        let hinted = node.clone().hinting(name, text(&node, name).unwrap());
        // Every rule reads all four, so none of them can be settled by a hint.
        prop_assert!(hinted.joins(&set, "web").is_err());
    }

    // Matching and deciding never disagree: what step 2 refuses, step 4 would refuse.
    #[test]
    fn step_two_refuses_only_what_step_four_would(node in any_node()) {
        let set = set(&[ACCOUNTS, &policy(RULES)]);
        if let Err(denial) = node.candidates(&set, "web") {
            prop_assert!(matches!(denial.code, Code::PolicyNoMatch | Code::PolicyDenied));
            let node = node.with_proof(Proof::Proven);
            let hypothesis =
                Hypothesis { method: "ec2", values: &node.values, epoch: node.epoch };
            let explained = explain(&set, &hypothesis, Some(&node.facts), Some("web"), now());
            prop_assert_eq!(explained.outcome, Outcome::Refused);
        }
    }

    // An explanation that says something else than the decision is worse than none.
    #[test]
    fn explanations_agree_with_decisions(node in any_node()) {
        let set = set(&[ACCOUNTS, &policy(RULES)]);
        let hypothesis = Hypothesis { method: "ec2", values: &node.values, epoch: node.epoch };
        let explained = explain(&set, &hypothesis, Some(&node.facts), Some("web"), now());
        let is_admitted = explained.outcome == Outcome::Admitted;
        match node.joins(&set, "web") {
            Ok(approval) => {
                prop_assert!(is_admitted);
                prop_assert_eq!(explained.rule.as_deref(), Some(approval.rule().name.as_str()));
                let rules = &explained.policies[0].rules;
                prop_assert!(rules.iter().any(|rule| rule.kind == "allow" && rule.outcome == Fit::Match));
            }
            Err(_) => prop_assert!(!is_admitted),
        }
    }

    // The parser takes anything and never panics.
    #[test]
    fn any_text_is_read_without_panic(text in ".{0,200}") {
        let file = PolicyFile { name: "a.yaml".to_owned(), text };
        let _loaded = load(&[file], &vocabulary(), Some(now()));
    }

    #[test]
    fn any_cut_or_changed_policy_is_read_without_panic(
        at in 0usize..2000, length in 0usize..40, with in "[-:{}\\[\\]&*!|>'\"%@`#, \n~<a0é\u{202e}]{0,6}",
    ) {
        let text = format!("{ACCOUNTS}---\n{}---\n{}", policy(RULES), named_policy("api", "allow: any"));
        let chars: Vec<char> = text.chars().collect();
        let at = at.min(chars.len());
        let end = (at + length).min(chars.len());
        let changed: String =
            chars[..at].iter().copied().chain(with.chars()).chain(chars[end..].iter().copied()).collect();
        let loaded = load(&files(&[&changed]), &vocabulary(), Some(now()));
        for finding in &loaded.findings {
            prop_assert!(finding.place.line >= 1 && finding.place.column >= 1);
            prop_assert!(!finding.expected.is_empty() && !finding.message.is_empty());
        }
    }
}

// I3, T26: the same by hand. A listed account that is only claimed admits nobody; a denied image
// that is only claimed refuses; an innocent one that is only claimed does not rule the denial out.
#[test]
fn hints_refuse_and_do_nothing_else() {
    let set = set(&[
        ACCOUNTS,
        &policy(
            "
allow: [{accounts: [production], regions: any}]
deny: [{images: [ami-0bbbbbbbbbbbbbbb1]}]
",
        ),
    ]);
    assert!(worker().joins(&set, "web").is_ok());
    let node = worker().hinting("account_id", "111122223333");
    assert_eq!(node.joins(&set, "web").unwrap_err().code, Code::PolicyNoMatch);
    for image in ["ami-0bbbbbbbbbbbbbbb1", "ami-0aaaaaaaaaaaaaaa1"] {
        let node = worker().hinting("image_id", image);
        assert_eq!(node.joins(&set, "web").unwrap_err().code, Code::PolicyDenied, "{image}");
    }
    // `any` asks nothing, so a hint there changes nothing.
    assert!(worker().hinting("region", "us-east-1").joins(&set, "web").is_ok());
}

/// Bytes that have made YAML parsers hang or fall over.
#[test]
fn hostile_files_are_refused_in_bounded_time() {
    let deep = "[".repeat(100_000);
    let deep_map: Vec<String> = (0..1000).map(|depth| format!("{}a:", " ".repeat(depth))).collect();
    let deep_map = deep_map.join("\n");
    let wide = format!("[{}]", "a,".repeat(400_000));
    let bomb = "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n";
    let keys: Vec<String> = (0..50_000).map(|key| format!("k{key}: v")).collect();
    let keys = keys.join("\n");
    let many = "---\n".repeat(200_000);
    for text in [
        &*deep,
        &deep_map,
        &wide,
        bomb,
        &keys,
        &many,
        "\u{feff}",
        "\0",
        "%YAML 9.9\n---\n",
        "? [a]\n: b",
    ] {
        let loaded = load(&files(&[text]), &vocabulary(), None);
        assert!(loaded.findings.len() <= 2001);
        let is_empty = text == "\u{feff}";
        assert_eq!(loaded.set.is_none(), !is_empty, "{text:.40}");
    }
}
