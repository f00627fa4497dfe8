//! Boundary cases as `PolicyTest` documents, so that they can be reviewed and kept.

use std::collections::BTreeMap;

use super::boundaries::{Boundaries, BoundaryCase};
use super::change::{Change, Look, Member};
use super::{MAX_CASES, TestCase};
use crate::methods::Value;
use crate::policy::yaml::is_hidden;

const HEADER: &str = "\
# Made by `muster policy test --generate`: nodes beside what the rules admit. Each document is about one
# rule; its first case is the node that the rule admits, and each of the others differs in one thing.
";
/// How much of a policy's name is in that of a document.
const STEM_CHARS: usize = 40;

/// The documents of these cases, one for each rule. Nothing if there is no case.
pub fn document(boundaries: &Boundaries) -> String {
    let mut by_rule: BTreeMap<(String, &str), Vec<&BoundaryCase>> = BTreeMap::new();
    for one in &boundaries.cases {
        let policy = one.case.policy().map(ToString::to_string).unwrap_or_default();
        by_rule.entry((policy, &one.rule)).or_default().push(one);
    }
    let mut documents = Vec::new();
    for ((policy, rule), mut cases) in by_rule {
        cases.sort_by_key(|one| one.step);
        // The admitted node stands first in each.
        for cases in cases.chunks(MAX_CASES - 1) {
            let number = documents.len() + 1;
            documents.extend(of_rule(&policy, rule, number, cases));
        }
    }
    if documents.is_empty() {
        String::new()
    } else {
        format!("{HEADER}{}", documents.join("---\n"))
    }
}

fn of_rule(policy: &str, rule: &str, number: usize, cases: &[&BoundaryCase]) -> Option<String> {
    let first = &cases.first()?.case;
    let stem: String = policy.chars().take(STEM_CHARS).collect();
    let description = format!("What lies beside the rule {rule} of the policy {policy}");
    // `until` is judged later; the node itself is as it was made.
    let common = cases.iter().map(|one| &one.case).filter_map(|case| case.at).min()?;
    let mut lines = vec![
        "apiVersion: muster/v1\nkind: PolicyTest\nmetadata:".to_owned(),
        format!("  name: {stem}-neighbours-{number}"),
        format!("  description: {}", quoted(&description)),
        format!("spec:\n  at: {common}\n  method: {}\n  node:", first.method.name),
        format!("    proof: {}", proof(first.base.is_proven)),
    ];
    let claims = first.base.claims.iter().map(|(name, claim)| (name, Some(&claim.value)));
    lines.push(format!("    claims: {}", members(claims)));
    if let Some(facts) = &first.base.instance {
        let facts = facts.iter().map(|(name, value)| (*name, value.as_ref()));
        lines.push(format!("    instance: {}", members(facts)));
    }
    lines.push(format!(
        "  cases:\n    - {{name: the node itself, policy: {policy}, expect: admitted, rule: {}}}",
        quoted(rule)
    ));
    for one in cases {
        let at = one.case.at.filter(|at| *at != common);
        let at = at.map(|at| format!(", at: {at}")).unwrap_or_default();
        lines.push(format!(
            "    - {{name: {}, policy: {policy}{at}{}, expect: {}}}",
            quoted(&one.case.name),
            difference(&one.case),
            one.case.expected.outcome.as_str()
        ));
    }
    lines.push(String::new());
    Some(lines.join("\n"))
}

/// What of a case differs from the common node.
fn difference(case: &TestCase) -> String {
    let Change { claims, instance, is_proven } = &case.change;
    let mut text = String::new();
    let listed =
        |list: &[Member]| members(list.iter().map(|(name, value)| (*name, value.as_ref())));
    if let Some(is_proven) = is_proven {
        text.push_str(", proof: ");
        text.push_str(proof(*is_proven));
    }
    if !claims.is_empty() {
        text.push_str(", claims: ");
        text.push_str(&listed(claims));
    }
    match instance {
        Look::NotRead => text.push_str(", instance: not_read"),
        Look::Differs(facts) if facts.is_empty() => {}
        Look::Differs(facts) => {
            text.push_str(", instance: ");
            text.push_str(&listed(facts));
        }
    }
    text
}

const fn proof(is_proven: bool) -> &'static str {
    if is_proven { "proven" } else { "none" }
}

fn members<'v>(members: impl Iterator<Item = (&'static str, Option<&'v Value>)>) -> String {
    let written: Vec<String> = members
        .map(|(name, value)| format!("{name}: {}", value.map_or("null".to_owned(), in_yaml)))
        .collect();
    format!("{{{}}}", written.join(", "))
}

fn in_yaml(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::List(texts) => {
            format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
        }
        Value::Tags(tags) => {
            let tags =
                tags.iter().map(|(name, value)| format!("{}: {}", quoted(name), quoted(value)));
            format!("{{{}}}", tags.collect::<Vec<_>>().join(", "))
        }
        Value::Time(time) => time.to_string(),
        Value::Span(span) => span.to_string(),
        Value::Number(number) => number.to_string(),
        Value::MetadataOptions { v2_only, hop_limit } => {
            format!("{{v2_only: {v2_only}, hop_limit: {hop_limit}}}")
        }
    }
}

/// Text in double quotes, as YAML reads it back, whatever it is.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            _ if is_hidden(character) || character == '\u{feff}' => {
                let digits = format!("{:04x}", u32::from(character));
                quoted.extend(["\\u", digits.as_str()]);
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}
