//! What is on record about a subject and a key, read once and held against every decision.

use std::collections::BTreeSet;

use super::locks::{Lock, LockTarget};
use super::tokens::TokenView;
use super::{
    Conflict, Enrollment, KeyEntry, PresentedCertificate, Registry, decode, enrollment_key,
    key_key, renewal, rules,
};
use crate::domain::{Code, KeyDigest, PolicyName, Subject, Timestamp, Token};
use crate::store::{Condition, Key, StoreUnavailable, Versioned};

/// What is on record about a subject and a key, and in which version it was read.
#[derive(Debug, Default)]
pub struct View {
    pub(super) enrollment: Option<(Enrollment, u64)>,
    pub(super) key: Option<(KeyEntry, u64)>,
    /// Every lock that could hold this node, there or not.
    locks: Vec<(Key, Option<(Lock, u64)>)>,
    /// The token that is used, if one is and it is still there.
    pub(super) token: Option<TokenView>,
}

impl Registry {
    /// Reads what is on record about a subject's slot, a key, the locks that could hold it, and the
    /// token that it comes with.
    pub async fn view(
        &self,
        subject: &Subject,
        slot: &str,
        key: KeyDigest,
        policy: &PolicyName,
        token: Option<&Token>,
    ) -> Result<View, StoreUnavailable> {
        let (place, key) = (enrollment_key(subject, slot), key_key(key));
        let targets = lock_targets(subject, slot, policy);
        let locks: Vec<Key> = targets.iter().map(LockTarget::key).collect();
        let keys: Vec<Key> = [&place, &key].into_iter().chain(&locks).cloned().collect();
        let mut view = View::default();
        let mut found = self.store.get_all(&keys).await?.into_iter();
        view.enrollment = parse(&place, found.next().flatten())?;
        view.key = parse(&key, found.next().flatten())?;
        view.add_locks(locks, found)?;
        let held = view.enrollment().map(held_locks).unwrap_or_default();
        let held: Vec<Key> = held
            .into_iter()
            .filter(|key| view.locks.iter().all(|(known, _)| known != key))
            .collect();
        if !held.is_empty() {
            let found = self.store.get_all(&held).await?;
            view.add_locks(held, found.into_iter())?;
        }
        if let Some(token) = token {
            view.token = TokenView::read(self, token).await?;
        }
        Ok(view)
    }
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

    /// To which enrollment the key belongs, and whether it was given up.
    pub(super) fn key_holder(&self) -> Option<(&str, bool)> {
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

    /// Refuses a join that can be refused before anybody else is asked.
    pub fn refuse_early(
        &self,
        subject: &Subject,
        slot: &str,
        epoch: Timestamp,
        now: Timestamp,
    ) -> Result<(), Box<Conflict>> {
        self.refuse_locked(now)?;
        let place = enrollment_key(subject, slot);
        rules::refuse_early(self.enrollment(), self.key_holder(), place.as_str(), epoch)
    }

    /// Refuses a renewal that can be refused before anybody else is asked.
    pub fn refuse_renewal_early(
        &self,
        subject: &Subject,
        slot: &str,
        presented: &PresentedCertificate,
        new_key: KeyDigest,
        epoch: Timestamp,
        now: Timestamp,
    ) -> Result<(), Box<Conflict>> {
        self.refuse_locked(now)?;
        let place = enrollment_key(subject, slot);
        renewal::refuse_early(self, place.as_str(), presented, new_key, epoch)
    }

    /// Refuses whatever a lock holds.
    pub(super) fn refuse_locked(&self, now: Timestamp) -> Result<(), Box<Conflict>> {
        let locks = self.locks.iter().filter_map(|(_, lock)| lock.as_ref());
        let Some((lock, _)) = locks.into_iter().find(|(lock, _)| lock.stands(now)) else {
            return Ok(());
        };
        let until = lock.until.map_or_else(String::new, |until| format!(" until {until}"));
        let message =
            format!("{} is locked since {}{until}: {}", lock.target, lock.since, lock.reason);
        Err(Conflict::new(Code::Locked, &message, self.enrollment()))
    }

    /// What must still be so when a decision on this view is recorded.
    pub(super) fn conditions(&self, place: &Key, key: &Key) -> Vec<Condition> {
        let read = [
            (place, self.enrollment.as_ref().map(|(_, version)| *version)),
            (key, self.key.as_ref().map(|(_, version)| *version)),
        ];
        let locks = self.locks.iter();
        let locks = locks.map(|(key, lock)| (key, lock.as_ref().map(|(_, version)| *version)));
        read.into_iter()
            .chain(locks)
            .map(|(key, version)| match version {
                Some(version) => Condition::Unchanged(key.clone(), version),
                None => Condition::Absent(key.clone()),
            })
            .chain(self.token.iter().map(TokenView::condition))
            .collect()
    }

    fn add_locks(
        &mut self,
        keys: Vec<Key>,
        found: impl Iterator<Item = Option<Versioned>>,
    ) -> Result<(), StoreUnavailable> {
        for (key, found) in keys.into_iter().zip(found) {
            let lock = parse(&key, found)?;
            self.locks.push((key, lock));
        }
        Ok(())
    }
}

/// Every lock that could hold this subject under this policy, but for those of its certificates.
fn lock_targets(subject: &Subject, slot: &str, policy: &PolicyName) -> Vec<LockTarget> {
    let mut targets =
        vec![LockTarget::Node(subject.node_id(slot)), LockTarget::Policy(policy.clone())];
    let parsed = |name| subject.segment(name).map(str::to_owned);
    targets
        .extend(parsed("instance_id").and_then(|id| Some(LockTarget::Instance(id.parse().ok()?))));
    let account = parsed("account_id").and_then(|account| account.parse().ok());
    let partition = parsed("partition").and_then(|partition| partition.parse().ok());
    targets.extend(
        partition
            .zip(account)
            .map(|(partition, account)| LockTarget::Account { partition, account }),
    );
    targets
}

/// The locks that could hold the certificates of a node, by their serials and by the policies that
/// they came by: a locked policy is not left by joining under another.
fn held_locks(enrollment: &Enrollment) -> BTreeSet<Key> {
    let targets = enrollment.issues().flat_map(|issue| {
        let policy = issue.policy.parse().map(LockTarget::Policy);
        policy.into_iter().chain([LockTarget::Serial(issue.order.serial)])
    });
    targets.map(|target| target.key()).collect()
}

fn parse<T: serde::de::DeserializeOwned>(
    key: &Key,
    found: Option<Versioned>,
) -> Result<Option<(T, u64)>, StoreUnavailable> {
    found.map(|found| Ok((decode(key, &found.value)?, found.version))).transpose()
}
