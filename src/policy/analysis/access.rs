//! Who can join: for each policy and account the rules that admit some node of it, once all
//! prohibitions are taken off.

use std::collections::BTreeMap;

use super::super::compare::Budget;
use super::super::finding::Place;
use super::super::join_policy::JoinPolicy;
use super::super::reason::reason;
use super::super::rule::Rule;
use super::super::set::PolicySet;
use super::population::accounts_of;
use super::search::{Denials, Question, Searcher, Start};
use super::space::{Ground, Rules, Space, StandsFor, spaces};
use super::witness::Witness;
use crate::domain::{AccountId, Partition, PolicyName};

/// How much is looked at for one policy: one that takes more hides none of the others.
const STEPS: u32 = 5_000_000;

/// What is asked.
#[derive(Debug, Clone, Copy, Default)]
pub struct AccessQuery<'q> {
    /// Only this account, in any partition.
    pub account: Option<&'q AccountId>,
    /// Only this policy.
    pub policy: Option<&'q PolicyName>,
}

/// Accounts that can join by a policy, all in the same way.
#[derive(Debug)]
pub struct Access<'p> {
    /// By which policy.
    pub policy: &'p JoinPolicy,
    /// In which partition; none for methods that know no accounts.
    pub partition: Option<Partition>,
    /// Which accounts; none for methods that know no accounts.
    pub accounts: Vec<AccountId>,
    /// The rules that admit, in the order of the policy.
    pub rules: Vec<AdmittingRule<'p>>,
}

/// A rule that admits some node.
#[derive(Debug)]
pub struct AdmittingRule<'p> {
    /// The rule.
    pub rule: &'p Rule,
    /// Rules that refuse some of the nodes that it would admit.
    pub except: Vec<&'p Rule>,
    /// One that it admits.
    pub witness: Witness,
}

/// Everybody who can join.
#[derive(Debug)]
pub struct Accesses<'p> {
    /// In the order of policies and partitions.
    pub rows: Vec<Access<'p>>,
    /// The policies that could not be looked at as a whole: more may be able to join by them.
    pub incomplete: Vec<PolicyName>,
}

/// Finds who can join at the time of `ground`.
pub fn access<'p>(set: &'p PolicySet, query: AccessQuery<'_>, ground: Ground<'_>) -> Accesses<'p> {
    let mut found = Accesses { rows: Vec::new(), incomplete: Vec::new() };
    let policies = set.policies().filter(|one| query.policy.is_none_or(|name| one.name() == name));
    for policy in policies {
        let mut budget = Budget::new(STEPS);
        let mut is_complete = true;
        let rules = Rules::of(policy);
        for space in spaces(&rules, &Rules::default(), policy.method, ground, &mut budget) {
            is_complete &= space.is_complete;
            rows(policy, &space, query, ground, &mut budget, &mut found.rows);
        }
        if !is_complete || budget.is_spent() {
            found.incomplete.push(policy.name().clone());
        }
    }
    found
}

fn rows<'p>(
    policy: &'p JoinPolicy,
    space: &Space<'p>,
    query: AccessQuery<'_>,
    ground: Ground<'_>,
    budget: &mut Budget,
    rows: &mut Vec<Access<'p>>,
) {
    let searcher = Searcher::new(space);
    let mut alike: BTreeMap<Vec<(usize, Vec<usize>)>, Access<'p>> = BTreeMap::new();
    for (class, accounts) in space.account_classes(ground.population) {
        let accounts: Vec<AccountId> = accounts
            .into_iter()
            .filter(|account| query.account.is_none_or(|asked| asked == account))
            .collect();
        // An account that is asked about is none of a method that knows no accounts.
        if accounts.is_empty() && (class.is_some() || query.account.is_some()) {
            continue;
        }
        let mut rules = Vec::new();
        for rule in searcher.left_rules() {
            let start = Start { rule: Some(rule), class, ..Start::default() };
            let Some(path) = searcher.first(Question::Beyond, start, budget) else { continue };
            let mut witness = Witness::of(space, &path, policy, policy.reads_facts(), ground);
            witness.put_account(accounts.first());
            rules.push((rule, space.meeting(rule, class), witness));
        }
        if rules.is_empty() {
            continue;
        }
        let key = rules.iter().map(|(rule, except, _)| (*rule, except.clone())).collect();
        let row = alike.entry(key).or_insert_with(|| Access {
            policy,
            partition: space.partition,
            accounts: Vec::new(),
            rules: rules
                .into_iter()
                .filter_map(|(rule, except, witness)| {
                    let except = except.iter().filter_map(|rule| space.rule(*rule)).collect();
                    Some(AdmittingRule { rule: space.rule(rule)?, except, witness })
                })
                .collect(),
        });
        row.accounts.extend(accounts);
    }
    for mut row in alike.into_values() {
        row.accounts.sort_unstable();
        rows.push(row);
    }
}

