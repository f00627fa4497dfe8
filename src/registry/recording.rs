//! Step 5: an approval becomes an order on durable record, in one transaction with its audit record
//! (I9), under the condition that nothing it was decided on has changed. Step 7: its certificate is
//! kept beside it.

use std::collections::BTreeSet;

use super::enrollment::Which;
use super::revocation::revoke;
use super::{
    ATTEMPTS, Change, Conflict, Enrollment, Issue, KeyEntry, PresentedCertificate, Registry,
    Ruling, View, certificate_key, enrollment_key, key_key, put, renewal, rules,
};
use crate::domain::{KeyDigest, Timestamp};
use crate::policy::{Approval, Order};
use crate::store::{Append, CommitError, Condition, Key, StoreUnavailable, Transaction};

/// An order on durable record, with its audit record: the only thing that a CA issues.
///
/// ```compile_fail,E0451
/// use muster::registry::{Enrollment, Recorded};
/// fn forge(enrollment: Enrollment, other: Recorded) -> Recorded {
///     Recorded { enrollment, ..other }
/// }
/// ```
#[derive(Debug)]
pub struct Recorded {
    enrollment: Enrollment,
    version: u64,
    change: Change,
    which: Which,
}

impl Recorded {
    /// Asserts that the enrollment stands in the store in this version.
    fn assertion(enrollment: Enrollment, version: u64, change: Change) -> Self {
        let which = match change {
            Change::Renew | Change::RepeatNext | Change::Outrun => Which::Next,
            Change::Enroll
            | Change::Repeat
            | Change::Reorder
            | Change::ComeBack
            | Change::Rebind
            | Change::Displace
            | Change::Rejoin => Which::Current,
        };
        Self { enrollment, version, change, which }
    }

    /// The order.
    pub fn order(&self) -> &Order {
        &self.issue().order
    }

    /// The order, and its certificate if there is one already.
    pub fn issue(&self) -> &Issue {
        self.enrollment.issue(self.which)
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
    /// The order that stands or is made.
    pub order: &'a Order,
    /// What changes.
    pub change: Change,
}

/// What a node that was approved asks for.
#[derive(Debug, Clone, Copy)]
pub enum Asking<'a> {
    /// To be enrolled.
    Join {
        /// The approval waived the document's age because of an operator's grant.
        relies_on_grant: bool,
    },
    /// The certificate after this one.
    Renewal(&'a PresentedCertificate),
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

impl Registry {
    /// Records an approval.
    ///
    /// `view` is what the decision was made on; it is read again only if it has changed since.
    /// `audit` makes the records that become part of the transaction.
    pub async fn record(
        &self,
        approval: &Approval,
        asking: Asking<'_>,
        mut view: View,
        source: &str,
        now: Timestamp,
        audit: impl Fn(Recording<'_>) -> Result<Vec<Append>, StoreUnavailable>,
    ) -> Result<Recorded, RecordError> {
        let (subject, slot) = (approval.subject(), approval.slot());
        let place = enrollment_key(subject, slot);
        let key = approval.order().public_key.digest();
        for _ in 0..ATTEMPTS {
            let ruling = match asking {
                Asking::Join { relies_on_grant } => {
                    rules::admit(&view, place.as_str(), approval, relies_on_grant, now)?
                }
                Asking::Renewal(presented) => {
                    renewal::admit(&view, place.as_str(), presented, approval, now)?
                }
            };
            let before = view.enrollment();
            let after = Enrollment::after(before, approval, ruling, source, now);
            let version = view.enrollment.as_ref().map_or(0, |(_, version)| *version);
            let mut recorded = Recorded::assertion(after, version, ruling.change);
            let transaction = transaction(&view, &place, key, &recorded, ruling, now)?;
            let writes = !transaction.puts.is_empty();
            let recording = Recording {
                before,
                after: recorded.enrollment(),
                order: recorded.order(),
                change: ruling.change,
            };
            let transaction = Transaction { appends: audit(recording)?, ..transaction };
            match self.store.commit(transaction).await {
                Ok(committed) => {
                    if writes {
                        recorded.version = committed.revision;
                    }
                    if ruling.change.revokes() {
                        self.revocations.changed();
                    }
                    return Ok(recorded);
                }
                Err(CommitError::Conflict(_)) => {
                    let (policy, token) = (approval.policy(), approval.token());
                    view = self.view(subject, slot, key, policy, token).await?;
                }
                Err(CommitError::Unavailable(error)) => return Err(error.into()),
            }
        }
        Err(StoreUnavailable("the enrollment keeps changing".to_owned()).into())
    }

    /// Keeps the certificate with its order. Returns the chain to hand out, which is another
    /// stream's if that was first.
    pub async fn remember(
        &self,
        recorded: &Recorded,
        chain: &[Vec<u8>],
        fingerprint: &str,
        audit: impl Fn(&Enrollment) -> Result<Append, StoreUnavailable>,
    ) -> Result<Vec<Vec<u8>>, StoreUnavailable> {
        let place = enrollment_key(&recorded.enrollment.subject, &recorded.enrollment.slot);
        let serial = recorded.order().serial;
        let mut enrollment = recorded.enrollment.clone();
        let mut version = recorded.version;
        for _ in 0..ATTEMPTS {
            let superseded = || StoreUnavailable("another order took its place".to_owned());
            let issue = enrollment.issue_mut(serial).ok_or_else(superseded)?;
            if let Some(chain) = issue.chain() {
                return Ok(chain);
            }
            issue.keep(chain, fingerprint);
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
            (enrollment, version) =
                found.ok_or_else(|| StoreUnavailable("the enrollment is gone".to_owned()))?;
        }
        Err(StoreUnavailable("the enrollment keeps changing".to_owned()))
    }
}

/// The transaction of a change: what was read is a condition, so that a race has one winner.
fn transaction(
    view: &View,
    place: &Key,
    key: KeyDigest,
    recorded: &Recorded,
    ruling: Ruling,
    now: Timestamp,
) -> Result<Transaction, StoreUnavailable> {
    let (before, after) = (view.enrollment(), recorded.enrollment());
    let key_place = key_key(key);
    let mut transaction =
        Transaction { conditions: view.conditions(place, &key_place), ..Transaction::default() };
    let is_ordered = !matches!(ruling.change, Change::Repeat | Change::RepeatNext);
    if !is_ordered && !ruling.promotes {
        return Ok(transaction);
    }
    transaction.puts.push(put(place, after)?);
    if let Some(token) = view.token.as_ref().filter(|_| ruling.counts) {
        token.count(now, &mut transaction)?;
    }
    let puts = &mut transaction.puts;
    let held = KeyEntry { enrollment: place.as_str().to_owned(), retired: false };
    if is_ordered {
        let order = recorded.order();
        puts.push(put(&key_place, &held)?);
        puts.push(put(&Key::new(["node", after.node_id.as_str()]), &place.as_str())?);
        let mut entry = put(&certificate_key(order.serial), &place.as_str())?;
        entry.expires_at = Some(order.not_after);
        puts.push(entry);
    }
    let retired = KeyEntry { retired: true, ..held };
    let keys = |one: &Enrollment| one.issues().map(Issue::key).collect::<BTreeSet<_>>();
    for key in before.map(keys).unwrap_or_default().difference(&keys(after)) {
        puts.push(put(&key_key(*key), &retired)?);
    }
    if let Some(before) = before.filter(|_| ruling.change.revokes()) {
        let is_kept = |serial| after.issues().any(|kept| kept.order.serial == serial);
        puts.extend(revoke(before, is_kept, now)?);
    }
    Ok(transaction)
}
