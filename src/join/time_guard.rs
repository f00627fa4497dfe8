//! A server whose clock was set back would issue certificates that have ended, or judge ages wrong:
//! it issues nothing instead (red team N10, T53).

use std::sync::atomic::{AtomicI64, Ordering};

use super::refusal::Stop;
use crate::domain::{Lifetime, Timestamp};

/// How far the clock may fall behind what it has said before: a correction, and no jump.
const STEP_BACK_MAX: Lifetime = Lifetime::from_seconds(60);

/// The latest time that this installation has seen, on any of its days.
#[derive(Debug)]
pub struct TimeGuard(AtomicI64);

impl TimeGuard {
    /// Begins with the latest time on record.
    pub fn new(latest: Timestamp) -> Self {
        Self(AtomicI64::new(latest.unix_seconds()))
    }

    /// The latest time seen.
    pub fn latest(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.0.load(Ordering::Relaxed))
    }

    /// Takes note of the time, and says whether the clock has jumped back.
    pub fn see(&self, now: Timestamp) -> bool {
        let latest = self.0.fetch_max(now.unix_seconds(), Ordering::Relaxed);
        now.plus(STEP_BACK_MAX) < Timestamp::from_unix_seconds(latest)
    }

    /// The time, if it can be right.
    pub(super) fn check(&self, now: Timestamp) -> Result<Timestamp, Stop> {
        if self.see(now) {
            return Err(Stop::ServerClock { now, latest: self.latest() });
        }
        Ok(now)
    }
}
