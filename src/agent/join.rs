//! `muster join`: one join, tried for as long as it was told to.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::attempt::{self, Denied, Failed};
use super::network::{Means, Network};
use super::outside::Outside;
use super::state::{StateDirectory, StateUnusable};
use crate::aws::MetadataUnavailable;
use crate::client::JoinError;
use crate::clock::{Clock, Stopwatch};
use crate::domain::{Class, Code};

/// The first pause after an outage, and the longest.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How often "stale" may follow itself at once.
const STALE_MAX: u32 = 2;

/// What a join needs to know.
pub struct JoinOptions {
    /// With what it goes to the server.
    pub means: Means,
    /// Where key and certificate are kept.
    pub state: PathBuf,
    /// How long to go on when the answer is "not now".
    pub timeout: Duration,
}

/// Joins and keeps the result; returns what `node.json` says. `report` hears of waiting.
pub async fn join(
    options: &JoinOptions,
    clock: &Clock,
    report: &(dyn Fn(&str) + Sync),
) -> Result<Value, JoinError> {
    let watch = Stopwatch::start();
    let mut backoff = BACKOFF_FIRST;
    let mut stale = 0;
    let network = Network::new(options.means.clone(), clock.clone());
    loop {
        // In a box, because what is nested in it is deep enough to trouble the compiler.
        // The last attempt is cut off too: who waits for us was promised an answer by then.
        let left = options.timeout.saturating_sub(watch.elapsed());
        let error = match timeout(left, Box::pin(attempt(options, &network, report))).await {
            Ok(Ok(record)) => return Ok(record),
            Ok(Err(error)) => error,
            Err(_) => return Err(local(Code::TimedOut, &"the time given for the join is over")),
        };
        let pause = match error.code.class() {
            Class::Denied | Class::Invalid => return Err(error),
            Class::Stale if stale < STALE_MAX => {
                stale += 1;
                continue;
            }
            Class::Stale | Class::Throttled | Class::Unavailable => {
                error.retry_after.unwrap_or_default() + jitter(backoff)
            }
        };
        if watch.elapsed() + pause >= options.timeout {
            return Err(error);
        }
        report(&format!("{} [{}], trying again in {pause:.1?}", error.message, error.code));
        sleep(pause).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Full jitter: anything from nothing to the whole pause, so that a crowd spreads.
fn jitter(most: Duration) -> Duration {
    most.mul_f64(random_part())
}

/// A random number from 0 to 1.
pub(in crate::agent) fn random_part() -> f64 {
    let mut random = [0; 4];
    if aws_lc_rs::rand::fill(&mut random).is_err() {
        return 1.0;
    }
    f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX)
}

async fn attempt(
    options: &JoinOptions,
    network: &Network,
    report: &(dyn Fn(&str) + Sync),
) -> Result<Value, JoinError> {
    // State that belongs to another instance is set aside before the server is asked (T62).
    let instance = network.instance().await?;
    let state = StateDirectory::open(&options.state, &instance, network.now())?;
    if let Some(path) = state.set_aside() {
        report(&format!("the state of another instance is kept in {}", path.display()));
    }
    let joined = attempt::join(&state, network, &options.means.methods).await;
    joined.map_err(|Failed { error, earlier, .. }| {
        for Denied { way, error } in earlier {
            report(&format!("{}: {} [{}]", way.as_str(), error.message, error.code));
        }
        error
    })
}

impl From<StateUnusable> for JoinError {
    fn from(error: StateUnusable) -> Self {
        local(error.code(), &error)
    }
}

impl From<MetadataUnavailable> for JoinError {
    fn from(error: MetadataUnavailable) -> Self {
        local(error.code(), &error)
    }
}

pub(super) fn local(code: Code, error: &dyn std::fmt::Display) -> JoinError {
    JoinError::rejected(code, error.to_string())
}
