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

use crate::aws::SignedRequest;
use crate::methods::Contradiction;

/// How many proofs of one instance may fail, from one source, within a minute.
const FAILURES_MAX: u32 = 6;
const MINUTE: Duration = Duration::from_mins(1);
/// Calls in flight: in all, for one account, and for one account from a source whose proofs fail.
const IN_FLIGHT: usize = 256;
const IN_FLIGHT_OF_ACCOUNT: usize = 32;
const IN_FLIGHT_OF_SUSPECTS: usize = 8;
/// How long a proof may wait for its turn.
const WAIT: Duration = Duration::from_secs(10);
/// How many accounts, sources and failed proofs are remembered. When there are more, the oldest are
/// forgotten, which costs calls and admits nobody.
const REMEMBERED: u64 = 100_000;

/// Partition and account number.
pub(super) type Account = (String, String);
/// How many proofs failed, shared by whoever counts.
type Failures = Arc<AtomicU32>;

/// Who asks: an instance, from a network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Asker {
    origin: Origin,
    instance: String,
}

/// An account, from a network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Origin {
    account: Account,
    network: Option<IpAddr>,
}

impl Asker {
    /// The instance of this account, from this address.
    pub(super) fn new(account: Account, instance: &str, source: Option<IpAddr>) -> Self {
        let origin = Origin { account, network: source.map(network_of) };
        Self { origin, instance: instance.to_owned() }
    }
}

/// The budget of all proofs.
pub(super) struct ProofBudget {
    all: Arc<Semaphore>,
    accounts: Cache<Account, Arc<Semaphore>>,
    suspects: Cache<Account, Arc<Semaphore>>,
    failures_of_instance: Cache<Asker, Failures>,
    failures_of_origin: Cache<Origin, Failures>,
    refused: Cache<[u8; 32], Contradiction>,
}

/// A place to ask STS from.
pub(super) struct Turn {
    _all: OwnedSemaphorePermit,
    _lane: OwnedSemaphorePermit,
}

/// The budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Spent {
    #[error("six proofs of this instance failed within a minute, from this source")]
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
            failures_of_instance: for_a_minute(),
            failures_of_origin: for_a_minute(),
            refused: for_a_minute(),
        }
    }
}

fn for_a_minute<K, V>() -> Cache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder().max_capacity(REMEMBERED).time_to_live(MINUTE).build()
}

/// Longer than anybody holds a place: a semaphore that is in use must not be replaced by a fresh one.
fn while_used<V: Clone + Send + Sync + 'static>() -> Cache<Account, V> {
    Cache::builder().max_capacity(REMEMBERED).time_to_idle(10 * MINUTE).build()
}

impl ProofBudget {
    /// Waits for a turn to ask STS, or says that the budget is spent.
    pub(super) async fn turn(&self, asker: &Asker) -> Result<Turn, Spent> {
        let too_many = |failures: Option<Failures>| {
            failures.is_some_and(|count| count.load(Ordering::Relaxed) >= FAILURES_MAX)
        };
        if too_many(self.failures_of_instance.get(asker)) {
            return Err(Spent::Failures);
        }
        let is_suspect = too_many(self.failures_of_origin.get(&asker.origin));
        let (lanes, places) = if is_suspect {
            (&self.suspects, IN_FLIGHT_OF_SUSPECTS)
        } else {
            (&self.accounts, IN_FLIGHT_OF_ACCOUNT)
        };
        let lane =
            lanes.get_with(asker.origin.account.clone(), || Arc::new(Semaphore::new(places)));
        let waiting = async {
            // The lane first: who waits there holds no place of the others.
            let lane = lane.acquire_owned().await.ok()?;
            let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Turn { _all: all, _lane: lane })
        };
        timeout(WAIT, waiting).await.ok().flatten().ok_or(Spent::InFlight)
    }

    /// What STS said of these very values within the last minute, if it refused them. A signature
    /// fits one binding for ever, so a refusal stays true.
    pub(super) fn refused_before(&self, signed: &SignedRequest) -> Option<Contradiction> {
        self.refused.get(&fingerprint(signed))
    }

    /// Remembers that a proof failed.
    pub(super) fn failed(&self, asker: &Asker, signed: &SignedRequest, found: &Contradiction) {
        self.refused.insert(fingerprint(signed), found.clone());
        for failures in [
            self.failures_of_instance.get_with(asker.clone(), Failures::default),
            self.failures_of_origin.get_with(asker.origin.clone(), Failures::default),
        ] {
            failures.fetch_add(1, Ordering::Relaxed);
        }
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

/// The /24 or /56 of an address: what one attacker has many of.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() & (u32::MAX << 8)).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & (u128::MAX << 72)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::SignedRequest;
    use crate::domain::Code;

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

    fn refusal() -> Contradiction {
        Contradiction { code: Code::ProofSignatureRejected, reason: "no".to_owned(), hint: None }
    }

    // D2: a stranger cannot spend the budget of the honest node, nor of another instance.
    #[tokio::test]
    async fn failures_are_of_one_instance_and_one_network() {
        let budget = ProofBudget::default();
        let stranger = asker("i-1", "192.0.2.7");
        for _ in 0..FAILURES_MAX {
            assert!(budget.turn(&stranger).await.is_ok());
            budget.failed(&stranger, &signed("YQ=="), &refusal());
        }
        assert_eq!(budget.turn(&stranger).await.err(), Some(Spent::Failures));
        assert_eq!(budget.turn(&asker("i-1", "192.0.2.8")).await.err(), Some(Spent::Failures));
        assert!(budget.turn(&asker("i-1", "198.51.100.7")).await.is_ok());
        assert!(budget.turn(&asker("i-2", "192.0.2.7")).await.is_ok());
    }

    // T67: whoever floods an account waits behind himself; others do not wait for him.
    #[tokio::test(start_paused = true)]
    async fn a_flood_waits_in_its_own_lane() {
        let budget = ProofBudget::default();
        for number in 0..FAILURES_MAX {
            budget.failed(&asker(&format!("i-{number}"), "192.0.2.7"), &signed("YQ=="), &refusal());
        }
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

    #[test]
    fn a_refusal_is_remembered_for_these_very_values() {
        let budget = ProofBudget::default();
        budget.failed(&asker("i-1", "192.0.2.7"), &signed("YQ=="), &refusal());
        assert_eq!(budget.refused_before(&signed("YQ==")), Some(refusal()));
        assert_eq!(budget.refused_before(&signed("Yg==")), None);
    }

    #[test]
    fn networks_are_what_one_attacker_has_many_of() {
        for (address, network) in [
            ("192.0.2.200", "192.0.2.0"),
            ("::ffff:192.0.2.200", "192.0.2.0"),
            ("2001:db8:1:2ff::1", "2001:db8:1:200::"),
        ] {
            assert_eq!(network_of(address.parse().unwrap()), network.parse::<IpAddr>().unwrap());
        }
    }
}
