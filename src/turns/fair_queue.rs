//! Whose turn it is: start-time fair queueing (Goyal, Vin and Cheng, 1996), with several served at
//! once. Pure: no clock, no I/O, no waiting.
//!
//! Everybody belongs to a flow. A flow has a tag in virtual time, and the flow with the lowest tag is
//! served next. What a turn cost, divided by the flow's weight, moves its tag on: so flows that wait
//! share by weight, whatever their turns cost and however many wait in each, and nobody starves. Who
//! comes new begins at the tag of whoever was served last: no credit for having been away. A flow
//! that goes away keeps its debt until the others have caught up; when nobody waits and nobody is
//! served, all debts are forgiven. A turn is paid when it is over, so a flow can be ahead by the
//! turns that are served at once, and no further.
//!
//! Within a flow its sources take turns, one ticket each: whoever stands next door to a crowd does not
//! stand behind it.
//!
//! Distrusted flows wait apart from the others, because `Pacing` may hold them back.

mod line;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use self::line::Line;
use super::pacing::{PART, Pacing};
use super::{Crowding, Standing, Weight};

/// What the queue may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Turns served at once.
    pub(super) at_once: usize,
    /// Turns waited for, in all.
    pub(super) waiting: usize,
    /// Flows in debt that are remembered though nobody waits in them.
    pub(super) in_debt: usize,
}

/// The queue. A ticket is whatever the one who waits is to be called by. Times are since any one
/// moment.
#[derive(Debug)]
pub(super) struct FairQueue<K, T> {
    bounds: Bounds,
    /// Virtual time: the tag of whoever was served last.
    virtual_now: u64,
    served: usize,
    /// Numbers tickets, and tells flows of one tag apart by age.
    number: u64,
    flows: HashMap<K, Flow<T>>,
    /// Flows in which somebody waits: the distrusted ones, and all others.
    distrusted: Waiting<K>,
    others: Waiting<K>,
    /// Flows in which nobody waits, as long as they are in debt; the least first.
    debts: BTreeMap<(u64, u64), K>,
    crowding: Crowding<K>,
    pacing: Pacing,
}

/// Flows in which somebody waits.
#[derive(Debug)]
struct Waiting<K> {
    /// By tag, next first.
    next: BTreeMap<(u64, u64), K>,
    turns: usize,
    weight: u64,
}

/// Whoever is served.
#[derive(Debug)]
pub(super) struct Served<K, T> {
    pub(super) key: K,
    pub(super) source: IpAddr,
    /// How the flow stood when it was served.
    pub(super) standing: Standing,
    pub(super) ticket: T,
}

#[derive(Debug)]
struct Flow<T> {
    place: (u64, u64),
    weight: Weight,
    waiting: Line<T>,
}

