//! Nodes beside a condition: like one that fits it, but for one thing, which is one step outside. That
//! they are outside follows from how they are made, and never from asking the decision.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::node::SupposedNode;
use super::sample::{filler, tags_of, text_value};
use crate::domain::{AccountId, Lifetime, Partition, Timestamp};
use crate::methods::{Kind, Source, Value};
use crate::policy::glob::Glob;
use crate::policy::rule::{Accounts, Condition, TagTest, Test};
use crate::policy::set::PolicySet;

/// One step outside.
pub(super) struct Neighbour {
    /// What kind of step.
    pub(super) step: &'static str,
    /// Where it leads: what the case is called.
    pub(super) to: String,
    pub(super) node: SupposedNode,
}

/// What neighbours are looked for with.
#[derive(Clone, Copy)]
pub(super) struct Ground<'g> {
    pub(super) set: &'g PolicySet,
    pub(super) regions: &'g BTreeMap<String, Partition>,
    /// The claim that says in which region a node is, if one does.
    pub(super) region_claim: Option<&'static str>,
    pub(super) at: Timestamp,
    /// The most neighbours of one kind beside one rule.
    pub(super) most: usize,
}

/// The nodes beside one condition.
pub(super) fn beside(
    ground: &Ground<'_>,
    node: &SupposedNode,
    condition: &Condition,
) -> Vec<Neighbour> {
    let field = condition.field;
    let mut found = Found { node, condition, neighbours: Vec::new() };
    match &condition.test {
        Test::Any => {}
        Test::Accounts(accounts) => {
            found.accounts(ground, accounts);
            found.partitions(ground, accounts.partition);
        }
        Test::Partition(partition) => found.partitions(ground, *partition),
        Test::OneOf(allowed) if field.kind == Kind::Regions => found.regions(ground, allowed),
        Test::OneOf(allowed) => found.ids(allowed),
        Test::Globs(globs) => found.names(globs),
        Test::Tags(tests) => found.tags(tests),
        Test::Age(age) => {
            let earlier = ground.at.minus(*age).minus(Lifetime::from_seconds(1));
            found.add("age", format!("{} {earlier}", field.reads), Value::Time(earlier));
        }
        Test::Span(most) => {
            let longer = u32::try_from(most.seconds()).unwrap_or(u32::MAX).saturating_add(1);
            let longer = Lifetime::from_seconds(longer);
            found.add("span", format!("{} {longer}", field.reads), Value::Span(longer));
        }
        Test::Count(most) => {
            if let Some(more) = most.checked_add(1) {
                found.add("count", format!("{} {more}", field.reads), Value::Number(more));
            }
        }
        Test::Networks(networks) => {
            for network in networks {
                let first = before(network.network());
                let last = after(network.broadcast());
                let outside = |address: &IpAddr| !networks.iter().any(|one| one.contains(address));
                for address in [first, last].into_iter().flatten().filter(outside) {
                    found.text("network", address.to_string());
                }
            }
        }
        Test::MetadataOptions { v2_only, max_hop_limit } => {
            found.metadata_options(*v2_only, *max_hop_limit);
        }
    }
    found.absent();
    found.neighbours
}

struct Found<'f> {
    node: &'f SupposedNode,
    condition: &'f Condition,
    neighbours: Vec<Neighbour>,
}

