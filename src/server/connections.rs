//! Every open connection, and which of them goes when there are too many: of the network that has
//! the most for its weight, the one that keeps us waiting longest. A connection that waits for us, in
//! line for a seat or while its evidence is judged, is never put out: it is not slow, we are.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::domain::Network;
use crate::turns::{Crowding, Turns, Weight};

/// How long whoever has a seat may keep us waiting while others want it. A join has three round
/// trips and a signature to make in that time.
const SLOW: Duration = Duration::from_secs(3);

/// Bounds of the listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at a time.
    pub(super) connections: usize,
    /// Of these, how many may keep us waiting without a seat: their first flight is not complete.
    pub(super) handshakes: usize,
}

/// The connections of a listener.
pub(super) struct Connections {
    limits: Limits,
    turns: Arc<Turns>,
    put_out: Counter,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last: u64,
    open: HashMap<u64, Entry>,
    half_open: Waited,
    seated: Waited,
}

struct Entry {
    network: Network,
    task: Option<AbortHandle>,
    stage: Stage,
    /// How many of our own steps it waits for.
    ours: u32,
    /// When it began to keep us waiting.
    since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has no seat yet.
    HalfOpen,
    /// It has: we compute for it, and keep what it takes.
    Seated,
}

/// Connections that keep us waiting, by network, those first that do it longest.
#[derive(Default)]
struct Waited {
    all: usize,
    by_network: HashMap<Network, BTreeSet<(Instant, u64)>>,
    crowding: Crowding<Network>,
}

impl Connections {
    /// No connections yet; those that are put out are counted there.
    pub(super) fn new(limits: Limits, turns: Arc<Turns>, put_out: Counter) -> Self {
        Self { limits, turns, put_out, table: Mutex::default() }
    }

    /// Lets a new connection in, and whoever must go for it out; `None` if that is the new one.
    pub(super) fn admit(self: &Arc<Self>, source: IpAddr) -> Option<Presence> {
        let mut table = self.table();
        table.last += 1;
        let id = table.last;
        let (network, since) = (Network::of(source), Instant::now());
        let entry = Entry { network, task: None, stage: Stage::HalfOpen, ours: 1, since };
        table.open.insert(id, entry);
        self.change(&mut table, id, |entry| entry.ours = 0);
        let is_in = table.open.contains_key(&id);
        drop(table);
        is_in.then(|| Presence(Handle { connections: Arc::clone(self), id }))
    }

    /// Changes an entry, moves it to the list where it belongs then, and makes room there.
    fn change(&self, table: &mut Table, id: u64, change: impl FnOnce(&mut Entry)) {
        let Some(mut entry) = table.take(id, &self.turns) else { return };
        change(&mut entry);
        let (network, since) = (entry.network, entry.since);
        if let Some(list) = table.list_of(&entry) {
            list.add(network, (since, id), self.turns.weight(network));
        }
        table.open.insert(id, entry);
        while table.half_open.all > self.limits.handshakes {
            let oldest = table.half_open.longest_of_the_most_crowded();
            if !self.put_out(table, oldest) {
                break;
            }
        }
        while table.open.len() > self.limits.connections {
            let lists = [&table.half_open, &table.seated];
            let fullest = lists.into_iter().max_by_key(|list| list.crowding.heaviest_load());
            let oldest = fullest.and_then(Waited::longest_of_the_most_crowded);
            if !self.put_out(table, oldest) {
                break;
            }
        }
    }

    /// Takes their seats from those who have been slow, for so many others as want one.
    pub(super) fn clear_seats(&self, wanted: usize) {
        let mut table = self.table();
        for _ in 0..wanted {
            let slow = table.seated.longest_of_the_most_crowded_that_is_slow();
            if !self.put_out(&mut table, slow) {
                break;
            }
        }
    }

    fn put_out(&self, table: &mut Table, id: Option<u64>) -> bool {
        let Some(entry) = id.and_then(|id| table.take(id, &self.turns)) else { return false };
        // Without a task it is the newcomer, who is refused.
        if let Some(task) = entry.task {
            task.abort();
            self.put_out.inc();
        }
        true
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Takes an entry off its list and out of the table.
    fn take(&mut self, id: u64, turns: &Turns) -> Option<Entry> {
        let entry = self.open.remove(&id)?;
        let (network, since) = (entry.network, entry.since);
        if let Some(list) = self.list_of(&entry) {
            list.remove(network, (since, id), turns.weight(network));
        }
        Some(entry)
    }

    fn list_of(&mut self, entry: &Entry) -> Option<&mut Waited> {
        match entry.stage {
            _ if entry.ours > 0 => None,
            Stage::HalfOpen => Some(&mut self.half_open),
            Stage::Seated => Some(&mut self.seated),
        }
    }
}

impl Waited {
    fn add(&mut self, network: Network, waited: (Instant, u64), weight: Weight) {
        let of_network = self.by_network.entry(network).or_default();
        self.all += usize::from(of_network.insert(waited));
        self.crowding.set(network, of_network.len(), weight);
    }

