//! Account sets: named lists of accounts of one partition, which may include each other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::decode::{self, Keys};
use super::document::{Document, Kind, Metadata, names, optional_text};
use super::finding::{FindingCode, Report, quoted};
use super::yaml::Node;
use crate::domain::{AccountId, Partition, PolicyName};

/// All sets together, inclusions counted; more than any organization has.
const MAX_RESOLVED: usize = 2_000_000;

/// One set, with the sets that it includes and without its exceptions.
#[derive(Debug)]
pub(super) struct AccountSet {
    /// Its name.
    pub(super) name: PolicyName,
    /// The partition of every account of it.
    pub(super) partition: Partition,
    accounts: BTreeSet<AccountId>,
    /// The same for look-ups: in a tree of texts each comparison is a cache miss.
    numbers: HashSet<u64>,
}

impl AccountSet {
    fn new(name: PolicyName, partition: Partition, accounts: BTreeSet<AccountId>) -> Self {
        let numbers = accounts.iter().map(AccountId::number).collect();
        Self { name, partition, accounts, numbers }
    }

    /// Whether an account of the set's partition is in it.
    pub(super) fn contains(&self, account: &AccountId) -> bool {
        self.numbers.contains(&account.number())
    }

    /// How many accounts are in it.
    pub(super) fn len(&self) -> usize {
        self.accounts.len()
    }

    /// All accounts, in order.
    pub(super) fn accounts(&self) -> impl Iterator<Item = &AccountId> {
        self.accounts.iter()
    }
}

/// The sets that rules may name. A name without a set is one whose document is broken: it was
/// reported, and rules that name it need not be.
#[derive(Debug, Default)]
pub(super) struct AccountSets {
    by_name: BTreeMap<PolicyName, Option<Arc<AccountSet>>>,
    included: BTreeSet<PolicyName>,
}

impl AccountSets {
    /// The set of this name, if there is a sound one; an unknown name is reported.
    pub(super) fn named(
        &self,
        name: &PolicyName,
        node: &Node,
        report: &mut Report,
    ) -> Option<Arc<AccountSet>> {
        if let Some(set) = self.by_name.get(name) {
            return set.clone();
        }
        let message = format!("there is no AccountSet {}", quoted(name.as_str()));
        let known: Vec<&str> = self.by_name.keys().map(PolicyName::as_str).take(20).collect();
        let near =
            decode::nearest(name.as_str(), self.by_name.keys().map(PolicyName::as_str), report);
        let expected = match near {
            Some(near) => format!("`{near}`?"),
            None if known.is_empty() => {
                "the name of an AccountSet, or quoted numbers of 12 digits".to_owned()
            }
            None => format!("one of: {}; or quoted numbers of 12 digits", known.join(", ")),
        };
        report.add(FindingCode::SetUnknown, &node.place, message, expected);
        None
    }

    /// The sets that no other set includes.
    pub(super) fn outermost(&self) -> impl Iterator<Item = &PolicyName> {
        self.by_name.keys().filter(|name| !self.included.contains(*name))
    }
}

/// A set as it is written.
struct Written<'n> {
    metadata: Metadata,
    partition: Partition,
    accounts: BTreeSet<AccountId>,
    include: Vec<(PolicyName, &'n Node)>,
    except: Vec<(AccountId, &'n Node)>,
}

/// Reads all sets and puts in what they include.
pub(super) fn read(documents: &[Document<'_>], report: &mut Report) -> AccountSets {
    let mut sets = AccountSets::default();
    let mut waiting = Vec::new();
    for document in documents.iter().filter(|document| document.kind == Kind::AccountSet) {
        sets.by_name.insert(document.metadata.name.clone(), None);
        waiting.extend(written(document, report));
    }
    resolve(waiting, &mut sets, report);
    sets
}

fn written<'n>(document: &Document<'n>, report: &mut Report) -> Option<Written<'n>> {
    const KEYS: &[&str] = &["partition", "accounts", "include", "except"];
    let errors_before = report.error_count();
    let keys = Keys::read(document.spec, "the `spec` of an AccountSet", KEYS, report)?;
    if !keys.has("accounts") && !keys.has("include") {
        let expected = "`accounts:` with `{id: \"111122223333\"}`, or `include:` with other sets";
        report.add(FindingCode::KeyMissing, keys.place, "the set names no accounts", expected);
        return None;
    }
    let partition = keys
        .required("partition", "`partition: aws`, aws-cn or aws-us-gov", report)
        .and_then(|node| decode::parsed(node, "partition", report));
    let accounts = keys.get("accounts").map(|node| members(node, report)).unwrap_or_default();
    let include = keys.get("include").map(|node| names(node, "include", report));
    let except = keys.get("except").map(|node| exceptions(node, report));
    // What a broken set would mean for others is not worth a finding of its own.
    if report.error_count() > errors_before {
        return None;
    }
    Some(Written {
        metadata: document.metadata.clone(),
        partition: partition?,
        accounts,
        include: include.unwrap_or_default(),
        except: except.unwrap_or_default(),
    })
}

fn members(node: &Node, report: &mut Report) -> BTreeSet<AccountId> {
    const EXAMPLE: &str = "- {id: \"111122223333\", name: shop-prod}";
    let mut accounts = BTreeSet::new();
    for item in decode::list(node, "accounts", EXAMPLE, report).unwrap_or_default() {
        let Some(keys) = Keys::read(item, "an account", &["id", "name", "owner"], report) else {
            continue;
        };
        // Names and owners are for readers; they are checked and not kept.
        let _for_readers =
            (optional_text(&keys, "name", report), optional_text(&keys, "owner", report));
        let Some(node) = keys.required("id", "`id: \"111122223333\"`", report) else { continue };
        let Some(account) = account(node, report) else { continue };
        if !accounts.insert(account) {
            let message = format!("the account {} stands twice", node.describe());
            report.add(FindingCode::ValueRepeated, &node.place, message, "each account once");
        }
    }
    accounts
}