impl Found<'_> {
    fn push(&mut self, step: &'static str, to: String, node: SupposedNode) {
        self.neighbours.push(Neighbour { step, to, node });
    }

    /// The same node with another value of the field.
    fn add(&mut self, step: &'static str, to: String, value: Value) {
        let field = self.condition.field;
        let node = self.node.with(field.source, field.reads, Some(value));
        self.push(step, to, node);
    }

    fn text(&mut self, step: &'static str, text: String) {
        let field = self.condition.field;
        let to = format!("{} {text}", field.reads);
        self.add(step, to, text_value(field, text));
    }

    /// The node does not have it at all. What evidence always says is left alone.
    fn absent(&mut self) {
        let field = self.condition.field;
        let always =
            matches!(field.kind, Kind::Accounts | Kind::Partition | Kind::Regions | Kind::Tags);
        if always || matches!(self.condition.test, Test::Any) {
            return;
        }
        let node = self.node.with(field.source, field.reads, None);
        self.push("absent", format!("no {}", field.reads), node);
    }

    /// The numbers beside every account of the condition that no rule of the set names.
    fn accounts(&mut self, ground: &Ground<'_>, accounts: &Accounts) {
        let partition = accounts.partition.as_str();
        let sets = accounts.sets.iter().flat_map(|set| set.accounts());
        let mut seen = BTreeSet::new();
        for account in accounts.literals.iter().chain(sets) {
            for other in numbers_beside(account) {
                if seen.len() >= ground.most {
                    return;
                }
                if !ground.set.names_account(partition, &other) && seen.insert(other.clone()) {
                    self.text("account", other);
                }
            }
        }
    }

    /// The same elsewhere: by the partition alone, and with a region of it.
    fn partitions(&mut self, ground: &Ground<'_>, of: Partition) {
        for other in Partition::ALL.into_iter().filter(|other| *other != of) {
            let mut regions = ground.regions.iter().filter(|(_, of)| **of == other);
            let Some((region, _)) = regions.next() else { continue };
            let text = Value::Text(other.to_string());
            let moved = self.node.with(Source::Claim, "partition", Some(text));
            self.push("partition", format!("partition {other}"), moved.clone());
            if let Some(claim) = ground.region_claim {
                let moved = moved.with(Source::Claim, claim, Some(Value::Text(region.clone())));
                let to = format!("partition {other} and its {region}");
                self.push("partition-and-region", to, moved);
            }
        }
    }

    /// Every other region of the same partition.
    fn regions(&mut self, ground: &Ground<'_>, allowed: &BTreeSet<String>) {
        let partition = allowed.iter().find_map(|region| ground.regions.get(region));
        let others = ground
            .regions
            .iter()
            .filter(|(region, of)| Some(*of) == partition && !allowed.contains(*region));
        for (region, _) in others.take(ground.most) {
            self.text("region", region.clone());
        }
    }

    /// The last digit is another.
    fn ids(&mut self, allowed: &BTreeSet<String>) {
        for id in allowed {
            let mut start = id.clone();
            let last = start.pop().and_then(|digit| digit.to_digit(16)).unwrap_or_default();
            let others = (1..16).filter_map(|step| char::from_digit((last + step) % 16, 16));
            let mut others = others.map(|digit| format!("{start}{digit}"));
            if let Some(other) = others.find(|other| !allowed.contains(other)) {
                self.text("id", other);
            }
        }
    }

    /// Around each pattern. What another name of the list allows is no neighbour of the condition.
    fn names(&mut self, globs: &[Glob]) {
        for glob in globs {
            for (step, text) in around(glob) {
                if !globs.iter().any(|other| other != glob && other.matches(&text)) {
                    self.text(step, text);
                }
            }
        }
    }

    fn tags(&mut self, tests: &[(String, TagTest)]) {
        let tags = tags_of(self.node, self.condition.field);
        for (name, test) in tests {
            if *test == TagTest::Absent {
                let mut changed = tags.clone();
                changed.insert(name.clone(), "x".to_owned());
                self.add("tag-present", format!("tag {name}: x"), Value::Tags(changed));
                continue;
            }
            let mut changed = tags.clone();
            let value = changed.remove(name).unwrap_or_default();
            self.add("tag-absent", format!("no tag {name}"), Value::Tags(changed.clone()));
            let renamed = other_case(name);
            if let Some(renamed) = renamed.filter(|name| !tags.contains_key(name)) {
                let to = format!("tag {renamed}: {value}");
                changed.insert(renamed, value);
                self.add("tag-case", to, Value::Tags(changed));
            }
            let TagTest::OneOf(allowed) = test else { continue };
            for value in allowed {
                let others =
                    [("tag-value", Some(format!("{value}x"))), ("tag-case", other_case(value))];
                for (step, other) in others {
                    let Some(other) = other.filter(|other| !allowed.contains(other)) else {
                        continue;
                    };
                    let mut changed = tags.clone();
                    changed.insert(name.clone(), other.clone());
                    self.add(step, format!("tag {name}: {other}"), Value::Tags(changed));
                }
            }
        }
    }

    fn metadata_options(&mut self, v2_only: Option<bool>, max_hop_limit: Option<u32>) {
        let name = self.condition.field.reads;
        let (is_v2_only, hop_limit) = (v2_only.unwrap_or(true), max_hop_limit.unwrap_or(1));
        if v2_only.is_some() {
            let other = Value::MetadataOptions { v2_only: !is_v2_only, hop_limit };
            self.add("metadata-options", format!("{name} v2_only: {}", !is_v2_only), other);
        }
        if max_hop_limit.is_some_and(|limit| limit < 64) {
            let hop_limit = hop_limit + 1;
            let other = Value::MetadataOptions { v2_only: is_v2_only, hop_limit };
            self.add("metadata-options", format!("{name} hop_limit: {hop_limit}"), other);
        }
    }
}

