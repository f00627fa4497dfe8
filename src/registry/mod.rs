//! What the server remembers, in domain terms: enrollments and the keys that belong to them, policy
//! sets that were in force.
//!
//! One instance, one enrollment, one key (I4). Every change of an enrollment is one transaction
//! with its audit record (I9), under the condition that nothing it was decided on has changed.

mod enrollment;
mod policy_sets;
mod rules;

use std::sync::Arc;

use crate::domain::{KeyDigest, Lifetime, NodeId, Subject, Timestamp};
use crate::policy::{Approval, Order};
use crate::store::{
    Append, CommitError, Condition, Key, Put, Store, StoreUnavailable, Transaction,
};

pub use enrollment::{Enrollment, Event, Grant, State, Superseded};
pub use rules::{Change, Conflict};

/// How often a transaction that met a change is decided anew before the node is asked to come back.
const ATTEMPTS: usize = 16;
/// How long a forgotten enrollment may be bound anew.
const FORGET_WINDOW: Lifetime = Lifetime::from_hours(1);

/// Enrollments on top of a store.
#[derive(Clone)]
pub struct Registry {
    store: Arc<dyn Store>,
}

/// What is on record about a subject and a key, and in which version it was read.
#[derive(Debug, Default)]
pub struct View {
    enrollment: Option<(Enrollment, u64)>,
    key: Option<(KeyEntry, u64)>,
}

/// To which enrollment a key belongs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    enrollment: String,
    /// A retired key stays taken and is never valid again.
    retired: bool,
}

/// An order on durable record, with its audit record: the only thing that a CA issues.
///
/// ```compile_fail,E0451
/// use muster::registry::{Change, Enrollment, Recorded};
/// fn forge(enrollment: Enrollment) -> Recorded {
///     Recorded { enrollment, version: 1, change: Change::Enroll }
/// }
/// ```
#[derive(Debug)]
pub struct Recorded {
    enrollment: Enrollment,
    version: u64,
    change: Change,
}

impl Recorded {
    /// Asserts that the enrollment stands in the store in this version.
    fn assertion(enrollment: Enrollment, version: u64, change: Change) -> Self {
        Self { enrollment, version, change }
    }

    /// The order.
    pub fn order(&self) -> &Order {
        &self.enrollment.order
    }

    /// The enrollment as recorded.
    pub fn enrollment(&self) -> &Enrollment {
        &self.enrollment
    }

    /// What the record changed.
    pub fn change(&self) -> Change {
        self.change
    }
}

/// A change that is about to be recorded.
#[derive(Debug, Clone, Copy)]
pub struct Recording<'a> {
    /// The enrollment as it stands.
    pub before: Option<&'a Enrollment>,
    /// As it will be.
    pub after: &'a Enrollment,
    /// What changes.
    pub change: Change,
}

/// Why an approval was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The rules of enrollments refuse it.
    #[error(transparent)]
    Conflict(#[from] Box<Conflict>),
    /// The store did not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
}

impl View {
    /// The enrollment, if there is one.
    pub fn enrollment(&self) -> Option<&Enrollment> {
        self.enrollment.as_ref().map(|(enrollment, _)| enrollment)
    }

    /// Whether an operator has allowed one rejoin that is still good.
    pub fn has_grant(&self, now: Timestamp) -> bool {
        self.enrollment().is_some_and(|enrollment| enrollment.active_grant(now).is_some())
    }

    /// Whether a retired key was presented, or one of another enrollment.
    fn key_holder(&self) -> Option<(&str, bool)> {
        self.key.as_ref().map(|(entry, _)| (entry.enrollment.as_str(), entry.retired))
    }

    /// The conflict that stands whatever else is wrong: this run is bound to another key, and nobody
    /// has allowed a rejoin.
    pub fn other_key(
        &self,
        key: KeyDigest,
        epoch: Timestamp,
        besides: &str,
        now: Timestamp,
    ) -> Option<Box<Conflict>> {
        if self.has_grant(now) {
            return None;
        }
        rules::other_key(self.enrollment()?, key, epoch, besides)
    }

    /// Whether a good proof could only show a conflict: then the cloud is asked who it is, and no
    /// more (D2).
    pub fn is_settled_against(&self, key: KeyDigest, epoch: Timestamp, now: Timestamp) -> bool {
        let bound = self.enrollment().filter(|_| !self.has_grant(now));
        bound.is_some_and(|enrollment| rules::is_settled_against(enrollment, key, epoch))
    }

    /// Refuses what can be refused before anybody else is asked.
    pub fn refuse_early(
        &self,
        subject: &Subject,
        slot: &str,
        epoch: Timestamp,
    ) -> Result<(), Box<Conflict>> {
        let place = enrollment_key(subject, slot);
        rules::refuse_early(self.enrollment(), self.key_holder(), place.as_str(), epoch)
    }
}

