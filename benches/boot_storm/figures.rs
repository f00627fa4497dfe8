//! What a storm has cost, as numbers and in words.

use std::collections::BTreeMap;
use std::time::Duration;

use muster::client::JoinError;
use serde::Serialize;

use crate::node::Joined;
use crate::site::Usage;

/// What all nodes of one storm went through.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    /// Of STS and EC2.
    pub(crate) calls: (u64, u64),
    /// How many connections strangers made meanwhile.
    pub(crate) strangers: u64,
    /// How long the parts of an answer are.
    pub(crate) sizes: [usize; 4],
    took: Vec<Duration>,
    retried: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
}

impl Outcome {
    pub(crate) fn add(&mut self, joined: Result<Joined, JoinError>) {
        match joined {
            Ok(joined) => {
                self.took.push(joined.took);
                for code in joined.retried {
                    *self.retried.entry(code.to_string()).or_default() += 1;
                }
                self.sizes = joined.answer.sizes();
            }
            Err(error) => *self.refused.entry(error.code.to_string()).or_default() += 1,
        }
    }
}

/// The figures of one storm.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    pub(crate) name: &'static str,
    pub(crate) joined: usize,
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    pub(crate) server_cpu_seconds: f64,
    pub(crate) per_server_cpu_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) server_peak_mib: u64,
    pub(crate) commits: u64,
    pub(crate) sts_calls: u64,
    pub(crate) ec2_calls: u64,
    pub(crate) strangers: u64,
    pub(crate) retried: BTreeMap<String, u64>,
    pub(crate) refused: BTreeMap<String, u64>,
}

impl Figures {
    pub(crate) fn new(
        name: &'static str,
        mut outcome: Outcome,
        before: Usage,
        after: Usage,
    ) -> Self {
        outcome.took.sort();
        let (joined, seconds) = (outcome.took.len(), outcome.seconds);
        let percentile = |part: usize| {
            let place = (joined * part / 100).min(joined.saturating_sub(1));
            outcome.took.get(place).map_or(0.0, |took| took.as_secs_f64() * 1e3)
        };
        let server_cpu_seconds = after.cpu_seconds - before.cpu_seconds;
        Self {
            name,
            joined,
            seconds,
            per_second: joined as f64 / seconds,
            server_cpu_seconds,
            per_server_cpu_second: joined as f64 / server_cpu_seconds,
            p50_ms: percentile(50),
            p95_ms: percentile(95),
            p99_ms: percentile(99),
            server_peak_mib: after.peak_mib,
            commits: after.commits - before.commits,
            sts_calls: outcome.calls.0,
            ec2_calls: outcome.calls.1,
            strangers: outcome.strangers,
            retried: outcome.retried,
            refused: outcome.refused,
        }
    }

    pub(crate) fn in_words(&self) -> String {
        format!(
            "{:<14} {:>6} in {:>6.2} s  {:>6.0}/s  {:>6.0}/server-CPU-s  p50 {:>6.0}  p95 {:>6.0}  \
             p99 {:>6.0} ms  {:>4} MiB  {:>5} commits  STS {:>5}  EC2 {:>4}  retried {:?}  strangers {}  refused {:?}",
            self.name,
            self.joined,
            self.seconds,
            self.per_second,
            self.per_server_cpu_second,
            self.p50_ms,
            self.p95_ms,
            self.p99_ms,
            self.server_peak_mib,
            self.commits,
            self.sts_calls,
            self.ec2_calls,
            self.retried,
            self.strangers,
            self.refused,
        )
    }
}

/// The same storm of several rounds, figure by figure the middle one; what was told to nodes is added
/// up.
pub(crate) fn median(rounds: &[&Figures]) -> Figures {
    let mut middle = rounds[0].clone();
    let real = |read: fn(&Figures) -> f64| middle_of(rounds.iter().map(|figures| read(figures)));
    let whole = |read: fn(&Figures) -> u64| middle_of(rounds.iter().map(|figures| read(figures)));
    middle.seconds = real(|figures| figures.seconds);
    middle.per_second = real(|figures| figures.per_second);
    middle.server_cpu_seconds = real(|figures| figures.server_cpu_seconds);
    middle.per_server_cpu_second = real(|figures| figures.per_server_cpu_second);
    middle.p50_ms = real(|figures| figures.p50_ms);
    middle.p95_ms = real(|figures| figures.p95_ms);
    middle.p99_ms = real(|figures| figures.p99_ms);
    middle.server_peak_mib = whole(|figures| figures.server_peak_mib);
    middle.commits = whole(|figures| figures.commits);
    middle.sts_calls = whole(|figures| figures.sts_calls);
    middle.ec2_calls = whole(|figures| figures.ec2_calls);
    middle.strangers = whole(|figures| figures.strangers);
    for figures in rounds.get(1..).unwrap_or_default() {
        middle.joined = middle.joined.min(figures.joined);
        add(&mut middle.retried, &figures.retried);
        add(&mut middle.refused, &figures.refused);
    }
    middle
}

fn add(all: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (code, count) in more {
        *all.entry(code.clone()).or_default() += count;
    }
}

/// How the storms of one round compare.
pub(crate) fn ratios(round: &[Figures]) -> BTreeMap<&'static str, f64> {
    type Read = fn(&Figures) -> f64;
    let per_cpu_second: Read = |figures| figures.per_server_cpu_second;
    let per_second: Read = |figures| figures.per_second;
    let find = |name| round.iter().find(|figures| figures.name == name);
    [
        ("document-only of baseline, per CPU-s", "document-only", "baseline", per_cpu_second),
        ("with-proof of document-only, per CPU-s", "with-proof", "document-only", per_cpu_second),
        ("hostile of calm, per CPU-s", "hostile", "calm", per_cpu_second),
        ("hostile of calm, per second", "hostile", "calm", per_second),
        ("known of document-only, per CPU-s", "known", "document-only", per_cpu_second),
        ("known of document-only, per second", "known", "document-only", per_second),
    ]
    .into_iter()
    .filter_map(|(name, one, other, read)| Some((name, read(find(one)?) / read(find(other)?))))
    .collect()
}

/// The middle of each ratio: storms are compared within their round, since a machine is faster in one
/// minute than in the next.
pub(crate) fn median_ratios(rounds: &[Vec<Figures>]) -> BTreeMap<&'static str, f64> {
    let mut all: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for (name, ratio) in rounds.iter().flat_map(|round| ratios(round)) {
        all.entry(name).or_default().push(ratio);
    }
    all.into_iter().map(|(name, found)| (name, middle_of(found))).collect()
}

fn middle_of<T: Copy + PartialOrd>(values: impl IntoIterator<Item = T>) -> T {
    let mut all: Vec<T> = values.into_iter().collect();
    all.sort_by(|one, other| one.partial_cmp(other).unwrap());
    all[all.len() / 2]
}

/// On what was measured.
pub(crate) fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, model)| model)
        .collect();
    format!("{} x {}", models.len(), models.first().unwrap_or(&"unknown"))
}
