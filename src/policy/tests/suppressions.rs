//! Suppressions mark warnings of their own document, for a time. They hide no error, admit nobody,
//! and say so when they are of no use.

use proptest::prelude::*;

use super::world::{ACCOUNTS, NOW, files, load, now, policy, vocabulary, worker};
use crate::domain::Lifetime;
use crate::policy::FindingCode::{self, *};
use crate::policy::{Finding, Loaded};

/// With these warnings.
const RULES: &str = "allow:
  - {name: images, accounts: [production], regions: [us-east-1], images: [ami-0aaaaaaaaaaaaaaa1]}
  - {accounts: [production], regions: [us-west-2]}
deny:
  - images: [ami-0bbbbbbbbbbbbbbb1]
    until: 2026-06-10T00:00:00Z
  - {name: europe, regions: [eu-west-1], until: 2026-06-10T00:00:00Z}";
const WARNINGS: [(FindingCode, u32, bool); 4] = [
    (LookUpDefault, 3, false),
    (ConditionEvadable, 8, false),
    (DenyEndsSoon, 11, false),
    (DenyEndsSoon, 13, false),
];

const LOOK_UP: &str = "{code: LOOK_UP_DEFAULT, reason: known, until: 2026-12-01T00:00:00Z}";

/// The policy `web` with these suppressions.
fn suppressing(entries: &str) -> String {
    policy(RULES).replace("description: test", &format!("description: test, suppress: {entries}"))
}

fn entry(code: &str, until: &str) -> String {
    format!("[{{code: {code}, reason: known, until: {until}}}]")
}

/// Code, line and whether it is suppressed, of each finding.
fn found(loaded: &Loaded) -> Vec<(FindingCode, u32, bool)> {
    let shown = |one: &Finding| (one.code, one.place.line, one.suppressed.is_some());
    loaded.findings.iter().map(shown).collect()
}

fn of(entries: &str) -> Vec<(FindingCode, u32, bool)> {
    let loaded = load(&[ACCOUNTS, &suppressing(entries)]);
    assert!(loaded.set.is_some(), "{:#?}", loaded.findings);
    found(&loaded)
}

#[test]
fn a_warning_of_the_same_document_is_marked_and_stays() {
    assert_eq!(found(&load(&[ACCOUNTS, &policy(RULES)])), WARNINGS);
    let [(code, line, _), rest @ ..] = WARNINGS;
    let all = [&[(code, line, true)], &rest[..]].concat();
    assert_eq!(of(&format!("[{LOOK_UP}]")), all);
    let codes = ["LOOK_UP_DEFAULT", "CONDITION_EVADABLE", "DENY_ENDS_SOON"];
    let entries = codes.map(|code| LOOK_UP.replace("LOOK_UP_DEFAULT", code)).join(", ");
    let found = of(&format!("[{entries}]"));
    assert!(found.len() == 4 && found.iter().all(|(_, _, is_suppressed)| *is_suppressed));
}

#[test]
fn an_entry_for_a_rule_covers_that_rule_alone() {
    let of_rule = |rule: &str| {
        let entry = entry("DENY_ENDS_SOON", "2026-12-01T00:00:00Z");
        let found = of(&entry.replace("reason", &format!("rule: \"{rule}\", reason")));
        let is_meant = |code| code == DenyEndsSoon || code == SuppressionUnused;
        found.into_iter().filter(|(code, ..)| is_meant(*code)).collect::<Vec<_>>()
    };
    let [first, second] =
        [11, 13].map(|line| move |is_suppressed: bool| (DenyEndsSoon, line, is_suppressed));
    assert_eq!(of_rule("deny[0]"), [first(true), second(false)]);
    assert_eq!(of_rule("europe"), [first(false), second(true)]);
    let unused = [(SuppressionUnused, 3, false), first(false), second(false)];
    assert_eq!(of_rule("images"), unused);
    assert_eq!(of_rule("allow[1]"), unused);
}

#[test]
fn another_document_is_not_covered_in_the_same_file_or_in_another() {
    let other = policy(RULES).replace("name: web", "name: api");
    let covers_all = format!("[{LOOK_UP}]");
    for texts in [
        vec![ACCOUNTS.to_owned(), suppressing(&covers_all), other.clone()],
        vec![ACCOUNTS.to_owned(), format!("{}---\n{other}", suppressing(&covers_all))],
        vec![ACCOUNTS.to_owned(), format!("{other}---\n{}", suppressing(&covers_all))],
        // A place of another file may lie after one's own by line.
        vec![ACCOUNTS.to_owned(), other.clone(), format!("\n\n{}", suppressing(&covers_all))],
    ] {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let loaded = load(&texts);
        let looks = loaded.findings.iter().filter(|finding| finding.code == LookUpDefault);
        let counts: Vec<bool> = looks.map(Finding::counts).collect();
        let counting = counts.iter().filter(|counts| **counts).count();
        assert_eq!((counts.len(), counting), (2, 1), "{:#?}", loaded.findings);
    }
}

