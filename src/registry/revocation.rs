//! Which certificates are worth nothing although they have not ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{ATTEMPTS, Enrollment, Issue, Registry, decode, put};
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

/// The entry that revokes a certificate until it ends.
pub(super) fn revoke(issue: &Issue, now: Timestamp) -> Result<Put, StoreUnavailable> {
    let key = Key::new(["revoked", issue.order.serial.to_string().as_str()]);
    let not_after = issue.order.not_after;
    let mut entry = put(&key, &Revoked { since: now, not_after })?;
    entry.expires_at = Some(not_after);
    Ok(entry)
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
        if locks.is_empty() {
            return Ok(revoked);
        }
        let is_live =
            |enrollment: &Enrollment| enrollment.issues().any(|issue| issue.order.not_after >= now);
        let (nodes, _) = self.list(None, usize::MAX, is_live).await?;
        for node in &nodes {
            let Some(lock) = locks.iter().find(|lock| lock.target.holds(node)) else { continue };
            let held = node.issues().map(|issue| (issue.order.serial, issue.order.not_after));
            let given_up = node.superseded.iter().map(|one| (one.serial, one.not_after));
            for (serial, _) in held.chain(given_up).filter(|(_, not_after)| *not_after >= now) {
                revoked.entry(serial).or_insert(lock.since);
            }
        }
        Ok(revoked)
    }
}
