//! How fast STS is asked: below what it takes of one account in one region, so that a storm waits
//! here for some milliseconds and not, told off by STS, for seconds.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use super::budget::Account;
use crate::aws::{Bucket, Rate};

/// STS takes 600 requests a second of one account in one region (IAM and STS quotas), and others of
/// that account ask it, too.
const RATE: Rate = Rate { capacity: 50.0, refill: 550.0 };
/// How many accounts and regions are told apart, and for how long after the last request.
const REMEMBERED: u64 = 100_000;
const IDLE: Duration = Duration::from_mins(1);

/// An account and the region whose STS is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    pub(super) account: Account,
    pub(super) region: String,
}

/// The pace of every account in every region.
pub(super) struct Pace(Cache<Asked, Arc<Bucket>>);

impl Default for Pace {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(REMEMBERED).time_to_idle(IDLE).build())
    }
}

impl Pace {
    /// Waits for the next step. Whoever asks has a place among those who may ask STS at a time, and
    /// there are few of one account: so the wait is as many steps at most.
    pub(super) async fn step(&self, asked: Asked) {
        self.0.get_with(asked, || Arc::new(Bucket::new(RATE))).wait().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn asked(account: &str, region: &str) -> Asked {
        Asked { account: ("aws".to_owned(), account.to_owned()), region: region.to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_asks_in_one_region_as_often_as_sts_takes_it() {
        let pace = Pace::default();
        tokio::time::advance(Duration::from_secs(5)).await;
        let begun = Instant::now();
        for _ in 0..2_000 {
            pace.step(asked("111122223333", "us-west-2")).await;
        }
        let took = begun.elapsed();
        assert!((3.4..3.8).contains(&took.as_secs_f64()), "{took:?}");
        // Others have a pace of their own.
        let begun = Instant::now();
        pace.step(asked("111122223333", "us-east-1")).await;
        pace.step(asked("444455556666", "us-west-2")).await;
        assert!(begun.elapsed() < Duration::from_millis(5));
        // After a pause some go at once.
        tokio::time::advance(Duration::from_secs(5)).await;
        let begun = Instant::now();
        for _ in 0..50 {
            pace.step(asked("111122223333", "us-west-2")).await;
        }
        assert!(begun.elapsed() < Duration::from_millis(5));
    }
}
