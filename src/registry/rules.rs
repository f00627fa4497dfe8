//! Who may bind an enrollment: the table of design.md, "Enrollments". Pure.

use super::View;
use super::enrollment::{Enrollment, State};
use crate::domain::{Code, KeyDigest, Lifetime, Timestamp};
use crate::policy::{Approval, Order, Strength};

/// What a node and an operator read of a conflict.
const BOUND_TO_ANOTHER_KEY: &str = "this run of the instance is enrolled with another key";

/// How much later than the document an instance may have started by EC2's word. That the two times
/// are equal is likely and not documented.
const LAUNCH_TOLERANCE: Lifetime = Lifetime::from_minutes(2);

/// What an approval does to an enrollment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The subject was not known.
    Enroll,
    /// The order that stands is handed out again.
    Repeat,
    /// A new order under the same key.
    Reorder,
    /// Another key takes the place of the bound one.
    Rebind,
    /// Another key takes the place of the bound one in the same run, because it came with a proof and
    /// the bound one had only a document: somebody had a copy.
    Displace,
}

impl Change {
    /// The name in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enroll => "enroll",
            Self::Repeat => "repeat",
            Self::Reorder => "reorder",
            Self::Rebind => "rebind",
            Self::Displace => "displace",
        }
    }
}

/// Why an approval does not fit what is on record. Each one is a security event but a stale epoch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Conflict {
    /// `ENROLLMENT_CONFLICT`, `EPOCH_STALE` or `KEY_IN_USE`.
    pub code: Code,
    /// What is wrong and what helps, for the operator.
    pub message: String,
    /// The same for the node, which learns nothing of policies from it.
    pub hint: &'static str,
    /// The key that is bound.
    pub bound_key: Option<KeyDigest>,
    /// From where it was bound last.
    pub bound_from: Option<String>,
    /// When.
    pub bound_at: Option<Timestamp>,
    /// A later run than any on record is known: no document from before this is good any more.
    pub floor: Option<Timestamp>,
}

impl Conflict {
    fn new(code: Code, message: &str, enrollment: Option<&Enrollment>) -> Box<Self> {
        Box::new(Self {
            code,
            message: message.to_owned(),
            hint: "",
            bound_key: enrollment.map(Enrollment::key),
            bound_from: enrollment.map(|one| one.source.clone()),
            bound_at: enrollment.map(|one| one.renewed_at),
            floor: None,
        })
    }
}

/// The rules that need no proof: an old run, a key of somebody else, a key that was retired.
pub(super) fn refuse_early(
    enrollment: Option<&Enrollment>,
    key_holder: Option<(&str, bool)>,
    place: &str,
    epoch: Timestamp,
) -> Result<(), Box<Conflict>> {
    if let Some(one) = enrollment.filter(|one| epoch < one.floor) {
        let message = format!("a later run of the instance than that of {epoch} is known");
        return Err(Conflict::new(Code::EpochStale, &message, Some(one)));
    }
    match key_holder {
        Some((holder, _)) if holder != place => Err(Conflict::new(
            Code::KeyInUse,
            "another instance is enrolled with this key",
            enrollment,
        )),
        Some((_, true)) => Err(Conflict::new(
            Code::EnrollmentConflict,
            "another key took this one's place and it is never valid again; remove the state \
             directory, then allow one rejoin",
            enrollment,
        )),
        Some((_, false)) | None => Ok(()),
    }
}

