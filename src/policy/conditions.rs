//! Reading rules: the fields that a method declares, each by its kind. Knows no field by name.

use std::collections::{BTreeMap, BTreeSet};

use super::accounts::{self, AccountSets};
use super::decode::{self, Keys, nearest};
use super::document::{length, optional_text};
use super::finding::{FindingCode, Place, Report, quoted};
use super::kinds::{
    any, example, globs, ids, metadata_options, networks, report_any_account, tags,
};
use super::rule::{Accounts, Condition, Effect, Rule, Test};
use super::yaml::{Content, Node};
use crate::domain::{Lifetime, Partition, PolicyName};
use crate::methods::{Field, Kind, Presence};

/// The most rules of one policy or deny list, allow and deny together.
pub(super) const MAX_RULES: usize = 1000;
/// What every rule may have beside its conditions.
const ANNOTATIONS: &[&str] = &["name", "reason", "ticket", "until"];

/// What rules are read with.
pub(super) struct Reader<'a> {
    /// The fields that may be asked.
    pub(super) fields: Vec<&'static Field>,
    /// The known regions.
    pub(super) regions: &'a BTreeMap<String, Partition>,
    /// The account sets.
    pub(super) sets: &'a AccountSets,
    /// The names of the sets that were used.
    pub(super) used_sets: &'a mut BTreeSet<PolicyName>,
}

