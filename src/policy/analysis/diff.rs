//! What a change of policies means: who is newly admitted, who no longer is, on what terms; in
//! meaning, whatever the texts look like.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::super::finding::Place;
use super::super::join_policy::JoinPolicy;
use super::super::reason::reason;
use super::super::rule::Rule;
use super::super::set::{PolicySet, Vocabulary};
use super::population::Population;
use super::search::{Budget, Question, Searcher, Start};
use super::space::{Ground, Horizon, Rules, Space, spaces};
use super::terms;
use super::witness::Witness;
use super::{floors, unnamed};
use crate::domain::{AccountId, Partition, PolicyName, Timestamp};

/// How much is looked at for all policies together.
const STEPS: u32 = 20_000_000;
/// How many ways of getting in are looked at for one rule and one kind of account.
const WAYS: usize = 64;

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
    /// Whether all was looked at. If not, there may be more.
    pub is_complete: bool,
}

impl Comparison {
    /// Whether the two sets surely mean the same.
    pub fn is_same(&self) -> bool {
        self.changes.is_empty() && self.is_complete
    }

    /// Whether somebody may get in, or get more, who did not: also if that is not known.
    pub fn may_open_access(&self) -> bool {
        let opens = |change: &Change| match change.kind {
            ChangeKind::NewlyAdmitted | ChangeKind::Weaker => true,
            // Whoever names no policy may name one.
            ChangeKind::Changed => change.what != unnamed::WHAT,
            ChangeKind::Stronger | ChangeKind::NoLongerAdmitted => false,
        };
        !self.is_complete || self.changes.iter().any(opens)
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
    let mut difference =
        Difference { ground, budget: Budget::new(STEPS), changes: Vec::new(), is_complete: true };
    let names: BTreeSet<&PolicyName> =
        old.policies().chain(new.policies()).map(JoinPolicy::name).collect();
    for name in names {
        let of = |set: &'_ PolicySet| set.policy(name.as_str()).map(JoinPolicy::method);
        let (before, after) = (old.policy(name.as_str()), new.policy(name.as_str()));
        if of(old) == of(new) {
            difference.policies(before, after);
        } else {
            // The method stands in every identity, so a policy of another method is another policy.
            difference.policies(before, None);
            difference.policies(None, after);
        }
    }
    difference.changes.extend(unnamed::changes(old, new));
    difference.changes.extend(floors::changes(old, new, vocabulary, at));
    difference.changes.extend(terms::publications(old, new));
    difference.changes.sort_by_key(|change| change.kind);
    let is_complete = difference.is_complete && !difference.budget.is_spent();
    Comparison { changes: difference.changes, is_complete }
}

struct Difference<'g> {
    ground: Ground<'g>,
    budget: Budget,
    changes: Vec<Change>,
    is_complete: bool,
}

impl Difference<'_> {
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
                Some(term.shown_by(node.as_ref()?.clone(), old, new))
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
        let mut changes: BTreeMap<(Spot, Option<Spot>), Change> = BTreeMap::new();
        for space in self.spaces(&Rules::of(left), &right_rules, left) {
            self.is_complete &= space.is_complete;
            let searcher = Searcher::new(&space);
            let any = searcher.first(Question::Beyond, Start::default(), &mut self.budget);
            if any.is_none() {
                continue;
            }
            for rule in searcher.left_rules() {
                for (class, accounts) in space.account_classes(self.ground.population) {
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
        let mut seen = 0;
        let ground = self.ground;
        searcher.search(Question::Beyond, start, &mut self.budget, &mut |path| {
            let witness = Witness::of(space, path, left, is_looked_at, ground);
            let why_not = right.map(|right| reason(right, &witness.case()));
            let by = Spot::of(rule);
            let not_by = why_not
                .as_ref()
                .map(|why| Spot { rule: why.rule.clone(), place: why.place.clone() });
            ways.entry((by.clone(), not_by.clone())).or_insert_with(|| {
                let why_not = why_not.map(|why| why.message);
                change(kind, left, rule, why_not, by, not_by, witness, ground.at)
            });
            seen += 1;
            if seen < WAYS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
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
