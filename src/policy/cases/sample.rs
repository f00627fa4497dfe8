//! Nodes that a rule admits, made from its conditions: each on its limit where it has one, so that the
//! smallest step outwards is outside.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::node::SupposedNode;
use crate::domain::{AccountId, Lifetime, Partition, Timestamp};
use crate::methods::{Field, Kind, Source, Value};
use crate::policy::glob::Glob;
use crate::policy::join_policy::JoinPolicy;
use crate::policy::rule::{Condition, Rule, TagTest, Test};
use crate::policy::settings::FreshProof;

/// How long a node has run, if nothing is asked of that.
const AGE: Lifetime = Lifetime::from_seconds(60);
/// What stands for any text, any value and any tag.
const ANY_TEXT: &str = "sample";
const ANY_HEX: &str = "0123456789abcdef0";
const ANY_ACCOUNT: &str = "123456789012";

/// A node of which every field is told, and which fits the rule as far as that can be seen from the
/// rule alone. Where several values fit, `choice` says which.
pub(super) fn node_of(
    policy: &JoinPolicy,
    rule: &Rule,
    regions: &BTreeMap<String, Partition>,
    at: Timestamp,
    choice: usize,
) -> SupposedNode {
    let is_required = policy.proof.value == FreshProof::Required;
    let mut node = SupposedNode::blank(is_required);
    let partition = rule.partition.unwrap_or(Partition::Aws);
    for field in policy.method.fields {
        if field.source == Source::Claim || policy.reads_facts() {
            node.set(field.source, field.reads, Some(any_value(field, partition, regions, at)));
        }
    }
    if let Some(running) = policy.method.running.as_ref().filter(|_| policy.reads_facts()) {
        let state = running.values.last().map(|state| Value::Text((*state).to_owned()));
        node.set(Source::Instance, running.reads, state);
        node.set(Source::Instance, running.since, Some(Value::Time(at.minus(AGE))));
    }
    if let Some(epoch) = policy.method.epoch_claim {
        let age = document_ttl(policy).unwrap_or(AGE);
        node.set(Source::Claim, epoch, Some(Value::Time(at.minus(age))));
    }
    for condition in &rule.conditions {
        enter(&mut node, condition, at, choice);
    }
    let region_field = policy.method.fields.iter().find(|field| field.kind == Kind::Regions);
    let region = match region_field.and_then(|field| node.get(field.source, field.reads)) {
        Some(Value::Text(region)) => region.clone(),
        _ => String::new(),
    };
    for (name, text) in policy.method.example {
        let is_asked = rule.conditions.iter().any(|condition| condition.field.reads == *name);
        if !is_asked {
            let text = text.replace("{region}", &region);
            node.set(Source::Claim, name, Some(Value::Text(text)));
        }
    }
    node
}

/// How old the document may be that joins alone.
pub(super) fn document_ttl(policy: &JoinPolicy) -> Option<Lifetime> {
    match policy.proof.value {
        FreshProof::NotRequired { document_ttl } => document_ttl,
        FreshProof::Required => None,
    }
}

/// A value of a field of which nothing is asked.
fn any_value(
    field: &Field,
    partition: Partition,
    regions: &BTreeMap<String, Partition>,
    at: Timestamp,
) -> Value {
    let text = match field.kind {
        Kind::Accounts => ANY_ACCOUNT.to_owned(),
        Kind::Partition => partition.to_string(),
        Kind::Regions => {
            let mut of_partition = regions.iter().filter(|(_, of)| **of == partition);
            of_partition.next().map_or(ANY_TEXT, |(region, _)| region).to_owned()
        }
        Kind::Ids { prefix } => format!("{prefix}{ANY_HEX}"),
        Kind::Globs { .. } => ANY_TEXT.to_owned(),
        Kind::Networks => "192.0.2.10".to_owned(),
        Kind::Tags => return Value::Tags(BTreeMap::new()),
        Kind::Age => return Value::Time(at.minus(AGE)),
        Kind::Span => return Value::Span(AGE),
        Kind::Count => return Value::Number(1),
        Kind::MetadataOptions => return Value::MetadataOptions { v2_only: true, hop_limit: 1 },
    };
    text_value(field, text)
}

