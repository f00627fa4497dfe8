//! What a change of policies means: who is newly admitted, who no longer is, on what terms; in
//! meaning, whatever the texts look like.

use std::collections::{BTreeMap, BTreeSet};

use super::super::compare::{Budget, covers};
use super::super::finding::Place;
use super::super::join_policy::JoinPolicy;
use super::super::reason::reason;
use super::super::rule::Rule;
use super::super::set::{PolicySet, Vocabulary};
use super::population::Population;
use super::search::{Cause, Question, Searcher, Start};
use super::space::{Ground, Horizon, Rules, Space, spaces};
use super::terms;
use super::witness::Witness;
use super::{floors, unnamed};
use crate::domain::{AccountId, Partition, PolicyName, Timestamp};

/// How much is looked at for one policy: one that takes more hides none of the others.
const STEPS: u32 = 5_000_000;

/// Which way a change goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Nodes are admitted that were refused.
    NewlyAdmitted,
    /// Something is asked less strictly, or more is given.
    Weaker,
    /// Something is different, and neither way is stricter.
    Changed,
    /// Something is asked more strictly, or less is given.
    Stronger,
    /// Nodes are refused that were admitted.
    NoLongerAdmitted,
}

impl ChangeKind {
    /// All, what may open access first.
    pub const ALL: [Self; 5] =
        [Self::NewlyAdmitted, Self::Weaker, Self::Changed, Self::Stronger, Self::NoLongerAdmitted];

    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewlyAdmitted => "newly_admitted",
            Self::Weaker => "weaker",
            Self::Changed => "changed",
            Self::Stronger => "stronger",
            Self::NoLongerAdmitted => "no_longer_admitted",
        }
    }
}

/// One change in meaning.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which way it goes.
    pub kind: ChangeKind,
    /// Of what: `accounts`, `rules`, or the name of a term such as `ttl`.
    pub what: &'static str,
    /// In which policy; none if it is about all.
    pub policy: Option<PolicyName>,
    /// In a sentence.
    pub message: String,
    /// About which accounts; none if it is about all of the policy's.
    pub accounts: Vec<(Partition, AccountId)>,
    /// What makes it so in the old set.
    pub old: Option<Spot>,
    /// What makes it so in the new set.
    pub new: Option<Spot>,
    /// What shows that it is so.
    pub witness: Option<Proof>,
}

impl Change {
    /// Whether somebody may get in by it, or get more. Whoever names no policy may name one.
    pub fn opens_access(&self) -> bool {
        match self.kind {
            ChangeKind::NewlyAdmitted | ChangeKind::Weaker => true,
            ChangeKind::Changed => self.what != unnamed::WHAT,
            ChangeKind::Stronger | ChangeKind::NoLongerAdmitted => false,
        }
    }
}

/// What shows that a change is one.
#[derive(Debug, Clone)]
pub enum Proof {
    /// A node that fares otherwise in the two sets.
    Node(Box<Witness>),
    /// A policy file that would load beside one of the two sets and not beside the other.
    File(String),
}

/// A place in one of the two sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The rule, if it is one.
    pub rule: Option<String>,
    /// Where it stands.
    pub place: Place,
}

impl Spot {
    pub(super) fn at(place: &Place) -> Self {
        Self { rule: None, place: place.clone() }
    }

    fn of(rule: &Rule) -> Self {
        Self { rule: Some(rule.name.clone()), place: rule.place.clone() }
    }
}

/// All changes in meaning.
#[derive(Debug)]
pub struct Comparison {
    /// What newly admits first.
    pub changes: Vec<Change>,
    /// The policies that could not be compared as a whole: there may be more changes in them.
    pub incomplete: Vec<PolicyName>,
}

impl Comparison {
    /// Whether the two sets surely mean the same.
    pub fn is_same(&self) -> bool {
        self.changes.is_empty() && self.incomplete.is_empty()
    }

    /// Whether somebody may get in, or get more, who did not: also if that is not known.
    pub fn may_open_access(&self) -> bool {
        !self.incomplete.is_empty() || self.changes.iter().any(Change::opens_access)
    }
}

