//! Who may bind an enrollment: the table of design.md, "Enrollments". Pure. Renewals are beside it.

use super::enrollment::{Enrollment, State};
use super::{Issue, TokenUse, View};
use crate::domain::{Code, KeyDigest, Lifetime, Subject, Timestamp};
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
    /// A new order under the same key, for a node that had nothing else to show: it was off past the
    /// end of its certificate, and its policy lets it back in.
    ComeBack,
    /// Another key takes the place of the bound one.
    Rebind,
    /// Another key takes the place of the bound one in the same run, because it came with a proof and
    /// the bound one had only a document: somebody had a copy.
    Displace,
    /// Another key takes the place of the bound one in the same run, because the policy lets a node
    /// back in whose key has been silent for so long.
    Rejoin,
    /// A certificate for the next key is ordered; the one in use stays.
    Renew,
    /// The next certificate is handed out again.
    RepeatNext,
    /// A second next key, with a proof, takes the place of the first: one of the two is a copy.
    Outrun,
}

impl Change {
    /// The name in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enroll => "enroll",
            Self::Repeat | Self::RepeatNext => "repeat",
            Self::Reorder => "reorder",
            Self::ComeBack => "come_back",
            Self::Rebind => "rebind",
            Self::Displace => "displace",
            Self::Rejoin => "rejoin",
            Self::Renew => "renew",
            Self::Outrun => "outrun",
        }
    }

    /// The words in the node's history.
    pub(super) const fn in_history(self) -> &'static str {
        match self {
            Self::Enroll => "enrolled",
            Self::Repeat | Self::RepeatNext | Self::Reorder => "reordered",
            Self::ComeBack => "came back",
            Self::Rebind => "rebound",
            Self::Displace => "displaced",
            Self::Rejoin => "rejoined",
            Self::Renew => "renewed",
            Self::Outrun => "renewed by another key",
        }
    }

    /// Whether relying parties must hear at once that the certificates before are worth nothing.
    pub(super) const fn revokes(self) -> bool {
        match self {
            Self::Rebind | Self::Displace | Self::Rejoin | Self::Outrun => true,
            Self::Enroll
            | Self::Repeat
            | Self::Reorder
            | Self::ComeBack
            | Self::Renew
            | Self::RepeatNext => false,
        }
    }
}

/// What is to be done with an enrollment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ruling {
    pub(super) change: Change,
    /// The next key was shown: it is the one in use from now on.
    pub(super) promotes: bool,
    /// An operator's grant is used up.
    pub(super) uses_grant: bool,
    /// A use of the token is counted.
    pub(super) counts: bool,
}

impl Ruling {
    pub(super) fn of(change: Change) -> Self {
        Self { change, promotes: false, uses_grant: false, counts: false }
    }
}

/// Why an approval does not fit what is on record. Each one is a security event but a stale epoch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Conflict {
    /// `ENROLLMENT_CONFLICT`, `EPOCH_STALE`, `KEY_IN_USE`, `CLONE_SUSPECTED`; at a renewal
    /// `NODE_UNKNOWN`; by tokens `TOKEN_UNKNOWN`, `TOKEN_EXPIRED`, `TOKEN_EXHAUSTED`, `TOKEN_CHANGED` and
    /// `COME_BACK_REFUSED`; and `LOCKED`.
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
    /// The certificate that was shown is revoked already, since another key took its place: its holder
    /// is put out, and a copy of it is no news of those who hold the node now.
    pub is_put_out: bool,
}

impl Conflict {
    pub(super) fn new(code: Code, message: &str, enrollment: Option<&Enrollment>) -> Box<Self> {
        Box::new(Self {
            code,
            message: message.to_owned(),
            hint: "",
            bound_key: enrollment.map(Enrollment::key),
            bound_from: enrollment.map(|one| one.source.clone()),
            bound_at: enrollment.map(|one| one.renewed_at),
            floor: None,
            is_put_out: false,
        })
    }

    /// A certificate of the node CA that no enrollment has.
    pub fn unknown_certificate() -> Box<Self> {
        Self::new(Code::NodeUnknown, "no enrollment has this certificate on record", None)
    }

    /// The certificate of one instance with the evidence of another: a copied state directory.
    pub fn other_instance(holder: &Enrollment, shown: &Subject) -> Box<Self> {
        let message = format!(
            "the certificate of {} came with the evidence of {}: its key is on another machine",
            holder.subject.path(),
            shown.path()
        );
        let mut conflict = Self::new(Code::CloneSuspected, &message, Some(holder));
        conflict.hint = "the certificate is another instance's than the evidence";
        conflict
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
        // Not called a conflict: with a conflict an agent keeps its key, as it may be let in. This one
        // is of no use any more, and by the code the agent knows to make a fresh one.
        Some((_, true)) => Err(Conflict::new(
            Code::CloneSuspected,
            "another key took this one's place and it is never valid again. If the node was restored \
             from a snapshot, its fresh key may come in: allow one rejoin",
            enrollment,
        )),
        Some((_, false)) | None => Ok(()),
    }
}

