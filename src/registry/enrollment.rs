//! The enrollment: one instance, one run of it, one key, one order.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::Change;
use crate::domain::{KeyDigest, NodeId, PolicyHash, Serial, Subject, Timestamp};
use crate::policy::{Approval, Order, Strength};

/// How many past events a node's record keeps; the audit log keeps all.
const HISTORY_LENGTH: usize = 50;
/// How many superseded serials are kept that have not ended.
const SUPERSEDED_LENGTH: usize = 50;

/// One record per subject and slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrollment {
    /// Which attester.
    pub subject: Subject,
    /// Which of its identities.
    pub slot: String,
    /// Its name here.
    pub node_id: NodeId,
    /// Whether it stands.
    pub state: State,
    /// No document of a run that began before this is accepted. Never falls (I4).
    pub floor: Timestamp,
    /// The run of the instance that is bound.
    pub epoch: Timestamp,
    /// How the binding was proven.
    pub strength: Strength,
    /// The join method.
    pub method: String,
    /// The policy that admitted it.
    pub policy: String,
    /// The policy set of then.
    pub policy_hash: PolicyHash,
    /// The rule that admitted it.
    pub rule: String,
    /// What the policy says it is.
    pub roles: Vec<String>,
    /// What else the policy says of it.
    pub labels: BTreeMap<String, String>,
    /// The certificate that was decided.
    pub order: Order,
    /// The certificate that was issued, base64 DER, leaf first; none until it is remembered.
    pub certificate: Option<Vec<String>>,
    /// SHA-256 of the leaf.
    pub fingerprint: Option<String>,
    /// Earlier certificates that may not have ended yet.
    pub superseded: Vec<Superseded>,
    /// One rejoin that an operator has allowed.
    pub grant: Option<Grant>,
    /// First order.
    pub created_at: Timestamp,
    /// Latest order.
    pub renewed_at: Timestamp,
    /// Where the latest order was asked from.
    pub source: String,
    /// What happened, oldest first.
    pub history: Vec<Event>,
}

/// Whether an enrollment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum State {
    /// A key is bound.
    Bound,
    /// An operator forgot it; until this time a key may bind anew.
    Forgotten {
        /// End of that hour.
        until: Timestamp,
    },
}

/// A certificate that another took the place of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Superseded {
    /// Its serial.
    pub serial: Serial,
    /// Its end.
    pub not_after: Timestamp,
}

/// One rejoin that an operator has allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Its end.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
}

/// Something that happened to an enrollment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// What: `enrolled`, `reordered`, `rebound`, `displaced`, `forgotten`, `rejoin allowed`,
    /// `a later start was seen`.
    pub what: String,
    /// The certificate ordered, if one was.
    pub serial: Option<Serial>,
    /// The key bound then.
    pub key: KeyDigest,
    /// A person's reason, or nothing.
    pub reason: Option<String>,
}

/// What the enrollment rests on: for one key in one run the best evidence that ever came, so that an
/// hour without STS does not make it one that a thief's proof could displace (K10).
fn strongest(before: Option<&Enrollment>, approval: &Approval) -> Strength {
    let same = before.filter(|one| {
        one.state == State::Bound
            && one.epoch == approval.epoch()
            && one.key() == approval.order().public_key.digest()
    });
    same.map_or(approval.strength(), |one| one.strength.max(approval.strength()))
}

impl Enrollment {
    /// What the enrollment is after this change.
    pub(super) fn after(
        before: Option<&Self>,
        approval: &Approval,
        change: Change,
        uses_grant: bool,
        source: &str,
        now: Timestamp,
    ) -> Self {
        if let (Change::Repeat, Some(before)) = (change, before) {
            return before.clone();
        }
        let order = approval.order().clone();
        let floor = before.map_or(approval.epoch(), |one| one.floor.max(approval.epoch()));
        let mut enrollment = Self {
            subject: approval.subject().clone(),
            slot: approval.slot().to_owned(),
            node_id: approval.subject().node_id(approval.slot()),
            state: State::Bound,
            floor,
            epoch: approval.epoch(),
            strength: strongest(before, approval),
            method: approval.method().to_owned(),
            policy: approval.policy().to_string(),
            policy_hash: approval.policy_hash().clone(),
            rule: approval.rule().name.clone(),
            roles: approval.roles().to_vec(),
            labels: approval
                .labels()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            certificate: None,
            fingerprint: None,
            superseded: before.map(|one| one.superseded.clone()).unwrap_or_default(),
            grant: before.and_then(|one| one.grant.clone()).filter(|_| !uses_grant),
            created_at: before.map_or(now, |one| one.created_at),
            renewed_at: now,
            source: source.to_owned(),
            history: before.map(|one| one.history.clone()).unwrap_or_default(),
            order,
        };
        if let Some(before) = before {
            enrollment.supersede(&before.order, now);
        }
        let what = match change {
            Change::Enroll => "enrolled",
            Change::Repeat | Change::Reorder => "reordered",
            Change::Rebind => "rebound",
            Change::Displace => "displaced",
        };
        let serial = Some(enrollment.order.serial);
        enrollment.log(now, what, serial, None);
        enrollment
    }

    /// The key that is bound.
    pub fn key(&self) -> KeyDigest {
        self.order.public_key.digest()
    }

    /// The grant, if it has not ended.
    pub fn active_grant(&self, now: Timestamp) -> Option<&Grant> {
        self.grant.as_ref().filter(|grant| now <= grant.until)
    }

    /// The issued certificates, DER, leaf first.
    pub fn certificate_chain(&self) -> Option<Vec<Vec<u8>>> {
        let decode = |text: &String| STANDARD.decode(text).ok();
        self.certificate.as_ref()?.iter().map(decode).collect()
    }

    pub(super) fn keep_certificate(&mut self, chain: &[Vec<u8>], fingerprint: &str) {
        self.certificate = Some(chain.iter().map(|der| STANDARD.encode(der)).collect());
        self.fingerprint = Some(fingerprint.to_owned());
    }

    pub(super) fn forget(&mut self, until: Timestamp, reason: &str, now: Timestamp) {
        self.state = State::Forgotten { until };
        self.floor = self.floor.max(self.epoch);
        self.grant = None;
        let order = self.order.clone();
        self.supersede(&order, now);
        self.log(now, "forgotten", None, Some(reason));
    }

    pub(super) fn raise_floor(&mut self, floor: Timestamp, now: Timestamp) {
        self.floor = self.floor.max(floor);
        self.log(now, "a later start was seen", None, None);
    }

    pub(super) fn allow_rejoin(&mut self, until: Timestamp, reason: &str, now: Timestamp) {
        self.grant = Some(Grant { until, reason: reason.to_owned() });
        self.log(now, "rejoin allowed", None, Some(reason));
    }

    fn supersede(&mut self, order: &Order, now: Timestamp) {
        self.superseded.retain(|one| one.not_after > now && one.serial != order.serial);
        self.superseded.push(Superseded { serial: order.serial, not_after: order.not_after });
        let surplus = self.superseded.len().saturating_sub(SUPERSEDED_LENGTH);
        self.superseded.drain(..surplus);
    }

    fn log(&mut self, time: Timestamp, what: &str, serial: Option<Serial>, reason: Option<&str>) {
        let (key, reason) = (self.key(), reason.map(str::to_owned));
        self.history.push(Event { time, what: what.to_owned(), serial, key, reason });
        let surplus = self.history.len().saturating_sub(HISTORY_LENGTH);
        self.history.drain(..surplus);
    }
}