impl<'p> Rules<'p> {
    /// All rules of a policy.
    pub(super) fn of(policy: &'p JoinPolicy) -> Self {
        Self { allow: policy.allow().iter().collect(), deny: policy.deny().collect() }
    }
}

impl<'p> Space<'p> {
    /// The rule of this number.
    pub(super) fn rule(&self, index: usize) -> Option<&'p Rule> {
        self.rules.get(index).map(|(rule, _)| *rule)
    }

    /// The classes of accounts and who is in them; one without a class where there are no accounts.
    pub(super) fn account_classes(
        &self,
        population: &super::Population,
    ) -> Vec<(Option<usize>, Vec<AccountId>)> {
        if self.partition.is_none() {
            return vec![(None, Vec::new())];
        }
        let accounts = self.axes.first().map_or(&[][..], |axis| &axis.classes);
        let members = |class: &StandsFor| match class {
            StandsFor::Accounts { classes, .. } => {
                classes.iter().flat_map(|class| population.members(*class)).cloned().collect()
            }
            StandsFor::Time(_) | StandsFor::Value(_) => Vec::new(),
        };
        accounts
            .iter()
            .enumerate()
            .map(|(index, class)| (Some(index), members(&class.stands_for)))
            .collect()
    }

    /// The prohibitions of the left that refuse some known node of a class that this rule matches.
    fn meeting(&self, rule: usize, class: Option<usize>) -> Vec<usize> {
        let denied = self.in_role(super::space::Role::LeftDeny);
        let meets = |deny: &usize| {
            self.axes.iter().enumerate().all(|(depth, axis)| {
                axis.classes.iter().enumerate().any(|(index, one)| {
                    (depth > 0 || class.is_none_or(|class| class == index))
                        && one.is_known()
                        && one.survivors.contains(rule)
                        && one.survivors.contains(*deny)
                })
            })
        };
        denied.ones().filter(meets).collect()
    }
}

/// Why nobody that is asked about can join by a policy that seems to be for him.
#[derive(Debug)]
pub struct Refusal {
    /// The policy.
    pub policy: PolicyName,
    /// The rule that refuses, or that has ended.
    pub rule: String,
    /// Where it stands.
    pub place: Place,
    /// In a sentence.
    pub message: String,
}

/// Finds what keeps those out whom `access` does not list: prohibitions, and permissions that ended.
/// A policy whose permissions never name them is not in the answer.
pub fn refusals(set: &PolicySet, query: AccessQuery<'_>, ground: Ground<'_>) -> Vec<Refusal> {
    let mut found = Vec::new();
    let policies = set.policies().filter(|one| query.policy.is_none_or(|name| one.name() == name));
    for policy in policies {
        let ended = policy.allow().iter().filter(|rule| rule.has_expired(ground.at));
        let ended = ended.filter(|rule| {
            accounts_of(rule)
                .is_none_or(|named| query.account.is_none_or(|one| named.contains(one)))
        });
        found.extend(ended.map(|rule| Refusal {
            policy: policy.name().clone(),
            rule: rule.name.clone(),
            place: rule.place.clone(),
            message: "the rule has ended".to_owned(),
        }));
        found.extend(denied(policy, query, ground, &mut Budget::new(STEPS)));
    }
    found
}

/// The prohibition that refuses all whom some permission would admit: one that does it alone, if there
/// is one, or else one of those that do it together.
fn denied(
    policy: &JoinPolicy,
    query: AccessQuery<'_>,
    ground: Ground<'_>,
    budget: &mut Budget,
) -> Option<Refusal> {
    let spaces = spaces(&Rules::of(policy), &Rules::default(), policy.method, ground, budget);
    spaces.iter().find_map(|space| {
        let searcher = Searcher::new(space);
        let mut admits = |class, deny| {
            let start = Start { class, deny, ..Start::default() };
            searcher.first(Question::Beyond, start, budget)
        };
        let classes = space.account_classes(ground.population).into_iter();
        let mut asked = classes
            .filter(|(_, accounts)| query.account.is_none_or(|account| accounts.contains(account)));
        asked.find_map(|(class, _)| {
            let path = admits(class, Denials::None)?;
            let alone =
                searcher.left_denials().find(|rule| admits(class, Denials::One(*rule)).is_none());
            if let Some(rule) = alone.and_then(|rule| space.rule(rule)) {
                return Some(Refusal {
                    policy: policy.name().clone(),
                    rule: rule.name.clone(),
                    place: rule.place.clone(),
                    message: format!("the deny rule `{}` refuses them", rule.name),
                });
            }
            let mut node = Witness::of(space, &path, policy, policy.reads_facts(), ground);
            // The class may hold others too; the answer is about the one.
            node.put_account(query.account);
            let why = reason(policy, &node.case());
            let (policy, rule) = (policy.name().clone(), why.rule.unwrap_or_default());
            Some(Refusal { policy, rule, place: why.place, message: why.message })
        })
    })
}
