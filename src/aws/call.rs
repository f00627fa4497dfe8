//! What becomes of calls to AWS: how they fail, and how many there were.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::{NoAnswer, Service};
use crate::domain::{Lifetime, Timestamp};

/// A call that gave no usable answer: an outage, never a denial of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", .service.as_str().to_uppercase())]
pub struct CallFailed {
    /// Who was asked.
    pub service: Service,
    /// What kind of failure.
    pub kind: Failure,
    /// What happened, for the operator; never holds credentials or a whole answer (I10).
    pub detail: String,
}

/// Kinds of failure, by what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Too many calls: waiting helps.
    Throttled,
    /// No answer, or none that can be read: waiting may help.
    Unavailable,
    /// The server may not ask: an operator has to grant it.
    Forbidden,
}

impl CallFailed {
    /// A failure of this kind.
    pub fn new(service: Service, kind: Failure, detail: impl Into<String>) -> Self {
        Self { service, kind, detail: detail.into() }
    }

    /// No answer.
    pub fn no_answer(service: Service, error: &NoAnswer) -> Self {
        Self::new(service, Failure::Unavailable, error.to_string())
    }
}

/// How long a comparison of clocks says something.
const COMPARISON_LIFETIME: Lifetime = Lifetime::from_minutes(10);

/// Counts of calls to one service since the process began.
#[derive(Debug, Default)]
pub struct CallCounts {
    calls: AtomicU64,
    throttled: AtomicU64,
    failed: AtomicU64,
    last_success: AtomicI64,
}

impl CallCounts {
    /// Counts a call that ended now.
    pub fn count<T>(&self, result: &Result<T, CallFailed>, now: Timestamp) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(_) => self.last_success.store(now.unix_seconds(), Ordering::Relaxed),
            Err(CallFailed { kind: Failure::Throttled, .. }) => {
                self.throttled.fetch_add(1, Ordering::Relaxed);
            }
            Err(CallFailed { kind: Failure::Unavailable | Failure::Forbidden, .. }) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Calls that were made.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Of these, how many were throttled.
    pub fn throttled(&self) -> u64 {
        self.throttled.load(Ordering::Relaxed)
    }

    /// Of these, how many failed otherwise.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// When an answer last came; `None` if none ever did.
    pub fn last_success(&self) -> Option<Timestamp> {
        match self.last_success.load(Ordering::Relaxed) {
            0 => None,
            seconds => Some(Timestamp::from_unix_seconds(seconds)),
        }
    }
}

/// Counts of calls to every service.
#[derive(Debug, Default)]
pub struct CallStatistics {
    /// To STS.
    pub sts: CallCounts,
    /// To EC2.
    pub ec2: CallCounts,
    /// To SSM.
    pub ssm: CallCounts,
    /// By how many seconds this machine's clock was ahead of AWS's at the last answer.
    seconds_ahead: AtomicI64,
    /// When that answer came; 0 if none ever did.
    compared_at: AtomicI64,
}

impl CallStatistics {
    /// Compares this machine's clock with the `Date` of an answer.
    pub(super) fn compare(&self, now: Timestamp, date: Option<Timestamp>) {
        if let Some(date) = date {
            let ahead = now.unix_seconds().saturating_sub(date.unix_seconds());
            self.seconds_ahead.store(ahead, Ordering::Relaxed);
            self.compared_at.store(now.unix_seconds(), Ordering::Relaxed);
        }
    }

    /// By how many seconds this machine's clock is ahead of AWS's (behind, if negative); `None` if no
    /// answer came within the last 10 minutes.
    pub fn seconds_ahead(&self, now: Timestamp) -> Option<i64> {
        let compared_at = Timestamp::from_unix_seconds(self.compared_at.load(Ordering::Relaxed));
        let is_recent = now.since(compared_at) < COMPARISON_LIFETIME;
        is_recent.then(|| self.seconds_ahead.load(Ordering::Relaxed))
    }
}
