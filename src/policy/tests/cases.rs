//! `PolicyTest` documents: what they may say, and that they are put to the decision and no part of it.

use proptest::prelude::*;

use super::world::{ACCOUNTS, codes, load, named_policy, now, policy, set, vocabulary, worker};
use crate::policy::FindingCode as Code;
use crate::policy::{CaseResult, Outcome, PolicyFile, PolicySet, PolicyTest};

const RULES: &str = "
allow: [{name: web, accounts: [production], regions: [us-east-1], tags: {Tier: web}}]
deny: [{name: bad, images: [ami-0bbbbbbbbbbbbbbb1]}]
ec2: {look_up: own}
";
const TOKENS: &str = "apiVersion: muster/v1
kind: JoinPolicy
metadata: {name: edge}
spec:
  method: token
  roles: [node]
  allow: [{name: edge, tokens: [edge-*], networks: [10.0.0.0/8], lifetime: 1h, uses: 10}]
";
const NODE: &str = "claims: {partition: aws, account_id: \"111122223333\", region: us-east-1, \
                    image_id: ami-0aaaaaaaaaaaaaaa1}, instance: {state: running, tags: {Tier: web}}";

fn test(spec: &str) -> String {
    format!("apiVersion: muster/v1\nkind: PolicyTest\nmetadata: {{name: t}}\nspec: {spec}\n")
}

/// A document about `NODE` with one case.
fn one(case: &str) -> String {
    test(&format!("{{node: {{{NODE}}}, cases: [{{name: c, {case}}}]}}"))
}

fn run(set: &PolicySet) -> Vec<CaseResult> {
    let cases = set.tests().flat_map(PolicyTest::cases);
    cases.map(|case| case.run(set, now())).collect()
}

fn result(case: &str) -> CaseResult {
    run(&set(&[ACCOUNTS, &policy(RULES), TOKENS, &one(case)])).remove(0)
}

#[test]
fn a_case_ends_as_the_decision_does() {
    for (case, outcome, code) in [
        ("policy: web, expect: admitted", Outcome::Admitted, None),
        (
            "policy: web, proof: none, expect: refused",
            Outcome::Refused,
            Some("FRESH_PROOF_REQUIRED"),
        ),
        (
            "policy: web, claims: {region: us-west-2}, expect: refused",
            Outcome::Refused,
            Some("POLICY_NO_MATCH"),
        ),
        (
            "policy: web, claims: {region: null}, expect: refused",
            Outcome::Refused,
            Some("POLICY_NO_MATCH"),
        ),
        (
            "policy: web, claims: {image_id: ami-0bbbbbbbbbbbbbbb1}, expect: refused",
            Outcome::Refused,
            Some("POLICY_DENIED"),
        ),
        (
            "policy: web, instance: {tags: {Tier: db}}, expect: refused",
            Outcome::Refused,
            Some("POLICY_NO_MATCH"),
        ),
        (
            "policy: web, instance: {tags: {}}, expect: refused",
            Outcome::Refused,
            Some("POLICY_NO_MATCH"),
        ),
        (
            "policy: web, instance: {tags: null}, expect: refused",
            Outcome::Refused,
            Some("POLICY_NO_MATCH"),
        ),
        (
            "policy: web, instance: {state: stopped}, expect: refused",
            Outcome::Refused,
            Some("INSTANCE_NOT_RUNNING"),
        ),
        (
            "policy: web, instance: not_read, expect: needs_facts",
            Outcome::NeedsFacts,
            Some("POLICY_FACTS_MISSING"),
        ),
        ("expect: admitted, rule: web", Outcome::Admitted, None),
    ] {
        let result = result(case);
        assert_eq!(result.mismatch, None, "{case}");
        assert_eq!(
            (result.outcome, result.code.map(crate::domain::Code::as_str)),
            (outcome, code),
            "{case}"
        );
        assert!(result.place.is_some() && !result.message.is_empty(), "{case}");
    }
}

