//! Who is served when there is more to do than can be done. Three scarce things are shared: seats
//! for connections, and time on the processor before anybody has proven anything (both are `Turns`,
//! by source network), and places for joins that wait for others (`Places`, by account).
//!
//! Nobody has a limit of his own. A fleet of thousands may stand behind one address, and alone it
//! gets everything; only when others wait too is there a share, and what a network has shown lately
//! says how large (`Weight`). Networks that showed hardly anything but garbage leave room for nodes
//! that are on their way (`pacing`). Everything here is bounded in count and in time (red team D6).

mod crowding;
mod fair_queue;
mod overload;
mod pacing;
mod places;
mod weights;

use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

pub use crowding::Crowding;
use fair_queue::{Bounds, FairQueue, Served};
pub use overload::{Overloaded, Reason};
pub use places::{Place, Places};
use weights::Weights;
pub use weights::{Showing, Standing, Weight};

use crate::clock::Stopwatch;
use crate::domain::Network;

/// How long anybody waits for a turn on the processor, and for a seat. Our agent waits ten seconds
/// for a connection; longer is no use to a node, whose own patience ends.
const TURN_WAIT_MAX: Duration = Duration::from_secs(5);
const SEAT_WAIT_MAX: Duration = Duration::from_secs(9);
/// Networks in debt that are remembered while others wait.
const IN_DEBT: usize = 4096;
/// What a turn takes, as long as nobody knows better.
const TURN_AT_FIRST: Duration = Duration::from_micros(200);

/// Turns on something scarce, shared by source network.
pub struct Turns {
    queue: Mutex<FairQueue<Network, oneshot::Sender<Turn>>>,
    weights: Arc<Weights>,
    of: Of,
    began: Instant,
    /// The next look at those who are held back: when, and what makes it.
    next_look: Mutex<Option<(Duration, AbortHandle)>>,
    /// How long a turn takes from its grant to its end, lately, in nanoseconds.
    turn_takes: AtomicU64,
    counts: Counts,
}

/// What is scarce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Processor,
    Seats,
}

impl Of {
    const fn wait_max(self) -> Duration {
        match self {
            Self::Processor => TURN_WAIT_MAX,
            Self::Seats => SEAT_WAIT_MAX,
        }
    }
}

/// What has been, since the start.
#[derive(Debug, Default)]
struct Counts {
    served: [AtomicU64; 3],
    nanoseconds: AtomicU64,
    overloaded: [AtomicU64; 4],
}

impl Turns {
    /// So many turns on the processor at once, for so many who wait.
    pub fn new(at_once: usize, waiting: usize) -> Self {
        Self::with_weights(Of::Processor, at_once, waiting, Arc::default())
    }

    /// So many seats, for so many who wait. What a network weighs here it weighs there.
    #[must_use]
    pub fn seats(&self, seats: usize, waiting: usize) -> Self {
        Self::with_weights(Of::Seats, seats, waiting, Arc::clone(&self.weights))
    }

    fn with_weights(of: Of, at_once: usize, waiting: usize, weights: Arc<Weights>) -> Self {
        let bounds = Bounds { at_once: at_once.max(1), waiting: waiting.max(1), in_debt: IN_DEBT };
        Self {
            queue: Mutex::new(FairQueue::new(bounds)),
            weights,
            of,
            began: Instant::now(),
            next_look: Mutex::new(None),
            turn_takes: AtomicU64::new(nanoseconds(TURN_AT_FIRST)),
            counts: Counts::default(),
        }
    }

    /// Waits for a turn, which lasts until it is dropped. Whoever has one on the processor waits for
    /// nobody meanwhile.
    pub async fn turn(self: &Arc<Self>, source: IpAddr) -> Result<Turn, Overloaded> {
        let (ticket, mut called) = oneshot::channel();
        let (network, source) = (Network::of(source), one(source));
        let weight = self.weights.of(network);
        let (number, put_out) =
            self.queue().ask((network, source), weight, ticket, self.began.elapsed());
        drop(put_out);
        let mut in_line = InLine { turns: self, source, number: Some(number) };
        self.call();
        let turn = match called.try_recv() {
            Ok(turn) => {
                // Whoever may compute at once lets everybody speak up who is ready to. Otherwise no
                // two would ever be in line together: a task that computes is not interrupted, so
                // each would find the line empty, and the order would be that of the scheduler.
                if self.of == Of::Processor {
                    tokio::task::yield_now().await;
                }
                Ok(turn)
            }
            Err(TryRecvError::Closed) => Err(Reason::Crowded),
            Err(TryRecvError::Empty) => match timeout(self.of.wait_max(), called).await {
                Ok(Ok(turn)) => Ok(turn),
                Ok(Err(_)) => Err(Reason::Crowded),
                Err(_) => Err(Reason::Waited),
            },
        };
        match turn {
            Ok(mut turn) => {
                in_line.number = None;
                turn.used = Some(Stopwatch::start());
                Ok(turn)
            }
            Err(reason) => Err(self.overloaded(reason, self.expected_wait(network))),
        }
    }

    /// Says so if a turn would not come in time: for those who have not begun yet.
    pub fn expect(&self, source: IpAddr) -> Result<(), Overloaded> {
        match self.expected_wait(Network::of(source)) {
            wait if wait > self.of.wait_max() => Err(self.overloaded(Reason::Expected, wait)),
            _ => Ok(()),
        }
    }

    /// Takes note of what somebody of this network has shown.
    pub fn note(&self, source: IpAddr, showing: Showing) {
        self.weights.note(Network::of(source), showing);
    }

    /// What a network weighs now.
    pub fn weight(&self, network: Network) -> Weight {
        self.weights.of(network)
    }

