//! Comparing rules: does one cover another, can a node meet both? For warnings only, so doubt is
//! resolved towards saying nothing of shadows and something of overlaps.

use std::sync::Arc;

use super::accounts::AccountSet;
use super::glob::Glob;
use super::rule::{Accounts, Condition, Rule, TagTest, Test};
use crate::methods::Source;

/// How much an analysis may compare: quadratic work must have a bound (I14).
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(1_000_000)
    }
}

impl Budget {
    /// For that many steps.
    pub(super) const fn new(steps: u32) -> Self {
        Self { left: steps }
    }

    /// Whether the analysis had to stop.
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Pays for that many steps; no once nothing is left.
    pub(super) fn pay(&mut self, steps: usize) -> bool {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.left = self.left.saturating_sub(steps);
        self.left > 0
    }
}

/// Whether every node that `narrow` matches is matched by `wide`, for as long.
pub(super) fn covers(wide: &Rule, narrow: &Rule, budget: &mut Budget) -> bool {
    let lasts = wide.until.is_none_or(|end| narrow.until.is_some_and(|other| end >= other));
    lasts
        && budget.pay(1)
        && wide.conditions.iter().all(|condition| is_implied(condition, narrow, budget))
}

/// Whether `narrow` says at least what this condition says.
fn is_implied(wide: &Condition, narrow: &Rule, budget: &mut Budget) -> bool {
    match (&wide.test, narrow.condition(wide.field.name)) {
        (Test::Any, _) => true,
        (Test::Partition(partition), None) => narrow.partition == Some(*partition),
        (_, None) => false,
        (test, Some(condition)) => contains(test, &condition.test, budget),
    }
}

fn contains(wide: &Test, narrow: &Test, budget: &mut Budget) -> bool {
    match (wide, narrow) {
        (Test::Any, _) => true,
        (Test::Accounts(wide), Test::Accounts(narrow)) => {
            wide.partition == narrow.partition
                && narrow.literals.iter().all(|account| wide.contains(account))
                && narrow.sets.iter().all(|set| {
                    names(wide, set)
                        || (budget.pay(set.len())
                            && set.accounts().all(|account| wide.contains(account)))
                })
        }
        (Test::Partition(wide), Test::Partition(narrow)) => wide == narrow,
        (Test::OneOf(wide), Test::OneOf(narrow)) => narrow.is_subset(wide),
        (Test::Globs(wide), Test::Globs(narrow)) => {
            narrow.iter().all(|name| wide.iter().any(|names| names.covers(name)))
        }
        (Test::Tags(wide), Test::Tags(narrow)) => wide.iter().all(|(name, test)| {
            narrow.iter().any(|(other, narrow)| name == other && tag_contains(test, narrow))
        }),
        (Test::Age(wide), Test::Age(narrow)) | (Test::Span(wide), Test::Span(narrow)) => {
            wide >= narrow
        }
        (Test::Count(wide), Test::Count(narrow)) => wide >= narrow,
        (Test::Networks(wide), Test::Networks(narrow)) => {
            narrow.iter().all(|inner| wide.iter().any(|outer| outer.contains(inner)))
        }
        (
            Test::MetadataOptions { v2_only, max_hop_limit },
            Test::MetadataOptions { v2_only: narrow_v2_only, max_hop_limit: narrow_hops },
        ) => {
            (v2_only.is_none() || v2_only == narrow_v2_only)
                && max_hop_limit.is_none_or(|limit| narrow_hops.is_some_and(|hops| hops <= limit))
        }
        (
            Test::Accounts(_)
            | Test::Partition(_)
            | Test::OneOf(_)
            | Test::Globs(_)
            | Test::Tags(_)
            | Test::Age(_)
            | Test::Span(_)
            | Test::Count(_)
            | Test::Networks(_)
            | Test::MetadataOptions { .. },
            _,
        ) => false,
    }
}

fn tag_contains(wide: &TagTest, narrow: &TagTest) -> bool {
    match (wide, narrow) {
        (TagTest::Present, TagTest::Present | TagTest::OneOf(_))
        | (TagTest::Absent, TagTest::Absent) => true,
        (TagTest::OneOf(wide), TagTest::OneOf(narrow)) => narrow.is_subset(wide),
        (TagTest::Present | TagTest::Absent | TagTest::OneOf(_), _) => false,
    }
}

/// Whether some node may be matched by both rules.
pub(super) fn may_meet(left: &Rule, right: &Rule, budget: &mut Budget) -> bool {
    let one_partition = match (left.partition, right.partition) {
        (Some(left), Some(right)) => left == right,
        (None, _) | (_, None) => true,
    };
    one_partition
        && budget.pay(1)
        && left.conditions.iter().all(|condition| {
            // Of a list, such as security groups, one member may match here and another there.
            condition.field.source == Source::Instance
                || right
                    .condition(condition.field.name)
                    .is_none_or(|other| meet(&condition.test, &other.test, budget))
        })
}

fn meet(left: &Test, right: &Test, budget: &mut Budget) -> bool {
    match (left, right) {
        (Test::Accounts(left), Test::Accounts(right)) => accounts_meet(left, right, budget),
        (Test::Partition(left), Test::Partition(right)) => left == right,
        (Test::OneOf(left), Test::OneOf(right)) => !left.is_disjoint(right),
        (Test::Globs(left), Test::Globs(right)) => globs_meet(left, right),
        (Test::Networks(left), Test::Networks(right)) => left
            .iter()
            .any(|one| right.iter().any(|other| one.contains(other) || other.contains(one))),
        (
            Test::Any
            | Test::Accounts(_)
            | Test::Partition(_)
            | Test::OneOf(_)
            | Test::Globs(_)
            | Test::Tags(_)
            | Test::Age(_)
            | Test::Span(_)
            | Test::Count(_)
            | Test::Networks(_)
            | Test::MetadataOptions { .. },
            _,
        ) => true,
    }
}

fn accounts_meet(left: &Accounts, right: &Accounts, budget: &mut Budget) -> bool {
    left.partition == right.partition
        && (left.literals.iter().any(|account| right.contains(account))
            || left.sets.iter().any(|set| {
                names(right, set)
                    || (budget.pay(set.len())
                        && set.accounts().any(|account| right.contains(account)))
            }))
}

/// Whether this very set is named; then its accounts need not be compared.
fn names(accounts: &Accounts, set: &Arc<AccountSet>) -> bool {
    accounts.sets.iter().any(|named| Arc::ptr_eq(named, set))
}

fn globs_meet(left: &[Glob], right: &[Glob]) -> bool {
    left.iter().any(|left| right.iter().any(|right| left.may_meet(right)))
}
