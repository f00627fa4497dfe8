//! Refusals that are only counted: exact counts, the newest explanations in memory, one summary a
//! minute.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value};

use super::record::{Class, Outcome, Record};
use crate::domain::{Code, CorrelationId, Timestamp};

/// How many explanations are kept (red team D4).
const RING_LENGTH: usize = 10_000;
/// How many accounts and sources a summary names.
const SUMMARY_TOP: usize = 20;
/// How many accounts and sources are told apart within a minute.
const COUNTED_MAX: usize = 10_000;

#[derive(Default)]
pub(super) struct Noise {
    ring: VecDeque<Record>,
    total: u64,
    counts: Counts,
}

/// What the next summary says.
#[derive(Default)]
pub(super) struct Counts {
    codes: HashMap<Code, u64>,
    accounts: HashMap<String, u64>,
    sources: HashMap<String, u64>,
}

impl Noise {
    pub(super) fn count(&mut self, record: Record) {
        self.total += 1;
        if let Some(code) = record.code {
            *self.counts.codes.entry(code).or_default() += 1;
        }
        count_bounded(&mut self.counts.accounts, record.account_id.as_deref(), 1);
        count_bounded(&mut self.counts.sources, record.source.as_deref(), 1);
        if self.ring.len() >= RING_LENGTH {
            self.ring.pop_front();
        }
        self.ring.push_back(record);
    }

    pub(super) fn recall(&self, id: &CorrelationId) -> Option<Record> {
        self.ring.iter().rev().find(|record| record.correlation_id.as_ref() == Some(id)).cloned()
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The summary of what was counted since the last one, and the counts in case that it cannot be
    /// written.
    pub(super) fn take_summary(&mut self, now: Timestamp) -> Option<(Record, Counts)> {
        if self.counts.codes.is_empty() {
            return None;
        }
        let counts = std::mem::take(&mut self.counts);
        let codes: Map<String, Value> = counts
            .codes
            .iter()
            .map(|(code, count)| (code.as_str().to_owned(), (*count).into()))
            .collect();
        let summary = Record::new(now, Class::Noise, "summary", Outcome::Refused)
            .with("codes", codes)
            .with("accounts", top(&counts.accounts))
            .with("sources", top(&counts.sources));
        Some((summary, counts))
    }

    /// Counts stay exact when a summary was not written.
    pub(super) fn give_back(&mut self, counts: Counts) {
        for (code, count) in counts.codes {
            *self.counts.codes.entry(code).or_default() += count;
        }
        for (name, count) in counts.accounts {
            count_bounded(&mut self.counts.accounts, Some(&name), count);
        }
        for (name, count) in counts.sources {
            count_bounded(&mut self.counts.sources, Some(&name), count);
        }
    }
}

fn count_bounded(counts: &mut HashMap<String, u64>, name: Option<&str>, count: u64) {
    let name = name.unwrap_or("unverified");
    let is_told_apart = counts.len() < COUNTED_MAX || counts.contains_key(name);
    *counts.entry(if is_told_apart { name } else { "others" }.to_owned()).or_default() += count;
}

fn top(counts: &HashMap<String, u64>) -> Map<String, Value> {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by(|(a, many), (b, few)| few.cmp(many).then_with(|| a.cmp(b)));
    counts.into_iter().take(SUMMARY_TOP).map(|(name, n)| (name.clone(), (*n).into())).collect()
}
