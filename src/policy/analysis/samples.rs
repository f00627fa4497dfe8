//! Values that conditions tell apart: at least one for every way in which a value can fare with all
//! the conditions on one field. Too many does no harm; one too few would make the analysis wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::super::compare::Budget;
use super::super::glob::Glob;
use super::super::rule::{TagTest, Test};
use super::strings;
use crate::domain::{Lifetime, Partition};
use crate::methods::{Field, Kind, Source, Value};

/// More ways than the conditions of any sensible policies have; beyond, the answer is incomplete.
const MAX_WAYS: usize = 4096;
/// A young machine, where its age is no matter.
const YOUNG: Lifetime = Lifetime::from_seconds(60);

/// One value of a field, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sample {
    /// This value.
    Value(Value),
    /// So long ago.
    Ago(Lifetime),
    /// The instance was read and has none.
    Absent,
    /// The evidence does not say, or nobody read it.
    Unknown,
}

/// The samples of one field.
#[derive(Debug)]
pub(super) struct Samples {
    pub(super) samples: Vec<Sample>,
    /// Whether there is one for every way.
    pub(super) is_complete: bool,
}

/// Finds them. `regions` are the known ones of the partition at hand.
pub(super) fn of(
    field: &Field,
    tests: &[&Test],
    regions: &[&str],
    partition: Option<Partition>,
    budget: &mut Budget,
) -> Samples {
    let mut is_complete = true;
    let text = |text: String| Sample::Value(Value::Text(text));
    let mut samples: Vec<Sample> = match field.kind {
        // Partition and account are no fields of a space: it has one of each.
        Kind::Accounts | Kind::Partition => Vec::new(),
        Kind::Regions => self::regions(tests, regions, partition).into_iter().map(text).collect(),
        Kind::Ids { prefix } => ids(tests, prefix).into_iter().map(text).collect(),
        Kind::Globs { .. } => {
            let globs: Vec<&Glob> = tests.iter().copied().filter_map(globs_of).flatten().collect();
            let found = strings::told_apart(&globs, budget);
            is_complete = found.is_complete;
            found.texts.into_iter().map(text).collect()
        }
        Kind::Tags => {
            let (tags, are_all) = tags(tests, budget);
            is_complete = are_all;
            tags.into_iter().map(|tags| Sample::Value(Value::Tags(tags))).collect()
        }
        Kind::Age => spans(tests).into_iter().map(Sample::Ago).collect(),
        Kind::Span => {
            spans(tests).into_iter().map(|span| Sample::Value(Value::Span(span))).collect()
        }
        Kind::Count => {
            counts(tests).into_iter().map(|count| Sample::Value(Value::Number(count))).collect()
        }
        Kind::Networks => networks(tests).into_iter().map(|one| text(one.to_string())).collect(),
        Kind::MetadataOptions => metadata_options(tests).into_iter().map(Sample::Value).collect(),
    };
    if field.is_list {
        let (lists, are_all) = lists(&samples, tests, budget);
        is_complete &= are_all;
        samples = lists;
    }
    if field.source == Source::Instance {
        samples.push(Sample::Absent);
    }
    samples.push(Sample::Unknown);
    Samples { samples, is_complete }
}

/// Every region that is named, and one that is not: a known one, if there is any left.
fn regions(tests: &[&Test], known: &[&str], partition: Option<Partition>) -> BTreeSet<String> {
    let named = one_of(tests);
    let mut samples: BTreeSet<String> = known
        .iter()
        .filter(|region| named.contains(**region))
        .map(|one| (*one).to_owned())
        .collect();
    let other = known.iter().find(|region| !named.contains(**region));
    let prefix = partition.map_or("aws", Partition::as_str);
    samples.insert(other.map_or_else(|| format!("{prefix}-elsewhere-1"), |one| (*one).to_owned()));
    samples
}

/// Every identifier that is named, and one that is not.
fn ids(tests: &[&Test], prefix: &str) -> BTreeSet<String> {
    let mut samples = one_of(tests);
    let other = (0..=u64::MAX).map(|number| format!("{prefix}{number:017x}"));
    samples.extend(other.into_iter().find(|id| !one_of(tests).contains(id)));
    samples
}

fn one_of(tests: &[&Test]) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for test in tests {
        if let Test::OneOf(allowed) = test {
            named.extend(allowed.iter().cloned());
        }
    }
    named
}

fn globs_of(test: &Test) -> Option<&Vec<Glob>> {
    if let Test::Globs(globs) = test { Some(globs) } else { None }
}

/// Each limit, and just beyond it.
fn spans(tests: &[&Test]) -> BTreeSet<Lifetime> {
    let mut samples = BTreeSet::new();
    for test in tests {
        let (Test::Age(limit) | Test::Span(limit)) = test else { continue };
        let beyond = u32::try_from(limit.seconds()).unwrap_or(u32::MAX).saturating_add(1);
        samples.extend([YOUNG.min(*limit), *limit, Lifetime::from_seconds(beyond)]);
    }
    samples
}

fn counts(tests: &[&Test]) -> BTreeSet<u32> {
    let limits = tests
        .iter()
        .filter_map(|test| if let Test::Count(limit) = test { Some(*limit) } else { None });
    limits.flat_map(|limit| [limit, limit.saturating_add(1)]).collect()
}