/// Text in the form in which the field is read.
pub(super) fn text_value(field: &Field, text: String) -> Value {
    if field.is_list { Value::List(vec![text]) } else { Value::Text(text) }
}

/// Changes a node so that it fits a condition.
pub(super) fn enter(node: &mut SupposedNode, condition: &Condition, at: Timestamp, choice: usize) {
    let field = condition.field;
    let value = match &condition.test {
        Test::Any => return,
        Test::Accounts(accounts) => {
            let partition = Value::Text(accounts.partition.to_string());
            node.set(Source::Claim, "partition", Some(partition));
            let sets = accounts.sets.iter().flat_map(|set| set.accounts());
            let all: Vec<&AccountId> = accounts.literals.iter().chain(sets).take(1000).collect();
            pick(&all, choice).map(|account| Value::Text(account.to_string()))
        }
        Test::Partition(partition) => Some(Value::Text(partition.to_string())),
        Test::OneOf(allowed) => {
            let all: Vec<&String> = allowed.iter().collect();
            pick(&all, choice).map(|text| text_value(field, (*text).clone()))
        }
        Test::Globs(globs) => pick(globs, choice).map(|glob| text_value(field, name_of(glob))),
        Test::Tags(tests) => {
            let mut tags = tags_of(node, field);
            for (name, test) in tests {
                enter_tag(&mut tags, name, test, choice);
            }
            Some(Value::Tags(tags))
        }
        Test::Age(age) => Some(Value::Time(at.minus(*age))),
        Test::Span(span) => Some(Value::Span(*span)),
        Test::Count(count) => Some(Value::Number(*count)),
        Test::Networks(networks) => {
            pick(networks, choice).map(|network| Value::Text(last_address(network)))
        }
        Test::MetadataOptions { v2_only, max_hop_limit } => Some(Value::MetadataOptions {
            v2_only: v2_only.unwrap_or(true),
            hop_limit: max_hop_limit.unwrap_or(1),
        }),
    };
    node.set(field.source, field.reads, value);
}

/// The tags that a node has by this field.
pub(super) fn tags_of(node: &SupposedNode, field: &Field) -> BTreeMap<String, String> {
    match node.get(field.source, field.reads) {
        Some(Value::Tags(tags)) => tags.clone(),
        _ => BTreeMap::new(),
    }
}

fn enter_tag(tags: &mut BTreeMap<String, String>, name: &str, test: &TagTest, choice: usize) {
    match test {
        TagTest::Absent => drop(tags.remove(name)),
        TagTest::Present => drop(tags.insert(name.to_owned(), ANY_TEXT.to_owned())),
        TagTest::OneOf(allowed) => {
            let all: Vec<&String> = allowed.iter().collect();
            if let Some(value) = pick(&all, choice) {
                tags.insert(name.to_owned(), (*value).clone());
            }
        }
    }
}

fn pick<T>(all: &[T], choice: usize) -> Option<&T> {
    all.get(choice.checked_rem(all.len())?)
}

/// A letter that the pattern does not have, so that what stands for a `*` is never taken for a part
/// of the pattern itself.
pub(super) fn filler(glob: &Glob) -> Option<char> {
    let text = glob.to_string();
    let mut letters = ('a'..='z').chain('A'..='Z').chain('0'..='9');
    letters.find(|letter| !text.contains(*letter))
}

/// A name of this pattern.
pub(super) fn name_of(glob: &Glob) -> String {
    glob.to_string().replace('*', &filler(glob).unwrap_or('a').to_string())
}

fn last_address(network: &IpNet) -> String {
    network.broadcast().to_string()
}
