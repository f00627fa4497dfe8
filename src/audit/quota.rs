//! The quota of known refusals: so many an hour for each subject and reason, then only counted.

use std::collections::HashMap;

use crate::domain::Timestamp;

/// Records an hour for each subject and reason (design, "Audit").
const PER_HOUR: u32 = 60;
/// How many subjects and reasons are told apart; beyond it refusals are only counted.
const KEYS_MAX: usize = 50_000;

#[derive(Debug, Default)]
pub(super) struct Quota {
    hour: i64,
    used: HashMap<(String, &'static str), u32>,
}

impl Quota {
    /// Whether one more record may be written, and counts it if so.
    pub(super) fn admits(&mut self, subject: &str, reason: &'static str, now: Timestamp) -> bool {
        let hour = now.unix_seconds() / 3600;
        if hour != self.hour {
            self.used.clear();
            self.hour = hour;
        }
        let key = (subject.to_owned(), reason);
        if self.used.len() >= KEYS_MAX && !self.used.contains_key(&key) {
            return false;
        }
        let used = self.used.entry(key).or_default();
        *used += 1;
        *used <= PER_HOUR
    }
}
