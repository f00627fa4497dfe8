//! Our own limit on calls, below AWS's: EC2 and STS count requests for each account and region, and
//! autoscalers and nodes of that account live from the same count (finding D2).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How many calls may be made at once, and how many come back each second.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Calls that may be made at once after a pause.
    pub capacity: f64,
    /// Calls that come back each second.
    pub refill: f64,
}

/// A token bucket for one account and region.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Below zero: tokens that are promised.
    tokens: f64,
    /// When `tokens` was right; in the future while EC2 wants to be left alone.
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate) -> Self {
        let state = Mutex::new(State { tokens: rate.capacity, at: Instant::now() });
        Self { rate, state }
    }

    /// Waits for a token, as long as it takes: for those who are bounded in number.
    pub async fn wait(&self) {
        let turn = self.promise();
        tokio::time::sleep_until(turn).await;
    }

    /// Waits for a token. `false`, at once, if none comes before `until`.
    pub async fn take(&self, until: Instant) -> bool {
        let Some(turn) = self.promise_before(until) else { return false };
        tokio::time::sleep_until(turn).await;
        true
    }

    /// EC2 says that it is too much: no token for this long.
    pub fn empty_for(&self, pause: Duration) {
        let now = Instant::now();
        let mut state = self.state();
        state.tokens = state.tokens.min(0.0);
        state.at = state.at.max(now + pause);
    }

    /// Takes the next token, and says from when on it may be used.
    fn promise(&self) -> Instant {
        let (mut state, turn) = self.next();
        state.tokens -= 1.0;
        turn
    }

    /// Likewise, if that is not after `until`.
    fn promise_before(&self, until: Instant) -> Option<Instant> {
        let (mut state, turn) = self.next();
        if turn > until {
            return None;
        }
        state.tokens -= 1.0;
        Some(turn)
    }

    /// From when on the next token may be used.
    fn next(&self) -> (MutexGuard<'_, State>, Instant) {
        let now = Instant::now();
        let mut state = self.state();
        if state.at < now {
            let come = (now - state.at).as_secs_f64() * self.rate.refill;
            state.tokens = (state.tokens + come).min(self.rate.capacity);
            state.at = now;
        }
        let missing = (1.0 - state.tokens).max(0.0);
        let turn = state.at + Duration::from_secs_f64(missing / self.rate.refill);
        (state, turn)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { capacity: 50.0, refill: 10.0 };

    #[tokio::test(start_paused = true)]
    async fn fifty_at_once_and_then_ten_a_second() {
        let (bucket, begun) = (Bucket::new(RATE), Instant::now());
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
    async fn whoever_waits_as_long_as_it_takes_waits_for_his_turn() {
        let (bucket, begun) = (Bucket::new(RATE), Instant::now());
        for _ in 0..70 {
            bucket.wait().await;
        }
        assert_eq!((Instant::now() - begun).as_millis(), 2_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_bucket_is_empty_for_a_while() {
        let (bucket, begun) = (Bucket::new(RATE), Instant::now());
        bucket.empty_for(Duration::from_secs(1));
        assert!(!bucket.take(begun + Duration::from_secs(1)).await);
        assert!(bucket.take(begun + Duration::from_secs(2)).await);
        assert_eq!((Instant::now() - begun).as_millis(), 1_100);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_get_a_token_takes_none() {
        let (bucket, begun) = (Bucket::new(RATE), Instant::now());
        bucket.empty_for(Duration::from_secs(1));
        for _ in 0..1_000 {
            assert!(!bucket.take(begun).await);
        }
        assert!(bucket.take(begun + Duration::from_millis(1_100)).await);
    }
}