    /// How many wait for a turn.
    pub fn waiting(&self) -> usize {
        self.queue().waiting()
    }

    /// How many have one.
    pub fn taken(&self) -> usize {
        self.queue().served()
    }

    /// Turns since the start, by the standing of those who had them.
    pub fn served(&self, standing: Standing) -> u64 {
        self.counts.served_with(standing).load(Ordering::Relaxed)
    }

    /// Time that turns have used since the start.
    pub fn used(&self) -> Duration {
        Duration::from_nanos(self.counts.nanoseconds.load(Ordering::Relaxed))
    }

    /// How many were sent away since the start, other than by `Places`.
    pub fn sent_away(&self, reason: Reason) -> u64 {
        self.counts.of(reason).load(Ordering::Relaxed)
    }

    /// How many networks of this standing are known.
    pub fn networks(&self, standing: Standing) -> u64 {
        self.weights.networks(standing)
    }

    fn queue(&self) -> MutexGuard<'_, FairQueue<Network, oneshot::Sender<Turn>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expected_wait(&self, network: Network) -> Duration {
        let turn = Duration::from_nanos(self.turn_takes.load(Ordering::Relaxed));
        let weight = self.weights.of(network);
        self.queue().expected_wait(network, weight, turn, self.began.elapsed())
    }

    /// Calls those whose turn it is. The lock is not held while somebody is called: a turn that
    /// nobody takes any more gives itself back.
    fn call(self: &Arc<Self>) {
        loop {
            let now = self.began.elapsed();
            let mut queue = self.queue();
            let Some(Served { key, source, standing, ticket }) = queue.serve(now) else {
                let look_again_at = queue.look_again_at(now);
                drop(queue);
                return self.look_again(look_again_at);
            };
            drop(queue);
            let flow = (key, standing);
            let (turns, granted) = (Arc::clone(self), Stopwatch::start());
            drop(ticket.send(Turn { turns, source, flow, granted, used: None }));
        }
    }

    /// Sees to it that those who are held back are called at this time, or are no more.
    fn look_again(self: &Arc<Self>, at: Option<Duration>) {
        let mut next_look = self.next_look.lock().unwrap_or_else(PoisonError::into_inner);
        if next_look.as_ref().map(|(at, _)| *at) == at {
            return;
        }
        if let Some((_, look)) = next_look.take() {
            look.abort();
        }
        // Nobody waits where there is no runtime.
        let (Some(at), Ok(runtime)) = (at, Handle::try_current()) else { return };
        let (time, turns) = (self.began + at, Arc::downgrade(self));
        let look = runtime.spawn(async move {
            sleep_until(time).await;
            if let Some(turns) = turns.upgrade() {
                *turns.next_look.lock().unwrap_or_else(PoisonError::into_inner) = None;
                turns.call();
            }
        });
        *next_look = Some((at, look.abort_handle()));
    }

    fn overloaded(&self, reason: Reason, backlog: Duration) -> Overloaded {
        self.counts.of(reason).fetch_add(1, Ordering::Relaxed);
        Overloaded::new(reason, backlog)
    }
}

impl Counts {
    fn of(&self, reason: Reason) -> &AtomicU64 {
        let [expected, waited, crowded, places] = &self.overloaded;
        match reason {
            Reason::Expected => expected,
            Reason::Waited => waited,
            Reason::Crowded => crowded,
            Reason::Places => places,
        }
    }

    fn served_with(&self, standing: Standing) -> &AtomicU64 {
        let [distrusted, unknown, trusted] = &self.served;
        match standing {
            Standing::Distrusted => distrusted,
            Standing::Unknown => unknown,
            Standing::Trusted => trusted,
        }
    }

    fn serve(&self, standing: Standing, used: Duration) {
        self.served_with(standing).fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds(used), Ordering::Relaxed);
    }
}

/// Somebody in line, who leaves it when he is not there any more.
struct InLine<'t> {
    turns: &'t Turns,
    source: IpAddr,
    number: Option<u64>,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.turns.queue().leave((Network::of(self.source), self.source), number);
        }
    }
}

/// A turn; it ends when it is dropped.
pub struct Turn {
    turns: Arc<Turns>,
    source: IpAddr,
    /// Its network, and how that stood when the turn was granted.
    flow: (Network, Standing),
    granted: Stopwatch,
    used: Option<Stopwatch>,
}

impl Turn {
    /// Waits for something else. If it is there at once the turn goes on; otherwise it is given back,
    /// and another one waited for afterwards.
    pub async fn aside<F: Future>(self, future: F) -> Result<(Self, F::Output), Overloaded> {
        let mut future = pin!(future);
        let at_once = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context)));
        if let Poll::Ready(output) = at_once.await {
            return Ok((self, output));
        }
        let (turns, source) = (Arc::clone(&self.turns), self.source);
        drop(self);
        let output = future.await;
        Ok((turns.turn(source).await?, output))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let used = self.used.as_ref().map_or(Duration::ZERO, Stopwatch::elapsed);
        let weight = self.turns.weights.of(self.flow.0);
        if self.used.is_some() {
            let took = nanoseconds(self.granted.elapsed());
            let before = self.turns.turn_takes.load(Ordering::Relaxed);
            // Races lose a sample of a mean.
            let mean = before - before / 16 + took / 16;
            self.turns.turn_takes.store(mean, Ordering::Relaxed);
            self.turns.counts.serve(weight.standing(), used);
        }
        let now = self.turns.began.elapsed();
        self.turns.queue().done(self.flow, weight, used, now);
        self.turns.call();
    }
}

/// What one machine is told apart by: an address, or the /64 that an IPv6 host chooses its own from.
fn one(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & (u128::MAX << 64)).into()),
        address @ IpAddr::V4(_) => address,
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