impl<K: Copy + Ord + Hash, T> FairQueue<K, T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            virtual_now: 0,
            served: 0,
            number: 0,
            flows: HashMap::new(),
            distrusted: Waiting::default(),
            others: Waiting::default(),
            debts: BTreeMap::new(),
            crowding: Crowding::default(),
            pacing: Pacing::new(bounds.at_once),
        }
    }

    /// Gets in line. Returns the number of the ticket, and the ticket that lost its place if there
    /// were too many: of the flow with the most for its weight, the newest of the source with the
    /// most. The oldest is the next to be served and has waited for it; the newest has lost nothing
    /// yet.
    pub(super) fn ask(
        &mut self,
        (key, source): (K, IpAddr),
        weight: Weight,
        ticket: T,
        now: Duration,
    ) -> (u64, Option<T>) {
        self.number += 1;
        let number = self.number;
        self.pacing.asked(weight.standing(), now);
        self.change(key, |flow| {
            flow.weight = weight;
            flow.waiting.push(source, number, ticket);
        });
        if self.waiting() <= self.bounds.waiting {
            return (number, None);
        }
        let heaviest = self.crowding.heaviest();
        let newest = heaviest.and_then(|key| self.change(key, |flow| flow.waiting.put_out()));
        (number, newest)
    }

    /// Gets out of line without a turn.
    pub(super) fn leave(&mut self, (key, source): (K, IpAddr), number: u64) {
        if self.flows.contains_key(&key) {
            self.change(key, |flow| flow.waiting.leave(source, number));
        }
    }

    /// Serves the next, unless as many are served as may be. Whoever was served says so by `done`.
    pub(super) fn serve(&mut self, now: Duration) -> Option<Served<K, T>> {
        if self.served >= self.bounds.at_once {
            return None;
        }
        let held_back = self.pacing.holds_back(now);
        let distrusted = self.distrusted.first().filter(|_| !held_back);
        let next = [self.others.first(), distrusted].into_iter().flatten();
        let ((tag, _), key) = next.min_by_key(|(place, _)| *place)?;
        self.virtual_now = self.virtual_now.max(tag);
        let served = self.change(key, |flow| {
            let (source, ticket) = flow.waiting.next()?;
            Some(Served { key, source, standing: flow.weight.standing(), ticket })
        })?;
        self.pacing.began(served.standing);
        self.served += 1;
        while let Some(paid) =
            self.debts.first_entry().filter(|debt| debt.key().0 <= self.virtual_now)
        {
            self.flows.remove(&paid.remove());
        }
        Some(served)
    }

    /// When to look again because somebody is held back until then, and nothing that ends will say
    /// so before.
    pub(super) fn look_again_at(&self, now: Duration) -> Option<Duration> {
        let is_held_back = self.served < self.bounds.at_once
            && self.distrusted.turns > 0
            && self.pacing.holds_back(now);
        if is_held_back { self.pacing.lets_go_at() } else { None }
    }

    /// A turn is over that began with this standing. This is what the flow weighs now, and what the
    /// turn cost.
    pub(super) fn done(
        &mut self,
        (key, standing): (K, Standing),
        weight: Weight,
        cost: Duration,
        now: Duration,
    ) {
        self.served = self.served.saturating_sub(1);
        self.pacing.ended(standing, cost, now);
        if self.served == 0 && self.waiting() == 0 {
            self.flows.clear();
            self.debts.clear();
            return;
        }
        let cost = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX);
        self.change(key, |flow| {
            flow.weight = weight;
            flow.place.0 = flow.place.0.saturating_add(weight.stretch(cost));
        });
    }

    /// How long somebody of this flow who came now would wait, if turns take so long.
    pub(super) fn expected_wait(
        &self,
        key: K,
        weight: Weight,
        turn: Duration,
        now: Duration,
    ) -> Duration {
        let flow = self.flows.get(&key).filter(|flow| !flow.waiting.is_empty());
        let before = flow.map_or(0, |flow| flow.waiting.len());
        let (own, had) = (weight.parts(), flow.map_or(0, |flow| flow.weight.parts()));
        // When the others have been served, the whole is for this one.
        let turns = |waiting: usize, weight: u64| {
            let by_share = share(before + 1, weight.saturating_sub(had) + own, own);
            by_share.min(waiting + 1).saturating_sub(1)
        };
        let is_paced =
            weight.standing() == Standing::Distrusted && self.pacing.is_trusted_at_work(now);
        let turns = if is_paced {
            let part = usize::try_from(PART).unwrap_or(usize::MAX);
            turns(self.distrusted.turns, self.distrusted.weight).saturating_mul(part)
        } else {
            turns(self.waiting(), self.distrusted.weight + self.others.weight)
        };
        let turns = turns / self.bounds.at_once.max(1);
        turn.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX))
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.distrusted.turns + self.others.turns
    }

    /// How many are served.
    pub(super) fn served(&self) -> usize {
        self.served
    }

    /// Changes a flow, and puts it where it belongs then. A flow that is not known is new.
    fn change<R>(&mut self, key: K, change: impl FnOnce(&mut Flow<T>) -> R) -> R {
        let mut flow = self.flows.remove(&key).unwrap_or_else(|| {
            self.number += 1;
            let place = (self.virtual_now, self.number);
            Flow { place, weight: Weight::UNKNOWN, waiting: Line::default() }
        });
        if flow.waiting.is_empty() {
            self.debts.remove(&flow.place);
        } else {
            self.waiting_with(flow.weight).remove(&flow);
        }
        let changed = change(&mut flow);
        self.crowding.set(key, flow.waiting.len(), flow.weight);
        if !flow.waiting.is_empty() {
            self.waiting_with(flow.weight).insert(&flow, key);
        } else if flow.place.0 > self.virtual_now {
            self.debts.insert(flow.place, key);
        } else {
            return changed;
        }
        self.flows.insert(key, flow);
        if self.debts.len() > self.bounds.in_debt
            && let Some((_, least)) = self.debts.pop_first()
        {
            self.flows.remove(&least);
        }
        changed
    }

    fn waiting_with(&mut self, weight: Weight) -> &mut Waiting<K> {
        match weight.standing() {
            Standing::Distrusted => &mut self.distrusted,
            Standing::Unknown | Standing::Trusted => &mut self.others,
        }
    }
}

impl<K> Default for Waiting<K> {
    fn default() -> Self {
        Self { next: BTreeMap::new(), turns: 0, weight: 0 }
    }
}

impl<K: Copy> Waiting<K> {
    fn first(&self) -> Option<((u64, u64), K)> {
        self.next.first_key_value().map(|(place, key)| (*place, *key))
    }

    fn insert<T>(&mut self, flow: &Flow<T>, key: K) {
        self.next.insert(flow.place, key);
        self.turns += flow.waiting.len();
        self.weight += flow.weight.parts();
    }

    fn remove<T>(&mut self, flow: &Flow<T>) {
        self.next.remove(&flow.place);
        self.turns -= flow.waiting.len();
        self.weight -= flow.weight.parts();
    }
}

/// Of how many turns of all, `turns` are those of a flow that has `part` of `whole`; rounded up.
fn share(turns: usize, whole: u64, part: u64) -> usize {
    let turns =
        u64::try_from(turns).unwrap_or(u64::MAX).saturating_mul(whole).div_ceil(part.max(1));
    usize::try_from(turns).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