/// Compares two sets from `at` on.
pub fn compare(
    old: &PolicySet,
    new: &PolicySet,
    vocabulary: &Vocabulary,
    at: Timestamp,
) -> Comparison {
    let population = Population::of(&[old, new]);
    let ground = Ground {
        population: &population,
        regions: &vocabulary.regions,
        at,
        horizon: Horizon::Ever,
    };
    let (mut changes, mut incomplete) = (Vec::new(), Vec::new());
    let names: BTreeSet<&PolicyName> =
        old.policies().chain(new.policies()).map(JoinPolicy::name).collect();
    for name in names {
        let mut difference = Difference::new(ground);
        let (before, after) = (old.policy(name.as_str()), new.policy(name.as_str()));
        if before.map(JoinPolicy::method) == after.map(JoinPolicy::method) {
            difference.policies(before, after);
        } else {
            // The method stands in every identity, so a policy of another method is another policy.
            difference.policies(before, None);
            difference.policies(None, after);
        }
        if difference.budget.is_spent() || !difference.is_complete {
            incomplete.push(name.clone());
        }
        changes.extend(difference.changes);
    }
    changes.extend(unnamed::changes(old, new));
    changes.extend(floors::changes(old, new, vocabulary, at));
    changes.extend(terms::publications(old, new));
    changes.sort_by_key(|change| change.kind);
    Comparison { changes, incomplete }
}

/// What is different between two policies of one name.
struct Difference<'g> {
    ground: Ground<'g>,
    budget: Budget,
    changes: Vec<Change>,
    is_complete: bool,
}

impl<'g> Difference<'g> {
    fn new(ground: Ground<'g>) -> Self {
        Self { ground, budget: Budget::new(STEPS), changes: Vec::new(), is_complete: true }
    }

    fn policies(&mut self, old: Option<&JoinPolicy>, new: Option<&JoinPolicy>) {
        for (kind, left, right) in
            [(ChangeKind::NewlyAdmitted, new, old), (ChangeKind::NoLongerAdmitted, old, new)]
        {
            if let Some(left) = left {
                self.admissions(kind, left, right);
            }
        }
        if let (Some(old), Some(new)) = (old, new) {
            let changed = terms::changes(old, new);
            if changed.is_empty() {
                return;
            }
            let (by_new, by_old) = (self.anybody(new, old), self.anybody(old, new));
            // The terms of a policy that admits nobody are no matter.
            self.changes.extend(changed.into_iter().filter_map(|term| {
                let node = if term.is_shown_by_new() { &by_new } else { &by_old };
                Some(term.shown_by(node.as_ref()?.clone()))
            }));
        }
    }

    fn spaces<'p>(
        &mut self,
        left: &Rules<'p>,
        right: &Rules<'p>,
        policy: &JoinPolicy,
    ) -> Vec<Space<'p>> {
        spaces(left, right, policy.method, self.ground, &mut self.budget)
    }

    /// What `left` admits and `right` does not, by rule and by what keeps it out of `right`.
    fn admissions(&mut self, kind: ChangeKind, left: &JoinPolicy, right: Option<&JoinPolicy>) {
        let right_rules = right.map(Rules::of).unwrap_or_default();
        let left_rules = unlike(Rules::of(left), &right_rules);
        if left_rules.allow.is_empty() {
            return;
        }
        let mut changes: BTreeMap<(Spot, Option<Spot>), Change> = BTreeMap::new();
        for space in self.spaces(&left_rules, &right_rules, left) {
            self.is_complete &= space.is_complete;
            let searcher = Searcher::new(&space);
            let any = searcher.first(Question::Beyond, Start::default(), &mut self.budget);
            if any.is_none() {
                continue;
            }
            let classes = space.account_classes(self.ground.population);
            for rule in searcher.left_rules() {
                for (class, accounts) in &classes {
                    let class = *class;
                    let start = Start { rule: Some(rule), class, ..Start::default() };
                    for (key, change) in self.ways(kind, left, right, &searcher, &space, start) {
                        let change = changes.entry(key).or_insert(change);
                        let accounts = accounts.iter().cloned();
                        change.accounts.extend(space.partition.into_iter().flat_map(|partition| {
                            accounts.clone().map(move |account| (partition, account))
                        }));
                    }
                }
            }
        }
        for mut change in changes.into_values() {
            change.accounts.sort_unstable();
            change.accounts.dedup();
            self.changes.push(change);
        }
    }

    /// The different ways in which nodes of one class of accounts get past one rule.
    fn ways(
        &mut self,
        kind: ChangeKind,
        left: &JoinPolicy,
        right: Option<&JoinPolicy>,
        searcher: &Searcher<'_, '_>,
        space: &Space<'_>,
        start: Start,
    ) -> BTreeMap<(Spot, Option<Spot>), Change> {
        let mut ways = BTreeMap::new();
        let Some(rule) = start.rule.and_then(|rule| space.rule(rule)) else { return ways };
        let is_looked_at = left.reads_facts() || right.is_some_and(JoinPolicy::reads_facts);
        let ground = self.ground;
        for cause in causes(searcher, space, &rule.name, right.is_some()) {
            let mut first = |cause| {
                let start = Start { cause, ..start };
                searcher.first(Question::Beyond, start, &mut self.budget)
            };
            let path = match (first(cause), cause) {
                // Some prohibitions never refuse alone.
                (None, Cause::Deny { rule, .. }) => first(Cause::Deny { rule, alone: false }),
                (path, _) => path,
            };
            let Some(path) = path else { continue };
            let witness = Witness::of(space, &path, left, is_looked_at, ground);
            let why_not = right.map(|right| reason(right, &witness.case()));
            let by = Spot::of(rule);
            let not_by = why_not
                .as_ref()
                .map(|why| Spot { rule: why.rule.clone(), place: why.place.clone() });
            ways.entry((by.clone(), not_by.clone())).or_insert_with(|| {
                let why_not = why_not.map(|why| why.message);
                change(kind, left, rule, why_not, by, not_by, witness, ground.at)
            });
        }
        ways
    }

    /// A node that `first` admits, and `other` too if there is one.
    fn anybody(&mut self, first: &JoinPolicy, other: &JoinPolicy) -> Option<Witness> {
        let (left, right) = (Rules::of(first), Rules::of(other));
        let is_looked_at = first.reads_facts() || other.reads_facts();
        for question in [Question::Both, Question::Beyond] {
            for space in self.spaces(&left, &right, first) {
                let searcher = Searcher::new(&space);
                let path = searcher.first(question, Start::default(), &mut self.budget);
                if let Some(path) = path {
                    return Some(Witness::of(&space, &path, first, is_looked_at, self.ground));
                }
            }
        }
        None
    }
}

