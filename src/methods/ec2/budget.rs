//! What strangers can make STS do. A genuine document is no proof of anything, because old ones are
//! in many hands; only a good proof is. So failed proofs are limited, and a flood of them waits in
//! a lane of its own (red team D2, T67).
//!
//! Everything is keyed by the source too, so that nobody can spend an honest node's budget, and
//! nothing by the source alone, because a whole fleet may stand behind one address.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::pace::{Asked, Pace};
use crate::aws::SignedRequest;
use crate::domain::{Network, Region};

/// How many proofs of one instance may fail, from one source, within a minute.
const FAILURES_MAX: usize = 6;
const MINUTE: Duration = Duration::from_mins(1);
/// When these are spent, one attempt from each address within this time: a neighbour who shows an
/// instance's leaked document over and over must not keep the instance itself out for ever.
const TRICKLE: Duration = Duration::from_secs(10);
/// Calls in flight: in all, for one account, and for one account from a source whose proofs fail.
const IN_FLIGHT: usize = 256;
const IN_FLIGHT_OF_ACCOUNT: usize = 32;
const IN_FLIGHT_OF_SUSPECTS: usize = 8;
/// How many proofs of one account may wait or be asked about from one network; fewer if its proofs
/// fail. More are sent away at once: whoever waits holds a place, and an account has at most 819.
const ROOM: usize = 768;
const ROOM_OF_SUSPECTS: usize = 32;
/// How long a proof may wait for its turn.
const WAIT: Duration = Duration::from_secs(10);
/// How many accounts, sources and failed proofs are remembered. When there are more, the oldest are
/// forgotten, which costs calls and admits nobody.
const REMEMBERED: u64 = 100_000;

/// Partition and account number.
pub(super) type Account = (String, String);
/// How many proofs failed, shared by whoever counts.
type Failures = Arc<AtomicU32>;
type Places = Arc<Semaphore>;

/// Who asks: an instance, from an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Asker {
    instance: Instance,
    address: Option<IpAddr>,
}

/// An instance, from a network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Instance {
    origin: Origin,
    id: String,
}

/// An account, from a network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Origin {
    account: Account,
    network: Option<Network>,
}

impl Asker {
    /// The instance of this account, from this address.
    pub(super) fn new(account: Account, instance: &str, address: Option<IpAddr>) -> Self {
        let origin = Origin { account, network: address.map(Network::of) };
        Self { instance: Instance { origin, id: instance.to_owned() }, address }
    }

    fn origin(&self) -> &Origin {
        &self.instance.origin
    }
}

/// The budget of all proofs.
pub(super) struct ProofBudget {
    all: Places,
    accounts: Cache<Account, Places>,
    suspects: Cache<Account, Places>,
    rooms: Cache<Origin, Places>,
    rooms_of_suspects: Cache<Origin, Places>,
    /// What is left of the failures of a minute. Taken before STS is asked, so that many at once
    /// are counted like many in a row, and given back unless the proof is false.
    attempts: Cache<Instance, Places>,
    trickle: Cache<Asker, ()>,
    failures: Cache<Origin, Failures>,
    refused: Cache<[u8; 32], ()>,
    pace: Pace,
}

/// A turn to ask STS. Without a word of how it ended, nothing is counted: STS did not answer.
pub(super) struct Turn<'b> {
    budget: &'b ProofBudget,
    origin: Origin,
    attempt: Option<OwnedSemaphorePermit>,
    _places: [OwnedSemaphorePermit; 3],
}

impl Turn<'_> {
    /// Remembers that the proof was false, or at least not good.
    pub(super) fn failed(self, signed: &SignedRequest) {
        if let Some(attempt) = self.attempt {
            attempt.forget();
        }
        self.budget.refused.insert(fingerprint(signed), ());
        let failures = self.budget.failures.get_with(self.origin, Failures::default);
        failures.fetch_add(1, Ordering::Relaxed);
    }
}

/// The budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Spent {
    #[error(
        "six proofs of this instance failed, or are being checked, within a minute from this network"
    )]
    Failures,
    #[error("too many proofs of this account are being checked")]
    InFlight,
}

impl Default for ProofBudget {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(IN_FLIGHT)),
            accounts: while_used(),
            suspects: while_used(),
            rooms: while_used(),
            rooms_of_suspects: while_used(),
            attempts: held_for(MINUTE),
            trickle: held_for(TRICKLE),
            failures: held_for(MINUTE),
            refused: held_for(MINUTE),
            pace: Pace::default(),
        }
    }
}

fn held_for<K, V>(time: Duration) -> Cache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder().max_capacity(REMEMBERED).time_to_live(time).build()
}

/// Longer than anybody holds a place: a semaphore that is in use must not be replaced by a fresh one.
fn while_used<K: Hash + Eq + Send + Sync + 'static>() -> Cache<K, Places> {
    Cache::builder().max_capacity(REMEMBERED).time_to_idle(10 * MINUTE).build()
}

