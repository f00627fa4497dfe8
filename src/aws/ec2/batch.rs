//! Many questions in one call: whoever asks while a call is on its way waits and shares the next.
//! 5,000 nodes that start at once are 25 calls instead of minutes of throttling (finding D7).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::answer::{InstanceDescription, Reply};
use super::describe::Caller;
use super::{Scope, WAIT_MAX};
use crate::aws::{CallFailed, Failure, Service};
use crate::domain::InstanceId;

/// The most ids in a call. The highest number is not documented; as many fit in a filter.
pub(super) const BATCH_IDS: usize = 200;
/// How often a scope calls in the long run, and how many calls it may be ahead of that, unless a whole
/// batch waits: meanwhile questions gather. Who comes alone waits for nobody; 5,000 that come at the
/// pace of STS, 600 a second, are under 60 calls.
const SPACING: Duration = Duration::from_millis(300);
const AHEAD: u32 = 8;
/// The most callers that wait for one scope.
pub(super) const WAITING_MAX: usize = 10_000;
/// The most calls of one scope at once. More than one only if a whole batch waits.
const CALLS_AT_ONCE: usize = 4;

type Answer = Result<Option<InstanceDescription>, CallFailed>;
type Waiting = BTreeMap<InstanceId, Vec<oneshot::Sender<Answer>>>;

/// The questions of one scope: a place, and who asks there. Answers are never kept.
pub(super) struct Queue {
    caller: Arc<Caller>,
    scope: Scope,
    state: Mutex<State>,
    /// Rings when a whole batch waits.
    full: Notify,
}

#[derive(Default)]
struct State {
    /// When the next call would be due if none had been ahead of its time.
    due: Option<Instant>,
    /// Ids in the order in which they came.
    order: VecDeque<InstanceId>,
    waiting: Waiting,
    callers: usize,
    workers: usize,
}

impl Queue {
    pub(super) fn new(caller: Arc<Caller>, scope: Scope) -> Self {
        Self { caller, scope, state: Mutex::default(), full: Notify::new() }
    }

    /// Asks in a call that begins after now. Gives up at `until`; others who wait are not
    /// disturbed by it, nor by a caller that goes away.
    pub(super) async fn ask(self: &Arc<Self>, instance: &InstanceId, until: Instant) -> Answer {
        let answer = self.enter(instance)?;
        match tokio::time::timeout_at(until, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(failed(Failure::Unavailable, "the call was given up")),
            Err(_) => Err(failed(Failure::Throttled, "the wait for a call was too long")),
        }
    }

    fn enter(
        self: &Arc<Self>,
        instance: &InstanceId,
    ) -> Result<oneshot::Receiver<Answer>, CallFailed> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        if state.callers >= WAITING_MAX {
            state.forget_who_left();
        }
        if state.callers >= WAITING_MAX {
            return Err(failed(Failure::Throttled, "too many wait already"));
        }
        state.callers += 1;
        if let Some(senders) = state.waiting.get_mut(instance) {
            senders.push(sender);
        } else {
            state.waiting.insert(instance.clone(), vec![sender]);
            state.order.push_back(instance.clone());
        }
        let is_full = state.order.len() >= BATCH_IDS;
        if is_full {
            self.full.notify_one();
        }
        let is_idle = state.workers == 0;
        if is_idle || (is_full && state.workers < CALLS_AT_ONCE) {
            state.workers += 1;
            tokio::spawn(Worker { queue: self.clone(), is_done: false }.run());
        }
        Ok(receiver)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget_who_left(&mut self) {
        self.waiting.retain(|_, senders| {
            senders.retain(|sender| !sender.is_closed());
            !senders.is_empty()
        });
        let Self { order, waiting, callers, .. } = self;
        order.retain(|id| waiting.contains_key(id));
        *callers = waiting.values().map(Vec::len).sum();
    }

    /// The next batch, without those that nobody waits for any more.
    fn batch(&mut self) -> Waiting {
        let mut batch = Waiting::new();
        while batch.len() < BATCH_IDS
            && let Some(id) = self.order.pop_front()
        {
            let mut senders = self.waiting.remove(&id).unwrap_or_default();
            self.callers = self.callers.saturating_sub(senders.len());
            senders.retain(|sender| !sender.is_closed());
            if !senders.is_empty() {
                batch.insert(id, senders);
            }
        }
        batch
    }
}

/// Makes calls until nobody waits. A task of its own, so that no caller's end is a call's end.
struct Worker {
    queue: Arc<Queue>,
    is_done: bool,
}

impl Worker {
    async fn run(mut self) {
        loop {
            self.space_out().await;
            let Some(batch) = self.next() else { return };
            let ids: BTreeSet<_> = batch.keys().cloned().collect();
            let until = Instant::now() + WAIT_MAX;
            let found = resolve(&self.queue.caller, &self.queue.scope, ids, until).await;
            for (id, senders) in batch {
                let answer = match &found {
                    Ok(found) => Ok(found.get(&id).cloned()),
                    Err(failure) => Err(failure.clone()),
                };
                for sender in senders {
                    // Who left in the meantime needs no answer.
                    let _left = sender.send(answer.clone());
                }
            }
        }
    }

    /// Lets questions gather, if calls are ahead of their time and no whole batch waits.
    async fn space_out(&self) {
        let (due, is_full) = {
            let state = self.queue.state();
            (state.due, state.order.len() >= BATCH_IDS)
        };
        let Some(due) = due.filter(|_| !is_full) else { return };
        // The clock may have begun after that.
        let Some(turn) = due.checked_sub(AHEAD * SPACING) else { return };
        tokio::select! {
            () = tokio::time::sleep_until(turn) => {}
            () = self.queue.full.notified() => {}
        }
    }

    /// The next batch. `None` ends this worker, in the same moment in which it sees that nobody
    /// waits: who comes later starts another.
    fn next(&mut self) -> Option<Waiting> {
        let mut state = self.queue.state();
        let batch = state.batch();
        if batch.is_empty() {
            state.workers -= 1;
            drop(state);
            self.is_done = true;
            return None;
        }
        let now = Instant::now();
        state.due = Some(state.due.map_or(now, |due| due.max(now)) + SPACING);
        Some(batch)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.is_done {
            self.queue.state().workers -= 1;
        }
    }
}

/// Finds instances, whatever else is in the batch: one id that EC2 does not know costs two more
/// calls and fails alone (T25). An id that is absent from the result is unknown.
async fn resolve(
    caller: &Caller,
    scope: &Scope,
    mut ids: BTreeSet<InstanceId>,
    until: Instant,
) -> Result<BTreeMap<InstanceId, InstanceDescription>, CallFailed> {
    for _ in 0..2 {
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        match caller.by_id(scope, &ids, until).await? {
            Reply::Found(found) if found.next_token.is_none() => return Ok(found.found),
            // Ids are never paged; an answer that says so is not whole.
            Reply::Found(_) => break,
            Reply::Unknown(named) => {
                let before = ids.len();
                ids.retain(|id| !named.contains(id));
                if ids.len() == before {
                    break;
                }
            }
        }
    }
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    Ok(caller.by_filter(scope, &ids, until).await?.found)
}

fn failed(kind: Failure, detail: &str) -> CallFailed {
    CallFailed::new(Service::Ec2, kind, detail)
}
