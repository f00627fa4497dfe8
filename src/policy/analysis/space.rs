//! All nodes that two lists of rules can tell apart: for every thing that the rules ask a list of
//! classes, and for every class which rules it leaves standing.

use std::collections::BTreeMap;

use fixedbitset::FixedBitSet;

use super::super::compare::Budget;
use super::super::rule::{Condition, Effect, Rule, Test};
use super::super::truth::{Truth, View};
use super::population::{Population, accounts_of};
use super::samples::{self, Sample};
use crate::domain::{AccountId, Lifetime, Partition, Timestamp};
use crate::methods::{
    ClaimValues, Declaration, Field, Instance, InstanceFacts, Kind, Provenance, Source, Value,
};

/// One second: the step of all times.
const TICK: Lifetime = Lifetime::from_seconds(1);

/// What analyses are made against.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'g> {
    /// The accounts of the sets that are analysed.
    pub population: &'g Population,
    /// The known regions.
    pub regions: &'g BTreeMap<String, Partition>,
    /// As of this time.
    pub at: Timestamp,
    /// Whether it is about that time alone, or about all that follows.
    pub horizon: Horizon,
}

/// How far an analysis looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Horizon {
    /// At the one time.
    Now,
    /// Then and for ever after.
    Ever,
}

/// The rules of one policy, or some of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules<'p> {
    pub(super) allow: Vec<&'p Rule>,
    pub(super) deny: Vec<&'p Rule>,
}

/// What a rule does, and in which of the two lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    LeftAllow,
    LeftDeny,
    RightAllow,
    RightDeny,
}

impl Role {
    const fn effect(self) -> Effect {
        match self {
            Self::LeftAllow | Self::RightAllow => Effect::Allow,
            Self::LeftDeny | Self::RightDeny => Effect::Deny,
        }
    }
}

/// What a class of an axis is a class of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of {
    /// Accounts of the space's partition.
    Accounts(&'static Field),
    /// Times from then on until a rule ends.
    Time,
    /// Values of a field.
    Field(&'static Field),
}

/// One class: a value that stands for all of it.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) stands_for: StandsFor,
    /// The rules that it leaves standing.
    pub(super) survivors: FixedBitSet,
}

impl Class {
    /// Whether it is of something that is known.
    pub(super) const fn is_known(&self) -> bool {
        !matches!(self.stands_for, StandsFor::Value(Sample::Unknown))
    }
}

#[derive(Debug)]
pub(super) enum StandsFor {
    /// These classes of the population, of which this account is one.
    Accounts { one: AccountId, classes: Vec<usize> },
    /// This second and what follows.
    Time(Timestamp),
    /// This value, and whatever fares like it.
    Value(Sample),
}

#[derive(Debug)]
pub(super) struct Axis {
    pub(super) of: Of,
    pub(super) classes: Vec<Class>,
}

/// All nodes of one partition, or of a method that knows no partitions.
#[derive(Debug)]
pub(super) struct Space<'p> {
    pub(super) partition: Option<Partition>,
    pub(super) rules: Vec<(&'p Rule, Role)>,
    pub(super) axes: Vec<Axis>,
    /// Whether no class is missing.
    pub(super) is_complete: bool,
}

/// The spaces in which the rules of two lists meet: one for each partition.
pub(super) fn spaces<'p>(
    left: &Rules<'p>,
    right: &Rules<'p>,
    method: &'static Declaration,
    ground: Ground<'_>,
    budget: &mut Budget,
) -> Vec<Space<'p>> {
    let has_partitions = method
        .fields
        .iter()
        .any(|field| matches!(field.kind, Kind::Accounts | Kind::Partition | Kind::Regions));
    if !has_partitions {
        return vec![Space::new(None, left, right, method, ground, budget)];
    }
    Partition::ALL
        .into_iter()
        .filter(|partition| left.allow.iter().any(|rule| is_of(rule, *partition)))
        .map(|partition| Space::new(Some(partition), left, right, method, ground, budget))
        .collect()
}

/// Whether a rule can match in a partition.
fn is_of(rule: &Rule, partition: Partition) -> bool {
    let is_elsewhere = |condition: &Condition| matches!(&condition.test, Test::Partition(named) if *named != partition);
    accounts_of(rule).is_none_or(|accounts| accounts.partition == partition)
        && !rule.conditions.iter().any(is_elsewhere)
}