fn places_of<K>(cache: &Cache<K, Places>, key: &K, places: usize) -> Places
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    cache.get_with_by_ref(key, || Arc::new(Semaphore::new(places)))
}

impl ProofBudget {
    /// Waits for a turn to ask STS, or says that the budget is spent.
    pub(super) async fn turn(&self, asker: &Asker) -> Result<Turn<'_>, Spent> {
        let attempts = places_of(&self.attempts, &asker.instance, FAILURES_MAX);
        let attempt = attempts.try_acquire_owned().ok();
        let is_spent = attempt.is_none();
        if is_spent && !self.trickle.entry_by_ref(asker).or_insert(()).is_fresh() {
            return Err(Spent::Failures);
        }
        let places = timeout(WAIT, async {
            // Whoever waited among the honest and came under suspicion meanwhile waits again.
            let is_suspect = is_spent || self.is_suspect(asker.origin());
            let places = self.places(asker.origin(), is_suspect).await?;
            if is_suspect || !self.is_suspect(asker.origin()) {
                return Ok(places);
            }
            drop(places);
            self.places(asker.origin(), true).await
        });
        let places = places.await.map_err(|_| Spent::InFlight)??;
        Ok(Turn { budget: self, origin: asker.origin().clone(), attempt, _places: places })
    }

    /// Waits, with a turn, until STS takes another request of this account in this region.
    pub(super) async fn pace(&self, account: Account, region: &Region) {
        self.pace.step(Asked { account, region: region.to_string() }).await;
    }

    /// Room to wait, a place of the lane, a place of all. In this order: who waits holds no place
    /// of the others.
    async fn places(
        &self,
        origin: &Origin,
        is_suspect: bool,
    ) -> Result<[OwnedSemaphorePermit; 3], Spent> {
        let (room, lane) = if is_suspect {
            (
                places_of(&self.rooms_of_suspects, origin, ROOM_OF_SUSPECTS),
                places_of(&self.suspects, &origin.account, IN_FLIGHT_OF_SUSPECTS),
            )
        } else {
            (
                places_of(&self.rooms, origin, ROOM),
                places_of(&self.accounts, &origin.account, IN_FLIGHT_OF_ACCOUNT),
            )
        };
        let spent = |_| Spent::InFlight;
        let room = room.try_acquire_owned().map_err(|_| Spent::InFlight)?;
        let lane = lane.acquire_owned().await.map_err(spent)?;
        let all = Arc::clone(&self.all).acquire_owned().await.map_err(spent)?;
        Ok([room, lane, all])
    }

    fn is_suspect(&self, origin: &Origin) -> bool {
        let failures = self.failures.get(origin);
        let most = u32::try_from(FAILURES_MAX).unwrap_or(u32::MAX);
        failures.is_some_and(|count| count.load(Ordering::Relaxed) >= most)
    }

    /// Whether STS refused these very values within the last minute. A signature fits one binding,
    /// and that one's stream is over, so they will never be good.
    pub(super) fn refused_before(&self, signed: &SignedRequest) -> bool {
        self.refused.contains_key(&fingerprint(signed))
    }
}

