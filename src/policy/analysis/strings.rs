//! Texts that patterns tell apart: for every set of patterns that some text matches, and no other
//! pattern with them, one such text.

use std::collections::{BTreeSet, HashSet, VecDeque};

use super::super::compare::Budget;
use super::super::glob::Glob;

/// More places to go on from than the patterns of any sensible field have; beyond, the answer is
/// incomplete. Each takes some bytes while the walk lasts.
const MAX_PLACES: usize = 500_000;

/// What came of looking.
pub(super) struct Found {
    /// The texts, the shortest first.
    pub(super) texts: Vec<String>,
    /// Whether there can be no other.
    pub(super) is_complete: bool,
}

/// Walks through all texts at once, character by character, in the order of their length. Two texts
/// after which every pattern has the same places to go on from are continued as one, and there are
/// finitely many of those.
pub(super) fn told_apart(globs: &[&Glob], budget: &mut Budget) -> Found {
    let patterns: BTreeSet<String> = globs.iter().map(ToString::to_string).collect();
    let separators = globs.first().map_or(&[][..], |glob| glob.separators());
    let patterns: Vec<Pattern> = patterns.iter().map(|text| Pattern::new(text)).collect();
    let alphabet = alphabet(&patterns, separators);

    let start: State = patterns.iter().enumerate().map(|(at, one)| (at, one.reach(0))).collect();
    let mut seen: HashSet<State> = HashSet::from([start.clone()]);
    let mut told: BTreeSet<Vec<usize>> = BTreeSet::new();
    let mut queue = VecDeque::from([(start, String::new())]);
    let mut texts = Vec::new();
    let mut places_seen = 0;
    while let Some((state, text)) = queue.pop_front() {
        // A name is never empty: the patterns are tried on what a machine may be called.
        if !text.is_empty() && told.insert(matched(&patterns, &state)) {
            texts.push(text.clone());
        }
        for letter in &alphabet {
            let is_separator = separators.contains(letter);
            let next: State = state
                .iter()
                .filter_map(|(at, places)| {
                    let places = patterns.get(*at)?.step(places, *letter, is_separator);
                    (!places.is_empty()).then_some((*at, places))
                })
                .collect();
            let places: usize = next.iter().map(|(_, places)| places.len()).sum();
            if places_seen > MAX_PLACES || !budget.pay(1 + state.len() + places) {
                return Found { texts, is_complete: false };
            }
            if seen.insert(next.clone()) {
                places_seen += 1 + places;
                queue.push_back((next, format!("{text}{letter}")));
            }
        }
    }
    Found { texts, is_complete: true }
}

/// For each pattern that may still match, the places in it that the text may have come to.
type State = Vec<(usize, BTreeSet<usize>)>;

fn matched(patterns: &[Pattern], state: &State) -> Vec<usize> {
    let is_at_end = |(at, places): &&(usize, BTreeSet<usize>)| {
        patterns.get(*at).is_some_and(|pattern| places.contains(&pattern.letters.len()))
    };
    state.iter().filter(is_at_end).map(|(at, _)| *at).collect()
}

/// Every letter of the patterns, every separator, and one letter that is neither and so stands for
/// all others: also for a star, which in a value is a letter like them.
fn alphabet(patterns: &[Pattern], separators: &[char]) -> BTreeSet<char> {
    let mut letters: BTreeSet<char> =
        patterns.iter().flat_map(|pattern| &pattern.letters).copied().collect();
    letters.remove(&'*');
    letters.extend(separators);
    let other = ('a'..='z')
        .rev()
        .chain('0'..='9')
        .chain('\u{100}'..=char::MAX)
        .find(|c| !letters.contains(c));
    letters.extend(other);
    letters
}

struct Pattern {
    letters: Vec<char>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        Self { letters: text.chars().collect() }
    }

    /// A place, and those that are reached from it by stars that stand for nothing.
    fn reach(&self, place: usize) -> BTreeSet<usize> {
        let mut places = BTreeSet::from([place]);
        let mut place = place;
        while self.letters.get(place) == Some(&'*') {
            place += 1;
            places.insert(place);
        }
        places
    }

    fn step(&self, places: &BTreeSet<usize>, letter: char, is_separator: bool) -> BTreeSet<usize> {
        let mut next = BTreeSet::new();
        for place in places {
            match self.letters.get(*place) {
                Some('*') if !is_separator => next.extend(self.reach(*place)),
                Some(wanted) if *wanted == letter && letter != '*' => {
                    next.extend(self.reach(place + 1));
                }
                Some(_) | None => {}
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn globs(patterns: &[&str]) -> Vec<Glob> {
        patterns.iter().map(|pattern| Glob::new(pattern, &['/']).unwrap()).collect()
    }

    fn matched_by(globs: &[Glob], text: &str) -> Vec<bool> {
        globs.iter().map(|glob| glob.matches(text)).collect()
    }

    #[test]
    fn one_text_for_every_way_to_match() {
        let globs = globs(&["web-*", "*-1", "web-1", "db"]);
        let found = told_apart(&globs.iter().collect::<Vec<_>>(), &mut Budget::new(1_000_000));
        let ways: BTreeSet<Vec<bool>> =
            found.texts.iter().map(|text| matched_by(&globs, text)).collect();
        let (no, yes) = (false, true);
        let expected = BTreeSet::from([
            vec![no, no, no, no],
            vec![yes, no, no, no],
            vec![no, yes, no, no],
            vec![yes, yes, no, no],
            vec![yes, yes, yes, no],
            vec![no, no, no, yes],
        ]);
        assert_eq!(ways, expected);
        assert!(found.is_complete);
        assert_eq!(found.texts.len(), 6, "each way once: {:?}", found.texts);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        // Whatever a text matches, some sample matches just that.
        #[test]
        fn no_way_to_match_is_forgotten(
            patterns in prop::collection::vec("[ab/*]{1,5}", 1..5), text in "[abc/]{1,8}",
        ) {
            let globs: Vec<Glob> =
                patterns.iter().filter_map(|pattern| Glob::new(pattern, &['/']).ok()).collect();
            prop_assume!(!globs.is_empty());
            let found = told_apart(&globs.iter().collect::<Vec<_>>(), &mut Budget::new(1_000_000));
            prop_assert!(found.is_complete);
            let way = matched_by(&globs, &text);
            prop_assert!(found.texts.iter().any(|sample| matched_by(&globs, sample) == way));
        }
    }
}
