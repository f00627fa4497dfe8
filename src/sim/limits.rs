//! How often a service may be called: a token bucket for each account and region.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Service;
use super::scenario::{Limit, LimitSettings};
use crate::domain::{AccountId, Region, Timestamp};

/// All buckets. Time is the simulator's, in whole seconds.
pub(super) struct Limits {
    settings: LimitSettings,
    buckets: Mutex<BTreeMap<(Service, AccountId, Region), Bucket>>,
}

struct Bucket {
    tokens: u32,
    filled: Timestamp,
}

impl Limits {
    pub(super) fn new(settings: LimitSettings) -> Self {
        Self { settings, buckets: Mutex::default() }
    }

    /// Takes a token. False if there is none.
    pub(super) fn admits(
        &self,
        service: Service,
        account: &AccountId,
        region: &Region,
        now: Timestamp,
    ) -> bool {
        let Limit { bucket: most, refill } = match service {
            Service::Sts => self.settings.sts,
            Service::Ec2 => self.settings.ec2,
            Service::Ssm => self.settings.ssm,
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets
            .entry((service, account.clone(), region.clone()))
            .or_insert(Bucket { tokens: most, filled: now });
        let seconds = u32::try_from(now.since(bucket.filled).seconds()).unwrap_or(u32::MAX);
        bucket.tokens = bucket.tokens.saturating_add(refill.saturating_mul(seconds)).min(most);
        bucket.filled = bucket.filled.max(now);
        match bucket.tokens.checked_sub(1) {
            Some(rest) => {
                bucket.tokens = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Lifetime;

    #[test]
    fn a_bucket_empties_and_fills_for_each_account_and_region() {
        let limit = Limit { bucket: 3, refill: 2 };
        let limits = Limits::new(LimitSettings { sts: limit, ec2: limit, ssm: limit });
        let start = Timestamp::from_unix_seconds(1_800_000_000);
        let take = |account: &str, region: &str, now| {
            limits.admits(Service::Ec2, &account.parse().unwrap(), &region.parse().unwrap(), now)
        };
        let admitted = |now| (0..9).filter(|_| take("111122223333", "us-west-2", now)).count();
        assert_eq!(admitted(start), 3);
        assert!(take("444455556666", "us-west-2", start));
        assert!(take("111122223333", "us-west-1", start));
        assert_eq!(admitted(start.plus(Lifetime::from_seconds(1))), 2);
        assert_eq!(admitted(start.plus(Lifetime::from_hours(1))), 3);
    }
}
