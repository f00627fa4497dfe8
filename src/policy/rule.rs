//! A rule of an allow or deny list as it was read: conditions, all of which must hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use super::accounts::AccountSet;
use super::finding::Place;
use super::glob::Glob;
use super::wording::expected;
use crate::domain::{AccountId, Lifetime, Partition, PolicyName, Timestamp};
use crate::methods::Field;

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name, or `allow[0]`: its list and index.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// The deny list that it comes from, unless it is the policy's own.
    pub deny_list: Option<PolicyName>,
    /// Why it is there.
    pub reason: Option<String>,
    /// Where that was discussed.
    pub ticket: Option<String>,
    /// The last second in which it matches.
    pub until: Option<Timestamp>,
    /// The partition that accounts, regions or the rule itself name.
    pub(super) partition: Option<Partition>,
    pub(super) conditions: Vec<Condition>,
}

impl Rule {
    /// Whether `until` is past.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now > until)
    }

    /// What it asks, in words: the names of fields and what is expected of each.
    pub fn asks(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.conditions.iter().map(|condition| (condition.field.name, expected(&condition.test)))
    }

    /// The condition on a field.
    pub(super) fn condition(&self, field: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.field.name == field)
    }
}

/// Whether a rule admits or refuses. Doubt counts against admission, so the two are not symmetric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

impl Effect {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// One field of a rule.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) field: &'static Field,
    pub(super) place: Place,
    pub(super) test: Test,
}

/// What a value is held against.
#[derive(Debug)]
pub(super) enum Test {
    /// `any`, where it may be written.
    Any,
    /// Partition and account together.
    Accounts(Accounts),
    /// One partition.
    Partition(Partition),
    /// Regions or identifiers, compared whole.
    OneOf(BTreeSet<String>),
    /// Names with `*`.
    Globs(Vec<Glob>),
    /// Every one of these must hold.
    Tags(Vec<(String, TagTest)>),
    /// At most this long ago.
    Age(Lifetime),
    /// At most this long.
    Span(Lifetime),
    /// At most so many.
    Count(u32),
    /// In one of these.
    Networks(Vec<IpNet>),
    /// Instance metadata options.
    MetadataOptions { v2_only: Option<bool>, max_hop_limit: Option<u32> },
}

/// What is asked of one tag.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TagTest {
    /// It is there, with any value.
    Present,
    /// It is not there.
    Absent,
    /// Its value is one of these, exactly.
    OneOf(BTreeSet<String>),
}

/// The accounts of one rule: of one partition, from sets and literals.
#[derive(Debug)]
pub(super) struct Accounts {
    pub(super) partition: Partition,
    pub(super) sets: Vec<Arc<AccountSet>>,
    pub(super) literals: BTreeSet<AccountId>,
}

impl Accounts {
    /// Whether one of them has this number.
    pub(super) fn contains(&self, account: &AccountId) -> bool {
        self.literals.contains(account) || self.sets.iter().any(|set| set.contains(account))
    }
}