fn exceptions<'n>(node: &'n Node, report: &mut Report) -> Vec<(AccountId, &'n Node)> {
    decode::list(node, "except", "[\"111122223333\"]", report)
        .unwrap_or_default()
        .iter()
        .filter_map(|item| Some((account(item, report)?, item)))
        .collect()
}

/// An account number: quoted, because YAML makes a number of it that has lost its leading zeros.
pub(super) fn account(node: &Node, report: &mut Report) -> Option<AccountId> {
    let (text, is_plain) = decode::scalar(node, "account", report)?;
    match text.parse() {
        Ok(account) if !is_plain => Some(account),
        result => {
            let expected = match result {
                Ok(_) => format!("\"{text}\", with quotes"),
                Err(_) => "a quoted account number of 12 digits, such as \"111122223333\"".into(),
            };
            let message = format!("the account {} is no quoted text of 12 digits", quoted(text));
            report.add(FindingCode::AccountInvalid, &node.place, message, expected);
            None
        }
    }
}

/// Resolves every set after those that it includes; what is left includes itself.
fn resolve(written: Vec<Written<'_>>, sets: &mut AccountSets, report: &mut Report) {
    let mut waiting = Waiting::of(written);
    let mut total = 0;
    while let Some(set) = waiting.next_ready() {
        let resolved = assemble(&set, sets, report);
        total += resolved.as_ref().map_or(0, |set| set.accounts.len());
        if total > MAX_RESOLVED {
            let message = "the account sets together are too many accounts";
            let expected = "at most 2,000,000, inclusions counted";
            report.add(FindingCode::LimitExceeded, &set.metadata.place, message, expected);
            return;
        }
        sets.included.extend(set.include.iter().map(|(name, _)| name.clone()));
        waiting.resolved(&set.metadata.name);
        sets.by_name.insert(set.metadata.name, resolved);
    }
    let circles: Vec<_> = waiting.sets.into_iter().flatten().collect();
    let names: HashSet<&PolicyName> = circles.iter().map(|set| &set.metadata.name).collect();
    for set in &circles {
        let cyclic = set.include.iter().find(|(name, _)| names.contains(name));
        let place = cyclic.map_or(&set.metadata.place, |(_, node)| &node.place);
        let message = format!("the set `{}` includes itself by way of others", set.metadata.name);
        report.add(FindingCode::SetCycle, place, message, "inclusions without a circle");
    }
}

/// Sets that wait for others, each looked at as often as it has inclusions: a file can hold very many
/// that stand in the wrong order.
struct Waiting<'n> {
    sets: Vec<Option<Written<'n>>>,
    /// For how many inclusions each waits.
    missing: Vec<usize>,
    /// Which sets include the one of this name.
    includers: HashMap<PolicyName, Vec<usize>>,
    ready: Vec<usize>,
}

impl<'n> Waiting<'n> {
    fn of(written: Vec<Written<'n>>) -> Self {
        // Nobody waits for a set that is broken, or is none.
        let names: HashSet<&PolicyName> = written.iter().map(|set| &set.metadata.name).collect();
        let mut includers: HashMap<PolicyName, Vec<usize>> = HashMap::new();
        let (mut missing, mut ready) = (Vec::new(), Vec::new());
        for (index, set) in written.iter().enumerate() {
            let awaited = set.include.iter().filter(|(name, _)| names.contains(name));
            let mut count = 0;
            for (name, _) in awaited {
                includers.entry(name.clone()).or_default().push(index);
                count += 1;
            }
            missing.push(count);
            if count == 0 {
                ready.push(index);
            }
        }
        Self { sets: written.into_iter().map(Some).collect(), missing, includers, ready }
    }

    fn next_ready(&mut self) -> Option<Written<'n>> {
        self.ready.pop().and_then(|index| self.sets.get_mut(index)?.take())
    }

    fn resolved(&mut self, name: &PolicyName) {
        for index in self.includers.remove(name).unwrap_or_default() {
            let Some(missing) = self.missing.get_mut(index) else { continue };
            *missing -= 1;
            if *missing == 0 {
                self.ready.push(index);
            }
        }
    }
}

fn assemble(set: &Written<'_>, sets: &AccountSets, report: &mut Report) -> Option<Arc<AccountSet>> {
    let mut accounts = set.accounts.clone();
    let mut is_whole = true;
    for (name, node) in &set.include {
        let Some(included) = sets.named(name, node, report) else {
            is_whole = false;
            continue;
        };
        if included.partition != set.partition {
            let message = format!(
                "`{name}` is of partition {}, this set of {}",
                included.partition, set.partition
            );
            let expected = "sets of one partition; the same digits elsewhere are another account";
            report.add(FindingCode::PartitionMixed, &node.place, message, expected);
        }
        accounts.extend(included.accounts().cloned());
    }
    for (account, node) in &set.except {
        if !accounts.remove(account) && is_whole {
            let message = format!("`{account}` is not in the set anyway");
            let expected = "an account of the set, or no exception";
            report.add(FindingCode::ExceptWithoutEffect, &node.place, message, expected);
        }
    }
    if !is_whole {
        return None;
    }
    let Metadata { name, place, .. } = &set.metadata;
    if accounts.is_empty() {
        let message = format!("nothing is left in the set `{name}`");
        report.add(FindingCode::SetEmpty, place, message, "at least one account");
        return None;
    }
    Some(Arc::new(AccountSet::new(name.clone(), set.partition, accounts)))
}
