//! The publisher: makes join tokens and writes them into SSM parameters, as the policy set in force
//! says, one task a target. Of several servers on one store one publishes, by a lease.

mod board;
mod failure;
mod plan;
mod records;
mod rotation;
mod spec;
mod target;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

pub(super) use board::{Board, Status, TargetKey};
use failure::Failure;
pub(super) use spec::{Spec, specs};
use target::{Ask, Target};

use crate::aws::Ssm;
use crate::domain::{Code, Lifetime, PolicyName};
use crate::join::JoinService;
use crate::registry::{Duty, Lease};
use crate::store::StoreUnavailable;

/// For how long nobody else publishes without a sign of life.
const LEASE_LIFE: Lifetime = Lifetime::from_seconds(15);
/// How often it is prolonged.
const PROLONG_EVERY: Duration = Duration::from_secs(4);
/// After this long without having prolonged it the holder stops by itself.
const GIVE_UP_AFTER: Duration = Duration::from_secs(12);
/// How often the policy set is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the store may take.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many targets ask AWS at a time.
const TARGETS_AT_A_TIME: usize = 64;
/// How long a rotation that somebody asked for may take: beside, put, tags, read-back, 5 s each.
const ASKED_TIMEOUT: Duration = Duration::from_secs(90);
/// How many may ask for one target at a time.
const ASKS_MAX: usize = 4;

/// What every target works with.
struct Shared {
    joins: Arc<JoinService>,
    ssm: Ssm,
    board: Arc<Board>,
    /// What nodes pin, one a line.
    pins: String,
    /// Where nodes reach the join listener.
    join_address: Option<String>,
    slots: Semaphore,
}

/// A target's task.
struct Running {
    spec: Option<Spec>,
    task: AbortHandle,
    asks: mpsc::Sender<Ask>,
}

/// Runs the targets' tasks while this server holds the lease.
pub(super) struct TokenPublisher {
    shared: Arc<Shared>,
    holder: String,
    running: Mutex<BTreeMap<TargetKey, Running>>,
}

/// A lease, and when it was last prolonged.
struct Held {
    lease: Lease,
    at: Instant,
}

impl TokenPublisher {
    /// A publisher that has not begun. Nothing if there is no randomness.
    pub(super) fn new(
        joins: Arc<JoinService>,
        ssm: Ssm,
        board: Arc<Board>,
        pins: String,
        join_address: Option<String>,
    ) -> Result<Self, StoreUnavailable> {
        let mut random = [0; 8];
        rand::fill(&mut random).map_err(|_| StoreUnavailable("no random bytes".to_owned()))?;
        let slots = Semaphore::new(TARGETS_AT_A_TIME);
        let shared = Arc::new(Shared { joins, ssm, board, pins, join_address, slots });
        Ok(Self { shared, holder: hex::encode(random), running: Mutex::default() })
    }

    /// How publishing goes.
    pub(super) fn board(&self) -> &Board {
        &self.shared.board
    }

    /// What the policy set in force wants.
    pub(super) fn wanted(&self) -> BTreeMap<TargetKey, Spec> {
        specs(&self.shared.joins.policies(), &self.shared.joins.trust_domain)
    }

