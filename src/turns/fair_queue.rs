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

mod line;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use self::line::Line;
use super::{Crowding, Weight};

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

/// The queue. A ticket is whatever the one who waits is to be called by.
#[derive(Debug)]
pub(super) struct FairQueue<K, T> {
    bounds: Bounds,
    /// Virtual time: the tag of whoever was served last.
    now: u64,
    served: usize,
    waiting: usize,
    weight_waiting: u64,
    /// Numbers tickets, and tells flows of one tag apart by age.
    number: u64,
    flows: HashMap<K, Flow<T>>,
    /// Flows in which somebody waits, next first.
    next: BTreeMap<(u64, u64), K>,
    /// The others, as long as they are in debt; the least first.
    debts: BTreeMap<(u64, u64), K>,
    crowding: Crowding<K>,
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
            now: 0,
            served: 0,
            waiting: 0,
            weight_waiting: 0,
            number: 0,
            flows: HashMap::new(),
            next: BTreeMap::new(),
            debts: BTreeMap::new(),
            crowding: Crowding::default(),
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
    ) -> (u64, Option<T>) {
        self.number += 1;
        let number = self.number;
        self.waiting += 1;
        self.change(key, |flow| {
            flow.weight = weight;
            flow.waiting.push(source, number, ticket);
        });
        if self.waiting <= self.bounds.waiting {
            return (number, None);
        }
        let heaviest = self.crowding.heaviest();
        let newest = heaviest.and_then(|key| self.change(key, |flow| flow.waiting.put_out()));
        if newest.is_some() {
            self.waiting -= 1;
        }
        (number, newest)
    }

    /// Gets out of line without a turn.
    pub(super) fn leave(&mut self, (key, source): (K, IpAddr), number: u64) {
        if !self.flows.contains_key(&key) {
            return;
        }
        if self.change(key, |flow| flow.waiting.leave(source, number)) {
            self.waiting -= 1;
        }
    }

    /// Serves the next, unless as many are served as may be. Whoever was served says so by `done`.
    pub(super) fn serve(&mut self) -> Option<((K, IpAddr), T)> {
        if self.served >= self.bounds.at_once {
            return None;
        }
        let (&(tag, _), &key) = self.next.first_key_value()?;
        self.now = self.now.max(tag);
        let (source, ticket) = self.change(key, |flow| flow.waiting.next())?;
        self.waiting -= 1;
        self.served += 1;
        while let Some(paid) = self.debts.first_entry().filter(|debt| debt.key().0 <= self.now) {
            self.flows.remove(&paid.remove());
        }
        Some(((key, source), ticket))
    }

    /// A turn is over, and this is what it cost.
    pub(super) fn done(&mut self, key: K, weight: Weight, cost: Duration) {
        self.served = self.served.saturating_sub(1);
        if self.served == 0 && self.waiting == 0 {
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
    pub(super) fn expected_wait(&self, key: K, weight: Weight, turn: Duration) -> Duration {
        let flow = self.flows.get(&key).filter(|flow| !flow.waiting.is_empty());
        let before = flow.map_or(0, |flow| flow.waiting.len());
        let others = self.weight_waiting - flow.map_or(0, |flow| flow.weight.parts());
        let by_share = share(before + 1, others + weight.parts(), weight.parts());
        // When the others have been served, the whole is for this one.
        let turns = by_share.min(self.waiting + 1).saturating_sub(1) / self.bounds.at_once.max(1);
        turn.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX))
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many are served.
    pub(super) fn served(&self) -> usize {
        self.served
    }

    /// Changes a flow, and puts it where it belongs then. A flow that is not known is new.
    fn change<R>(&mut self, key: K, change: impl FnOnce(&mut Flow<T>) -> R) -> R {
        let mut flow = self.flows.remove(&key).unwrap_or_else(|| {
            self.number += 1;
            let place = (self.now, self.number);
            Flow { place, weight: Weight::UNKNOWN, waiting: Line::default() }
        });
        if flow.waiting.is_empty() {
            self.debts.remove(&flow.place);
        } else {
            self.next.remove(&flow.place);
            self.weight_waiting -= flow.weight.parts();
        }
        let changed = change(&mut flow);
        self.crowding.set(key, flow.waiting.len(), flow.weight);
        if !flow.waiting.is_empty() {
            self.weight_waiting += flow.weight.parts();
            self.next.insert(flow.place, key);
        } else if flow.place.0 > self.now {
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
}

/// Of how many turns of all, `turns` are those of a flow that has `part` of `whole`; rounded up.
fn share(turns: usize, whole: u64, part: u64) -> usize {
    let turns =
        u64::try_from(turns).unwrap_or(u64::MAX).saturating_mul(whole).div_ceil(part.max(1));
    usize::try_from(turns).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
