//! Locks: what an operator, or a clone signal, takes out of service. A lock is a condition of every
//! commit, so that one placed while a node is judged wins (red team N5, T72).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ATTEMPTS, Enrollment, Registry, decode, put};
use crate::domain::{AccountId, InstanceId, NodeId, Partition, PolicyName, Serial, Timestamp};
use crate::store::{Append, CommitError, Condition, Key, StoreUnavailable, Transaction};

const PREFIX: &str = "lock/";

/// What is locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LockTarget {
    /// One node.
    Node(NodeId),
    /// Whatever joins from this instance.
    Instance(InstanceId),
    /// Every node of an account.
    Account {
        /// Its partition: account numbers are only unique within one.
        partition: Partition,
        /// Its number.
        account: AccountId,
    },
    /// Every node of a policy.
    Policy(PolicyName),
    /// The node that holds this certificate.
    Serial(Serial),
}

/// A lock that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// What is locked.
    pub target: LockTarget,
    /// Why, in an operator's words or muster's own.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when; for ever if none.
    pub until: Option<Timestamp>,
}

impl fmt::Display for LockTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Instance(instance) => write!(f, "instance {instance}"),
            Self::Account { partition, account } => write!(f, "account {partition}/{account}"),
            Self::Policy(policy) => write!(f, "policy {policy}"),
            Self::Serial(serial) => write!(f, "certificate {serial}"),
        }
    }
}

impl LockTarget {
    pub(super) fn key(&self) -> Key {
        let (kind, value) = match self {
            Self::Node(node) => ("node", node.to_string()),
            Self::Instance(instance) => ("instance", instance.to_string()),
            Self::Account { partition, account } => ("account", format!("{partition}-{account}")),
            Self::Policy(policy) => ("policy", policy.to_string()),
            Self::Serial(serial) => ("serial", serial.to_string()),
        };
        Key::new(["lock", kind, value.as_str()])
    }

    /// Whether a lock of this holds this node.
    pub fn holds(&self, enrollment: &Enrollment) -> bool {
        let segment = |name| enrollment.subject.segment(name);
        match self {
            Self::Node(node) => enrollment.node_id == *node,
            Self::Instance(instance) => enrollment.subject.name() == instance.as_str(),
            Self::Account { partition, account } => {
                segment("partition") == Some(partition.as_str())
                    && segment("account_id") == Some(account.as_str())
            }
            Self::Policy(policy) => {
                enrollment.issues().any(|issue| issue.policy == policy.as_str())
            }
            Self::Serial(serial) => enrollment.issues().any(|issue| issue.order.serial == *serial),
        }
    }

    /// Whether a lock of this takes a certificate of the node out of service, which is by this policy.
    /// A lock of a policy is about what came by it, whatever the node has joined since.
    pub(super) fn holds_certificate(&self, enrollment: &Enrollment, by: &str) -> bool {
        match self {
            Self::Policy(policy) => policy.as_str() == by,
            Self::Node(_) | Self::Instance(_) | Self::Account { .. } | Self::Serial(_) => {
                self.holds(enrollment)
            }
        }
    }
}

impl Lock {
    /// This lock in the place of one that stands: nothing that is locked is let out by it.
    fn joined_with(&self, known: &Self) -> Self {
        let until = self.until.zip(known.until).map(|(own, known)| own.max(known));
        Self { since: known.since, until, ..self.clone() }
    }

    /// Whether it stands at this time.
    pub fn stands(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now <= until)
    }
}

impl Registry {
    /// Places locks. Of a lock that stands already the beginning stays, and the later end.
    pub async fn lock(
        &self,
        locks: &[Lock],
        audit: impl Fn() -> Result<Vec<Append>, StoreUnavailable>,
    ) -> Result<(), StoreUnavailable> {
        for _ in 0..ATTEMPTS {
            let mut transaction = Transaction::default();
            for lock in locks {
                let key = lock.target.key();
                let known = self.read::<Lock>(&key).await?;
                let standing = known.as_ref().filter(|(known, _)| known.stands(lock.since));
                let placed = standing.map_or_else(|| lock.clone(), |(k, _)| lock.joined_with(k));
                transaction.conditions.push(match &known {
                    Some((_, version)) => Condition::Unchanged(key.clone(), *version),
                    None => Condition::Absent(key.clone()),
                });
                // A crowd that shows one clone places one lock, and none of it gets in another's way.
                if standing.is_none_or(|(known, _)| *known != placed) {
                    transaction.puts.push(put(&key, &placed)?);
                }
            }
            transaction.appends = audit()?;
            if self.commit_revoking(transaction).await? {
                return Ok(());
            }
        }
        Err(keep_changing())
    }

    /// Lifts locks; returns those that stood.
    pub async fn unlock(
        &self,
        targets: &[LockTarget],
        audit: impl Fn(&[Lock]) -> Result<Vec<Append>, StoreUnavailable>,
    ) -> Result<Vec<Lock>, StoreUnavailable> {
        for _ in 0..ATTEMPTS {
            let mut transaction = Transaction::default();
            let mut found = Vec::new();
            for key in targets.iter().map(LockTarget::key) {
                if let Some((lock, version)) = self.read::<Lock>(&key).await? {
                    transaction.conditions.push(Condition::Unchanged(key.clone(), version));
                    transaction.deletes.push(key);
                    found.push(lock);
                }
            }
            if found.is_empty() {
                return Ok(found);
            }
            transaction.appends = audit(&found)?;
            if self.commit_revoking(transaction).await? {
                return Ok(found);
            }
        }
        Err(keep_changing())
    }

    /// All locks, those that have ended too.
    pub async fn locks(&self) -> Result<Vec<Lock>, StoreUnavailable> {
        const BATCH: usize = 256;
        let mut locks = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.scan(PREFIX, after.as_ref(), BATCH).await?;
            for (key, versioned) in page.items {
                locks.push(decode(&key, &versioned.value)?);
                after = Some(key);
            }
            if !page.more {
                return Ok(locks);
            }
        }
    }

    /// Commits what relying parties must hear of; says no if somebody was quicker.
    async fn commit_revoking(&self, transaction: Transaction) -> Result<bool, StoreUnavailable> {
        match self.store.commit(transaction).await {
            Ok(_) => {
                self.revocations.changed();
                Ok(true)
            }
            Err(CommitError::Conflict(_)) => Ok(false),
            Err(CommitError::Unavailable(error)) => Err(error),
        }
    }
}

fn keep_changing() -> StoreUnavailable {
    StoreUnavailable("the locks keep changing".to_owned())
}
