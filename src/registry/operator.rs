//! What an operator, or what the cloud tells, changes of an enrollment outside of a join.

use super::revocation::revoke;
use super::{ATTEMPTS, Enrollment, KeyEntry, Registry, enrollment_key, key_key, put};
use crate::domain::{Lifetime, NodeId, Timestamp};
use crate::store::{Append, CommitError, Condition, Put, StoreUnavailable, Transaction};

/// How long a forgotten enrollment may be bound anew.
const FORGET_WINDOW: Lifetime = Lifetime::from_hours(1);

impl Registry {
    /// Forgets an enrollment but for its floor: for an hour a key may bind anew. Its
    /// certificates are revoked. Returns `None` if there is no such node.
    pub async fn forget(
        &self,
        node: &NodeId,
        reason: &str,
        now: Timestamp,
        audit: impl Fn(&Enrollment) -> Result<Append, StoreUnavailable>,
    ) -> Result<Option<Enrollment>, StoreUnavailable> {
        let until = now.plus(FORGET_WINDOW);
        let forgotten = self.amend(node, audit, |enrollment| {
            let mut puts = revoke(enrollment, |_| false, now)?;
            if let Some(key) = enrollment.next_key() {
                let held = enrollment_key(&enrollment.subject, &enrollment.slot);
                let retired = KeyEntry { enrollment: held.as_str().to_owned(), retired: true };
                puts.push(put(&key_key(key), &retired)?);
            }
            enrollment.forget(until, reason, now);
            Ok(puts)
        });
        let forgotten = forgotten.await?;
        self.revocations.changed();
        Ok(forgotten)
    }

    /// Allows one rejoin with another key, or with a document that is too old, until `until`.
    pub async fn allow_rejoin(
        &self,
        node: &NodeId,
        until: Timestamp,
        reason: &str,
        now: Timestamp,
        audit: impl Fn(&Enrollment) -> Result<Append, StoreUnavailable>,
    ) -> Result<Option<Enrollment>, StoreUnavailable> {
        let change = |enrollment: &mut Enrollment| {
            enrollment.allow_rejoin(until, reason, now);
            Ok(Vec::new())
        };
        self.amend(node, audit, change).await
    }

    /// Raises the floor of an enrollment, if there is one with a lower floor: the cloud was seen to
    /// tell of a later start. It never falls.
    pub async fn raise_floor(
        &self,
        node: &NodeId,
        floor: Timestamp,
        now: Timestamp,
        audit: impl Fn(&Enrollment) -> Result<Append, StoreUnavailable>,
    ) -> Result<(), StoreUnavailable> {
        let known = self.find(node).await?;
        if known.is_some_and(|one| one.floor < floor) {
            let change = |enrollment: &mut Enrollment| {
                enrollment.raise_floor(floor, now);
                Ok(Vec::new())
            };
            self.amend(node, audit, change).await?;
        }
        Ok(())
    }

    async fn amend(
        &self,
        node: &NodeId,
        audit: impl Fn(&Enrollment) -> Result<Append, StoreUnavailable>,
        change: impl Fn(&mut Enrollment) -> Result<Vec<Put>, StoreUnavailable>,
    ) -> Result<Option<Enrollment>, StoreUnavailable> {
        for _ in 0..ATTEMPTS {
            let Some((place, mut enrollment, version)) = self.find_versioned(node).await? else {
                return Ok(None);
            };
            let mut puts = change(&mut enrollment)?;
            puts.push(put(&place, &enrollment)?);
            let transaction = Transaction {
                conditions: vec![Condition::Unchanged(place.clone(), version)],
                puts,
                appends: vec![audit(&enrollment)?],
                ..Transaction::default()
            };
            match self.store.commit(transaction).await {
                Ok(_) => return Ok(Some(enrollment)),
                Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Unavailable(error)) => return Err(error),
            }
        }
        Err(StoreUnavailable("the enrollment keeps changing".to_owned()))
    }
}
