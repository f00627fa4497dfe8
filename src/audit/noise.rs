//! Refusals that are only counted: exact counts, the newest explanations in memory, one summary a
//! minute.
//!
//! Everything here is bounded in bytes as well as in number: what a refusal tells is partly the
//! node's own text.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value};

use super::record::{Class, Outcome, Record};
use crate::domain::{Code, CorrelationId, Timestamp};

/// How many explanations are kept (red team D4), and how many bytes of them. The longest one is
/// about as long as the longest evidence, 16 KiB: without the second bound they could take 200 MB.
const RING_LENGTH: usize = 10_000;
const RING_BYTES_MAX: usize = 16 << 20;
/// What an explanation takes beside its text.
const ENTRY_BYTES: usize = size_of::<Explained>() + 32;
/// How many accounts and sources a summary names.
const SUMMARY_TOP: usize = 20;
/// How many accounts and sources are told apart within a minute.
const COUNTED_MAX: usize = 10_000;
/// The longest name that is told apart: an account number or an address is shorter.
const NAME_BYTES_MAX: usize = 64;

#[derive(Default)]
pub(super) struct Noise {
    ring: VecDeque<Explained>,
    ring_bytes: usize,
    total: u64,
    counts: Counts,
}

/// A record as text, which takes a fraction of the memory that its parts would.
struct Explained {
    id: CorrelationId,
    payload: Box<[u8]>,
}

impl Explained {
    fn bytes(&self) -> usize {
        self.payload.len().saturating_add(ENTRY_BYTES)
    }
}

/// What the next summary says.
#[derive(Default)]
pub(super) struct Counts {
    codes: HashMap<Code, u64>,
    /// Of these, what was not noise: beyond a quota, without room, or not written.
    known: HashMap<Code, u64>,
    accounts: HashMap<String, u64>,
    sources: HashMap<String, u64>,
}

impl Noise {
    pub(super) fn count(&mut self, record: &Record) {
        self.total += 1;
        let counts = &mut self.counts;
        if let Some(code) = record.code {
            *counts.codes.entry(code).or_default() += 1;
            if record.class != Class::Noise {
                *counts.known.entry(code).or_default() += 1;
            }
        }
        count_bounded(&mut counts.accounts, record.account_id.as_deref(), 1);
        count_bounded(&mut counts.sources, record.source.as_deref(), 1);
        self.explain(record);
    }

    fn explain(&mut self, record: &Record) {
        let (Some(id), Ok(payload)) = (record.correlation_id.clone(), record.to_payload()) else {
            return;
        };
        let explained = Explained { id, payload: payload.into_boxed_slice() };
        self.ring_bytes = self.ring_bytes.saturating_add(explained.bytes());
        self.ring.push_back(explained);
        while self.ring.len() > RING_LENGTH || self.ring_bytes > RING_BYTES_MAX {
            let Some(oldest) = self.ring.pop_front() else { return };
            self.ring_bytes = self.ring_bytes.saturating_sub(oldest.bytes());
        }
    }

