//! Places for joins that wait for somebody else: the store, STS, EC2, the CA. There are so many and
//! no more, and one account behind a service that answers slowly must not have them all.
//!
//! Dynamic thresholds (Choudhury and Hahne, 1998): an account may have at most four times as many as
//! are free. One alone comes to four fifths of all, and with every account that comes the others'
//! limit falls; so whoever comes new finds a place, without a number set aside for anybody. Who finds
//! none waits for one a little. It asks for no list of accounts: whoever asks for a place has shown a
//! document of an account that a policy allows, or a token.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::overload::{Overloaded, Reason};
use crate::clock::Stopwatch;

/// Joins and renewals at a time that wait for others.
const PLACES: usize = 384;
/// An account may have this many times what is free.
const TIMES_FREE: usize = 4;
/// How long a join waits for a place. Those of an account whose service answers slowly hold seats
/// meanwhile, so it is short.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// The places of a server.
pub struct Places {
    all: usize,
    table: Mutex<Table>,
    /// How long places were held lately, in microseconds.
    held_for: AtomicU64,
    refused: AtomicU64,
}

#[derive(Default)]
struct Table {
    taken: usize,
    by_account: HashMap<String, usize>,
    /// Who waits, in the order of arrival: as many as have seats, and no more.
    line: VecDeque<(String, oneshot::Sender<Place>)>,
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
            table: Mutex::default(),
            held_for: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Waits for a place for this account, which it has until it is dropped.
    pub async fn place(self: &Arc<Self>, account: String) -> Result<Place, Overloaded> {
        let (ticket, called) = oneshot::channel();
        self.table().line.push_back((account, ticket));
        self.call();
        if let Ok(Ok(place)) = timeout(WAIT_MAX, called).await {
            return Ok(place);
        }
        // By then about as many will have left as there are places.
        let held_for = Duration::from_micros(self.held_for.load(Ordering::Relaxed));
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(Overloaded::new(Reason::Places, held_for))
    }

    /// How many were sent away since the start.
    pub fn sent_away(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.table().taken
    }

    /// Calls those for whom there is a place. The lock is not held meanwhile: a place that nobody
    /// takes any more gives itself back.
    fn call(self: &Arc<Self>) {
        while let Some((account, ticket)) = self.next() {
            let place = Place { places: Arc::clone(self), account, watch: Stopwatch::start() };
            drop(ticket.send(place));
        }
    }

    fn next(&self) -> Option<(String, oneshot::Sender<Place>)> {
        let mut table = self.table();
        table.line.retain(|(_, ticket)| !ticket.is_closed());
        let free = self.all.saturating_sub(table.taken);
        let next = table.line.iter().position(|(account, _)| {
            let own = table.by_account.get(account).copied().unwrap_or_default();
            own < free.saturating_mul(TIMES_FREE)
        });
        let (account, ticket) = table.line.remove(next?)?;
        table.taken += 1;
        *table.by_account.entry(account.clone()).or_default() += 1;
        Some((account, ticket))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut table = self.places.table();
        table.taken = table.taken.saturating_sub(1);
        if let Some(own) = table.by_account.get_mut(&self.account) {
            *own -= 1;
            if *own == 0 {
                table.by_account.remove(&self.account);
            }
        }
        drop(table);
        self.places.call();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes places until none comes in time.
    async fn fill(places: &Arc<Places>, account: &str) -> Vec<Place> {
        let mut filled = Vec::new();
        while let Ok(place) = places.place(account.to_owned()).await {
            filled.push(place);
        }
        filled
    }

    #[tokio::test(start_paused = true)]
    async fn no_account_takes_all_places_and_whoever_comes_new_finds_some() {
        let places = Arc::new(Places::new(1000));
        let crowd = fill(&places, "crowd").await;
        assert_eq!(crowd.len(), 800, "one alone has four fifths");
        let mut others = Vec::new();
        for (account, least) in [("second", 150), ("third", 30), ("fourth", 6), ("fifth", 1)] {
            let found = fill(&places, account).await;
            assert!(found.len() >= least, "{account}: {}", found.len());
            others.push(found);
        }
        drop(crowd);
        let again = fill(&places, "second").await;
        assert!(again.len() > 300, "what was given back is for all: {}", again.len());
        drop((again, others));
        assert_eq!(places.taken(), 0);
        assert!(places.table().by_account.is_empty(), "nobody is remembered");
        assert!(places.table().line.is_empty());
    }

    // T67, I14.
    #[tokio::test(start_paused = true)]
    async fn whoever_waits_gets_what_is_given_back_in_the_order_of_arrival() {
        let places = Arc::new(Places::new(10));
        let mut crowd = fill(&places, "crowd").await;
        let mut line = tokio::task::JoinSet::new();
        for number in 0..3 {
            let places = Arc::clone(&places);
            line.spawn(async move { (number, places.place("crowd".to_owned()).await.unwrap()) });
            tokio::task::yield_now().await;
        }
        let gone = places.place("crowd".to_owned());
        assert!(timeout(Duration::from_millis(1), gone).await.is_err());
        assert!(places.place("other".to_owned()).await.is_ok(), "nobody waits for the crowd");
        for expected in 0..3 {
            drop(crowd.pop());
            let (number, place) = line.join_next().await.unwrap().unwrap();
            assert_eq!(number, expected);
            crowd.push(place);
        }
        drop(crowd);
        assert_eq!(places.taken(), 0);
    }
}
