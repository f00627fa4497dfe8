//! The accounts that policies name, in classes that no account set tells apart. Sets are long and
//! shared by many rules, so they are looked through once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::super::accounts::AccountSet;
use super::super::rule::{Accounts, Rule, Test};
use super::super::set::PolicySet;
use crate::domain::{AccountId, Partition};

/// The accounts of one or more policy sets.
#[derive(Debug, Default)]
pub struct Population {
    classes: Vec<Vec<AccountId>>,
    class_of: HashMap<(Partition, AccountId), usize>,
    /// By the address of the set, which the policies keep alive.
    of_set: HashMap<usize, Vec<usize>>,
}

impl Population {
    /// The accounts that the rules of these sets name.
    pub fn of(sets: &[&PolicySet]) -> Self {
        let rules = sets
            .iter()
            .flat_map(|set| set.policies())
            .flat_map(|policy| policy.allow().iter().chain(policy.deny()));
        let mut named: BTreeMap<usize, &Arc<AccountSet>> = BTreeMap::new();
        let mut literals = BTreeSet::new();
        for accounts in rules.filter_map(accounts_of) {
            named.extend(accounts.sets.iter().map(|set| (address(set), set)));
            literals.extend(accounts.literals.iter().map(|one| (accounts.partition, one)));
        }
        let mut signatures: BTreeMap<(Partition, &AccountId), Vec<usize>> = BTreeMap::new();
        for (at, set) in &named {
            for account in set.accounts() {
                signatures.entry((set.partition, account)).or_default().push(*at);
            }
        }
        // An account that some rule names by its number is like no other.
        let mut population = Self::default();
        let mut classes: HashMap<(Partition, Vec<usize>), usize> = HashMap::new();
        for (partition, account) in &literals {
            let sets = signatures.remove(&(*partition, *account)).unwrap_or_default();
            let class = population.new_class(&sets);
            population.put(*partition, account, class);
        }
        for ((partition, account), sets) in signatures {
            let class = *classes
                .entry((partition, sets))
                .or_insert_with_key(|(_, sets)| population.new_class(sets));
            population.put(partition, account, class);
        }
        population
    }

    fn new_class(&mut self, sets: &[usize]) -> usize {
        let class = self.classes.len();
        self.classes.push(Vec::new());
        for set in sets {
            self.of_set.entry(*set).or_default().push(class);
        }
        class
    }

    fn put(&mut self, partition: Partition, account: &AccountId, class: usize) {
        self.class_of.insert((partition, account.clone()), class);
        if let Some(members) = self.classes.get_mut(class) {
            members.push(account.clone());
        }
    }

    /// The accounts of a class: none is in a set that another is not in.
    pub(super) fn members(&self, class: usize) -> &[AccountId] {
        self.classes.get(class).map_or(&[], Vec::as_slice)
    }

    /// The classes that a condition names.
    pub(super) fn named_by<'a>(
        &'a self,
        accounts: &'a Accounts,
    ) -> impl Iterator<Item = usize> + 'a {
        let sets = accounts.sets.iter().filter_map(|set| self.of_set.get(&address(set))).flatten();
        let literals = accounts
            .literals
            .iter()
            .filter_map(|account| self.class_of.get(&(accounts.partition, account.clone())));
        sets.chain(literals).copied()
    }
}

/// What a rule says of accounts.
pub(super) fn accounts_of(rule: &Rule) -> Option<&Accounts> {
    rule.conditions.iter().find_map(|condition| {
        if let Test::Accounts(accounts) = &condition.test { Some(accounts) } else { None }
    })
}

fn address(set: &Arc<AccountSet>) -> usize {
    Arc::as_ptr(set).addr()
}