    pub(super) fn recall(&self, id: &CorrelationId) -> Option<Record> {
        let found = self.ring.iter().rev().find(|explained| explained.id == *id)?;
        serde_json::from_slice(&found.payload).ok()
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Bytes of the explanations in memory.
    pub(super) fn explained_bytes(&self) -> usize {
        self.ring_bytes
    }

    /// The summary of what was counted since the last one, and the counts in case that it cannot be
    /// written.
    pub(super) fn take_summary(&mut self, now: Timestamp) -> Option<(Record, Counts)> {
        if self.counts.codes.is_empty() {
            return None;
        }
        let counts = std::mem::take(&mut self.counts);
        let summary = Record::new(now, Class::Noise, "summary", Outcome::Refused)
            .with("codes", by_code(&counts.codes))
            .with("known", by_code(&counts.known))
            .with("accounts", top(&counts.accounts))
            .with("sources", top(&counts.sources));
        Some((summary, counts))
    }

    /// Counts stay exact when a summary was not written.
    pub(super) fn give_back(&mut self, counts: Counts) {
        for (to, from) in
            [(&mut self.counts.codes, counts.codes), (&mut self.counts.known, counts.known)]
        {
            for (code, count) in from {
                *to.entry(code).or_default() += count;
            }
        }
        for (to, from) in [
            (&mut self.counts.accounts, counts.accounts),
            (&mut self.counts.sources, counts.sources),
        ] {
            for (name, count) in from {
                count_bounded(to, Some(&name), count);
            }
        }
    }
}

fn count_bounded(counts: &mut HashMap<String, u64>, name: Option<&str>, count: u64) {
    let name = name.unwrap_or("unverified");
    let is_told_apart =
        counts.contains_key(name) || (counts.len() < COUNTED_MAX && name.len() <= NAME_BYTES_MAX);
    *counts.entry(if is_told_apart { name } else { "others" }.to_owned()).or_default() += count;
}

fn by_code(counts: &HashMap<Code, u64>) -> Map<String, Value> {
    counts.iter().map(|(code, count)| (code.as_str().to_owned(), (*count).into())).collect()
}

fn top(counts: &HashMap<String, u64>) -> Map<String, Value> {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by(|(a, many), (b, few)| few.cmp(many).then_with(|| a.cmp(b)));
    counts.into_iter().take(SUMMARY_TOP).map(|(name, n)| (name.clone(), (*n).into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(number: u64, text: usize) -> Record {
        let mut id = [0; 10];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let now = Timestamp::from_unix_seconds(0);
        let mut record = Record::new(now, Class::Noise, "join", Outcome::Refused);
        record.code = Some(Code::PolicyNoMatch);
        record.correlation_id = Some(CorrelationId::new('n', id));
        record.account_id = Some(format!("{number:012}"));
        record.source = Some(format!("2001:db8::{:x}:{:x}", number >> 16, number & 0xffff));
        record.with("claims", "x".repeat(text))
    }

    // The ring is full of the longest explanations, and nothing else grows with the crowd.
    #[test]
    fn explanations_are_bounded_in_number_and_in_bytes() {
        for (text, kept) in [(0, RING_LENGTH), (20_000, RING_BYTES_MAX / 20_800)] {
            let mut noise = Noise::default();
            for number in 0..15_000 {
                noise.count(&refusal(number, text));
            }
            assert!(
                noise.ring.len() >= kept && noise.ring.len() <= RING_LENGTH,
                "{}",
                noise.ring.len()
            );
            let held: usize = noise.ring.iter().map(Explained::bytes).sum();
            assert_eq!(held, noise.explained_bytes());
            assert!(held <= RING_BYTES_MAX, "{held}");
            let last = refusal(14_999, text);
            assert_eq!(noise.recall(last.correlation_id.as_ref().unwrap()), Some(last));
            assert_eq!(noise.recall(refusal(0, 0).correlation_id.as_ref().unwrap()), None);
            assert_eq!(noise.total(), 15_000);
        }
    }

    #[test]
    fn names_are_bounded_in_number_and_in_length_and_every_refusal_is_counted() {
        let mut noise = Noise::default();
        for number in 0..15_000 {
            let mut record = refusal(number, 0);
            if number % 3 == 0 {
                record.source = Some("x".repeat(1000));
            }
            noise.count(&record);
        }
        for counts in [&noise.counts.accounts, &noise.counts.sources] {
            assert!(counts.len() <= COUNTED_MAX + 1);
            assert!(counts.keys().all(|name| name.len() <= NAME_BYTES_MAX));
            assert_eq!(counts.values().sum::<u64>(), 15_000);
        }
        let (summary, counts) = noise.take_summary(Timestamp::from_unix_seconds(0)).unwrap();
        assert_eq!(summary.detail["codes"]["POLICY_NO_MATCH"], 15_000);
        assert!(summary.to_payload().unwrap().len() < 4096);
        // Given back and taken again, nothing is lost.
        noise.give_back(counts);
        let again = noise.take_summary(Timestamp::from_unix_seconds(0)).unwrap();
        assert_eq!(again.0.detail["codes"], summary.detail["codes"]);
        for counts in [&again.1.accounts, &again.1.sources] {
            assert_eq!(counts.values().sum::<u64>(), 15_000);
        }
    }
}