#[test]
fn every_expectation_that_is_not_met_is_told() {
    for (case, mismatch) in [
        ("policy: web, expect: refused", "expected refused, came admitted"),
        ("policy: web, expect: admitted, rule: api", "expected the rule `api`, came `web`"),
        ("policy: web, proof: none, expect: needs_facts", "expected needs_facts, came refused"),
        (
            "policy: web, proof: none, expect: refused, field: regions, rule: web",
            "expected the rule `web`, came none; expected the field `regions`, came `fresh_proof`",
        ),
        (
            "policy: web, proof: none, expect: refused, code: POLICY_DENIED",
            "expected the code `POLICY_DENIED`, came `FRESH_PROOF_REQUIRED`",
        ),
    ] {
        assert_eq!(result(case).mismatch.as_deref(), Some(mismatch), "{case}");
    }
}

// A policy that is taken away in a hurry must be gone, whatever its tests say; and a refusal by a
// policy that is not there is worth nothing.
#[test]
fn a_test_of_no_policy_loads_and_never_holds() {
    let text = one("policy: gone, expect: refused");
    let loaded = load(&[ACCOUNTS, &policy(RULES), &text]);
    assert!(codes(&loaded).contains(&Code::TestPolicyUnknown));
    let result = run(&loaded.set.unwrap()).remove(0);
    assert!(result.mismatch.unwrap().contains("no policy `gone`"));

    // Of another method than the first too, whose claims the first does not know.
    let edge =
        "{node: {claims: {token_name: edge-1}}, cases: [{name: c, policy: edge, expect: refused}]}";
    let loaded = load(&[ACCOUNTS, &policy(RULES), &test(edge)]);
    assert!(codes(&loaded).contains(&Code::TestPolicyUnknown));
    assert!(run(&loaded.set.unwrap())[0].mismatch.is_some());

    let other_method = one("policy: web, expect: refused").replace("node:", "method: token, node:");
    let other_method = other_method.replace(NODE, "claims: {node: edge-1}");
    let loaded = load(&[ACCOUNTS, &policy(RULES), TOKENS, &other_method]);
    assert!(codes(&loaded).contains(&Code::TestPolicyUnknown));
    assert!(run(&loaded.set.unwrap())[0].mismatch.is_some());
}

#[test]
fn a_test_changes_nothing_of_the_decision() {
    let without = set(&[ACCOUNTS, &policy(RULES)]);
    let with = set(&[ACCOUNTS, &policy(RULES), &one("policy: web, expect: admitted")]);
    assert_ne!(without.hash(), with.hash());
    assert_eq!(with.len(), 1);
    assert!(!with.names_account("aws", "999988887777"));
    for node in [worker(), worker().claiming("region", "us-west-2"), worker().unseen()] {
        assert_eq!(node.joins(&without, "web").is_ok(), node.joins(&with, "web").is_ok());
    }
}

#[test]
fn the_fields_of_another_method_are_read_by_their_kinds() {
    let claims =
        "token_name: edge-1, source_address: 10.1.2.3, token_lifetime: 1h, token_max_uses: 10";
    for (change, outcome) in [
        ("", "admitted"),
        (", claims: {source_address: 11.0.0.1}", "refused"),
        (", claims: {token_lifetime: 3601s}", "refused"),
        (", claims: {token_lifetime: null}", "refused"),
        (", claims: {token_max_uses: 11}", "refused"),
        (", claims: {token_name: core-1}", "refused"),
    ] {
        let case = format!("{{name: c, policy: edge{change}, expect: {outcome}}}");
        let text = test(&format!("{{node: {{claims: {{{claims}}}}}, cases: [{case}]}}"));
        let set = set(&[TOKENS, &text]);
        assert_eq!(run(&set)[0].mismatch, None, "{change}");
    }
}

