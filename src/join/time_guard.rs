//! A server whose clock was set back would issue certificates that have ended, or judge ages wrong:
//! it issues nothing instead (red team N10, T53).

use std::sync::atomic::{AtomicI64, Ordering};

use super::refusal::Stop;
use crate::domain::{Lifetime, Timestamp};

/// How far the clock may fall behind what it has said before: a correction, and no jump.
const STEP_BACK_MAX: Lifetime = Lifetime::from_seconds(60);

/// How far the clock may be from AWS's.
const APART_MAX: Lifetime = Lifetime::from_seconds(120);

/// The latest time that this installation has seen, on any of its days; and how far its clock is from
/// AWS's, in seconds, as far as that is known.
#[derive(Debug)]
pub struct TimeGuard {
    latest: AtomicI64,
    ahead: AtomicI64,
}

impl TimeGuard {
    /// Begins with the latest time on record.
    pub fn new(latest: Timestamp) -> Self {
        Self { latest: AtomicI64::new(latest.unix_seconds()), ahead: AtomicI64::new(0) }
    }

    /// The latest time seen.
    pub fn latest(&self) -> Timestamp {
        Timestamp::from_unix_seconds(self.latest.load(Ordering::Relaxed))
    }

    /// Takes note of the time, and says whether the clock has jumped back.
    pub fn see(&self, now: Timestamp) -> bool {
        let latest = self.latest.fetch_max(now.unix_seconds(), Ordering::Relaxed);
        now.plus(STEP_BACK_MAX) < Timestamp::from_unix_seconds(latest)
    }

    /// Takes note of how far the clock is from AWS's; `None` if that is not known.
    pub fn compare(&self, seconds_ahead: Option<i64>) {
        self.ahead.store(seconds_ahead.unwrap_or(0), Ordering::Relaxed);
    }

    /// By how many seconds the clock is ahead of AWS's (behind, if negative), if that is too far.
    pub fn apart(&self) -> Option<i64> {
        let ahead = self.ahead.load(Ordering::Relaxed);
        (ahead.saturating_abs() > APART_MAX.seconds()).then_some(ahead)
    }

    /// Refuses while the clock is too far from AWS's. Asked after AWS was: a comparison that is never
    /// made anew would refuse for ever.
    pub(super) fn check_apart(&self) -> Result<(), Stop> {
        self.apart().map_or(Ok(()), |seconds_ahead| Err(Stop::ServerClockApart { seconds_ahead }))
    }

    /// The time, if it can be right.
    pub(super) fn check(&self, now: Timestamp) -> Result<Timestamp, Stop> {
        if self.see(now) {
            return Err(Stop::ServerClock { now, latest: self.latest() });
        }
        Ok(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    fn seconds(count: u32) -> Lifetime {
        Lifetime::from_seconds(count)
    }

    // T53: to the second, as the operator reads it.
    #[test]
    fn a_minute_back_is_a_correction_and_a_second_more_is_a_jump() {
        let guard = TimeGuard::new(NOW);
        assert!(!guard.see(NOW.minus(seconds(60))));
        assert!(guard.see(NOW.minus(seconds(61))));
        assert_eq!(guard.latest(), NOW, "what was seen stays seen");
        assert!(guard.check(NOW.minus(seconds(60))).is_ok());
        assert!(guard.check(NOW.minus(seconds(61))).is_err());
        // Time that goes on moves the bound along.
        let later = NOW.plus(seconds(100));
        assert!(!guard.see(later));
        assert_eq!(guard.latest(), later);
        assert!(guard.see(NOW));
    }

    #[test]
    fn two_minutes_from_the_clouds_clock_are_borne_in_both_directions() {
        let guard = TimeGuard::new(NOW);
        for (ahead, is_borne) in [(0, true), (120, true), (-120, true), (121, false), (-121, false)]
        {
            guard.compare(Some(ahead));
            assert_eq!(guard.apart(), (!is_borne).then_some(ahead), "{ahead}");
            assert_eq!(guard.check_apart().is_ok(), is_borne, "{ahead}");
        }
        // Nobody knows any more: that is no reason to refuse for ever.
        guard.compare(None);
        assert!(guard.check_apart().is_ok());
    }
}
