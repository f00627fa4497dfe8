//! How publishing goes, for `muster publications ls` and the metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Clock;
use crate::domain::{Lifetime, PolicyName, Timestamp};

/// A target of a publication.
pub(in crate::server) type TargetKey = (PolicyName, String);

/// How it goes with one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct Status {
    /// Since when it is wanted, by this process.
    pub(in crate::server) since: Timestamp,
    /// How often a token should be published; nothing for one that is on its way out.
    pub(in crate::server) period: Option<Lifetime>,
    /// When a token was last read back.
    pub(in crate::server) published_at: Option<Timestamp>,
    /// What went wrong last, until something went right.
    pub(in crate::server) error: Option<String>,
    /// How often something went wrong.
    pub(in crate::server) errors: u64,
}

/// All targets that this process publishes.
pub(in crate::server) struct Board {
    clock: Clock,
    targets: Mutex<BTreeMap<TargetKey, Status>>,
}

impl Board {
    pub(in crate::server) fn new(clock: Clock) -> Self {
        Self { clock, targets: Mutex::default() }
    }

    pub(in crate::server) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Every target, in order.
    pub(in crate::server) fn all(&self) -> BTreeMap<TargetKey, Status> {
        self.targets().clone()
    }

    /// It went well, and the token there is of then.
    pub(super) fn went_well(
        &self,
        key: &TargetKey,
        period: Option<Lifetime>,
        published_at: Option<Timestamp>,
    ) {
        let now = self.now();
        let mut targets = self.targets();
        let status = targets.entry(key.clone()).or_insert_with(|| Status::new(now));
        status.period = period;
        status.published_at = published_at;
        status.error = None;
    }

    /// It went wrong; whether that is news.
    pub(super) fn went_wrong(
        &self,
        key: &TargetKey,
        period: Option<Lifetime>,
        error: &str,
    ) -> bool {
        let now = self.now();
        let mut targets = self.targets();
        let status = targets.entry(key.clone()).or_insert_with(|| Status::new(now));
        status.period = period;
        status.errors += 1;
        let is_news = status.error.as_deref() != Some(error);
        status.error = Some(error.to_owned());
        is_news
    }

    /// Nobody wants it any more.
    pub(super) fn forget(&self, key: &TargetKey) {
        self.targets().remove(key);
    }

    /// Somebody else publishes.
    pub(super) fn clear(&self) {
        self.targets().clear();
    }

    fn targets(&self) -> MutexGuard<'_, BTreeMap<TargetKey, Status>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Status {
    fn new(since: Timestamp) -> Self {
        Self { since, period: None, published_at: None, error: None, errors: 0 }
    }
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}