impl<'p> Space<'p> {
    fn new(
        partition: Option<Partition>,
        left: &Rules<'p>,
        right: &Rules<'p>,
        method: &'static Declaration,
        ground: Ground<'_>,
        budget: &mut Budget,
    ) -> Self {
        let with = |rules: &[&'p Rule], role| -> Vec<(&'p Rule, Role)> {
            rules.iter().map(|rule| (*rule, role)).collect()
        };
        let all = [
            with(&left.allow, Role::LeftAllow),
            with(&left.deny, Role::LeftDeny),
            with(&right.allow, Role::RightAllow),
            with(&right.deny, Role::RightDeny),
        ];
        let rules: Vec<(&Rule, Role)> = all
            .into_iter()
            .flatten()
            .filter(|(rule, _)| !rule.conditions.is_empty() && !rule.has_expired(ground.at))
            .filter(|(rule, _)| partition.is_none_or(|partition| is_of(rule, partition)))
            .collect();
        let mut space = Self { partition, rules, axes: Vec::new(), is_complete: true };
        let accounts = method.fields.iter().find(|field| field.kind == Kind::Accounts);
        if let Some((field, partition)) = accounts.zip(partition) {
            space.axes.push(space.accounts(field, partition, ground.population));
        }
        if ground.horizon == Horizon::Ever {
            space.axes.extend(space.time(ground.at));
        }
        for field in method.fields {
            if !matches!(field.kind, Kind::Accounts | Kind::Partition) {
                let (axis, is_complete) = space.field(field, method, ground, budget);
                space.axes.extend(axis);
                space.is_complete &= is_complete;
            }
        }
        space
    }

    /// Accounts that no permission names are left out: nothing admits them.
    fn accounts(
        &self,
        field: &'static Field,
        partition: Partition,
        population: &Population,
    ) -> Axis {
        let mut named: BTreeMap<usize, (bool, Vec<usize>)> = BTreeMap::new();
        for (index, (rule, role)) in self.rules.iter().enumerate() {
            for class in accounts_of(rule).into_iter().flat_map(|found| population.named_by(found))
            {
                let (is_allowed, rules) = named.entry(class).or_default();
                *is_allowed |= role.effect() == Effect::Allow;
                if rules.last() != Some(&index) {
                    rules.push(index);
                }
            }
        }
        let mut alike: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
        for (class, (is_allowed, rules)) in named {
            if is_allowed {
                alike.entry(rules).or_default().push(class);
            }
        }
        let classes = alike.into_values().filter_map(|classes| {
            let one = classes.first().and_then(|class| population.members(*class).first())?;
            let mut claims = in_partition(Some(partition));
            let account = Value::Text(one.as_str().to_owned());
            claims.insert(field.reads, account, Provenance::Proven);
            let survivors = self.survivors(field, &claims, None, Timestamp::from_unix_seconds(0));
            Some(Class { stands_for: StandsFor::Accounts { one: one.clone(), classes }, survivors })
        });
        Axis { of: Of::Accounts(field), classes: classes.collect() }
    }

    /// From `at`, and from the second after each end of a rule; nothing if no rule ends.
    fn time(&self, at: Timestamp) -> Option<Axis> {
        let mut starts: Vec<Timestamp> = self
            .rules
            .iter()
            .filter_map(|(rule, _)| rule.until)
            .map(|until| until.plus(TICK))
            .collect();
        if starts.is_empty() {
            return None;
        }
        starts.push(at);
        starts.sort_unstable();
        starts.dedup();
        let classes = starts.into_iter().map(|start| {
            let survivors = self.where_each(|rule, _| !rule.has_expired(start));
            Class { stands_for: StandsFor::Time(start), survivors }
        });
        Some(Axis { of: Of::Time, classes: classes.collect() })
    }

