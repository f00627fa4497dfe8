//! Every limit on its boundary (I14).

use super::world::{ACCOUNTS, codes, load, policy, set, worker};
use crate::policy::FindingCode::{LimitExceeded, SetCycle, SetUnknown};
use crate::policy::{MAX_FILES, PolicyFile};

const RULE: &str = "{accounts: [production], regions: [us-east-1]}";

/// Whether a policy with so many allow and deny rules loads.
fn loads_with_rules(allow: usize, deny: usize) -> bool {
    let allow = vec![RULE; allow].join(", ");
    let deny = match deny {
        0 => String::new(),
        _ => format!("deny: [{}]\n", vec!["{regions: [us-west-2]}"; deny].join(", ")),
    };
    let loaded = load(&[ACCOUNTS, &policy(&format!("{deny}allow: [{allow}]"))]);
    assert_eq!(loaded.set.is_none(), codes(&loaded).contains(&LimitExceeded));
    loaded.set.is_some()
}

#[test]
fn a_policy_has_at_most_1000_rules_allow_and_deny_together() {
    assert!(loads_with_rules(1000, 0));
    assert!(!loads_with_rules(1001, 0));
    assert!(loads_with_rules(500, 500));
    assert!(!loads_with_rules(500, 501));
    let deny_list = |rules: usize| {
        let rules = vec!["{regions: [us-west-2]}"; rules].join(", ");
        let head = "apiVersion: muster/v1\nkind: DenyList\nmetadata: {name: q}\n";
        load(&[&format!("{head}spec: {{deny: [{rules}]}}")]).set.is_some()
    };
    assert!(deny_list(1000) && !deny_list(1001));
}

#[test]
fn a_certificate_has_at_most_20_names_and_lives_at_most_a_week() {
    let loads = |certificate: &str| {
        let text = format!("allow: [{RULE}]\ncertificate: {{{certificate}}}");
        load(&[ACCOUNTS, &policy(&text)]).set.is_some()
    };
    let names = |count: usize| {
        let names: Vec<String> = (0..count).map(|name| format!("a{name}.example.org")).collect();
        format!("dns_names: [{}]", names.join(", "))
    };
    assert!(loads(&names(20)));
    assert!(!loads(&names(21)));
    assert!(loads("ttl: 7d"));
    assert!(!loads("ttl: 604801s"));
    assert!(!loads("ttl: 0s"));
}

#[test]
fn a_document_alone_is_good_for_at_most_a_day() {
    let loads = |ttl: &str| {
        let text =
            format!("allow: [{RULE}]\nec2: {{fresh_proof: not_required, document_ttl: {ttl}}}");
        load(&[ACCOUNTS, &policy(&text)]).set.is_some()
    };
    assert!(loads("24h") && loads("1d"));
    assert!(!loads("86401s"));
}

#[test]
fn files_are_counted_and_nested_to_a_depth() {
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    assert!(!codes(&load(&[&nested(16)])).contains(&LimitExceeded));
    assert!(codes(&load(&[&nested(17)])).contains(&LimitExceeded));
    let listed = |values: usize| format!("[{}]", vec!["1"; values].join(","));
    assert!(!codes(&load(&[&listed(199_999)])).contains(&LimitExceeded));
    assert!(codes(&load(&[&listed(200_000)])).contains(&LimitExceeded));

    let loads = |count: usize| {
        let file = |number| PolicyFile { name: format!("{number:05}.yaml"), text: String::new() };
        let files: Vec<PolicyFile> = (0..count).map(file).collect();
        crate::policy::load(&files, &super::world::vocabulary(), None).set.is_some()
    };
    assert!(loads(MAX_FILES));
    assert!(!loads(MAX_FILES + 1));
}

#[test]
fn text_has_at_most_1024_characters_and_the_name_of_a_rule_63() {
    let loads = |description: usize, name: usize| {
        let rule = format!("{{name: {}, accounts: [production], regions: any}}", "n".repeat(name));
        // Characters, and not bytes.
        let described = format!("description: {}", "é".repeat(description));
        let text = policy(&format!("allow: [{rule}]")).replace("description: test", &described);
        load(&[ACCOUNTS, &text]).set.is_some()
    };
    assert!(loads(1024, 63));
    assert!(!loads(1025, 63));
    assert!(!loads(1024, 64));
}

#[test]
fn account_sets_have_at_most_two_million_accounts_inclusions_counted() {
    const EACH: u64 = 20_000;
    let id = |number: u64| format!("{{id: \"{:012}\"}}", 111_100_000_000 + number);
    let set = |name: &str, spec: &str| {
        let head = "apiVersion: muster/v1\nkind: AccountSet\n";
        format!("---\n{head}metadata: {{name: {name}}}\nspec: {{partition: aws, {spec}}}\n")
    };
    let accounts: Vec<String> = (0..EACH).map(id).collect();
    let base = set("base", &format!("accounts: [{}]", accounts.join(", ")));
    let including: String =
        (1..100).map(|number| set(&format!("set-{number}"), "include: [base]")).collect();
    let one_more = set("one-more", &format!("accounts: [{}]", id(0)));
    assert!(load(&[&base, &including]).set.is_some(), "a hundred times 20,000");
    let beyond = load(&[&base, &including, &one_more]);
    assert!(beyond.set.is_none() && codes(&beyond).contains(&LimitExceeded));
}

// Each is compared with every set: minutes, for 1 MiB.
#[test]
fn names_that_are_none_are_guessed_at_in_the_first_100_findings() {
    let names: Vec<String> = (0..150).map(|name| format!("production{name}")).collect();
    let rule = format!("allow: [{{accounts: [{}], regions: [us-east-1]}}]", names.join(", "));
    let loaded = load(&[ACCOUNTS, &policy(&rule)]);
    let unknown = loaded.findings.iter().filter(|one| one.code == SetUnknown);
    let guesses: Vec<bool> = unknown.map(|one| one.expected == "`production`?").collect();
    assert_eq!(guesses, [[true; 100].as_slice(), &[false; 50]].concat());
}

// All that wait were looked at again after each: seconds, for 1 MiB.
#[test]
fn very_many_sets_may_stand_before_those_that_they_include() {
    let document = |name: usize, spec: &str| {
        let head = "apiVersion: muster/v1\nkind: AccountSet\n";
        format!("{head}metadata: {{name: set-{name}}}\nspec: {{partition: aws, {spec}}}\n")
    };
    let including = (0..3000).map(|name| document(name, &format!("include: [set-{}]", name + 1)));
    let last = document(3000, "accounts: [{id: \"111122223333\"}]");
    let sets = including.chain([last]).collect::<Vec<_>>().join("---\n");
    let rule = policy("allow: [{accounts: [set-0], regions: [us-east-1]}]");
    assert!(worker().joins(&set(&[&sets, &rule]), "web").is_ok());

    let circle = sets.replace("accounts: [{id: \"111122223333\"}]", "include: [set-2999]");
    let found = codes(&load(&[&circle]));
    assert!(found.contains(&SetCycle) && found.len() == 2000, "{} findings", found.len());
}
