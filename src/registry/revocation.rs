//! Which certificates are worth nothing although they have not ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{ATTEMPTS, Enrollment, Registry, decode, put};
use crate::domain::{Serial, Timestamp};
use crate::store::{CommitError, Condition, Key, Put, StoreUnavailable, Transaction};

const PREFIX: &str = "revoked/";

/// Says that the set of revoked certificates may have changed.
#[derive(Debug, Clone, Default)]
pub(super) struct Revocations(Arc<Notify>);

impl Revocations {
    pub(super) fn changed(&self) {
        self.0.notify_one();
    }
}

/// A certificate that is worth nothing from this time on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoked {
    since: Timestamp,
    not_after: Timestamp,
}

/// The entries that revoke certificates until they end: those of `enrollment` but for the kept ones.
pub(super) fn revoke(
    enrollment: &Enrollment,
    is_kept: impl Fn(Serial) -> bool,
    now: Timestamp,
) -> Result<Vec<Put>, StoreUnavailable> {
    let gone = enrollment.alive(now).filter(|(serial, ..)| !is_kept(*serial));
    gone.map(|(serial, not_after, _)| {
        let key = Key::new(["revoked", serial.to_string().as_str()]);
        let mut entry = put(&key, &Revoked { since: now, not_after })?;
        entry.expires_at = Some(not_after);
        Ok(entry)
    })
    .collect()
}

impl Registry {
    /// Waits until the revoked certificates may have changed.
    pub async fn revocations_changed(&self) {
        self.revocations.0.notified().await;
    }

    /// A number for the next list, higher than that of every list before it.
    pub async fn next_list_number(&self) -> Result<u64, StoreUnavailable> {
        let key = Key::new(["crl", "number"]);
        for _ in 0..ATTEMPTS {
            let last = self.read::<u64>(&key).await?;
            let number = last.map_or(0, |(last, _)| last).saturating_add(1);
            let unchanged = match last {
                Some((_, version)) => Condition::Unchanged(key.clone(), version),
                None => Condition::Absent(key.clone()),
            };
            let (conditions, puts) = (vec![unchanged], vec![put(&key, &number)?]);
            let transaction = Transaction { conditions, puts, ..Transaction::default() };
            match self.store.commit(transaction).await {
                Ok(_) => return Ok(number),
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Unavailable(error)) => return Err(error),
            }
        }
        Err(StoreUnavailable("the number of the revocation list keeps changing".to_owned()))
    }

    /// Every certificate that has not ended and is worth nothing: those that were taken over, and
    /// those that nodes hold on which a lock stands. By serial, with the time since when.
    ///
    /// Reads all enrollments if a lock stands, and none otherwise.
    pub async fn revoked(
        &self,
        now: Timestamp,
    ) -> Result<BTreeMap<Serial, Timestamp>, StoreUnavailable> {
        const BATCH: usize = 1024;
        let mut revoked = BTreeMap::new();
        let mut after = None;
        loop {
            let page = self.store.scan(PREFIX, after.as_ref(), BATCH).await?;
            for (key, versioned) in page.items {
                let entry: Revoked = decode(&key, &versioned.value)?;
                let serial = key.as_str().strip_prefix(PREFIX).and_then(|text| text.parse().ok());
                let unreadable = || StoreUnavailable(format!("`{}`: no serial", key.as_str()));
                if entry.not_after >= now {
                    revoked.insert(serial.ok_or_else(unreadable)?, entry.since);
                }
                after = Some(key);
            }
            if !page.more {
                break;
            }
        }
        let locks = self.locks().await?;
        let locks: Vec<_> = locks.iter().filter(|lock| lock.stands(now)).collect();
        let mut after = None;
        while !locks.is_empty() {
            let page = self.store.scan("enrollment/", after.as_ref(), BATCH).await?;
            for (key, versioned) in page.items {
                let node: Enrollment = decode(&key, &versioned.value)?;
                for (serial, _, policy) in node.alive(now) {
                    let lock =
                        locks.iter().find(|lock| lock.target.holds_certificate(&node, policy));
                    if let Some(lock) = lock {
                        revoked.entry(serial).or_insert(lock.since);
                    }
                }
                after = Some(key);
            }
            if !page.more {
                break;
            }
        }
        Ok(revoked)
    }
}