/// A document from before the start that the cloud tells of: it needs no memory of that start (K2).
fn refuse_earlier_run(
    enrollment: Option<&Enrollment>,
    approval: &Approval,
) -> Result<(), Box<Conflict>> {
    match approval.run_began() {
        Some(began) if approval.epoch() < began.minus(LAUNCH_TOLERANCE) => {
            let epoch = approval.epoch();
            let message = format!("the document is of {epoch}, the instance started at {began}");
            let mut conflict = Conflict::new(Code::EpochStale, &message, enrollment);
            conflict.floor = Some(began.minus(LAUNCH_TOLERANCE));
            Err(conflict)
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether another key is bound to this run and no proof would displace it: nothing that the cloud
/// says of the instance changes that.
pub(super) fn is_settled_against(
    enrollment: &Enrollment,
    key: KeyDigest,
    epoch: Timestamp,
) -> bool {
    enrollment.strength == Strength::Proof && other_key(enrollment, key, epoch, "").is_some()
}

/// A run that is bound to another key.
pub(super) fn other_key(
    enrollment: &Enrollment,
    key: KeyDigest,
    epoch: Timestamp,
    besides: &str,
) -> Option<Box<Conflict>> {
    let is_other =
        enrollment.state == State::Bound && enrollment.epoch == epoch && enrollment.key() != key;
    is_other.then(|| {
        let message = format!("{BOUND_TO_ANOTHER_KEY}; besides, {besides}");
        let mut conflict = Conflict::new(Code::EnrollmentConflict, &message, Some(enrollment));
        conflict.hint = BOUND_TO_ANOTHER_KEY;
        conflict
    })
}

/// The whole table.
pub(super) fn admit(
    view: &View,
    place: &str,
    approval: &Approval,
    relies_on_grant: bool,
    now: Timestamp,
) -> Result<Change, Box<Conflict>> {
    let enrollment = view.enrollment();
    refuse_early(enrollment, view.key_holder(), place, approval.epoch())?;
    refuse_earlier_run(enrollment, approval)?;
    let has_grant = view.has_grant(now);
    if relies_on_grant && !has_grant {
        return Err(Conflict::new(
            Code::EnrollmentConflict,
            "the rejoin that was allowed has been used or has ended",
            enrollment,
        ));
    }
    let Some(enrollment) = enrollment else { return Ok(Change::Enroll) };
    let is_same_key = enrollment.key() == approval.order().public_key.digest();
    let is_later_run = approval.epoch() > enrollment.epoch;
    if let State::Forgotten { until } = enrollment.state {
        let may_bind = now <= until || is_later_run || has_grant;
        return match (may_bind, is_same_key) {
            (true, true) => Ok(Change::Reorder),
            (true, false) => Ok(Change::Rebind),
            (false, _) => Err(Conflict::new(
                Code::EnrollmentConflict,
                "the enrollment was forgotten and its hour is over; allow one rejoin",
                Some(enrollment),
            )),
        };
    }
    if is_same_key {
        let repeats =
            !is_later_run && !relies_on_grant && is_worth_repeating(enrollment, approval, now);
        return Ok(if repeats { Change::Repeat } else { Change::Reorder });
    }
    let is_better_proof =
        enrollment.strength == Strength::Document && approval.strength() == Strength::Proof;
    if is_later_run || has_grant {
        return Ok(Change::Rebind);
    }
    if is_better_proof {
        return Ok(Change::Displace);
    }
    Err(Conflict::new(Code::EnrollmentConflict, BOUND_TO_ANOTHER_KEY, Some(enrollment)))
}

/// I15: a stored answer is repeated only if it would be given now, and has two thirds of its life.
fn is_worth_repeating(enrollment: &Enrollment, approval: &Approval, now: Timestamp) -> bool {
    let stored = &enrollment.order;
    let life = stored.not_after.since(stored.not_before);
    enrollment.policy == approval.policy().as_str()
        && enrollment.method == approval.method()
        && enrollment.strength >= approval.strength()
        && enrollment.roles == approval.roles()
        && enrollment.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(approval.labels())
        && is_same_content(stored, approval.order())
        && now.since(stored.not_before) < life.fraction(1, 3)
}

/// Whether two orders differ in nothing but serial and times.
fn is_same_content(stored: &Order, fresh: &Order) -> bool {
    stored.spiffe_id == fresh.spiffe_id
        && stored.common_name == fresh.common_name
        && stored.dns_names == fresh.dns_names
        && stored.issuer == fresh.issuer
        && stored.public_key == fresh.public_key
        && stored.not_after.since(stored.not_before) == fresh.not_after.since(fresh.not_before)
}