/// The permissions of the left that may admit more than the right does: all but those that the right
/// has too, where it also has no other prohibitions. The rest need not be looked at.
fn unlike<'p>(left: Rules<'p>, right: &Rules<'p>) -> Rules<'p> {
    let mut budget = Budget::default();
    let mut is_in = |rule: &Rule, others: &[&Rule]| {
        others
            .iter()
            .any(|other| covers(other, rule, &mut budget) && covers(rule, other, &mut budget))
    };
    if !right.deny.iter().all(|rule| is_in(rule, &left.deny)) {
        return left;
    }
    let Rules { allow, deny } = left;
    let allow = allow.into_iter().filter(|rule| !is_in(rule, &right.allow)).collect();
    Rules { allow, deny }
}

/// For what the right may refuse nodes that one rule of the left admits: each is a change to be told.
/// One thing that the rule of the same name asks comes first, for it is what most changes are.
fn causes(
    searcher: &Searcher<'_, '_>,
    space: &Space<'_>,
    name: &str,
    has_right: bool,
) -> Vec<Cause> {
    if !has_right {
        return vec![Cause::Any];
    }
    let but_for = searcher
        .right_rules(name)
        .flat_map(|rule| (0..space.axes.len()).map(move |axis| Cause::ButFor { rule, axis }));
    let denied = searcher.right_denials().map(|rule| Cause::Deny { rule, alone: true });
    but_for.chain(denied).chain([Cause::NoPermission]).collect()
}

#[expect(clippy::too_many_arguments, reason = "the parts of one sentence, said once")]
fn change(
    kind: ChangeKind,
    policy: &JoinPolicy,
    rule: &Rule,
    why_not: Option<String>,
    by: Spot,
    not_by: Option<Spot>,
    witness: Witness,
    at: Timestamp,
) -> Change {
    let from = if witness.at > at { format!(" from {} on", witness.at) } else { String::new() };
    let why_not = why_not.unwrap_or_else(|| "there is no such policy".to_owned());
    let is_new = kind == ChangeKind::NewlyAdmitted;
    let (verb, other) = if is_new { ("admits", "before") } else { ("admitted", "now") };
    let message =
        format!("`{}` of `{}` {verb} them{from}; {other}: {why_not}", rule.name, policy.name());
    let (old, new) = if is_new { (not_by, Some(by)) } else { (Some(by), not_by) };
    let what = if old.is_none() || new.is_none() { "policy" } else { "rules" };
    let policy = Some(policy.name().clone());
    let witness = Some(Proof::Node(Box::new(witness)));
    Change { kind, what, policy, message, accounts: Vec::new(), old, new, witness }
}