// I11: what a test does not say strictly, it does not say.
#[test]
fn mistakes_are_refused_with_their_code() {
    for (case, code) in [
        ("policy: web", Code::KeyMissing),
        ("expect: maybe", Code::ValueInvalid),
        ("expect: refused, because: x", Code::KeyUnknown),
        ("expect: refused, claims: {acount_id: \"111122223333\"}", Code::KeyUnknown),
        ("expect: refused, claims: {state: running}", Code::KeyUnknown),
        ("expect: refused, instance: {region: us-east-1}", Code::KeyUnknown),
        ("expect: refused, claims: {account_id: 111122223333}", Code::AccountInvalid),
        ("expect: refused, claims: {account_id: \"11112222333\"}", Code::AccountInvalid),
        ("expect: refused, claims: {partition: amazon}", Code::ValueInvalid),
        ("expect: refused, claims: {region: us-esat-1}", Code::RegionUnknown),
        ("expect: refused, claims: {image_id: ami-1}", Code::ValueInvalid),
        ("expect: refused, claims: {region: [us-east-1]}", Code::ValueType),
        ("expect: refused, claims: {pending_time: yesterday}", Code::ValueInvalid),
        ("expect: refused, claims: {instance_id: on}", Code::NeedsQuotes),
        ("expect: refused, claims: {instance_id: \"\"}", Code::ValueEmpty),
        ("expect: refused, claims: {}", Code::ValueEmpty),
        ("expect: refused, claims: [a]", Code::ValueType),
        ("expect: refused, instance: read", Code::ValueType),
        ("expect: refused, instance: {tags: [Tier]}", Code::ValueType),
        ("expect: refused, instance: {tags: {Tier: on}}", Code::NeedsQuotes),
        ("expect: refused, instance: {security_groups: sg-0123456789abcdef0}", Code::ValueType),
        ("expect: refused, instance: {security_groups: [sg-1]}", Code::ValueInvalid),
        ("expect: refused, instance: {imds: {v2_only: true}}", Code::KeyMissing),
        ("expect: refused, instance: {imds: {v2_only: yes, hop_limit: 1}}", Code::ValueInvalid),
        ("expect: refused, instance: {tags: {T: a, T: b}}", Code::KeyRepeated),
        ("expect: refused, claims: {region: us-east-1, region: us-west-2}", Code::KeyRepeated),
        ("expect: refused, proof: false", Code::NeedsQuotes),
        ("expect: refused, proof: disproven", Code::ValueInvalid),
        ("expect: refused, code: NO_SUCH_CODE", Code::ValueInvalid),
        ("expect: refused, rule: null", Code::ValueNull),
        ("expect: refused, at: noon", Code::ValueInvalid),
        ("expect: admitted, code: POLICY_DENIED", Code::ValueInvalid),
        ("expect: admitted, field: regions", Code::ValueInvalid),
        ("expect: refused, policy: a/b", Code::ValueInvalid),
    ] {
        let loaded = load(&[ACCOUNTS, &policy(RULES), &one(case)]);
        assert_eq!(
            (loaded.set.is_none(), codes(&loaded).contains(&code)),
            (true, true),
            "{case}: {:#?}",
            loaded.findings
        );
        assert!(loaded.findings.iter().all(|finding| &*finding.place.file != "a.yaml"), "{case}");
    }
    for (spec, code) in [
        ("{}", Code::ValueEmpty),
        ("{cases: []}", Code::ValueEmpty),
        ("{node: {claims: {region: us-east-1}}}", Code::KeyMissing),
        ("{cases: [{name: a, expect: refused}, {name: a, expect: refused}]}", Code::NameTaken),
        ("{cases: [{expect: refused}]}", Code::KeyMissing),
        ("{method: dice, cases: [{name: a, expect: refused}]}", Code::MethodUnknown),
        ("{at: 2026, cases: [{name: a, expect: refused}]}", Code::NeedsQuotes),
        ("{node: {}, cases: [{name: a, expect: refused}]}", Code::ValueEmpty),
        ("{node: {region: us-east-1}, cases: [{name: a, expect: refused}]}", Code::KeyUnknown),
    ] {
        let loaded = load(&[ACCOUNTS, &policy(RULES), &test(spec)]);
        assert_eq!(
            (loaded.set.is_none(), codes(&loaded).contains(&code)),
            (true, true),
            "{spec}: {:#?}",
            loaded.findings
        );
    }
}