#[test]
fn every_kind_of_document_may_suppress_its_own_warnings() {
    let unused = "apiVersion: muster/v1\nkind: AccountSet\nmetadata: {name: spare, suppress: \
                  [{code: SET_UNUSED, reason: spare, until: 2026-12-01T00:00:00Z}]}\n\
                  spec: {partition: aws, accounts: [{id: \"999988887777\"}]}\n";
    let loaded = load(&[ACCOUNTS, &policy(RULES), unused]);
    let set = loaded.findings.iter().find(|finding| finding.code == SetUnused).unwrap();
    assert!(set.suppressed.is_some());
    assert!(!loaded.findings.iter().any(|finding| finding.code == SuppressionUnused));
}

#[test]
fn what_is_past_or_too_far_ahead_suppresses_nothing_and_says_so() {
    let ends = |seconds: i64| {
        let until = now().plus(Lifetime::from_days(366));
        let until = if seconds > 0 { until.plus(Lifetime::from_seconds(1)) } else { until };
        entry("LOOK_UP_DEFAULT", &until.to_string())
    };
    for (entries, expected) in [
        (entry("LOOK_UP_DEFAULT", NOW), None),
        (entry("LOOK_UP_DEFAULT", "2026-06-01T11:59:59Z"), Some(SuppressionExpired)),
        (ends(0), None),
        (ends(1), Some(SuppressionTooLong)),
    ] {
        let found = of(&entries);
        let is_suppressed = found.contains(&(LookUpDefault, 3, true));
        assert_eq!(is_suppressed, expected.is_none(), "{entries}");
        let said = found.iter().map(|(code, ..)| *code).find(|code| {
            [SuppressionExpired, SuppressionTooLong, SuppressionUnused].contains(code)
        });
        assert_eq!(said, expected, "{entries}");
    }
}

#[test]
fn without_a_clock_nothing_is_suppressed_and_nothing_said_of_it() {
    let texts = [ACCOUNTS, &suppressing(&format!("[{LOOK_UP}]"))];
    let loaded = crate::policy::load(&files(&texts), &vocabulary(), None);
    let told = |code| loaded.findings.iter().any(|finding| finding.code == code);
    assert!(told(LookUpDefault) && !told(SuppressionUnused), "{:#?}", loaded.findings);
    assert!(loaded.findings.iter().all(Finding::counts), "{:#?}", loaded.findings);
}

// The set still loads or not as before, and an error counts whatever is written over it.
#[test]
fn no_error_is_suppressed_and_every_mistake_in_a_suppression_is_one() {
    let one = |text: &str| format!("[{{{text}}}]");
    let good = "code: LOOK_UP_DEFAULT, reason: known, until: 2026-12-01T00:00:00Z";
    assert!(load(&[ACCOUNTS, &suppressing(&one(good))]).set.is_some());
    for (entries, code) in [
        (one(&good.replace("LOOK_UP_DEFAULT", "REGION_UNKNOWN")), ValueInvalid),
        (one(&good.replace("LOOK_UP_DEFAULT", "SUPPRESSION_UNUSED")), ValueInvalid),
        (one(&good.replace("LOOK_UP_DEFAULT", "SUPPRESSION_EXPIRED")), ValueInvalid),
        (one(&good.replace("LOOK_UP_DEFAULT", "look_up_default")), ValueInvalid),
        (one(&good.replace("LOOK_UP_DEFAULT", "\"*\"")), ValueInvalid),
        (one(&good.replace("LOOK_UP_DEFAULT", "any")), ValueInvalid),
        (one(&good.replace("LOOK_UP_DEFAULT", "[LOOK_UP_DEFAULT]")), ValueType),
        (one(&good.replace("code: LOOK_UP_DEFAULT, ", "")), KeyMissing),
        (one(&good.replace("reason: known, ", "")), KeyMissing),
        (one(&good.replace("reason: known", "reason: \" \"")), ValueEmpty),
        (one(&good.replace("reason: known", "reason: ")), ValueNull),
        (one(&good.replace("reason: known", "reason: \"a\\u202eb\"")), CharacterNotAllowed),
        (one(&good.replace(", until: 2026-12-01T00:00:00Z", "")), KeyMissing),
        (one(&good.replace("2026-12-01T00:00:00Z", "never")), ValueInvalid),
        (one(&good.replace("2026-12-01T00:00:00Z", "~")), ValueNull),
        (one(&format!("{good}, rule: nobody")), ValueInvalid),
        (one(&format!("{good}, rule: ~")), ValueNull),
        (one(&format!("{good}, rule: \"allow[9]\"")), ValueInvalid),
        (one(&format!("{good}, account: \"111122223333\"")), KeyUnknown),
        (one(&format!("{good}, code: OWNER_MISSING")), KeyRepeated),
        ("[]".to_owned(), ValueEmpty),
        ("~".to_owned(), ValueNull),
        ("any".to_owned(), ValueType),
        ("{code: LOOK_UP_DEFAULT}".to_owned(), ValueType),
        (format!("[{}]", vec![LOOK_UP; 101].join(", ")), LimitExceeded),
    ] {
        let loaded = load(&[ACCOUNTS, &suppressing(&entries)]);
        let codes: Vec<FindingCode> = loaded.findings.iter().map(|finding| finding.code).collect();
        assert!(loaded.set.is_none() && codes.contains(&code), "{entries}: {codes:?}");
    }
    let broken = suppressing(&format!("[{LOOK_UP}]")).replace("us-west-2", "us-wset-2");
    let loaded = load(&[ACCOUNTS, &broken]);
    assert!(loaded.set.is_none());
    assert!(loaded.findings.iter().all(|finding| !finding.is_error() || finding.counts()));
    // Doubts are only looked for in a set that loads, so nothing is said to be of no use.
    assert!(!loaded.findings.iter().any(|finding| finding.code == SuppressionUnused));
}

