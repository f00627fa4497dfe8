//! What `muster nodes lock`, `unlock` and `locks` do.

use serde_json::{Value, json};

use super::commands::{Local, checked_reason};
use super::protocol::{LocalError, LockWanted};
use crate::audit::{Class, Outcome, Record};
use crate::domain::{Code, Lifetime, Partition, Timestamp};
use crate::registry::{Enrollment, Lock, LockTarget};

/// The longest time that a lock with an end may stand.
const LOCK_FOR_MAX: Lifetime = Lifetime::from_days(3650);

impl Local {
    pub(super) async fn lock(
        &self,
        wanted: LockWanted,
        within: Option<Lifetime>,
        reason: &str,
    ) -> Result<Value, LocalError> {
        let reason = checked_reason(reason)?;
        let now = self.joins.clock.now();
        let until = within.map(|within| checked_end(now, within)).transpose()?;
        if let LockWanted::Serial(serial) = &wanted {
            let holder = self.registry.holder(*serial).await?;
            let is_held = holder.is_some_and(|node| LockTarget::Serial(*serial).holds(&node));
            if !is_held {
                let message = "no node holds this certificate any more; lock the node";
                return Err(LocalError::new(Code::NotFound, message));
            }
        }
        let locks: Vec<Lock> = targets(wanted)
            .into_iter()
            .map(|target| Lock { target, reason: reason.to_owned(), since: now, until })
            .collect();
        let audit = || {
            let records = locks.iter().map(|lock| record(now, "lock", lock, &lock.reason));
            records.map(|record| self.audit.append(&record)).collect()
        };
        self.registry.lock(&locks, audit).await?;
        let is_held = |node: &Enrollment| locks.iter().any(|lock| lock.target.holds(node));
        let (held, _) = self.registry.list(None, usize::MAX, is_held).await?;
        Ok(json!({"locks": locks, "nodes": held.len()}))
    }

    pub(super) async fn unlock(
        &self,
        wanted: LockWanted,
        reason: &str,
    ) -> Result<Value, LocalError> {
        let reason = checked_reason(reason)?;
        let now = self.joins.clock.now();
        let audit = |found: &[Lock]| {
            let records = found.iter().map(|lock| record(now, "unlock", lock, reason));
            records.map(|record| self.audit.append(&record)).collect()
        };
        let lifted = self.registry.unlock(&targets(wanted), audit).await?;
        if lifted.is_empty() {
            let message = "there is no such lock; `muster nodes locks` lists them";
            return Err(LocalError::new(Code::NotFound, message));
        }
        Ok(json!({"unlocked": lifted}))
    }

    /// The locks that hold a node.
    pub(super) async fn locks_of(&self, node: &Enrollment) -> Result<Value, LocalError> {
        let now = self.joins.clock.now();
        let mut locks = self.registry.locks().await?;
        locks.retain(|lock| lock.stands(now) && lock.target.holds(node));
        Ok(json!(locks))
    }

    pub(super) async fn locks(&self) -> Result<Value, LocalError> {
        let now = self.joins.clock.now();
        let mut locks = self.registry.locks().await?;
        locks.retain(|lock| lock.stands(now));
        Ok(json!({"locks": locks}))
    }
}

/// An account number without a partition is locked in each: nobody asked for less.
fn targets(wanted: LockWanted) -> Vec<LockTarget> {
    match wanted {
        LockWanted::Node(node) => vec![LockTarget::Node(node)],
        LockWanted::Instance(instance) => vec![LockTarget::Instance(instance)],
        LockWanted::Policy(policy) => vec![LockTarget::Policy(policy)],
        LockWanted::Serial(serial) => vec![LockTarget::Serial(serial)],
        LockWanted::Account { partition: Some(partition), account } => {
            vec![LockTarget::Account { partition, account }]
        }
        LockWanted::Account { partition: None, account } => Partition::ALL
            .into_iter()
            .map(|partition| LockTarget::Account { partition, account: account.clone() })
            .collect(),
    }
}

fn record(now: Timestamp, kind: &str, lock: &Lock, reason: &str) -> Record {
    let mut record = Record::new(now, Class::Security, kind, Outcome::Done);
    match &lock.target {
        LockTarget::Node(node) => record.node_id = Some(node.clone()),
        LockTarget::Instance(instance) => record.instance_id = Some(instance.to_string()),
        LockTarget::Account { account, .. } => record.account_id = Some(account.to_string()),
        LockTarget::Policy(policy) => record.policy = Some(policy.to_string()),
        LockTarget::Serial(serial) => record.serial = Some(*serial),
    }
    let until = lock.until.map(|until| until.to_string());
    record.with("target", lock.target.to_string()).with("reason", reason).with("until", until)
}

fn checked_end(now: Timestamp, within: Lifetime) -> Result<Timestamp, LocalError> {
    if within.seconds() == 0 || within > LOCK_FOR_MAX {
        let message = "a lock stands for 1s to 3650d, or without `--for` until it is lifted";
        return Err(LocalError::new(Code::MalformedRequest, message));
    }
    Ok(now.plus(within))
}