impl Registry {
    /// A registry on this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Reads what is on record about a subject's slot and a key.
    pub async fn view(
        &self,
        subject: &Subject,
        slot: &str,
        key: KeyDigest,
    ) -> Result<View, StoreUnavailable> {
        Ok(View {
            enrollment: self.read(&enrollment_key(subject, slot)).await?,
            key: self.read(&key_key(key)).await?,
        })
    }

    /// Records an approval: step 5 of a join.
    ///
    /// `view` is what the decision was made on; it is read again only if it has changed since.
    /// `relies_on_grant` says that the approval waived the document's age because of an operator's
    /// grant. `audit` makes the records that become part of the transaction.
    pub async fn record(
        &self,
        approval: &Approval,
        mut view: View,
        relies_on_grant: bool,
        source: &str,
        now: Timestamp,
        audit: impl Fn(Recording<'_>) -> Result<Vec<Append>, StoreUnavailable>,
    ) -> Result<Recorded, RecordError> {
        let place = enrollment_key(approval.subject(), approval.slot());
        let key = approval.order().public_key.digest();
        for _ in 0..ATTEMPTS {
            let change = rules::admit(&view, place.as_str(), approval, relies_on_grant, now)?;
            // A grant is good for one use: another key, or a document that is too old.
            let uses_grant = relies_on_grant || change == Change::Rebind;
            let before = view.enrollment();
            let enrollment = Enrollment::after(before, approval, change, uses_grant, source, now);
            let mut transaction = transaction(&view, &place, &enrollment, change)?;
            transaction.appends.extend(audit(Recording { before, after: &enrollment, change })?);
            match self.store.commit(transaction).await {
                Ok(committed) => {
                    let version = match (change, &view.enrollment) {
                        (Change::Repeat, Some((_, version))) => *version,
                        _ => committed.revision,
                    };
                    return Ok(Recorded::assertion(enrollment, version, change));
                }
                Err(CommitError::Conflict(_)) => {
                    view = self.view(approval.subject(), approval.slot(), key).await?;
                }
                Err(CommitError::Unavailable(error)) => return Err(error.into()),
            }
        }
        Err(StoreUnavailable("the enrollment keeps changing".to_owned()).into())
    }

    /// Keeps the certificate with its order: step 7 of a join. Returns the chain to hand out, which
    /// is another stream's if that was first.
    pub async fn remember(
        &self,
        recorded: &Recorded,
        chain: &[Vec<u8>],
        fingerprint: &str,
        audit: impl Fn(&Enrollment) -> Result<Append, StoreUnavailable>,
    ) -> Result<Vec<Vec<u8>>, StoreUnavailable> {
        let place = enrollment_key(&recorded.enrollment.subject, &recorded.enrollment.slot);
        let mut enrollment = recorded.enrollment.clone();
        let mut version = recorded.version;
        for _ in 0..ATTEMPTS {
            enrollment.keep_certificate(chain, fingerprint);
            let transaction = Transaction {
                conditions: vec![Condition::Unchanged(place.clone(), version)],
                puts: vec![put(&place, &enrollment)?],
                appends: vec![audit(&enrollment)?],
                ..Transaction::default()
            };
            match self.store.commit(transaction).await {
                Ok(_) => return Ok(chain.to_vec()),
                Err(CommitError::Unavailable(error)) => return Err(error),
                Err(CommitError::Conflict(_)) => {}
            }
            let found = self.read::<Enrollment>(&place).await?;
            let (current, current_version) =
                found.ok_or_else(|| StoreUnavailable("the enrollment is gone".to_owned()))?;
            if current.order.serial != recorded.order().serial {
                return Err(StoreUnavailable("another order took its place".to_owned()));
            }
            if let Some(chain) = current.certificate_chain() {
                return Ok(chain);
            }
            (enrollment, version) = (current, current_version);
        }
        Err(StoreUnavailable("the enrollment keeps changing".to_owned()))
    }

    /// The enrollment of a node.
    pub async fn find(&self, node: &NodeId) -> Result<Option<Enrollment>, StoreUnavailable> {
        Ok(self.find_versioned(node).await?.map(|(_, enrollment, _)| enrollment))
    }

    /// Enrollments in order, after the one at `after`, at most `limit`, that `wanted` accepts.
    /// Returns where the next page begins.
    pub async fn list(
        &self,
        after: Option<&str>,
        limit: usize,
        wanted: impl Fn(&Enrollment) -> bool,
    ) -> Result<(Vec<Enrollment>, Option<String>), StoreUnavailable> {
        const BATCH: usize = 256;
        let mut found = Vec::new();
        let mut after = after.map(|text| Key::new([text]));
        loop {
            let page = self.store.scan("enrollment/", after.as_ref(), BATCH).await?;
            for (key, versioned) in page.items {
                let enrollment: Enrollment = decode(&key, &versioned.value)?;
                if wanted(&enrollment) {
                    if found.len() == limit {
                        return Ok((found, after.map(|key| key.as_str().to_owned())));
                    }
                    found.push(enrollment);
                }
                after = Some(key);
            }
            if !page.more {
                return Ok((found, None));
            }
        }
    }

    /// Forgets an enrollment but for its floor: for an hour a key may bind anew. The certificate in
    /// force is marked as superseded. Returns `None` if there is no such node.
    pub async fn forget(
        &self,
        node: &NodeId,
        reason: &str,
        now: Timestamp,
        audit: impl Fn(&Enrollment) -> Result<Append, StoreUnavailable>,
    ) -> Result<Option<Enrollment>, StoreUnavailable> {
        let until = now.plus(FORGET_WINDOW);
        self.amend(node, audit, |enrollment| enrollment.forget(until, reason, now)).await
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
        self.amend(node, audit, |enrollment| enrollment.allow_rejoin(until, reason, now)).await
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
            self.amend(node, audit, |enrollment| enrollment.raise_floor(floor, now)).await?;
        }
        Ok(())
    }