    /// The classes of a field; nothing if no rule asks for it.
    fn field(
        &self,
        field: &'static Field,
        method: &Declaration,
        ground: Ground<'_>,
        budget: &mut Budget,
    ) -> (Option<Axis>, bool) {
        let tests: Vec<&Test> = self
            .rules
            .iter()
            .filter_map(|(rule, _)| on(rule, field))
            .map(|condition| &condition.test)
            .filter(|test| !matches!(test, Test::Any))
            .collect();
        if tests.is_empty() {
            return (None, true);
        }
        let regions = ground.regions.iter().filter(|(_, of)| Some(**of) == self.partition);
        let regions: Vec<&str> = regions.map(|(region, _)| region.as_str()).collect();
        let found = samples::of(field, &tests, &regions, self.partition, budget);
        let mut classes: Vec<Class> = Vec::new();
        // The method's own example first: where it fares like others, it stands for them.
        let example = method.example.iter().find(|(name, _)| *name == field.reads);
        let example = example.filter(|(_, text)| !text.contains('{'));
        let example = example.map(|(_, text)| Sample::Value(Value::Text((*text).to_owned())));
        for sample in example.into_iter().chain(found.samples) {
            budget.pay(self.rules.len());
            let (mut claims, mut facts) = (in_partition(self.partition), InstanceFacts::new());
            put(field, &sample, ground.at, &mut claims, &mut facts);
            let survivors =
                self.survivors(field, &claims, Some(&Instance::Known(facts)), ground.at);
            if !classes.iter().any(|class| class.survivors == survivors) {
                classes.push(Class { stands_for: StandsFor::Value(sample), survivors });
            }
        }
        // First what most rules let through, so that an example is odd in no more than it must be;
        // the sort keeps what is unknown behind what is known.
        classes.sort_by_key(|class| {
            (!class.is_known(), std::cmp::Reverse(class.survivors.count_ones(..)))
        });
        (Some(Axis { of: Of::Field(field), classes }), found.is_complete)
    }

    /// The rules that a value leaves standing, by the decision's own word: permissions that surely
    /// hold, and prohibitions that do not surely fail.
    pub(super) fn survivors(
        &self,
        field: &Field,
        claims: &ClaimValues,
        instance: Option<&Instance>,
        now: Timestamp,
    ) -> FixedBitSet {
        let view = View { claims, instance, age_waived: false, now };
        self.where_each(|rule, role| {
            on(rule, field).is_none_or(|condition| {
                match (role.effect(), condition.holds(role.effect(), &view)) {
                    (Effect::Allow, truth) => truth == Truth::True,
                    (Effect::Deny, truth) => truth != Truth::False,
                }
            })
        })
    }

    fn where_each(&self, holds: impl Fn(&Rule, Role) -> bool) -> FixedBitSet {
        let mut rules = FixedBitSet::with_capacity(self.rules.len());
        for (index, (rule, role)) in self.rules.iter().enumerate() {
            rules.set(index, holds(rule, *role));
        }
        rules
    }

    /// The rules of these roles.
    pub(super) fn in_role(&self, wanted: Role) -> FixedBitSet {
        self.where_each(|_, role| role == wanted)
    }

    /// The rules that ask for something of this axis or a later one.
    pub(super) fn open_from(&self, first: usize) -> FixedBitSet {
        let axes = self.axes.get(first..).unwrap_or_default();
        self.where_each(|rule, _| {
            axes.iter().any(|axis| match axis.of {
                Of::Time => rule.until.is_some(),
                Of::Accounts(field) | Of::Field(field) => on(rule, field).is_some(),
            })
        })
    }
}

/// What a rule says of a field.
fn on<'p>(rule: &'p Rule, field: &Field) -> Option<&'p Condition> {
    rule.condition(field.name)
}

/// Claims of nobody yet, in a partition.
pub(super) fn in_partition(partition: Option<Partition>) -> ClaimValues {
    let mut claims = ClaimValues::default();
    if let Some(partition) = partition {
        let name = Value::Text(partition.as_str().to_owned());
        claims.insert("partition", name, Provenance::Proven);
    }
    claims
}

/// Puts a sample where rules read it.
pub(super) fn put(
    field: &Field,
    sample: &Sample,
    now: Timestamp,
    claims: &mut ClaimValues,
    facts: &mut InstanceFacts,
) {
    let value = match sample {
        Sample::Value(value) => Some(value.clone()),
        Sample::Ago(age) => Some(Value::Time(now.minus(*age))),
        Sample::Absent => None,
        Sample::Unknown => return,
    };
    match (field.source, value) {
        (Source::Instance, value) => drop(facts.insert(field.reads, value)),
        (Source::Claim, Some(value)) => claims.insert(field.reads, value, Provenance::Proven),
        (Source::Claim, None) => {}
    }
}