    /// Publishes until `stop` says so.
    pub(super) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut held: Option<Held> = None;
        loop {
            match timeout(STORE_TIMEOUT, self.look(&mut held)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(error = %error, "the publisher cannot look"),
                Err(_) => warn!("the publisher cannot look: the store is slow"),
            }
            if held.as_ref().is_some_and(|held| held.at.elapsed() > GIVE_UP_AFTER) {
                warn!("the publisher's lease could not be prolonged");
                held = None;
            }
            if held.is_none() {
                self.end_all();
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        self.end_all();
        if let Some(Held { lease, .. }) = held {
            let registry = &self.shared.joins.registry;
            let released = registry.release_lease(Duty::Publishing, &lease);
            let _lapses = timeout(STORE_TIMEOUT, released).await;
        }
    }

    /// Takes or prolongs the lease if there is anything to publish, and follows the policy set.
    async fn look(&self, held: &mut Option<Held>) -> Result<(), StoreUnavailable> {
        let joins = &self.shared.joins;
        let mut wanted: BTreeMap<TargetKey, Option<Spec>> =
            self.wanted().into_iter().map(|(key, spec)| (key, Some(spec))).collect();
        // Tokens may be left of what nobody wants any more.
        for left in joins.registry.publications().await? {
            wanted.entry((left.name, left.target)).or_default();
        }
        if wanted.is_empty() && held.is_none() {
            return Ok(());
        }
        let is_due = held.as_ref().is_none_or(|held| held.at.elapsed() >= PROLONG_EVERY);
        if is_due {
            let (holder, now) = (self.holder.as_str(), joins.clock.now());
            let at = Instant::now();
            let taken = joins.registry.take_lease(Duty::Publishing, holder, LEASE_LIFE, now);
            let Some(lease) = taken.await? else {
                *held = None;
                return Ok(());
            };
            if held.as_ref().is_none_or(|held| held.lease != lease) {
                self.end_all();
                info!("this server publishes tokens");
            }
            *held = Some(Held { lease, at });
        }
        if let Some(Held { lease, .. }) = held {
            self.follow(wanted, lease);
        }
        Ok(())
    }

    /// Ends the tasks of what has changed, and begins what is missing. A task may be ended anywhere:
    /// what it leaves is on record.
    fn follow(&self, wanted: BTreeMap<TargetKey, Option<Spec>>, lease: &Lease) {
        let mut running = self.running();
        running.retain(|key, one| {
            let is_same = wanted.get(key).is_some_and(|spec| *spec == one.spec);
            if !is_same {
                one.task.abort();
                self.shared.board.forget(key);
            }
            is_same && !one.task.is_finished()
        });
        for (key, spec) in wanted {
            if running.contains_key(&key) {
                continue;
            }
            let (asks, queue) = mpsc::channel(ASKS_MAX);
            let (shared, lease) = (Arc::clone(&self.shared), lease.clone());
            let (key_of, spec_of) = (key.clone(), spec.clone());
            let target = Target { shared, key: key_of, spec: spec_of, lease, verified_at: None };
            let task = tokio::spawn(target.run(queue)).abort_handle();
            running.insert(key, Running { spec, task, asks });
        }
    }

    fn end_all(&self) {
        let mut running = self.running();
        for one in running.values() {
            one.task.abort();
        }
        if !running.is_empty() {
            self.shared.board.clear();
        }
        running.clear();
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<TargetKey, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes new tokens now, and waits for them.
    pub(super) async fn publish(
        &self,
        name: &PolicyName,
        target: Option<&str>,
    ) -> Result<(), Failure> {
        let is_meant = |key: &TargetKey| key.0 == *name && target.is_none_or(|it| key.1 == it);
        if !self.wanted().keys().any(is_meant) {
            let message =
                "no publication of this name and target; `muster publications ls` has all";
            return Err(Failure::new(Code::NotFound, message));
        }
        let asks: Vec<mpsc::Sender<Ask>> = {
            let running = self.running();
            let meant = running.iter().filter(|(key, _)| is_meant(key));
            meant.map(|(_, one)| one.asks.clone()).collect()
        };
        if asks.is_empty() {
            let message = "this server does not publish: it has just begun, or another one does";
            return Err(Failure::new(Code::PublisherNotReady, message));
        }
        let mut answers = Vec::new();
        for asks in asks {
            let (ask, answer) = oneshot::channel();
            let busy = || Failure::new(Code::PublisherNotReady, "others are asking for it already");
            asks.try_send(ask).map_err(|_| busy())?;
            answers.push(answer);
        }
        let late = || Failure::new(Code::SsmUnavailable, "no token was published in time");
        let all = async {
            let mut outcome = Ok(());
            for answer in answers {
                let answer = answer.await.unwrap_or_else(|_| {
                    Err(Failure::new(Code::PublisherNotReady, "the policies changed meanwhile"))
                });
                outcome = outcome.and(answer);
            }
            outcome
        };
        timeout(ASKED_TIMEOUT, all).await.unwrap_or_else(|_| Err(late()))
    }
}
