//! Conditions and values in words, for explanations.

use super::rule::{Condition, TagTest, Test};
use super::truth::View;
use crate::methods::{Instance, Source, Value};

/// How many members of a list are shown.
const SHOWN: usize = 8;

/// What a condition wants.
pub(super) fn expected(test: &Test) -> String {
    match test {
        Test::Any => "any".to_owned(),
        Test::Accounts(accounts) => {
            let sets = accounts.sets.iter().map(|set| set.name.to_string());
            let literals = accounts.literals.iter().map(ToString::to_string);
            format!("{} in partition {}", one_of(sets.chain(literals)), accounts.partition)
        }
        Test::Partition(partition) => partition.to_string(),
        Test::OneOf(allowed) => one_of(allowed.iter().cloned()),
        Test::Globs(globs) => {
            // The wide ones first: what is not shown must not be what admits most.
            let mut globs: Vec<String> = globs.iter().map(ToString::to_string).collect();
            globs.sort_by_key(|glob| !glob.contains('*'));
            one_of(globs.into_iter())
        }
        Test::Tags(tests) => {
            let tests: Vec<String> = tests
                .iter()
                .map(|(name, test)| match test {
                    TagTest::Present => format!("{name}: present"),
                    TagTest::Absent => format!("{name}: absent"),
                    TagTest::OneOf(allowed) => {
                        format!("{name}: {}", one_of(allowed.iter().cloned()))
                    }
                })
                .collect();
            tests.join(", ")
        }
        Test::Age(age) => format!("at most {age} ago"),
        Test::Span(span) => format!("at most {span}"),
        Test::Count(count) => format!("at most {count}"),
        Test::Networks(networks) => one_of(networks.iter().map(ToString::to_string)),
        Test::MetadataOptions { v2_only, max_hop_limit } => {
            let v2_only = v2_only.map(|wanted| format!("v2_only: {wanted}"));
            let hops = max_hop_limit.map(|limit| format!("max_hop_limit: {limit}"));
            v2_only.into_iter().chain(hops).collect::<Vec<_>>().join(", ")
        }
    }
}

/// What the node has; nothing if it has none or it was not read.
pub(super) fn actual(condition: &Condition, view: &View<'_>) -> Option<String> {
    let value = match condition.field.source {
        Source::Claim => &view.claims.get(condition.field.reads)?.value,
        Source::Instance => match view.instance? {
            Instance::NotRead(_) | Instance::Refuted(_) => return None,
            Instance::Known(facts) => facts.get(condition.field.reads)?.as_ref()?,
        },
    };
    let text = match (&condition.test, value) {
        (Test::Accounts(_), Value::Text(account)) => {
            let partition = view.claims.get("partition").map(|claim| &claim.value);
            match partition {
                Some(Value::Text(partition)) => {
                    format!("{} in partition {}", shortened(account), shortened(partition))
                }
                _ => shortened(account),
            }
        }
        // Only the tags that were asked about: an instance's other tags are nobody's business here.
        (Test::Tags(tests), Value::Tags(tags)) => tests
            .iter()
            .map(|(name, _)| match tags.get(name) {
                Some(value) => format!("{name}: {}", shortened(value)),
                None => format!("{name}: absent"),
            })
            .collect::<Vec<_>>()
            .join(", "),
        (_, Value::Text(text)) => shortened(text),
        (_, Value::List(texts)) => {
            texts.iter().take(SHOWN).map(|text| shortened(text)).collect::<Vec<_>>().join(", ")
        }
        (_, Value::Tags(tags)) => format!("{} tags", tags.len()),
        (_, Value::Time(time)) => time.to_string(),
        (_, Value::Span(span)) => span.to_string(),
        (_, Value::Number(number)) => number.to_string(),
        (_, Value::MetadataOptions { v2_only, hop_limit }) => {
            format!("v2_only: {v2_only}, hop_limit: {hop_limit}")
        }
    };
    Some(text)
}

fn one_of(items: impl Iterator<Item = String>) -> String {
    let mut shown: Vec<String> = items.collect();
    let more = shown.len().saturating_sub(SHOWN);
    shown.truncate(SHOWN);
    let text = shown.join(" or ");
    if more > 0 { format!("{text} or {more} more") } else { text }
}

/// Text of others, short and on one line.
fn shortened(text: &str) -> String {
    text.chars().take(128).flat_map(char::escape_debug).collect()
}