/// SHA-256 over everything of a proof that STS judges: its values are secrets and are not kept.
fn fingerprint(signed: &SignedRequest) -> [u8; 32] {
    let values = [
        signed.host(),
        signed.access_key_id(),
        signed.date(),
        signed.session_token(),
        signed.signature(),
    ];
    // None of them can hold a line end.
    let hash = digest(&SHA256, values.join("\n").as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::task::JoinSet;

    use super::*;

    fn asker(instance: &str, source: &str) -> Asker {
        let account = ("aws".to_owned(), "111122223333".to_owned());
        Asker::new(account, instance, Some(source.parse().unwrap()))
    }

    fn signed(token: &str) -> SignedRequest {
        SignedRequest::parse(
            &"us-west-2".parse().unwrap(),
            "regional",
            "ASIARTX3GSDSTI32LOY6",
            "20270115T080000Z",
            token,
            &"0".repeat(64),
        )
        .unwrap()
    }

    async fn fail(budget: &ProofBudget, asker: &Asker) -> Result<(), Spent> {
        budget.turn(asker).await.map(|turn| turn.failed(&signed("YQ==")))
    }

    /// A budget under which this network has come under suspicion.
    async fn flooded_from(source: &str) -> ProofBudget {
        let budget = ProofBudget::default();
        for number in 0..FAILURES_MAX {
            fail(&budget, &asker(&format!("i-{number}"), source)).await.unwrap();
        }
        budget
    }

    // D2: a stranger cannot spend the budget of the honest node, nor of another instance; and the
    // neighbour of a stranger still gets a turn.
    #[tokio::test]
    async fn failures_are_of_one_instance_and_one_network() {
        let budget = ProofBudget::default();
        let stranger = asker("i-1", "192.0.2.7");
        for _ in 0..=FAILURES_MAX {
            assert_eq!(fail(&budget, &stranger).await, Ok(()), "six, and one of the trickle");
        }
        assert_eq!(fail(&budget, &stranger).await, Err(Spent::Failures));
        assert!(budget.turn(&asker("i-1", "192.0.2.8")).await.is_ok(), "the neighbour's trickle");
        assert!(budget.turn(&asker("i-1", "198.51.100.7")).await.is_ok(), "another network");
        assert!(budget.turn(&asker("i-2", "192.0.2.7")).await.is_ok(), "another instance");
    }

    // Many at once are counted like many in a row.
    #[tokio::test]
    async fn attempts_are_taken_before_anybody_waits() {
        let budget = ProofBudget::default();
        let stranger = asker("i-1", "192.0.2.7");
        let mut held = Vec::new();
        for _ in 0..=FAILURES_MAX {
            held.push(budget.turn(&stranger).await.unwrap());
        }
        assert_eq!(fail(&budget, &stranger).await, Err(Spent::Failures));
        // STS did not answer them: nothing is counted.
        held.clear();
        assert!(budget.turn(&stranger).await.is_ok());
    }

    // T67: whoever floods an account waits behind himself; others do not wait for him.
    #[tokio::test(start_paused = true)]
    async fn a_flood_waits_in_its_own_lane() {
        let budget = flooded_from("192.0.2.7").await;
        let mut held = Vec::new();
        for number in 100..100 + IN_FLIGHT_OF_SUSPECTS {
            held.push(budget.turn(&asker(&format!("i-{number}"), "192.0.2.7")).await.unwrap());
        }
        assert_eq!(budget.turn(&asker("i-x", "192.0.2.9")).await.err(), Some(Spent::InFlight));
        for number in 0..IN_FLIGHT_OF_ACCOUNT {
            let honest = asker(&format!("i-{number}"), "198.51.100.7");
            held.push(budget.turn(&honest).await.unwrap());
        }
        let late = asker("i-y", "198.51.100.7");
        assert_eq!(budget.turn(&late).await.err(), Some(Spent::InFlight));
        held.pop();
        assert!(budget.turn(&late).await.is_ok());
    }

    // A flood that goes on must not fill the places of all joins with those who wait.
    #[tokio::test(start_paused = true)]
    async fn suspects_beyond_their_room_are_sent_away_at_once() {
        let budget = Arc::new(flooded_from("192.0.2.7").await);
        let mut crowd = JoinSet::new();
        for number in 0..1000 {
            let budget = Arc::clone(&budget);
            crowd.spawn(async move {
                let asker = asker(&format!("i-x{number}"), "192.0.2.7");
                match timeout(WAIT / 2, budget.turn(&asker)).await {
                    Err(_) => "waits",
                    Ok(Err(Spent::InFlight)) => "sent away",
                    Ok(Err(Spent::Failures)) => "failed",
                    Ok(Ok(_turn)) => {
                        tokio::time::sleep(WAIT).await;
                        "asks"
                    }
                }
            });
        }
        let mut counts = BTreeMap::new();
        while let Some(answer) = crowd.join_next().await {
            *counts.entry(answer.unwrap()).or_insert(0) += 1;
        }
        let waits = ROOM_OF_SUSPECTS - IN_FLIGHT_OF_SUSPECTS;
        let expected = [
            ("asks", IN_FLIGHT_OF_SUSPECTS),
            ("sent away", 1000 - ROOM_OF_SUSPECTS),
            ("waits", waits),
        ];
        assert_eq!(counts, BTreeMap::from(expected));
    }

    // Who waited among the honest does not get his turn among them once his network is known.
    #[tokio::test(start_paused = true)]
    async fn suspicion_reaches_those_who_wait() {
        let budget = Arc::new(ProofBudget::default());
        let mut held = Vec::new();
        for number in 0..IN_FLIGHT_OF_ACCOUNT {
            held.push(budget.turn(&asker(&format!("i-{number}"), "198.51.100.7")).await.unwrap());
        }
        let waiting = Arc::clone(&budget);
        let waiting =
            tokio::spawn(async move { waiting.turn(&asker("i-x", "192.0.2.7")).await.map(|_| ()) });
        tokio::task::yield_now().await;
        let origin = asker("i-x", "192.0.2.7").origin().clone();
        budget.failures.get_with(origin, Failures::default).fetch_add(6, Ordering::Relaxed);
        let suspects =
            budget.suspects.get_with_by_ref(&("aws".to_owned(), "111122223333".to_owned()), || {
                Arc::new(Semaphore::new(IN_FLIGHT_OF_SUSPECTS))
            });
        let _all = suspects.acquire_many_owned(8).await.unwrap();
        held.clear();
        assert_eq!(waiting.await.unwrap(), Err(Spent::InFlight));
    }

    #[tokio::test]
    async fn a_refusal_is_remembered_for_these_very_values() {
        let budget = ProofBudget::default();
        fail(&budget, &asker("i-1", "192.0.2.7")).await.unwrap();
        assert!(budget.refused_before(&signed("YQ==")));
        assert!(!budget.refused_before(&signed("Yg==")));
    }
}