    async fn amend(
        &self,
        node: &NodeId,
        audit: impl Fn(&Enrollment) -> Result<Append, StoreUnavailable>,
        change: impl Fn(&mut Enrollment),
    ) -> Result<Option<Enrollment>, StoreUnavailable> {
        for _ in 0..ATTEMPTS {
            let Some((place, mut enrollment, version)) = self.find_versioned(node).await? else {
                return Ok(None);
            };
            change(&mut enrollment);
            let transaction = Transaction {
                conditions: vec![Condition::Unchanged(place.clone(), version)],
                puts: vec![put(&place, &enrollment)?],
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

    async fn find_versioned(
        &self,
        node: &NodeId,
    ) -> Result<Option<(Key, Enrollment, u64)>, StoreUnavailable> {
        let Some((place, _)) = self.read::<String>(&Key::new(["node", node.as_str()])).await?
        else {
            return Ok(None);
        };
        let place = Key::new([place.as_str()]);
        let found = self.read::<Enrollment>(&place).await?;
        Ok(found.map(|(enrollment, version)| (place, enrollment, version)))
    }

    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        key: &Key,
    ) -> Result<Option<(T, u64)>, StoreUnavailable> {
        let Some(found) = self.store.get(key).await? else { return Ok(None) };
        Ok(Some((decode(key, &found.value)?, found.version)))
    }
}

/// The transaction of a change: what was read is a condition, so that a race has one winner.
fn transaction(
    view: &View,
    place: &Key,
    enrollment: &Enrollment,
    change: Change,
) -> Result<Transaction, StoreUnavailable> {
    let unchanged = |key: &Key, version: Option<u64>| match version {
        Some(version) => Condition::Unchanged(key.clone(), version),
        None => Condition::Absent(key.clone()),
    };
    let key = key_key(enrollment.key());
    let mut transaction = Transaction {
        conditions: vec![
            unchanged(place, view.enrollment.as_ref().map(|(_, version)| *version)),
            unchanged(&key, view.key.as_ref().map(|(_, version)| *version)),
        ],
        ..Transaction::default()
    };
    if change == Change::Repeat {
        return Ok(transaction);
    }
    transaction.puts.push(put(place, enrollment)?);
    let held = KeyEntry { enrollment: place.as_str().to_owned(), retired: false };
    transaction.puts.push(put(&key, &held)?);
    if let (Change::Rebind | Change::Displace, Some(before)) = (change, view.enrollment()) {
        let retired = KeyEntry { retired: true, ..held };
        transaction.puts.push(put(&key_key(before.key()), &retired)?);
    }
    let node = Key::new(["node", enrollment.node_id.as_str()]);
    transaction.puts.push(put(&node, &place.as_str())?);
    Ok(transaction)
}

fn enrollment_key(subject: &Subject, slot: &str) -> Key {
    Key::new(["enrollment", subject.path().as_str(), slot])
}

fn key_key(key: KeyDigest) -> Key {
    Key::new(["key", key.to_string().as_str()])
}

fn put(key: &Key, value: &impl serde::Serialize) -> Result<Put, StoreUnavailable> {
    let value = serde_json::to_vec(value).map_err(|error| StoreUnavailable(error.to_string()))?;
    Ok(Put { key: key.clone(), value, expires_at: None })
}

/// What cannot be read is an outage, never "there is nothing".
fn decode<T: serde::de::DeserializeOwned>(key: &Key, value: &[u8]) -> Result<T, StoreUnavailable> {
    serde_json::from_slice(value)
        .map_err(|error| StoreUnavailable(format!("`{}` cannot be read: {error}", key.as_str())))
}
