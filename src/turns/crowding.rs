//! Who has the most, measured by weight: whom a full house asks to leave first.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use super::Weight;

/// Counts of many parties, with the heaviest at hand. A party with nothing is not remembered.
#[derive(Debug)]
pub struct Crowding<K> {
    loads: HashMap<K, u64>,
    order: BTreeSet<(u64, K)>,
}

impl<K> Default for Crowding<K> {
    fn default() -> Self {
        Self { loads: HashMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Copy + Ord + Hash> Crowding<K> {
    /// Says how many this party has now, and what it weighs.
    pub fn set(&mut self, party: K, count: usize, weight: Weight) {
        if let Some(load) = self.loads.remove(&party) {
            self.order.remove(&(load, party));
        }
        if count > 0 {
            let load = weight.stretch(u64::try_from(count).unwrap_or(u64::MAX));
            self.loads.insert(party, load);
            self.order.insert((load, party));
        }
    }

    /// Who has the most for its weight.
    pub fn heaviest(&self) -> Option<K> {
        self.heaviest_first().next()
    }

    /// How much that is: to compare with others.
    pub fn heaviest_load(&self) -> u64 {
        self.order.last().map_or(0, |(load, _)| *load)
    }

    /// All of them, the heaviest first.
    pub fn heaviest_first(&self) -> impl Iterator<Item = K> {
        self.order.iter().rev().map(|(_, party)| *party)
    }

    /// How many parties have anything.
    pub fn parties(&self) -> usize {
        self.loads.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_light_party_is_heavy_with_little() {
        let mut crowding = Crowding::default();
        crowding.set("fleet", 15, Weight::FULL);
        crowding.set("strangers", 1, Weight::LEAST);
        assert_eq!(
            crowding.heaviest(),
            Some("strangers"),
            "1 for a sixteenth is more than 15 for 1"
        );
        crowding.set("fleet", 17, Weight::FULL);
        assert_eq!(crowding.heaviest(), Some("fleet"));
        crowding.set("fleet", 0, Weight::FULL);
        crowding.set("strangers", 0, Weight::LEAST);
        assert_eq!((crowding.heaviest(), crowding.parties()), (None, 0));
    }
}