    fn remove(&mut self, network: Network, waited: (Instant, u64), weight: Weight) {
        let Some(of_network) = self.by_network.get_mut(&network) else { return };
        self.all -= usize::from(of_network.remove(&waited));
        self.crowding.set(network, of_network.len(), weight);
        if of_network.is_empty() {
            self.by_network.remove(&network);
        }
    }

    fn longest_of(&self, network: Network) -> Option<(Instant, u64)> {
        self.by_network.get(&network)?.first().copied()
    }

    fn longest_of_the_most_crowded(&self) -> Option<u64> {
        self.longest_of(self.crowding.heaviest()?).map(|(_, id)| id)
    }

    fn longest_of_the_most_crowded_that_is_slow(&self) -> Option<u64> {
        let longest = self.crowding.heaviest_first().filter_map(|network| self.longest_of(network));
        longest.filter(|(since, _)| since.elapsed() >= SLOW).map(|(_, id)| id).next()
    }
}

/// A connection in the table, until it is dropped with the task that serves it.
pub(super) struct Presence(Handle);

impl Presence {
    /// What requests of the connection know it by.
    pub(super) fn handle(&self) -> Handle {
        self.0.clone()
    }

    /// Says where it really comes from.
    pub(super) fn comes_from(&self, source: IpAddr) {
        self.0.change(|entry| entry.network = Network::of(source));
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let Handle { connections, id } = &self.0;
        connections.table().take(*id, &connections.turns);
    }
}

/// A connection in the table, if it is still there.
#[derive(Clone)]
pub(super) struct Handle {
    connections: Arc<Connections>,
    id: u64,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "connection {}", self.id)
    }
}

impl Handle {
    /// Says which task to end when this connection is put out.
    pub(super) fn is_served_by(&self, task: AbortHandle) {
        match self.connections.table().open.get_mut(&self.id) {
            Some(entry) => entry.task = Some(task),
            // Somebody was quicker.
            None => task.abort(),
        }
    }

    /// It has a seat.
    pub(super) fn is_seated(&self) {
        self.change(|entry| entry.stage = Stage::Seated);
    }

    /// From here on it waits for us, until what this returns is dropped.
    pub(super) fn waits_for_us(&self) -> WaitsForUs {
        self.change(|entry| entry.ours += 1);
        WaitsForUs(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut Entry)) {
        let mut table = self.connections.table();
        self.connections.change(&mut table, self.id, change);
    }
}

/// A connection that waits for us.
pub(super) struct WaitsForUs(Handle);

