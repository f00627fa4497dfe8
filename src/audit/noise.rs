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
    by_code: HashMap<Code, u64>,
    by_account: HashMap<String, u64>,
    by_source: HashMap<String, u64>,
}

impl Noise {
    pub(super) fn count(&mut self, record: Record) {
        self.total += 1;
        if let Some(code) = record.code {
            *self.by_code.entry(code).or_default() += 1;
        }
        count_bounded(&mut self.by_account, record.account_id.as_ref());
        count_bounded(&mut self.by_source, record.source.as_ref());
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

    pub(super) fn take_summary(&mut self, now: Timestamp) -> Option<Record> {
        if self.by_code.is_empty() {
            return None;
        }
        let codes: Map<String, Value> = std::mem::take(&mut self.by_code)
            .into_iter()
            .map(|(code, count)| (code.as_str().to_owned(), count.into()))
            .collect();
        let summary = Record::new(now, Class::Noise, "summary", Outcome::Refused)
            .with("codes", codes)
            .with("accounts", top(std::mem::take(&mut self.by_account)))
            .with("sources", top(std::mem::take(&mut self.by_source)));
        Some(summary)
    }
}

fn count_bounded(counts: &mut HashMap<String, u64>, name: Option<&String>) {
    let name = name.map_or("unverified", String::as_str);
    let name =
        if counts.len() < COUNTED_MAX || counts.contains_key(name) { name } else { "others" };
    *counts.entry(name.to_owned()).or_default() += 1;
}

fn top(counts: HashMap<String, u64>) -> Map<String, Value> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|(a, many), (b, few)| few.cmp(many).then_with(|| a.cmp(b)));
    counts.into_iter().take(SUMMARY_TOP).map(|(name, count)| (name, count.into())).collect()
}
