//! `muster agent`: keeps the node's certificate fresh until it is told to end.
//!
//! `plan` decides what comes next and when; `attempt` does it; this waits, and keeps the books. The
//! agent can end at any moment: whatever matters is on disk before anybody is asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use super::attempt::{self, Denied, Failed};
use super::method::{MethodList, Way};
use super::network::{Means, Network};
use super::outside::{Outside, Pause};
use super::plan::{self, Failure, Held, Last, Next, Step};
use super::reload::{Reloaded, Reloader};
use super::state::{
    AgentRecord, Continuity, EarlierError, InstanceIdentity, LastError, LockedState, ReloadRecord,
    StateDirectory, StateUnusable,
};
use crate::client::JoinError;
use crate::clock::Clock;
use crate::domain::{Code, Timestamp};

/// How long the agent sleeps at most before it looks at the clock: timers stand still while a
/// machine is suspended.
const LOOK_AT_CLOCK: Duration = Duration::from_mins(1);

/// What the agent needs to know.
pub struct AgentOptions {
    /// With what it goes to the server.
    pub means: Means,
    /// Where key and certificate are kept.
    pub state: PathBuf,
    /// Run after each new certificate; empty for nothing.
    pub reload: Vec<String>,
}

/// What somebody wants of a running agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To end.
    Stop,
    /// A new certificate now.
    RenewNow,
}

/// What the agent tells whoever runs it.
#[derive(Debug)]
pub enum Event<'a> {
    /// The node has a certificate; said once, with what `node.json` says.
    Ready(&'a Value),
    /// How things are, in a line.
    Status(&'a str),
    /// It ends.
    Stopping,
}

/// Runs the agent until it is told to stop. An error is a state directory that it cannot have.
pub async fn run(
    options: AgentOptions,
    clock: Clock,
    wishes: mpsc::Receiver<Wish>,
    tell: &dyn Fn(&Event<'_>),
) -> Result<(), StateUnusable> {
    let locked = LockedState::take(&options.state)?;
    let methods = options.means.methods.clone();
    let network = Network::new(options.means, clock);
    let mut agent = Agent::new(network, methods, options.reload, locked, tell);
    agent.run(wishes).await;
    Ok(())
}

/// The agent, in some world.
pub(super) struct Agent<'a, World> {
    world: World,
    methods: MethodList,
    locked: Arc<LockedState>,
    /// Whose state it is, once that is known, and the state.
    claimed: Option<(InstanceIdentity, StateDirectory)>,
    last: Last,
    next: Next,
    record: AgentRecord,
    is_ready: bool,
    reloader: Reloader,
    tell: &'a dyn Fn(&Event<'_>),
}

