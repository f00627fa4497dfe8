//! Places for joins that wait for somebody else: the store, STS, EC2, the CA. There are so many and
//! no more, and one account behind a service that answers slowly must not have them all.
//!
//! Dynamic thresholds (Choudhury and Hahne, 1998): an account may have at most four times as many as
//! are free. One alone comes to four fifths of all, and with every account that comes the others'
//! limit falls; so whoever comes new finds a place, without a number set aside for anybody. It asks
//! for no list of accounts: whoever asks for a place has shown a document of an account that a
//! policy allows, or a token.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::overload::{Overloaded, Reason};
use crate::clock::Stopwatch;

/// Joins and renewals at a time that wait for others.
const PLACES: usize = 1024;
/// An account may have this many times what is free.
const TIMES_FREE: usize = 4;

/// The places of a server.
pub struct Places {
    all: usize,
    taken: Mutex<Taken>,
    /// How long places were held lately, in microseconds.
    held_for: AtomicU64,
    refused: AtomicU64,
}

#[derive(Default)]
struct Taken {
    in_all: usize,
    by_account: HashMap<String, usize>,
}

impl Default for Places {
    fn default() -> Self {
        Self::new(PLACES)
    }
}

impl Places {
    fn new(all: usize) -> Self {
        Self {
            all,
            taken: Mutex::default(),
            held_for: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// A place for this account, until it is dropped.
    pub fn take(self: &Arc<Self>, account: String) -> Result<Place, Overloaded> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.all.saturating_sub(taken.in_all);
        let own = taken.by_account.get(&account).copied().unwrap_or_default();
        if own >= free.saturating_mul(TIMES_FREE) {
            drop(taken);
            // By then about as many will have left as there are places.
            let held_for = Duration::from_micros(self.held_for.load(Ordering::Relaxed));
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Overloaded::new(Reason::Places, held_for));
        }
        taken.in_all += 1;
        *taken.by_account.entry(account.clone()).or_default() += 1;
        Ok(Place { places: Arc::clone(self), account, watch: Stopwatch::start() })
    }

    /// How many were sent away since the start.
    pub fn sent_away(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).in_all
    }
}

/// A place of an account.
pub struct Place {
    places: Arc<Places>,
    account: String,
    watch: Stopwatch,
}

impl Drop for Place {
    fn drop(&mut self) {
        let held = u64::try_from(self.watch.elapsed().as_micros()).unwrap_or(u64::MAX);
        let before = self.places.held_for.load(Ordering::Relaxed);
        // Races lose a sample of a mean.
        self.places.held_for.store(before - before / 8 + held / 8, Ordering::Relaxed);
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.in_all = taken.in_all.saturating_sub(1);
        if let Some(own) = taken.by_account.get_mut(&self.account) {
            *own -= 1;
            if *own == 0 {
                taken.by_account.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(places: &Arc<Places>, account: &str) -> Vec<Place> {
        std::iter::from_fn(|| places.take(account.to_owned()).ok()).collect()
    }

    #[test]
    fn no_account_takes_all_places_and_whoever_comes_new_finds_some() {
        let places = Arc::new(Places::new(1000));
        let crowd = fill(&places, "crowd");
        assert_eq!(crowd.len(), 800, "one alone has four fifths");
        let mut others = Vec::new();
        for (account, least) in [("second", 150), ("third", 30), ("fourth", 6), ("fifth", 1)] {
            let found = fill(&places, account);
            assert!(found.len() >= least, "{account}: {}", found.len());
            others.push(found);
        }
        drop(crowd);
        let again = fill(&places, "second");
        assert!(again.len() > 300, "what was given back is for all: {}", again.len());
        drop((again, others));
        assert_eq!(places.taken(), 0);
        assert!(places.taken.lock().unwrap().by_account.is_empty(), "nobody is remembered");
    }
}
