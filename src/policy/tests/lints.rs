//! Warnings: what authors get wrong without breaking a rule. Each lint once where it belongs and
//! not at all next to it.

use super::world::{ACCOUNTS, codes, load, named_policy, policy};
use crate::policy::FindingCode::{self, *};

const RULE: &str = "allow: [{accounts: [production], regions: [us-east-1]}]\nec2: {look_up: none}";

fn lints(texts: &[&str]) -> Vec<FindingCode> {
    let loaded = load(texts);
    assert!(loaded.set.is_some(), "{:#?}", loaded.findings);
    codes(&loaded)
}

fn lints_of(spec: &str) -> Vec<FindingCode> {
    lints(&[ACCOUNTS, &policy(spec)])
}

#[test]
fn a_sound_policy_has_no_lint() {
    assert_eq!(lints_of(RULE), []);
}

#[test]
fn each_lint_is_found_where_it_belongs() {
    let deny_list = |rule: &str| {
        format!(
            "apiVersion: muster/v1\nkind: DenyList\nmetadata: {{name: q, owner: s}}\n\
             spec: {{deny: [{rule}]}}\n"
        )
    };
    let two = |rules: &str| format!("allow: [{rules}]\nec2: {{look_up: none}}");
    let rule = "accounts: [production], regions: [us-east-1]";
    let named = |name: &str| format!("certificate: {{dns_names: [\"{name}\"]}}\n{RULE}");
    let rows: Vec<(String, Vec<FindingCode>)> = vec![
        ("allow: [{accounts: [production], regions: any}]".to_owned(), vec![LookUpDefault]),
        (two(&format!("{{{rule}, images: [ami-0aaaaaaaaaaaaaaa1]}}")), vec![ConditionEvadable]),
        (two(&format!("{{{rule}}}, {{{rule}, instance_types: m7g.*}}")), vec![RuleShadowed]),
        (two(&format!("{{{rule}, instance_types: m7g.*}}, {{{rule}}}")), vec![]),
        (two(&format!("{{{rule}, until: \"2026-06-15T12:00:00Z\"}}")), vec![RuleEndsSoon]),
        (two(&format!("{{{rule}, until: \"2026-06-15T12:00:01Z\"}}")), vec![]),
        (two(&format!("{{{rule}, until: \"2026-06-01T11:59:59Z\"}}")), vec![RuleExpired]),
        (named("api.internal.example"), vec![DnsNameShared]),
        (named("{region}.internal.example"), vec![DnsNameShared]),
        (named("{private_ip}.internal.example"), vec![]),
    ];
    for (spec, expected) in rows {
        assert_eq!(lints_of(&spec), expected, "{spec}");
    }
    let with_deny = |rule: &str| lints(&[ACCOUNTS, &policy(RULE), &deny_list(rule)]);
    assert_eq!(with_deny("{accounts: [production]}"), [RuleDead]);
    assert_eq!(with_deny("{accounts: [production], regions: [us-west-2]}"), []);
    assert_eq!(
        with_deny("{regions: [us-west-2], until: \"2026-06-02T00:00:00Z\"}"),
        [DenyEndsSoon]
    );
    assert_eq!(with_deny("{images: [ami-0aaaaaaaaaaaaaaa1]}"), [ConditionEvadable]);
}

#[test]
fn a_weaker_policy_for_the_same_nodes_is_named_with_what_is_weaker() {
    let other = |spec: &str| load(&[ACCOUNTS, &policy(RULE), &named_policy("other", spec)]);
    let weaker = other(
        "allow: [{accounts: [production], regions: any}]\n\
         ec2: {look_up: none, fresh_proof: not_required, document_ttl: 1h}\n\
         certificate: {ttl: 24h}",
    );
    assert_eq!(codes(&weaker), [PolicyOverlap, RenewalByCertificate]);
    let finding = &weaker.findings[0];
    assert_eq!(&*finding.place.file, "b.yaml");
    assert!(finding.message.contains("`other`"), "{}", finding.message);
    assert!(finding.message.ends_with("fresh_proof, ttl"), "{}", finding.message);

    let elsewhere = other(
        "allow: [{accounts: [production], regions: [us-west-2]}]\n\
         ec2: {look_up: none, fresh_proof: not_required, document_ttl: 1h}",
    );
    assert_eq!(codes(&elsewhere), [RenewalByCertificate]);
}

#[test]
fn owners_descriptions_and_unused_sets() {
    let bare = policy(RULE).replace(", owner: platform, description: test", "");
    assert_eq!(lints(&[ACCOUNTS, &bare]), [OwnerMissing, DescriptionMissing]);
    let unused = ACCOUNTS.replace("name: production", "name: spare");
    assert_eq!(lints(&[ACCOUNTS, &policy(RULE), &unused]), [SetUnused]);
    let except = ACCOUNTS.replace("name: production", "name: more").replace(
        "  accounts:",
        "  include: [production]\n  except: [\"999988887777\"]\n  accounts:",
    );
    let used = policy(&RULE.replace("production", "more"));
    assert_eq!(lints(&[ACCOUNTS, &used, &except]), [ExceptWithoutEffect]);
    assert_eq!(lints(&[ACCOUNTS, &policy(RULE), "# nothing\n"]), [FileEmpty]);
}

#[test]
fn comparing_thousands_of_rules_stops_and_says_so() {
    use std::fmt::Write;

    let mut accounts = "spec:\n  partition: aws\n  accounts:\n".to_owned();
    for number in 0..10_000u64 {
        writeln!(accounts, "    - {{id: \"{:012}\"}}", 111_100_000_000 + number).unwrap();
    }
    let set = |name| {
        format!("apiVersion: muster/v1\nkind: AccountSet\nmetadata: {{name: {name}}}\n{accounts}")
    };
    let rules = |sets: [&str; 2]| {
        let mut rules = "ec2: {look_up: none}\nallow:\n".to_owned();
        for number in 0..1000 {
            let set = sets[number % 2];
            let rule = format!("accounts: [{set}], regions: any, instance_types: t{number}.x");
            writeln!(rules, "- {{{rule}}}").unwrap();
        }
        policy(&rules)
    };
    // The same set need not be compared with itself; equal ones must be.
    assert_eq!(lints(&[&set("one"), &rules(["one", "one"])]), []);
    let equal = lints(&[&set("one"), &set("two"), &rules(["one", "two"])]);
    assert_eq!(equal, [AnalysisIncomplete]);
}