// Whoever sends a flood of suppressed warnings must not push others out of the sum.
#[test]
fn where_findings_do_not_fit_nothing_is_suppressed() {
    let set = |index: usize| {
        format!(
            "---\napiVersion: muster/v1\nkind: AccountSet\nmetadata: {{name: s{index}, suppress: \
             [{{code: SET_UNUSED, reason: flood, until: 2026-12-01T00:00:00Z}}]}}\n\
             spec: {{partition: aws, accounts: [{{id: \"999988887777\"}}]}}\n"
        )
    };
    for (sets, is_suppressed) in [(1990, true), (2001, false)] {
        let flood: String = (0..sets).map(set).collect();
        let loaded = load(&[ACCOUNTS, &flood, &policy(RULES)]);
        assert!(loaded.set.is_some());
        let suppressed = loaded.findings.iter().filter(|finding| !finding.counts()).count();
        assert_eq!(suppressed > 0, is_suppressed, "{sets} sets");
    }
}

fn any_entry() -> impl Strategy<Value = String> {
    let codes = FindingCode::ALL.iter().map(ToString::to_string).collect::<Vec<_>>();
    let code = prop_oneof![proptest::sample::select(codes), "[A-Z_]{1,20}"];
    let until = prop_oneof!["202[5-9]-0[1-9]-1[0-9]T00:00:00Z", Just(NOW.to_owned()), ".{0,12}"];
    let rule = prop_oneof!["", ", rule: (images|\"allow\\[[0-3]\\]\"|x)"];
    (code, until, rule).prop_map(|(code, until, rule)| {
        format!("{{code: {code}, reason: r, until: {until}{rule}}}")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_is_suppressed_errors_count_and_the_same_node_is_admitted(
        entries in proptest::collection::vec(any_entry(), 1..4),
        is_broken in any::<bool>(),
    ) {
        let mut text = suppressing(&format!("[{}]", entries.join(", ")));
        if is_broken {
            text = text.replace("eu-west-1", "eu-wset-1");
        }
        let loaded = load(&[ACCOUNTS, &text]);
        prop_assert!(loaded.findings.iter().all(|one| !one.is_error() || one.suppressed.is_none()));
        let has_errors = loaded.findings.iter().any(Finding::is_error);
        prop_assert_eq!(loaded.set.is_none(), has_errors);
        prop_assert!(!is_broken || has_errors);
        if let Some(set) = loaded.set {
            for claim in ["ami-0aaaaaaaaaaaaaaa1", "ami-0bbbbbbbbbbbbbbb1"] {
                let plain = super::world::set(&[ACCOUNTS, &policy(RULES)]);
                let node = worker().claiming("image_id", claim);
                let admitted = [&plain, &set].map(|set| node.joins(set, "web").is_ok());
                prop_assert_eq!(admitted[0], admitted[1]);
            }
        }
    }
}