/// A document from before the start that the cloud tells of: it needs no memory of that start (K2).
pub(super) fn refuse_earlier_run(
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
    let is_other = enrollment.state == State::Bound
        && enrollment.epoch == epoch
        && enrollment.issues().all(|issue| issue.key() != key);
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
) -> Result<Ruling, Box<Conflict>> {
    let enrollment = view.enrollment();
    view.refuse_locked(now)?;
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
    let mut ruling = Ruling::of(Change::Enroll);
    if let Some(enrollment) = enrollment {
        let key = approval.order().public_key.digest();
        ruling.promotes = enrollment.next_key() == Some(key);
        ruling.change = if enrollment.key() == key || ruling.promotes {
            admit_same_key(enrollment, approval, relies_on_grant, has_grant, now)?
        } else {
            admit_other_key(enrollment, approval, has_grant, now)?
        };
        ruling = bounded(enrollment, ruling, now)?;
    }
    // A grant is good for one use: another key, or a document that is too old.
    ruling.uses_grant = relies_on_grant || ruling.change == Change::Rebind;
    if approval.rests_on_key() {
        ruling.change = come_back(enrollment, approval, ruling.change, now)?;
    }
    ruling.counts = use_token(view, approval, ruling.change, now)?;
    Ok(ruling)
}

/// A node that shows its key and nothing more: what stands is repeated, and anything else is for its
/// policy to allow. A copy of the key could wait for the end of the certificate, so no policy does
/// unless it says so.
fn come_back(
    enrollment: Option<&Enrollment>,
    approval: &Approval,
    change: Change,
    now: Timestamp,
) -> Result<Change, Box<Conflict>> {
    let refused = |message: &str| {
        let mut conflict = Conflict::new(Code::ComeBackRefused, message, enrollment);
        // What the policy says is for the operator.
        conflict.hint = "the node has to join with a token";
        Err(conflict)
    };
    let (Some(node), Change::Repeat | Change::Reorder) = (enrollment, change) else {
        return refused("no node is enrolled with this key");
    };
    // The key's own certificate is no news to it, however old: a reply was lost (I5).
    let key = approval.order().public_key.digest();
    let own = node.issues().find(|issue| issue.key() == key);
    let is_there =
        own.is_some_and(|own| now <= own.order.not_after && says_the_same(node, own, approval));
    if change == Change::Repeat || (is_there && node.state == State::Bound) {
        return Ok(Change::Repeat);
    }
    let Some(terms) = approval.come_back() else {
        return refused("the policy lets no node come back by its key alone (`come_back`)");
    };
    let Some(end) = node.issues().map(|issue| issue.order.not_after).max() else {
        return refused("the node never had a certificate");
    };
    if node.state != State::Bound {
        return refused("the enrollment was forgotten: the node needs a token");
    }
    if now <= end {
        return refused("the node's certificate has not ended: it renews");
    }
    if now > end.plus(terms.within) {
        return refused("the node was off for longer than its policy's `come_back` allows");
    }
    if node.come_backs >= terms.limit {
        return refused("the node has come back as often as its policy's `come_back` allows");
    }
    Ok(Change::ComeBack)
}

/// Whether a use of the token is to be counted. The same key may ask again with the same token: that
/// is the node that it was used for (I5).
fn use_token(
    view: &View,
    approval: &Approval,
    change: Change,
    now: Timestamp,
) -> Result<bool, Box<Conflict>> {
    let Some(asked) = approval.token() else { return Ok(false) };
    let name = &asked.name;
    let refused = |code, message: String| Err(Conflict::new(code, &message, view.enrollment()));
    let Some(known) = &view.token else {
        return refused(Code::TokenUnknown, format!("the token `{name}` was removed"));
    };
    // Its end and its uses are judged as they are now; the rest was judged as it was then.
    if !known.token.says_the_same(asked) {
        return refused(Code::TokenChanged, format!("the token `{name}` was changed meanwhile"));
    }
    if known.token.has_expired(now) {
        return refused(Code::TokenExpired, format!("the token `{name}` has ended"));
    }
    let used = Some(TokenUse::from(asked));
    let is_again = match change {
        Change::Repeat => true,
        Change::Reorder => {
            view.enrollment().is_some_and(|node| node.state == State::Bound && node.token == used)
        }
        Change::Enroll
        | Change::ComeBack
        | Change::Rebind
        | Change::Displace
        | Change::Rejoin
        | Change::Renew
        | Change::RepeatNext
        | Change::Outrun => false,
    };
    match known.token.max_uses {
        Some(most) if !is_again && known.uses >= u64::from(most) => {
            let message = format!("as many as may ({most}) have joined with the token `{name}`");
            refused(Code::TokenExhausted, message)
        }
        Some(_) | None => Ok(!is_again),
    }
}