/// The networks lie within or beside each other, so what is left of one begins where it begins or
/// just after another ends. The first are addresses for examples, which are in nobody's network.
fn networks(tests: &[&Test]) -> Vec<IpAddr> {
    let mut samples: Vec<IpAddr> = vec![
        Ipv4Addr::new(192, 0, 2, 1).into(),
        Ipv4Addr::new(203, 0, 113, 1).into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv6Addr::UNSPECIFIED.into(),
    ];
    let networks: BTreeSet<&IpNet> = tests
        .iter()
        .filter_map(|test| if let Test::Networks(networks) = test { Some(networks) } else { None })
        .flatten()
        .collect();
    for network in networks {
        samples.push(network.network());
        samples.extend(successor(network.broadcast()));
    }
    samples
}

fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            u32::from(address).checked_add(1).map(|next| Ipv4Addr::from(next).into())
        }
        IpAddr::V6(address) => {
            u128::from(address).checked_add(1).map(|next| Ipv6Addr::from(next).into())
        }
    }
}

fn metadata_options(tests: &[&Test]) -> Vec<Value> {
    let mut hops = BTreeSet::from([1]);
    for test in tests {
        if let Test::MetadataOptions { max_hop_limit: Some(limit), .. } = test {
            hops.extend([*limit, limit.saturating_add(1)]);
        }
    }
    let options =
        |v2_only| hops.iter().map(move |hops| Value::MetadataOptions { v2_only, hop_limit: *hops });
    options(true).chain(options(false)).collect()
}

/// For each tag every value that is named, one that is not, and none; and of all combinations one for
/// every way that they fare.
fn tags(tests: &[&Test], budget: &mut Budget) -> (Vec<BTreeMap<String, String>>, bool) {
    let tests: Vec<&Vec<(String, TagTest)>> = tests
        .iter()
        .filter_map(|test| if let Test::Tags(tags) = test { Some(tags) } else { None })
        .collect();
    let names: BTreeSet<&String> =
        tests.iter().flat_map(|test| test.iter().map(|(name, _)| name)).collect();
    let mut ways = BTreeMap::from([(vec![true; tests.len()], BTreeMap::new())]);
    for name in names {
        let asked: Vec<Vec<&TagTest>> = tests
            .iter()
            .map(|test| {
                test.iter().filter(|(other, _)| other == name).map(|(_, test)| test).collect()
            })
            .collect();
        let mut next = BTreeMap::new();
        for value in tag_values(asked.iter().flatten().copied()) {
            for (way, tags) in &ways {
                if !budget.pay(1 + tests.len() + tags.len()) {
                    return (ways.into_values().collect(), false);
                }
                let passes =
                    asked.iter().map(|tests| tests.iter().all(|test| test.holds(value.as_deref())));
                let way: Vec<bool> =
                    way.iter().zip(passes).map(|(so_far, now)| *so_far && now).collect();
                next.entry(way).or_insert_with(|| {
                    let mut tags: BTreeMap<String, String> = tags.clone();
                    tags.extend(value.clone().map(|value| (name.clone(), value)));
                    tags
                });
            }
        }
        if next.len() > MAX_WAYS {
            return (next.into_values().take(MAX_WAYS).collect(), false);
        }
        ways = next;
    }
    (ways.into_values().collect(), true)
}

fn tag_values<'t>(tests: impl Iterator<Item = &'t TagTest>) -> Vec<Option<String>> {
    let mut named = BTreeSet::new();
    for test in tests {
        if let TagTest::OneOf(allowed) = test {
            named.extend(allowed.iter().cloned());
        }
    }
    let other =
        (0..=u32::MAX).map(|number| format!("other-{number}")).find(|text| !named.contains(text));
    named.into_iter().chain(other).map(Some).chain([None]).collect()
}

/// A list fares as all its members do together, so one list for every union of what members do.
fn lists(members: &[Sample], tests: &[&Test], budget: &mut Budget) -> (Vec<Sample>, bool) {
    let mut ways: BTreeMap<Vec<bool>, Vec<String>> =
        BTreeMap::from([(vec![false; tests.len()], Vec::new())]);
    for member in members {
        let Sample::Value(Value::Text(member)) = member else { continue };
        let way: Vec<bool> = tests.iter().map(|test| has(test, member)).collect();
        if !budget.pay(ways.len() * (1 + tests.len())) {
            break;
        }
        let longer: Vec<(Vec<bool>, Vec<String>)> = ways
            .iter()
            .map(|(so_far, list)| {
                let way = so_far.iter().zip(&way).map(|(one, other)| *one || *other).collect();
                (way, list.iter().cloned().chain([member.clone()]).collect())
            })
            .collect();
        for (way, list) in longer {
            ways.entry(way).or_insert(list);
        }
        if ways.len() > MAX_WAYS {
            break;
        }
    }
    let is_complete = ways.len() <= MAX_WAYS && !budget.is_spent();
    (ways.into_values().map(|list| Sample::Value(Value::List(list))).collect(), is_complete)
}

/// Whether a list with this member passes.
fn has(test: &Test, member: &str) -> bool {
    match test {
        Test::OneOf(allowed) => allowed.contains(member),
        Test::Globs(globs) => globs.iter().any(|glob| glob.matches(member)),
        Test::Any
        | Test::Accounts(_)
        | Test::Partition(_)
        | Test::Tags(_)
        | Test::Age(_)
        | Test::Span(_)
        | Test::Count(_)
        | Test::Networks(_)
        | Test::MetadataOptions { .. } => false,
    }
}