impl<'a, World: Outside> Agent<'a, World> {
    pub(super) fn new(
        world: World,
        methods: MethodList,
        reload: Vec<String>,
        locked: Arc<LockedState>,
        tell: &'a dyn Fn(&Event<'_>),
    ) -> Self {
        let now = world.now();
        Self {
            record: locked.read_record(),
            next: Next { step: Step::Join, at: now, earliest: now },
            world,
            methods,
            locked,
            claimed: None,
            last: Last::None,
            is_ready: false,
            reloader: Reloader::new(reload),
            tell,
        }
    }

    /// What comes next.
    #[cfg(test)]
    pub(super) fn next(&self) -> Next {
        self.next
    }

    /// Goes on until somebody wishes it to stop, or until nobody can wish any more.
    pub(super) async fn run(&mut self, mut wishes: mpsc::Receiver<Wish>) {
        while self.wait(&mut wishes).await.is_some() {
            tokio::select! {
                biased;
                () = stop(&mut wishes) => break,
                () = self.turn() => {}
            }
        }
        tracing::info!("stopping");
        // Nobody tries any more.
        self.record.next_try = None;
        self.write_record();
        (self.tell)(&Event::Stopping);
    }

    /// Waits until the next attempt is due. Nothing if the agent is to stop.
    async fn wait(&mut self, wishes: &mut mpsc::Receiver<Wish>) -> Option<()> {
        loop {
            let now = self.world.now();
            let left = self.next.at.since(now).seconds();
            let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) else {
                // Even if an attempt is due, a wish to stop comes first.
                return if is_stopped(wishes) { None } else { Some(()) };
            };
            let left = Duration::from_secs(left).min(LOOK_AT_CLOCK);
            tokio::select! {
                biased;
                wish = wishes.recv() => match wish {
                    None | Some(Wish::Stop) => return None,
                    Some(Wish::RenewNow) => self.hurry(),
                },
                reloaded = self.reloader.ended() => self.keep_reload(reloaded),
                pause = self.world.pause(left) => match pause {
                    Pause::Over => {}
                    Pause::ClockJumped => self.look_around().await,
                },
            }
        }
    }

    fn hurry(&mut self) {
        self.next.at = self.world.now().max(self.next.earliest);
    }

    /// After the clock jumped: all times are worked out anew, and a machine that woke up in another
    /// epoch tells the server, with the key that it has (K11).
    async fn look_around(&mut self) {
        tracing::info!("the clock has jumped; was this machine asleep?");
        self.plan();
        let Some((known, _)) = &self.claimed else { return };
        let known = known.clone();
        if self.world.instance().await.is_ok_and(|now| now != known) {
            self.hurry();
        }
    }

    /// One attempt, and what follows from it.
    pub(super) async fn turn(&mut self) {
        let is_first = self.claimed.is_none();
        if let Err(error) = self.claim().await {
            let step = self.next.step;
            return self.failed(step, error.into());
        }
        let held = self.held();
        if is_first {
            // What is on the disk may be enough for hours.
            return self.begin(&held);
        }
        let Some((_, state)) = &self.claimed else { return };
        let step = plan::step(&held, self.last, self.world.now());
        let outcome = match step {
            Step::Join => attempt::join(state, &self.world, &self.methods).await,
            Step::Renew => attempt::renew(state, &self.world).await,
        };
        match outcome {
            Ok(record) => self.succeeded(step, &record),
            Err(failed) => {
                // What one method's answer says of the key is true for the others too.
                let of_key = failed.codes().find(|code| is_about_key(*code));
                if let Some(Err(problem)) = of_key.map(|code| mend_keys(state, step, code)) {
                    tracing::warn!(%problem, "no fresh key could be made");
                }
                self.failed(step, failed);
            }
        }
    }

    /// Finds out whose state this is, before each attempt: a machine may have slept meanwhile.
    async fn claim(&mut self) -> Result<(), JoinError> {
        let instance = self.world.instance().await?;
        let continuity = if self.claimed.is_some() { Continuity::Ran } else { Continuity::Unknown };
        let state = self.locked.claim(&instance, continuity, self.world.now())?;
        if let Some(path) = state.set_aside() {
            tracing::warn!(path = %path.display(), "the state of another instance is set aside");
            self.record = AgentRecord::default();
        }
        self.claimed = Some((instance, state));
        Ok(())
    }

    /// What the node holds. What cannot be read is not there: the node joins, with its key.
    fn held(&self) -> Held {
        let state = self.claimed.as_ref().map(|(_, state)| state);
        let current = state.and_then(|state| state.current().ok().flatten());
        Held {
            record: current.and_then(|current| current.record()),
            starts_over: state.is_some_and(|state| state.starts_over().unwrap_or(false)),
        }
    }

    /// The beginning, as soon as the agent knows whose state it has.
    fn begin(&mut self, held: &Held) {
        // What failed until now was the metadata service, and that is over.
        if let Last::Failure(_) = std::mem::replace(&mut self.last, Last::None) {
            self.record.last_error = None;
        }
        self.plan();
        let Some(record) = held.usable(self.world.now()) else { return };
        tracing::info!(node = record.node_id, not_after = %record.not_after, "certificate found");
        // The last agent may have ended before it could run the command.
        if self.record.reload.as_ref().is_none_or(|reload| reload.serial != record.serial) {
            self.reloader.start(&record.serial);
        }
        let state = self.claimed.as_ref().map(|(_, state)| state);
        let current = state.and_then(|state| state.current().ok().flatten());
        let node = current.and_then(|current| serde_json::from_str(&current.node_json).ok());
        if let Some(node) = node {
            self.ready(&node);
        }
    }

    fn ready(&mut self, node: &Value) {
        if !self.is_ready {
            self.is_ready = true;
            (self.tell)(&Event::Ready(node));
        }
    }

    fn succeeded(&mut self, step: Step, node: &Value) {
        let said = |name: &str| node.get(name).and_then(Value::as_str).unwrap_or_default();
        let (id, serial, not_after) = (said("node_id"), said("serial"), said("not_after"));
        match step {
            Step::Join => tracing::info!(node = id, serial, not_after, "joined"),
            Step::Renew => tracing::info!(node = id, serial, not_after, "renewed"),
        }
        self.last = Last::Success;
        self.record.last_success = Some(self.world.now());
        self.record.last_error = None;
        self.reloader.start(serial);
        self.plan();
        // Whoever hears it may look at the state at once.
        self.ready(node);
    }

    fn failed(&mut self, step: Step, failed: Failed) {
        let Failed { way, error, earlier } = failed;
        let count = match self.last {
            Last::Failure(failure) => failure.count.saturating_add(1),
            Last::None | Last::Success => 1,
        };
        let retry_after = error.retry_after.unwrap_or_default();
        self.last = Last::Failure(Failure { step, code: error.code, retry_after, count });
        let hint = error.hint.unwrap_or_else(|| error.code.remedy().to_owned());
        tracing::warn!(
            error.type = %error.code,
            join.method = way.map(Way::as_str),
            detail = error.message,
            hint,
            correlation_id = error.correlation_id,
            "no certificate this time"
        );
        let earlier = earlier.into_iter().map(|Denied { way, error }| EarlierError {
            method: way.as_str().to_owned(),
            code: error.code,
            message: error.message,
            correlation_id: error.correlation_id,
        });
        self.record.last_error = Some(LastError {
            code: error.code,
            message: error.message,
            hint: Some(hint),
            correlation_id: error.correlation_id,
            time: self.world.now(),
            method: way.map(|way| way.as_str().to_owned()),
            earlier: earlier.collect(),
        });
        self.plan();
    }

    fn keep_reload(&mut self, reloaded: Reloaded) {
        let Reloaded { serial, result } = reloaded;
        match &result {
            Ok(()) => tracing::info!(serial, "reload command ended well"),
            Err(error) => tracing::warn!(serial, error, "reload command failed"),
        }
        let time = self.world.now();
        self.record.reload = Some(ReloadRecord { serial, time, error: result.err() });
        self.write_record();
    }

    /// Works out what comes next, and says so.
    fn plan(&mut self) {
        let held = self.held();
        self.next = plan::next(&held, self.last, self.world.now(), self.world.luck());
        self.record.next_try = Some(self.next.at);
        self.write_record();
        tracing::debug!(step = ?self.next.step, at = %self.next.at, "next");
        (self.tell)(&Event::Status(&status_line(&held, &self.record, self.world.now())));
    }

    /// The books are for people: without them the agent goes on.
    fn write_record(&self) {
        if let Err(error) = self.locked.write_record(&self.record) {
            tracing::warn!(%error, "agent.json was not written");
        }
    }
}