impl Drop for WaitsForUs {
    fn drop(&mut self) {
        self.0.change(|entry| {
            entry.ours = entry.ours.saturating_sub(1);
            entry.since = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turns::Showing;

    const STRANGER: &str = "192.0.2.1";
    const NODE: &str = "198.51.100.1";

    fn source(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn table(connections: usize, handshakes: usize) -> Arc<Connections> {
        let turns = Arc::new(Turns::new(1, 10));
        Arc::new(Connections::new(Limits { connections, handshakes }, turns, Counter::default()))
    }

    fn is_in(connection: &Presence) -> bool {
        connection.0.connections.table().open.contains_key(&connection.0.id)
    }

    fn count(connections: &[Presence]) -> usize {
        connections.iter().filter(|connection| is_in(connection)).count()
    }

    // T36, T55: a fleet that starts up while a crowd is slow elsewhere loses none of its nodes.
    #[test]
    fn the_most_crowded_network_loses_its_oldest() {
        let all = table(1000, 20);
        let fleet: Vec<_> = (0..5).filter_map(|_| all.admit(source(NODE))).collect();
        let crowd: Vec<_> = (0..100).filter_map(|_| all.admit(source(STRANGER))).collect();
        assert_eq!(count(&fleet), 5);
        assert_eq!(count(&crowd), 15);
        assert!(crowd[85..].iter().all(is_in), "the oldest went");
        // What a network has shown counts: the same number is more of a worse one.
        for _ in 0..50 {
            all.turns.note(source(STRANGER), Showing::Worthless);
            all.turns.note(source(NODE), Showing::Admitted);
        }
        let more: Vec<_> = (0..12).filter_map(|_| all.admit(source(NODE))).collect();
        assert_eq!((count(&fleet), count(&more), count(&crowd)), (5, 12, 3));
    }

    // A whole fleet behind one address: nothing is kept from it.
    #[test]
    fn whoever_is_alone_has_every_place() {
        let all = table(1000, 20);
        let fleet: Vec<_> = (0..21).filter_map(|_| all.admit(source(NODE))).collect();
        assert_eq!((count(&fleet), is_in(&fleet[0])), (20, false));
    }

    #[test]
    fn whoever_waits_for_us_is_not_put_out() {
        let all = table(1000, 5);
        let waiting = all.admit(source(NODE)).unwrap();
        let in_line = waiting.handle().waits_for_us();
        let judged = waiting.handle().waits_for_us();
        let crowd: Vec<_> = (0..20).filter_map(|_| all.admit(source(NODE))).collect();
        assert!(is_in(&waiting));
        drop(judged);
        assert!(is_in(&waiting));
        drop(in_line);
        assert!(is_in(&waiting), "now it keeps us waiting, and its time begins");
        let later: Vec<_> = (0..5).filter_map(|_| all.admit(source(NODE))).collect();
        assert_eq!((is_in(&waiting), count(&crowd), count(&later)), (false, 0, 5));
    }

    // Silent streams hold their places for as long as they may; honest nodes get theirs even so.
    #[test]
    fn when_all_places_are_taken_whoever_keeps_us_waiting_goes() {
        let all = table(50, 20);
        let crowd: Vec<_> = (0..50)
            .filter_map(|_| {
                let connection = all.admit(source(STRANGER))?;
                connection.handle().is_seated();
                Some(connection)
            })
            .collect();
        assert_eq!(count(&crowd), 50);
        let node = all.admit(source(NODE)).unwrap();
        assert!(!is_in(&crowd[0]) && is_in(&crowd[1]));
        let _judged: Vec<_> =
            crowd[1..].iter().map(|connection| connection.handle().waits_for_us()).collect();
        assert!(all.admit(source(STRANGER)).is_some(), "the last who keeps us waiting went for it");
        assert!(!is_in(&node));
    }

    // T55: streams that say nothing have seats for as long as nobody else wants them.
    #[tokio::test(start_paused = true)]
    async fn whoever_is_slow_loses_his_seat_to_those_who_wait() {
        let all = table(1000, 20);
        let seat = |network| {
            let connection = all.admit(source(network)).unwrap();
            connection.handle().is_seated();
            connection
        };
        let judged = seat(STRANGER);
        let in_judgement = judged.handle().waits_for_us();
        let crowd: Vec<_> = (0..5).map(|_| seat(STRANGER)).collect();
        let fleet: Vec<_> = (0..2).map(|_| seat(NODE)).collect();
        all.clear_seats(100);
        assert_eq!((count(&crowd), count(&fleet)), (5, 2), "nobody is slow yet");
        tokio::time::advance(SLOW).await;
        let quick = seat(STRANGER);
        all.clear_seats(3);
        assert_eq!((count(&crowd), count(&fleet)), (2, 2), "as many as are wanted, of the crowd");
        all.clear_seats(100);
        assert_eq!((count(&crowd), count(&fleet)), (0, 0));
        assert!(is_in(&quick) && is_in(&judged));
        drop(in_judgement);
        all.clear_seats(100);
        assert!(is_in(&judged), "its time begins when it has its answer");
        tokio::time::advance(SLOW).await;
        all.clear_seats(100);
        assert!(!is_in(&judged));
    }

    #[test]
    fn behind_a_balancer_the_real_network_counts() {
        let all = table(1000, 10);
        let node = all.admit(source(STRANGER)).unwrap();
        node.comes_from(source(NODE));
        let crowd: Vec<_> = (0..20).filter_map(|_| all.admit(source(STRANGER))).collect();
        assert!(is_in(&node));
        drop((node, crowd));
        let table = all.table();
        assert!(table.open.is_empty() && table.half_open.by_network.is_empty());
        assert_eq!((table.half_open.all, table.half_open.crowding.parties()), (0, 0));
    }
}