impl Reader<'_> {
    /// Reads a list of rules.
    pub(super) fn rules(
        &mut self,
        node: &Node,
        effect: Effect,
        deny_list: Option<&PolicyName>,
        report: &mut Report,
    ) -> Vec<Rule> {
        let list = effect.as_str();
        let example = "- accounts: [production]";
        let items = decode::list(node, list, example, report).unwrap_or_default();
        if length(Some(node)) > MAX_RULES {
            let message = format!("`{list}` has {} rules", items.len());
            report.add(FindingCode::LimitExceeded, &node.place, message, "at most 1,000 rules");
            return Vec::new();
        }
        let mut names: BTreeMap<String, Place> = BTreeMap::new();
        let mut rules = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let Some(mut rule) = self.rule(item, effect, report) else { continue };
            if rule.name.is_empty() {
                rule.name = format!("{list}[{index}]");
            } else if let Some(first) = names.insert(rule.name.clone(), rule.place.clone()) {
                let message = format!("a rule {} is already at {first}", quoted(&rule.name));
                report.add(FindingCode::NameTaken, &rule.place, message, "another name");
            }
            rule.deny_list = deny_list.cloned();
            rules.push(rule);
        }
        rules
    }

    /// Reads one rule; an allow rule must have what its method requires, a deny rule any field.
    fn rule(&mut self, node: &Node, effect: Effect, report: &mut Report) -> Option<Rule> {
        if matches!(&node.content, Content::Mapping(entries) if entries.is_empty()) {
            self.report_empty(effect, &node.place, report);
            return None;
        }
        let mut allowed: Vec<&str> = self.fields.iter().map(|field| field.name).collect();
        allowed.extend(ANNOTATIONS);
        let keys = Keys::read(node, "a rule", &allowed, report)?;
        let fields = self.fields.clone();
        let has_field = fields.iter().any(|field| keys.has(field.name));
        if !has_field {
            self.report_empty(effect, &node.place, report);
            return None;
        }
        let mut conditions = Vec::new();
        for field in fields {
            match keys.get(field.name) {
                Some(node) => conditions.extend(self.condition(field, node, effect, report)),
                None if effect == Effect::Allow && !keys.has(field.name) => {
                    Self::report_missing(field, &node.place, report);
                }
                None => {}
            }
        }
        let partition = self.partition_of(&conditions, &keys, report);
        for condition in &mut conditions {
            if let (Test::Accounts(accounts), Some(partition)) = (&mut condition.test, partition) {
                accounts.partition = partition;
            }
        }
        Some(Rule {
            name: keys.get("name").and_then(|node| rule_name(node, report)).unwrap_or_default(),
            place: node.place.clone(),
            deny_list: None,
            reason: optional_text(&keys, "reason", report),
            ticket: optional_text(&keys, "ticket", report),
            until: keys.get("until").and_then(|node| decode::time(node, "until", report)),
            partition,
            conditions,
        })
    }

    fn report_empty(&self, effect: Effect, place: &Place, report: &mut Report) {
        let message = format!("the {} rule has no condition", effect.as_str());
        let fields: Vec<&str> = self.fields.iter().map(|field| field.name).collect();
        let expected = format!("at least one of: {}", fields.join(", "));
        report.add(FindingCode::RuleEmpty, place, message, expected);
    }

    fn report_missing(field: &Field, place: &Place, report: &mut Report) {
        let (code, expected) = match (field.presence, field.kind) {
            (Presence::Optional, _) => return,
            (_, Kind::Accounts) => (
                FindingCode::AccountsMissing,
                format!("`{}: [production]`: who may join is always written", field.name),
            ),
            (Presence::RequiredOrAny, _) => (
                FindingCode::KeyMissing,
                format!("`{0}: {1}`, or `{0}: any`", field.name, example(field.kind)),
            ),
            (Presence::Required, _) => {
                (FindingCode::KeyMissing, format!("`{}: {}`", field.name, example(field.kind)))
            }
        };
        report.add(code, place, format!("the allow rule has no `{}`", field.name), expected);
    }

    fn condition(
        &mut self,
        field: &'static Field,
        node: &Node,
        effect: Effect,
        report: &mut Report,
    ) -> Option<Condition> {
        let is_any = matches!(&node.content, Content::Scalar { text, .. } if text == "any");
        let test = if is_any {
            any(field, node, effect, report)?
        } else {
            self.test(field, node, report)?
        };
        Some(Condition { field, place: node.place.clone(), test })
    }

    fn test(&mut self, field: &'static Field, node: &Node, report: &mut Report) -> Option<Test> {
        let name = field.name;
        match field.kind {
            Kind::Accounts => self.accounts(name, node, report).map(Test::Accounts),
            Kind::Partition => decode::parsed(node, name, report).map(Test::Partition),
            Kind::Regions => self.known_regions(name, node, report).map(Test::OneOf),
            Kind::Ids { prefix } => ids(name, prefix, node, report).map(Test::OneOf),
            Kind::Globs { separators } => globs(name, separators, node, report).map(Test::Globs),
            Kind::Tags => tags(name, node, report).map(Test::Tags),
            Kind::Age => {
                decode::duration(node, name, Lifetime::from_days(3650), report).map(Test::Age)
            }
            Kind::Span => {
                decode::duration(node, name, Lifetime::from_days(3650), report).map(Test::Span)
            }
            Kind::Count => decode::number(node, name, 1..=u32::MAX, report).map(Test::Count),
            Kind::Networks => networks(name, node, report).map(Test::Networks),
            Kind::MetadataOptions => metadata_options(node, report),
        }
    }

    /// Names of sets and quoted numbers. The partition is put in when the whole rule is known.
    fn accounts(&mut self, name: &str, node: &Node, report: &mut Report) -> Option<Accounts> {
        let items = decode::list(node, name, "[production]", report)?;
        let (mut sets, mut literals, mut is_whole) = (Vec::new(), BTreeSet::new(), true);
        let mut seen = BTreeSet::new();
        for item in items {
            let Some((text, is_plain)) = decode::scalar(item, name, report) else {
                is_whole = false;
                continue;
            };
            if !seen.insert(text) {
                let message = format!("{} stands twice in `{name}`", quoted(text));
                report.add(FindingCode::ValueRepeated, &item.place, message, "each one once");
            }
            let is_number = !is_plain && text.starts_with(|first: char| first.is_ascii_digit());
            if matches!(text, "any" | "all") || text.contains('*') {
                report_any_account(&item.place, text, report);
                is_whole = false;
            } else if is_number || decode::is_ambiguous(text) {
                let account = accounts::account(item, report);
                is_whole &= account.is_some();
                literals.extend(account);
            } else if let Some(set) =
                decode::parsed(item, name, report).and_then(|set_name: PolicyName| {
                    self.used_sets.insert(set_name.clone());
                    self.sets.named(&set_name, item, report)
                })
            {
                sets.push(set);
            } else {
                is_whole = false;
            }
        }
        let partition = sets.first().map_or(Partition::Aws, |set| set.partition);
        is_whole.then_some(Accounts { partition, sets, literals })
    }

    fn known_regions(
        &self,
        name: &str,
        node: &Node,
        report: &mut Report,
    ) -> Option<BTreeSet<String>> {
        let mut regions = BTreeSet::new();
        let mut is_whole = true;
        for (text, item) in decode::texts(node, name, "[us-east-1, us-west-2]", report)? {
            if self.regions.contains_key(text) {
                regions.insert(text.to_owned());
                continue;
            }
            is_whole = false;
            let message = format!("{} is no region with a known certificate", quoted(text));
            let expected = match nearest(text, self.regions.keys().map(String::as_str), report) {
                _ if text == "any" => "`any` without brackets, and alone".to_owned(),
                Some(near) => format!("`{near}`? `muster regions ls` lists the known ones"),
                None => "a region that `muster regions ls` lists".to_owned(),
            };
            report.add(FindingCode::RegionUnknown, &item.place, message, expected);
        }
        is_whole.then_some(regions)
    }

    /// The one partition that a rule is about. Conditions that name another are contradictions, and
    /// a literal account needs the rule to say which (T44).
    fn partition_of(
        &self,
        conditions: &[Condition],
        keys: &Keys<'_>,
        report: &mut Report,
    ) -> Option<Partition> {
        let mut named: Vec<(Partition, String, &Place)> = Vec::new();
        let (mut written, mut literal) = (None, None);
        for condition in conditions {
            match &condition.test {
                Test::Partition(partition) => {
                    written = Some(*partition);
                    named.insert(0, (*partition, "`partition`".to_owned(), &condition.place));
                }
                Test::Accounts(accounts) => {
                    literal = accounts.literals.first().map(|account| (account, &condition.place));
                    named.extend(accounts.sets.iter().map(|set| {
                        (set.partition, format!("the set `{}`", set.name), &condition.place)
                    }));
                }
                Test::OneOf(regions) if condition.field.kind == Kind::Regions => {
                    named.extend(regions.iter().filter_map(|region| {
                        let partition = *self.regions.get(region)?;
                        Some((partition, format!("`{region}`"), &condition.place))
                    }));
                }
                Test::Any
                | Test::OneOf(_)
                | Test::Globs(_)
                | Test::Tags(_)
                | Test::Age(_)
                | Test::Span(_)
                | Test::Count(_)
                | Test::Networks(_)
                | Test::MetadataOptions { .. } => {}
            }
        }
        if let (Some((account, place)), None, false) = (literal, written, keys.has("partition")) {
            let message = format!("the account `{account}` is given without its partition");
            let expected = "`partition: aws` (or aws-cn, aws-us-gov, …) in the same rule";
            report.add(FindingCode::PartitionMissing, place, message, expected);
        }
        let (first, first_name, _) = named.first()?.clone();
        if let Some((other, name, place)) = named.iter().find(|(other, ..)| *other != first) {
            let message =
                format!("{name} is of partition {other}, but {first_name} is of partition {first}");
            report.add(FindingCode::PartitionMixed, place, message, "one rule a partition");
        }
        Some(first)
    }
}

/// A rule's name: never one that looks like an index.
fn rule_name(node: &Node, report: &mut Report) -> Option<String> {
    let text = decode::text(node, "name", report)?;
    let is_name = text.len() <= 63
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if is_name {
        return Some(text.to_owned());
    }
    let expected = "a letter, then letters, digits, `-`, `_` and `.`, at most 63";
    decode::invalid(node, "name", expected, report)
}