fn is_about_key(code: Code) -> bool {
    matches!(code, Code::KeyInUse | Code::NodeUnknown | Code::CloneSuspected)
}

/// Replaces a key of which the server said that it is never to be used, and no other.
fn mend_keys(state: &StateDirectory, step: Step, code: Code) -> Result<(), StateUnusable> {
    let is_given_up = matches!(code, Code::NodeUnknown | Code::CloneSuspected);
    match step {
        Step::Renew if code == Code::KeyInUse => state.discard_next_key(),
        Step::Renew if is_given_up => state.start_over(),
        Step::Join if code == Code::KeyInUse => state.start_over(),
        // A fresh key that is refused as well stays: each further one would be one more conflict.
        Step::Join if is_given_up && !state.starts_over()? => state.start_over(),
        Step::Join | Step::Renew => Ok(()),
    }
}

fn status_line(held: &Held, record: &AgentRecord, now: Timestamp) -> String {
    let certificate = match held.usable(now) {
        Some(record) => format!("certificate until {}", record.not_after),
        None => "no certificate".to_owned(),
    };
    let next = record.next_try.map(|at| format!(", next try at {at}")).unwrap_or_default();
    match &record.last_error {
        Some(LastError { code, .. }) => format!("{certificate}; {code}{next}"),
        None => format!("{certificate}{next}"),
    }
}

/// Waits for the wish to stop. Others are granted already: an attempt is under way.
async fn stop(wishes: &mut mpsc::Receiver<Wish>) {
    while wishes.recv().await == Some(Wish::RenewNow) {}
}

fn is_stopped(wishes: &mut mpsc::Receiver<Wish>) -> bool {
    use mpsc::error::TryRecvError;
    loop {
        match wishes.try_recv() {
            Ok(Wish::RenewNow) => {}
            Ok(Wish::Stop) | Err(TryRecvError::Disconnected) => return true,
            Err(TryRecvError::Empty) => return false,
        }
    }
}