#[test]
fn what_iid_verify_prints_can_be_pasted() {
    let printed = r#"{"partition":"aws","account_id":"111122223333","region":"us-east-1",
        "availability_zone":"us-east-1a","instance_id":"i-0123456789abcdef0",
        "image_id":"ami-0aaaaaaaaaaaaaaa1","instance_type":"m7g.large","architecture":"arm64",
        "private_ip":"10.0.12.7","pending_time":"2026-06-01T11:50:00Z","signing_time":null,
        "certificate_serial":"0123ABCD"}"#;
    let text = one("policy: web, expect: admitted");
    let start = text.find("claims: ").unwrap() + "claims: ".len();
    let end = start + text[start..].find('}').unwrap() + 1;
    let text = format!("{}{printed}{}", &text[..start], &text[end..]);
    assert_eq!(run(&set(&[ACCOUNTS, &policy(RULES), &text]))[0].mismatch, None);
}

#[test]
fn a_case_is_judged_at_its_own_time_or_that_of_its_document_or_that_of_the_run() {
    let rules = "
allow: [{name: web, accounts: [production], regions: any, until: 2026-06-01T12:00:00Z}]
";
    for (document, case, outcome) in [
        ("", "", "admitted"),
        ("at: 2026-06-01T12:00:01Z, ", "", "refused"),
        ("at: 2026-06-01T12:00:01Z, ", "at: 2026-06-01T12:00:00Z, ", "admitted"),
        ("", "at: 2026-06-01T12:00:01Z, ", "refused"),
    ] {
        let case = format!("{{name: c, policy: web, {case}expect: {outcome}}}");
        let text = test(&format!("{{{document}node: {{{NODE}}}, cases: [{case}]}}"));
        let set = set(&[ACCOUNTS, &policy(rules), &text]);
        assert_eq!(run(&set)[0].mismatch, None, "{document}{case}");
    }
}

// I14.
#[test]
fn a_document_has_at_most_1000_cases() {
    let loads = |count: usize| {
        let cases: Vec<_> =
            (0..count).map(|n| format!("{{name: c{n}, expect: refused}}")).collect();
        load(&[&test(&format!("{{cases: [{}]}}", cases.join(", ")))])
    };
    assert!(loads(1000).set.is_some());
    assert_eq!(codes(&loads(1001)).iter().filter(|code| **code == Code::LimitExceeded).count(), 1);
}

// A thousand cases of one large node are one large node.
#[test]
fn a_large_common_node_is_kept_once() {
    let tags: Vec<_> = (0..20_000).map(|n| format!("t{n}: abcdefghijklmnopqrstuvwxyz")).collect();
    let cases: Vec<_> = (0..1000).map(|n| format!("{{name: c{n}, expect: refused}}")).collect();
    let (tags, cases) = (tags.join(", "), cases.join(", "));
    let set =
        set(&[&test(&format!("{{node: {{instance: {{tags: {{{tags}}}}}}}, cases: [{cases}]}}"))]);
    let test = set.tests().next().unwrap();
    assert_eq!(test.cases().len(), 1000);
    assert!(test.cases().iter().all(|case| case.shares_node_with(&test.cases()[0])));
}

proptest! {
    // The parser takes anything and never panics; nor does the run.
    #[test]
    fn any_text_as_a_test_is_read_and_run_without_panic(
        at in 0usize..700, length in 0usize..30, with in "[-:{}\\[\\]&*!|>'\"%@`#, \n~<a0é\u{202e}]{0,6}|.{0,40}",
    ) {
        let text = one("policy: web, claims: {region: null}, instance: {tags: {A: b}}, expect: refused");
        let chars: Vec<char> = text.chars().collect();
        let at = at.min(chars.len());
        let end = (at + length).min(chars.len());
        let changed: String =
            chars[..at].iter().copied().chain(with.chars()).chain(chars[end..].iter().copied()).collect();
        let texts = [ACCOUNTS.to_owned(), policy(RULES), named_policy("api", RULES), changed];
        let files: Vec<PolicyFile> = texts.into_iter().enumerate()
            .map(|(index, text)| PolicyFile { name: format!("{index}.yaml"), text }).collect();
        let loaded = crate::policy::load(&files, &vocabulary(), Some(now()));
        for finding in &loaded.findings {
            prop_assert!(!finding.expected.is_empty() && !finding.message.is_empty());
        }
        if let Some(set) = loaded.set {
            let _results = run(&set);
        }
    }
}