/// Whoever has one good certificate cannot collect more than can be kept in mind and revoked.
pub(super) fn bounded(
    enrollment: &Enrollment,
    ruling: Ruling,
    now: Timestamp,
) -> Result<Ruling, Box<Conflict>> {
    let adds_one = matches!(ruling.change, Change::Reorder | Change::Renew);
    if adds_one && enrollment.is_full(now) {
        return Err(Conflict::new(
            Code::TooManyCertificates,
            "this node has as many certificates as may be alive at a time",
            Some(enrollment),
        ));
    }
    Ok(ruling)
}

/// Whether a forgotten enrollment may be bound.
fn refuse_forgotten(
    enrollment: &Enrollment,
    is_later_run: bool,
    has_grant: bool,
    now: Timestamp,
) -> Result<(), Box<Conflict>> {
    match enrollment.state {
        State::Forgotten { until } if !(now <= until || is_later_run || has_grant) => {
            Err(Conflict::new(
                Code::EnrollmentConflict,
                "the enrollment was forgotten and its hour is over; allow one rejoin",
                Some(enrollment),
            ))
        }
        State::Forgotten { .. } | State::Bound => Ok(()),
    }
}

fn admit_same_key(
    enrollment: &Enrollment,
    approval: &Approval,
    relies_on_grant: bool,
    has_grant: bool,
    now: Timestamp,
) -> Result<Change, Box<Conflict>> {
    let is_later_run = approval.epoch() > enrollment.epoch;
    refuse_forgotten(enrollment, is_later_run, has_grant, now)?;
    let key = approval.order().public_key.digest();
    let issue = enrollment.next.as_ref().filter(|next| next.key() == key);
    let repeats = enrollment.state == State::Bound
        && !is_later_run
        && !relies_on_grant
        && is_worth_repeating(enrollment, issue.unwrap_or(&enrollment.current), approval, now);
    Ok(if repeats { Change::Repeat } else { Change::Reorder })
}

fn admit_other_key(
    enrollment: &Enrollment,
    approval: &Approval,
    has_grant: bool,
    now: Timestamp,
) -> Result<Change, Box<Conflict>> {
    let is_later_run = approval.epoch() > enrollment.epoch;
    refuse_forgotten(enrollment, is_later_run, has_grant, now)?;
    let is_forgotten = enrollment.state != State::Bound;
    let is_better_proof =
        enrollment.strength == Strength::Document && approval.strength() == Strength::Proof;
    if is_forgotten || is_later_run || has_grant {
        Ok(Change::Rebind)
    } else if is_better_proof {
        Ok(Change::Displace)
    } else if may_rejoin(enrollment, approval, now) {
        Ok(Change::Rejoin)
    } else {
        Err(Conflict::new(Code::EnrollmentConflict, BOUND_TO_ANOTHER_KEY, Some(enrollment)))
    }
}

/// K5, K7: the disk was replaced, so the key is honestly gone and the run is the same. The policy may
/// let such a node back in by a proof, so many times, once the bound key has missed its renewal by so
/// much: a holder that lives is never put out.
fn may_rejoin(enrollment: &Enrollment, approval: &Approval, now: Timestamp) -> bool {
    // A node names its policy: another one may not put out a holder that its own protects.
    let is_asked_for =
        approval.strength() == Strength::Proof && enrollment.policy == approval.policy().as_str();
    let Some(rejoin) = approval.rejoin().filter(|_| is_asked_for) else { return false };
    let mut due = enrollment.issues().map(|issue| issue.order.renew_after);
    enrollment.rejoins < rejoin.limit && due.all(|due| now > due.plus(rejoin.when_silent))
}

/// I15: a stored answer is repeated only if it would be given now, and has two thirds of its life.
pub(super) fn is_worth_repeating(
    enrollment: &Enrollment,
    issue: &Issue,
    approval: &Approval,
    now: Timestamp,
) -> bool {
    says_the_same(enrollment, issue, approval) && issue.is_young(now)
}

/// Whether the answer that is stored is the one that would be given now, but for its times.
fn says_the_same(enrollment: &Enrollment, issue: &Issue, approval: &Approval) -> bool {
    enrollment.policy == approval.policy().as_str()
        && enrollment.method == approval.method()
        && enrollment.strength >= approval.strength()
        && enrollment.roles == approval.roles()
        && enrollment.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(approval.labels())
        && is_same_content(&issue.order, approval.order())
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
