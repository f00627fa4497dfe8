//! The quotas of known refusals: so many records an hour for each subject and reason, and so many
//! bytes of all, an hour and in all. Beyond them a refusal is only counted.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::domain::Timestamp;

/// Records an hour for each subject and reason (design, "Audit").
const PER_HOUR: u32 = 60;
/// How many subjects and reasons are told apart; beyond it refusals are only counted.
const KEYS_MAX: usize = 50_000;

/// How many bytes of records known refusals may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusalQuota {
    /// Within an hour.
    pub bytes_an_hour: u64,
    /// In the whole store.
    pub bytes_in_all: u64,
}

impl Default for RefusalQuota {
    fn default() -> Self {
        Self { bytes_an_hour: 16 << 20, bytes_in_all: 2 << 30 }
    }
}

#[derive(Debug, Default)]
pub(super) struct Quota {
    bytes: RefusalQuota,
    hour: i64,
    used_this_hour: u64,
    /// By this process, and by those before it.
    used_own: u64,
    used_before: u64,
    /// By a keyed hash: a subject is text of the node's, and this map is bounded in bytes.
    records: HashMap<u64, u32>,
    hasher: RandomState,
}

impl Quota {
    /// These limits, of which so much was used by earlier processes.
    pub(super) fn new(bytes: RefusalQuota, used_before: u64) -> Self {
        Self { bytes, used_before, ..Self::default() }
    }

    /// Whether one more record of this length may be written, and counts it if so.
    pub(super) fn admits(
        &mut self,
        subject: &str,
        reason: &'static str,
        length: usize,
        now: Timestamp,
    ) -> bool {
        self.turn_to(now.unix_seconds() / 3600);
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        if self.used_this_hour.saturating_add(length) > self.bytes.bytes_an_hour
            || self.used_in_all().saturating_add(length) > self.bytes.bytes_in_all
        {
            return false;
        }
        let key = self.hasher.hash_one((subject, reason));
        if self.records.len() >= KEYS_MAX && !self.records.contains_key(&key) {
            return false;
        }
        let records = self.records.entry(key).or_default();
        if *records >= PER_HOUR {
            return false;
        }
        *records += 1;
        self.used_this_hour += length;
        self.used_own += length;
        true
    }

    /// The hours of refusals that were judged at the same time may differ by one: only a later one, or
    /// a clock that was set right, begins anew.
    fn turn_to(&mut self, hour: i64) {
        if hour > self.hour || hour < self.hour - 1 {
            self.hour = hour;
            self.used_this_hour = 0;
            self.records.clear();
        }
    }

    /// Bytes that this process wrote.
    pub(super) fn used_own(&self) -> u64 {
        self.used_own
    }

    /// Bytes that known refusals take in the store.
    pub(super) fn used_in_all(&self) -> u64 {
        self.used_before.saturating_add(self.used_own)
    }

    /// The limits.
    pub(super) fn limits(&self) -> RefusalQuota {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    #[test]
    fn bytes_of_an_hour_and_in_all_are_bounded() {
        let limits = RefusalQuota { bytes_an_hour: 1000, bytes_in_all: 2500 };
        let mut quota = Quota::new(limits, 400);
        let admitted = |quota: &mut Quota, hour: i64| {
            (0..50).filter(|n| quota.admits(&format!("i-{n}"), "X", 100, at(hour * 3600))).count()
        };
        assert_eq!(admitted(&mut quota, 1), 10);
        assert_eq!(admitted(&mut quota, 1), 0);
        // One that began before the hour was over does not begin it anew.
        assert_eq!(admitted(&mut quota, 0), 0);
        assert_eq!(admitted(&mut quota, 2), 10);
        assert_eq!(admitted(&mut quota, 3), 1, "in all");
        assert_eq!((quota.used_own(), quota.used_in_all()), (2100, 2500));
    }

    #[test]
    fn subjects_are_bounded_whatever_their_length() {
        let mut quota =
            Quota::new(RefusalQuota { bytes_an_hour: u64::MAX, bytes_in_all: u64::MAX }, 0);
        let long = "x".repeat(1000);
        let admitted =
            (0..KEYS_MAX * 2).filter(|n| quota.admits(&format!("{long}{n}"), "X", 1, at(0)));
        assert_eq!(admitted.count(), KEYS_MAX);
        assert!(quota.records.capacity() * size_of::<(u64, u32)>() < 4 << 20);
        assert!(quota.admits(&format!("{long}0"), "X", 1, at(0)), "who is known keeps his share");
    }
}