/// Names that a pattern just does not match: a separator in the `*`, a letter less at either end of what
/// stands before it or behind it, a letter more at an end without `*`. None of them has more of the
/// pattern than it should, because the pattern does not have the letter that fills the `*`.
fn around(glob: &Glob) -> Vec<(&'static str, String)> {
    let Some(filler) = filler(glob) else { return Vec::new() };
    let pattern = glob.to_string();
    let mut around = Vec::new();
    if let Some((before, after)) = pattern.split_once('*') {
        if let Some(separator) = glob.separators().first() {
            let crossing = format!("{before}{filler}{separator}{filler}{after}");
            around.push(("glob-separator", crossing));
        }
        let mut letters = before.chars();
        if letters.next().is_some() {
            around.push(("glob-prefix", format!("{}{filler}{after}", letters.as_str())));
            let mut letters = before.chars();
            letters.next_back();
            around.push(("glob-prefix", format!("{}{filler}{after}", letters.as_str())));
        }
    }
    if let Some((before, after)) = pattern.rsplit_once('*') {
        let mut letters = after.chars();
        if letters.next().is_some() {
            around.push(("glob-suffix", format!("{before}{filler}{}", letters.as_str())));
        }
    }
    if !pattern.ends_with('*') {
        around.push(("glob-suffix", format!("{pattern}{filler}")));
    }
    around.into_iter().map(|(step, text)| (step, text.replace('*', &filler.to_string()))).collect()
}

/// The account numbers one more and one less.
fn numbers_beside(account: &AccountId) -> impl Iterator<Item = String> {
    const NUMBERS: u64 = 1_000_000_000_000;
    let number: Option<u64> = account.as_str().parse().ok();
    let beside = number
        .into_iter()
        .flat_map(|number| [(number + 1) % NUMBERS, (number + NUMBERS - 1) % NUMBERS]);
    beside.map(|number| format!("{number:012}"))
}

/// The same text with its first letter in the other case, if it has a letter.
fn other_case(text: &str) -> Option<String> {
    let (index, letter) = text.char_indices().find(|(_, letter)| letter.is_ascii_alphabetic())?;
    let other = if letter.is_ascii_lowercase() {
        letter.to_ascii_uppercase()
    } else {
        letter.to_ascii_lowercase()
    };
    let (start, rest) = text.split_at_checked(index)?;
    Some(format!("{start}{other}{}", rest.get(1..)?))
}

/// The address one before, unless this is the first of all.
fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            u32::from(address).checked_sub(1).map(|bits| IpAddr::from(bits.to_be_bytes()))
        }
        IpAddr::V6(address) => {
            u128::from(address).checked_sub(1).map(|bits| IpAddr::from(bits.to_be_bytes()))
        }
    }
}

/// The address one behind, unless this is the last of all.
fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            u32::from(address).checked_add(1).map(|bits| IpAddr::from(bits.to_be_bytes()))
        }
        IpAddr::V6(address) => {
            u128::from(address).checked_add(1).map(|bits| IpAddr::from(bits.to_be_bytes()))
        }
    }
}
