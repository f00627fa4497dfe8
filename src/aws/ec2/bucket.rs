//! Our own limit on calls, below AWS's: EC2 counts `DescribeInstances` for each account and region,
//! and autoscalers of that account live from the same count (finding D2).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Calls that may be made at once: AWS's bucket for calls by id.
pub(super) const CAPACITY: f64 = 50.0;
/// Calls that come back each second.
pub(super) const REFILL: f64 = 10.0;

/// A token bucket for one account and region.
pub(super) struct Bucket(Mutex<State>);

struct State {
    /// Below zero: tokens that are promised.
    tokens: f64,
    /// When `tokens` was right; in the future while EC2 wants to be left alone.
    at: Instant,
}

impl Bucket {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { tokens: CAPACITY, at: Instant::now() }))
    }

    /// Waits for a token. `false`, at once, if none comes before `until`.
    pub(super) async fn take(&self, until: Instant) -> bool {
        let Some(turn) = self.promise(until) else { return false };
        tokio::time::sleep_until(turn).await;
        true
    }

    /// EC2 says that it is too much: no token for this long.
    pub(super) fn empty_for(&self, pause: Duration) {
        let now = Instant::now();
        let mut state = self.state();
        state.tokens = state.tokens.min(0.0);
        state.at = state.at.max(now + pause);
    }

    /// Takes the next token, and says from when on it may be used.
    fn promise(&self, until: Instant) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.state();
        if state.at < now {
            let come = (now - state.at).as_secs_f64() * REFILL;
            state.tokens = (state.tokens + come).min(CAPACITY);
            state.at = now;
        }
        let missing = (1.0 - state.tokens).max(0.0);
        let turn = state.at + Duration::from_secs_f64(missing / REFILL);
        if turn > until {
            return None;
        }
        state.tokens -= 1.0;
        Some(turn)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn fifty_at_once_and_then_ten_a_second() {
        let (bucket, begun) = (Bucket::new(), Instant::now());
        for _ in 0..50 {
            assert!(bucket.take(begun).await);
        }
        assert!(!bucket.take(begun).await);
        let until = begun + Duration::from_secs(2);
        let mut taken = 0;
        while bucket.take(until).await {
            taken += 1;
        }
        assert_eq!(taken, 20);
        assert_eq!((Instant::now() - begun).as_millis(), 2_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_bucket_is_empty_for_a_while() {
        let (bucket, begun) = (Bucket::new(), Instant::now());
        bucket.empty_for(Duration::from_secs(1));
        assert!(!bucket.take(begun + Duration::from_secs(1)).await);
        assert!(bucket.take(begun + Duration::from_secs(2)).await);
        assert_eq!((Instant::now() - begun).as_millis(), 1_100);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_get_a_token_takes_none() {
        let (bucket, begun) = (Bucket::new(), Instant::now());
        bucket.empty_for(Duration::from_secs(1));
        for _ in 0..1_000 {
            assert!(!bucket.take(begun).await);
        }
        assert!(bucket.take(begun + Duration::from_millis(1_100)).await);
    }
}
